from __future__ import annotations

import numpy as np

from thalweg_cluster.hosts.local import LocalRule
from thalweg_cluster.step import StepSpec


def test_a_worker_applies_the_jobs_rule_to_its_own_parameters():
    """Momentum, at the rate of each step of the job; its state lasts from round to round, and stays what it was at the
    begin of one until that is over."""
    spec = StepSpec(
        microbatches=1,
        batch_size=1,
        steps=8,
        rule="momentum",
        rule_options={"momentum": 0.5},
        schedule={"name": "step", "learning_rate": 1.0, "step_size": 4, "gamma": 0.5},
        local_steps=2,
    )
    rule, expected, velocity = LocalRule(spec), np.ones(2), np.zeros(2)
    state = [[np.zeros(2, np.float32)], [np.full(2, np.nan, np.float32)]]
    for first in (0, 2, 4):
        parameters = expected.astype(np.float32)  # a new copy each round
        before, after = state[first // 2 % 2], state[(first // 2 + 1) % 2]
        begin = before[0].copy()
        for step in (first, first + 1):
            gradient = np.array([1.0, 2.0 + step], np.float32)
            velocity = 0.5 * velocity + gradient
            expected = expected - (1.0 if step < 4 else 0.5) * velocity
            rule(step, parameters, gradient, before if step == first else after, after)
        np.testing.assert_array_equal(parameters, expected)
        np.testing.assert_array_equal(before[0], begin)
