from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.consistency import Grant, StaleSynchronous


def test_units_are_dealt_out_in_order():
    """Two workers, two microbatches a step: whoever is free gets the next one."""
    policy = StaleSynchronous(steps=2, microbatches=2, staleness=1)
    assert policy.ask(1) == [Grant(1, 0, 0)]
    assert policy.ask(0) == [Grant(0, 0, 1)]
    assert policy.applied(0) == (0, [])
    assert policy.ask(0) == [Grant(0, 1, 0)]
    assert policy.applied(0) == (1, [])
    assert policy.ask(0) == [Grant(0, 1, 1)]
    assert policy.version == 0


def test_a_version_is_there_when_all_its_units_are_applied():
    """However many later ones are applied before."""
    policy = StaleSynchronous(steps=3, microbatches=1, staleness=None)
    for rank in range(3):
        policy.ask(rank)
    policy.applied(2)
    policy.applied(1)
    assert (policy.version, policy.finished) == (0, False)
    policy.applied(0)
    assert (policy.version, policy.finished) == (3, True)


def test_with_a_bound_the_fast_wait_for_the_slow_one():
    """Staleness 1: step 2 waits for version 1. With version 2, steps 2 and 3 go to who asked first; step 4 waits."""
    policy = StaleSynchronous(steps=9, microbatches=1, staleness=1)
    policy.ask(0)
    policy.ask(1)
    policy.applied(1)
    assert [policy.ask(rank) for rank in (1, 3, 2)] == [[], [], []]
    assert policy.applied(0) == (0, [Grant(1, 2, 0), Grant(3, 3, 0)])
    assert policy.version == 2
    assert policy.ask(0) == []
    assert policy.applied(1) == (0, [Grant(2, 4, 0)])


def test_a_push_may_set_several_free():
    """The last unit of the slowest step: all who wait for it may go on, as far as the bound lets them."""
    policy = StaleSynchronous(steps=9, microbatches=2, staleness=0)
    assert [len(policy.ask(rank)) for rank in range(5)] == [1, 1, 0, 0, 0]
    assert policy.applied(1) == (0, [])
    assert policy.applied(0) == (0, [Grant(2, 1, 0), Grant(3, 1, 1)])


def test_the_last_unit_is_followed_by_none():
    """Workers that ask then get nothing, and when all is applied the run is finished."""
    policy = StaleSynchronous(steps=1, microbatches=2, staleness=None)
    assert [len(policy.ask(rank)) for rank in range(3)] == [1, 1, 0]
    policy.applied(0)
    assert (policy.ask(0), policy.finished) == ([], False)
    policy.applied(1)
    assert (policy.ask(1), policy.finished, policy.version) == ([], True, 1)


def test_after_a_stop_only_the_step_that_has_begun_is_done():
    """Of two microbatches one is given out: the other one still is; no step after it."""
    policy = StaleSynchronous(steps=9, microbatches=2, staleness=None)
    policy.ask(0)
    assert (policy.stop(), policy.stop(), policy.finished) == (1, 1, False)
    assert policy.ask(1) == [Grant(1, 0, 1)]
    assert policy.ask(2) == []
    policy.applied(1)
    assert (policy.ask(1), policy.finished) == ([], False)
    policy.applied(0)
    assert (policy.version, policy.finished) == (1, True)


def test_a_stop_between_two_steps_begins_none():
    """All units of step 0 are given out, and none of step 1."""
    policy = StaleSynchronous(steps=9, microbatches=1, staleness=None)
    policy.ask(0)
    assert (policy.stop(), policy.ask(1)) == (1, [])
    policy.applied(0)
    assert policy.finished


def test_a_stop_before_anything_was_given_out_ends_the_run():
    """Version 0 is the last one."""
    policy = StaleSynchronous(steps=9, microbatches=2, staleness=3)
    assert (policy.stop(), policy.finished, policy.ask(0)) == (0, True, [])


def test_a_stop_near_the_end_does_not_make_the_run_longer():
    """It ends after its last step, as it would have."""
    policy = StaleSynchronous(steps=1, microbatches=1, staleness=None)
    policy.ask(0)
    assert policy.stop() == 1


def test_what_a_worker_returns_is_given_out_first():
    """To one who waits, also where the bound lets nobody go on; else to whoever asks next. It is applied once."""
    policy = StaleSynchronous(steps=9, microbatches=2, staleness=0)
    assert [len(policy.ask(rank)) for rank in range(3)] == [1, 1, 0]
    assert policy.returned(0) == [Grant(2, 0, 0)]
    policy.applied(1)
    assert (policy.returned(2), policy.version) == ([], 0)
    assert policy.ask(1) == [Grant(1, 0, 0)]
    assert (policy.applied(1), policy.version) == ((0, []), 1)
    assert policy.ask(1) == [Grant(1, 1, 0)]


def test_what_is_returned_is_computed_on_the_version_that_is_there_then():
    """Its staleness counts from when it was given out the second time."""
    policy = StaleSynchronous(steps=9, microbatches=1, staleness=None)
    policy.ask(0)
    policy.ask(1)
    policy.returned(1)
    policy.applied(0)
    assert policy.ask(0) == [Grant(0, 1, 0)]
    assert policy.applied(0) == (0, [])


def test_one_who_is_gone_waits_for_nothing():
    """What falls free goes to the next one; it asks again when another has joined in its place."""
    policy = StaleSynchronous(steps=9, microbatches=1, staleness=0)
    assert [len(policy.ask(rank)) for rank in range(3)] == [1, 0, 0]
    policy.gone(1)
    policy.gone(0)
    assert [policy.busy(rank) for rank in range(3)] == [True, False, True]
    assert policy.applied(0) == (0, [Grant(2, 1, 0)])
    assert policy.ask(1) == []


def test_a_run_that_holds_or_stops_still_needs_what_is_returned():
    """It is of a step that has begun."""
    for end in ("hold", "stop"):
        policy = StaleSynchronous(steps=9, microbatches=1, staleness=None)
        policy.ask(0)
        policy.stop() if end == "stop" else policy.hold(1)
        policy.returned(0)
        assert (policy.held, policy.finished) == (False, False)
        assert policy.ask(1) == [Grant(1, 0, 0)]
        policy.applied(1)
        assert policy.finished if end == "stop" else policy.held


def test_what_cannot_be_is_an_error():
    """A worker that asks while it has work, and a push of one that has none."""
    policy = StaleSynchronous(steps=9, microbatches=2, staleness=None)
    policy.ask(0)
    with pytest.raises(ValueError, match=r"worker 0 asks for work while it has Grant\(rank=0, step=0, microbatch=0\)"):
        policy.ask(0)
    with pytest.raises(ValueError, match="a push of worker 1, which has no work"):
        policy.applied(1)
    with pytest.raises(ValueError, match="worker 1 returns work, and has none"):
        policy.returned(1)


# Whole runs, of workers of any speed, against an oracle that looks through all that has happened.

UNBOUNDED = 10**9


@dataclass(frozen=True)
class Case:
    """workers take the seconds of `seconds`, over and over, for their units; a stop comes after `stop` pushes."""

    steps: int
    microbatches: int
    staleness: int | None
    seconds: list[list[int]]
    stop: int | None


def cases(staleness: st.SearchStrategy[int | None]) -> st.SearchStrategy[Case]:
    seconds = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=4), min_size=1, max_size=6)
    stop = st.none() | st.integers(0, 20)
    return st.builds(Case, st.integers(1, 6), st.integers(1, 4), staleness, seconds, stop)


CASES = cases(st.none() | st.integers(0, 3))


@dataclass
class Run:
    """A run of `case`; what has happened is kept in lists, and every answer of the policy is compared with them.

    given:   all grants, in order; computing: by rank, when it is done, its unit, and the version when it took it
    waiting: ranks, first come first; stale: of each push
    """

    case: Case
    given: list[tuple[int, int]] = field(default_factory=list)
    applied: set[tuple[int, int]] = field(default_factory=set)
    computing: dict[int, tuple[int, tuple[int, int], int]] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    waited: bool = False

    def __post_init__(self) -> None:
        case = self.case
        self.policy = StaleSynchronous(case.steps, case.microbatches, case.staleness)
        self.units = list(product(range(case.steps), range(case.microbatches)))
        self.now = 0
        self.turns = [0] * len(case.seconds)

    def version(self) -> int:
        """The first step of which a unit is not applied."""
        return next((step for step, m in self.units if (step, m) not in self.applied), self.last())

    def last(self) -> int:
        return self.units[-1][0] + 1 if self.units else 0

    def take(self, grants: list[Grant]) -> None:
        """Those who wait got what the oracle would give them, and nobody could have got more."""
        bound = UNBOUNDED if self.case.staleness is None else self.case.staleness
        for grant in grants:
            unit = (grant.step, grant.microbatch)
            assert unit == self.units[len(self.given)]
            assert unit[0] - self.version() <= bound
            assert grant.rank == self.waiting.pop(0)
            seconds = self.case.seconds[grant.rank]
            done = self.now + seconds[self.turns[grant.rank] % len(seconds)]
            self.turns[grant.rank] += 1
            self.computing[grant.rank] = (done, unit, self.version())
            self.given.append(unit)
        if self.waiting and len(self.given) < len(self.units):
            assert self.units[len(self.given)][0] - self.version() > bound
            self.waited = True
        assert self.policy.version == self.version()
        assert self.policy.finished == (len(self.applied) == len(self.units))

    def ask(self, rank: int) -> None:
        self.waiting.append(rank)
        self.take(self.policy.ask(rank))

    def stop(self) -> None:
        """No unit of a step that has not begun."""
        last = self.given[-1][0] + 1
        self.units = [unit for unit in self.units if unit[0] < last]
        assert self.policy.stop() == self.last()

    def run(self) -> Run:
        for rank in range(len(self.case.seconds)):
            self.ask(rank)
        pushes = 0
        while self.computing:
            if pushes == self.case.stop:
                self.stop()
            rank = min(self.computing, key=lambda rank: (self.computing[rank][0], rank))
            self.now, unit, version = self.computing.pop(rank)
            self.applied.add(unit)
            staleness, grants = self.policy.applied(rank)
            assert staleness == unit[0] - version
            self.stale.append(staleness)
            self.take(grants)
            self.ask(rank)
            pushes += 1
        return self


@given(CASES)
def test_each_unit_is_given_out_once_and_in_order_and_nobody_waits_without_need(case):
    """Every unit up to the last step is applied, whoever is slow and wherever a stop comes; then the run is finished.

    Who waits, waits for the bound alone: there is no unit that it might be given (`Run.take` looks after each event).
    """
    run = Run(case).run()
    assert run.given == run.units
    assert run.applied == set(run.units)
    assert run.policy.finished
    assert len(run.units) == len(set(run.units)) == run.last() * case.microbatches
    if case.stop is None:
        assert run.last() == case.steps


@given(CASES)
def test_no_push_is_staler_than_the_bound(case):
    """And none is computed on a version that is yet to come."""
    bound = UNBOUNDED if case.staleness is None else case.staleness
    assert all(0 <= staleness <= bound for staleness in Run(case).run().stale)


@given(cases(st.none()))
def test_async_never_waits(case):
    """A worker that asks gets the next unit, as long as there is one."""
    assert not Run(case).run().waited


@given(cases(st.just(0)))
def test_with_a_bound_of_0_no_push_is_stale(case):
    """Each step waits for the whole version before it, as a barrier does."""
    assert set(Run(case).run().stale) <= {0}


def test_a_slow_worker_takes_fewer_units():
    """One is nine times as slow as the other: of 20 units it takes two, and the fast one does not wait for it."""
    case = Case(steps=20, microbatches=1, staleness=None, seconds=[[9], [1]], stop=None)
    run = Run(case).run()
    assert (run.turns, run.now, max(run.stale)) == ([2, 18], 18, 9)


@given(
    bound=st.sampled_from([None, 0, 1, 3]),
    workers=st.integers(1, 4),
    microbatches=st.integers(1, 3),
    moves=st.lists(st.integers(0, 5), max_size=60),
)
def test_who_holds_soon_comes_to_hold(bound, workers, microbatches, moves):
    """Whatever was given out before: when all of it is applied, nothing of the step held at is, nor of a later one; and
    then the rest is given out. Oracle: the units that were applied."""
    steps = 12
    policy = StaleSynchronous(steps=steps, microbatches=microbatches, staleness=bound)
    taken: dict[int, Grant] = {}
    applied: list[tuple[int, int]] = []

    def take(grants):
        taken.update({grant.rank: grant for grant in grants})

    def apply(rank):
        grant = taken.pop(rank)
        applied.append((grant.step, grant.microbatch))
        take(policy.applied(rank)[1])
        take(policy.ask(rank))

    for rank in range(workers):
        take(policy.ask(rank))
    for move in moves:
        if taken:
            apply(sorted(taken)[move % len(taken)])
    before = policy.version
    if policy.hold_soon():
        assert not policy.hold_soon(), "it holds already"
        while taken:
            apply(min(taken))
        assert policy.held
        assert policy.version >= before
        assert sorted(applied) == [(s, m) for s in range(policy.version) for m in range(microbatches)]
        take(policy.hold(steps))
    while taken:
        apply(min(taken))
    assert policy.finished
    assert len(applied) == len(set(applied)) == steps * microbatches
