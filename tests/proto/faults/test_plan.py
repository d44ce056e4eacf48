from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.faults.plan import ACTS, NOTHING, POINTS, Due, Fault, Plan, due

KILL = Fault(do="kill", at="push.before", worker=1, step=20)


@pytest.mark.parametrize(
    ("part", "number", "step", "meets"),
    [("worker", 1, 20, True), ("worker", 0, 20, False), ("worker", 1, 19, False), ("server", 1, 20, False)],
)
def test_a_fault_is_meant_for_who_and_when_it_says(part, number, step, meets):
    """Not for another rank, step, or a server of the same number."""
    assert KILL.meets(part, number, step) is meets


def test_who_and_when_may_be_left_out():
    """Then whoever comes first, in any step or in none, is meant."""
    anyone = Fault(do="kill", at="publish.middle")
    assert all(anyone.meets(part, 7, step) for part in ("worker", "server") for step in (None, 0, 3))
    assert not Fault(do="kill", at="publish.middle", step=3).meets("worker", 0, None)
    assert not Fault(do="kill", at="publish.middle", server=0).meets("worker", 0, 3)


def test_what_fired_does_not_fire_again():
    """Two of the same are two faults, told apart by their names."""
    faults = Plan(faults=(KILL, KILL)).of("worker", 1)["push.before"]
    first = due(faults, "worker", 1, 20, ())
    second = due(faults, "worker", 1, 20, {first})
    assert (first, second) == (
        "kill at push.before, worker 1, step 20",
        "kill at push.before, worker 1, step 20 (2)",
    )
    assert due(faults, "worker", 1, 20, {first, second}) is None


def test_a_part_has_the_faults_that_may_meet_it():
    """By point; nothing of others."""
    everybody = Fault(do="kill", at="apply.middle", step=2)
    plan = Plan(faults=(KILL, everybody, Fault(do="drop", at="rpc.push.request")))
    assert [*plan.of("worker", 1)] == ["push.before", "apply.middle"]
    assert [*plan.of("worker", 0)] == ["apply.middle"]
    assert [*plan.of("server", 0)] == ["apply.middle", "rpc.push.request"]


@given(st.integers(0, 2**32), st.floats(0.1, 10), st.floats(0, 1))
def test_a_delay_follows_from_the_seed_and_stays_within_its_jitter(seed, seconds, share):
    """The same each time."""
    fault = Fault(do="delay", at="rpc.push.request", seconds=seconds, jitter=share * seconds)
    [found, again] = [Plan(faults=(fault,), seed=seed).seconds(str(fault)) for _ in range(2)]
    assert found == again
    assert seconds - fault.jitter <= found <= seconds + fault.jitter + 1e-9


def test_delays_differ():
    """By seed, and from one fault to the next."""
    fault = Fault(do="delay", at="rpc.push.request", seconds=1.0, jitter=0.5)
    lengths = {
        Plan(faults=(fault, fault), seed=seed).seconds(n) for seed in (0, 1) for n in (f"{fault}", f"{fault} (2)")
    }
    assert len(lengths) == 4


@given(st.binary(max_size=50), st.none() | st.integers(-60, 60))
def test_spoilt_data_differs_in_one_bit(data, byte):
    """Whatever byte is asked for; nothing has no bit."""
    spoilt = Due("corrupt", byte).spoil(data)
    assert len(spoilt) == len(data)
    assert sum((a ^ b).bit_count() for a, b in zip(data, spoilt, strict=True)) == (1 if data else 0)
    if byte is not None and data:
        at = byte % len(data)
        assert spoilt[at] != data[at]


def test_every_point_takes_known_acts_and_is_come_to_by_somebody():
    """The table of points holds together; who does nothing is told nothing."""
    for point in POINTS.values():
        assert set(point.acts) <= set(ACTS)
        assert set(point.parts) <= {"worker", "server"} != set()
    assert set(ACTS) == {act for point in POINTS.values() for act in point.acts}
    assert NOTHING.do == ""
