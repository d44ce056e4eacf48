"""Whatever happens to messages on the way, each is taken in once and in order; with nothing but values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.numbering import ASKED_MAX, KEPT_MAX, TELL_EVERY, Arrival, Sent, Taken, Told
from thalweg_proto.errors import ProtocolError

WHOLE, LOST, DOUBLED, SPOILT = "whole", "lost", "doubled", "spoilt"
FATES = st.lists(st.sampled_from([WHOLE, LOST, DOUBLED, SPOILT]), max_size=ASKED_MAX // 2)


class Stream:
    """One direction, over which a sender says all that it may, and a hearer answers."""

    def __init__(self, messages: int, forth: list[str], back: list[str]) -> None:
        self.sent, self.taken = Sent(), Taken()
        self.got: list[int] = []
        self.kept_most = 0
        self._messages = messages
        self._forth, self._back = list(forth), list(back)

    def carry(self) -> None:
        """Until nothing more is said."""
        while (number := self._next()) is not None:
            fate = self._forth.pop() if self._forth else WHOLE
            for _ in range({LOST: 0, DOUBLED: 2}.get(fate, 1)):
                if fate == SPOILT:
                    self.taken.ask("spoilt")
                elif self.taken.arrived(number) is Arrival.NEXT:
                    self.got.append(number)
            self.answer()

    def _next(self) -> int | None:
        again = self.sent.again()
        if again is not None:
            number, [part] = again
            assert part == b"%d" % number
            return number
        if self.sent.number == self._messages or self.sent.full:
            return None
        self.sent.keep([b"%d" % (self.sent.number + 1)])
        return self.sent.number

    def beat(self) -> None:
        if self.sent.waiting:
            self.taken.ended(self.sent.number)
            self.answer()

    def answer(self) -> None:
        told = self.taken.due()
        if told is not None:
            fate = self._back.pop() if self._back else WHOLE
            for _ in range({LOST: 0, SPOILT: 0, DOUBLED: 2}.get(fate, 1)):
                self.sent.heard(told)


@given(st.integers(0, 200), FATES, FATES)
def test_all_is_taken_in_once_and_in_order(messages, forth, back):
    """However much is lost, doubled or spoilt, in both directions; where nothing is any more, a beat is enough, and
    then nothing is kept. (Few enough of them that no message is asked for too often.)"""
    stream = Stream(messages, forth, back)
    for _ in range(len(forth) + len(back) + 2):
        stream.carry()
        stream.beat()
    assert stream.got == list(range(1, messages + 1))
    assert not stream.sent.waiting


@given(st.integers(0, 500))
def test_where_nothing_happens_it_costs_one_word_in_so_many(messages):
    """And at most so many are kept meanwhile."""
    sent, taken, told = Sent(), Taken(), []
    for number in range(1, messages + 1):
        sent.keep([b""])
        assert not sent.full
        assert taken.arrived(number) is Arrival.NEXT
        if (due := taken.due()) is not None:
            told.append(due)
            sent.heard(due)
    assert told == [Told(number, False) for number in range(TELL_EVERY, messages + 1, TELL_EVERY)]


def test_a_gap_is_asked_for_once_however_much_follows_it():
    """What was on its way behind the missing one comes again anyway."""
    taken = Taken()
    assert [taken.arrived(number) for number in (1, 3, 4, 5)] == [Arrival.NEXT, *[Arrival.EARLY] * 3]
    assert (taken.due(), taken.due(), taken.asked) == (Told(1, True), None, 1)
    assert [taken.arrived(number) for number in (2, 3, 2)] == [Arrival.NEXT, Arrival.NEXT, Arrival.REPEATED]


def test_what_is_sent_again_is_what_is_not_there():
    """And of that, what is said to be there meanwhile is not sent once more."""
    sent = Sent()
    for number in range(1, 6):
        sent.keep([b"%d" % number])
    sent.heard(Told(2, True))
    assert sent.again() == (3, [b"3"])
    sent.heard(Told(4, False))
    assert [sent.again(), sent.again()] == [(5, [b"5"]), None]
    sent.heard(Told(3, False))  # late: no news
    assert sent.again() is None
    assert sent.waiting


def test_no_more_is_kept_than_is_said():
    """With KEPT_MAX, nothing new may be sent."""
    sent = Sent()
    for _ in range(KEPT_MAX):
        assert not sent.full
        sent.keep([b""])
    assert sent.full
    sent.heard(Told(1, False))
    assert not sent.full


def test_what_is_asked_for_too_often_is_named():
    """The number, and why the last one was not it."""
    taken = Taken()
    taken.arrived(1)
    for _ in range(ASKED_MAX):
        taken.ended(2)
    with pytest.raises(ProtocolError, match=r"number: expected 2; asked for it 10 times, .*: the newest is number 2"):
        taken.ended(2)


def test_a_hearer_cannot_have_what_was_never_sent():
    """It is told what was expected."""
    with pytest.raises(ProtocolError, match="taken: expected at most 0, the newest number; found 3"):
        Sent().heard(Told(3, False))
