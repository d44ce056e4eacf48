from __future__ import annotations

import os
import random
import threading

import pytest

from thalweg_proto.rendezvous import Rendezvous, RendezvousFds


class Members:
    """Some members of one rendezvous in this process, each with an alarm of its own."""

    def __init__(self, count: int) -> None:
        fds = RendezvousFds.create(count)
        self.alarms = [os.pipe() for _ in range(count)]
        self.ends = [
            Rendezvous(RendezvousFds(os.dup(fds.arrivals), (os.dup(fds.gates[0]), os.dup(fds.gates[1]))), alarm)
            for alarm, _ in self.alarms
        ]
        for end in self.ends:
            end.join(count)
        self.fds = fds

    def close(self) -> None:
        for end in self.ends:
            end.close()
        for fd in (*self.fds, *sum(self.alarms, ())):
            os.close(fd)


@pytest.fixture
def members():
    made = []

    def make(count: int) -> Members:
        made.append(Members(count))
        return made[-1]

    yield make
    for some in made:
        some.close()


def test_one_alone_is_always_the_last(members):
    """It never waits."""
    (end,) = members(1).ends
    for _ in range(3):
        assert end.arrive()
        end.open()


def test_the_last_of_three_is_the_third(members):
    """The first two are told to wait; once the gate is open, both go on without blocking."""
    first, second, third = members(3).ends
    for _ in range(3):  # both gates, and the first again
        assert [end.arrive() for end in (first, second, third)] == [False, False, True]
        third.open()
        assert first.wait()
        assert second.wait()


def test_one_who_is_quick_does_not_take_the_pass_of_one_who_is_slow(members):
    """The first waits at the next meeting while the second has not yet gone through the gate of this one."""
    some = members(3)
    first, second, third = some.ends
    for end in (first, second, third):
        end.arrive()
    third.open()
    assert first.wait()
    first.arrive()  # the next meeting; the pass for `second` is still in the first gate
    os.write(some.alarms[0][1], b"!")
    assert not first.wait()  # the alarm, not the other's pass
    assert second.wait()


def test_the_alarm_ends_the_waiting(members):
    """A member whose alarm is readable does not wait for those who do not come."""
    some = members(2)
    assert not some.ends[0].arrive()
    os.write(some.alarms[0][1], b"!")
    assert not some.ends[0].wait()


def test_an_open_gate_comes_before_the_alarm(members):
    """Who may go on goes on: the alarm is looked at later."""
    some = members(2)
    some.ends[0].arrive()
    some.ends[1].arrive()
    some.ends[1].open()
    os.write(some.alarms[0][1], b"!")
    assert some.ends[0].wait()


def test_after_a_reset_fewer_meet_whatever_the_others_did(members):
    """One of three had arrived, and one gate was open for two: both are forgotten."""
    some = members(3)
    first, second, third = some.ends
    for end in (first, second, third):
        end.arrive()
    third.open()
    first.arrive()
    some.fds.reset(2)
    for end in (first, second):
        end.join(2)
    for _ in range(3):
        assert [second.arrive(), first.arrive()] == [False, True]
        first.open()
        assert second.wait()


def test_nobody_goes_on_before_all_have_arrived(members):
    """Five threads meet 300 times; whoever goes on sees that all have counted up to its own meeting, and exactly one
    acted for all."""
    count, meetings = 5, 300
    arrived, acted, wrong = [0] * count, [0] * meetings, []

    def take_part(rank: int, end: Rendezvous) -> None:
        rng = random.Random(rank)
        for meeting in range(meetings):
            for _ in range(rng.randrange(200)):  # some are quicker than others, in turns
                pass
            arrived[rank] += 1
            if end.arrive():
                acted[meeting] += 1
                end.open()
            else:
                end.wait()
            if min(arrived) <= meeting or not acted[meeting]:
                wrong.append((rank, meeting))

    threads = [threading.Thread(target=take_part, args=pair) for pair in enumerate(members(count).ends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert acted == [1] * meetings
