from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.schedules import make_schedule

SCHEDULES = {
    "constant": {},
    "step": {"step_size": 10, "gamma": 0.5},
    "cosine": {"min_learning_rate": 0.01},
    "linear": {"min_learning_rate": 0.01},
}


def rates(name: str, steps: int = 40, warmup_steps: int = 0) -> list[float]:
    options = {"name": name, "learning_rate": 0.8, "warmup_steps": warmup_steps, **SCHEDULES[name]}
    schedule = make_schedule(options, steps)
    return [schedule(t) for t in range(steps + 1)]


def test_small_cases_by_hand():
    """Begin, middle and end of each."""
    assert [rates("constant")[t] for t in (0, 20, 40)] == [0.8, 0.8, 0.8]
    assert [rates("step")[t] for t in (0, 9, 10, 25)] == [0.8, 0.8, 0.4, 0.2]
    assert [rates("cosine")[t] for t in (0, 20, 40)] == pytest.approx([0.8, 0.405, 0.01])
    assert [rates("linear")[t] for t in (0, 20, 40)] == pytest.approx([0.8, 0.405, 0.01])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_climbs_in_equal_steps_and_then_the_schedule_begins(name):
    """3 steps of warm-up: a quarter, a half, three quarters, then the full rate."""
    assert rates(name, warmup_steps=3)[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])


@given(st.sampled_from(list(SCHEDULES)), st.integers(1, 60), st.integers(0, 70))
def test_rates_stay_between_zero_and_the_full_rate(name, steps, warmup_steps):
    """Also where the warm-up is longer than the job."""
    assert all(0 < rate <= 0.8 for rate in rates(name, steps, warmup_steps))


@pytest.mark.compare
def test_rates_are_those_of_torch():
    """StepLR, CosineAnnealingLR and LinearLR over 40 steps."""
    torch = pytest.importorskip("torch")
    lr = torch.optim.lr_scheduler
    theirs = {
        "step": lambda o: lr.StepLR(o, 10, 0.5),
        "cosine": lambda o: lr.CosineAnnealingLR(o, 40, 0.01),
        "linear": lambda o: lr.LinearLR(o, 1.0, 0.01 / 0.8, 40),
    }
    for name, make in theirs.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
        scheduler = make(optimizer)
        found = []
        for _ in range(41):
            found.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        assert rates(name) == pytest.approx(found, rel=1e-6), name
