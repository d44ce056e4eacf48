"""The learning rate of a step, as a pure function of the step's number t, from 0.

    constant   l
    step       l * gamma^floor(t / step_size)                                 torch.optim.lr_scheduler.StepLR
    cosine     m + (l - m) * (1 + cos(pi * t / T)) / 2                        torch.optim.lr_scheduler.CosineAnnealingLR
    linear     l + (m - l) * t / T                                            torch.optim.lr_scheduler.LinearLR

l is the job's learning_rate, m its min_learning_rate, T the steps after the warm-up. While t < warmup_steps = w, the
learning rate is l * (t + 1) / (w + 1) instead; afterwards t counts from the end of the warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Schedule = Callable[[int], float]


def constant(learning_rate: float) -> Schedule:
    """Always `learning_rate`."""
    return lambda t: learning_rate


def step(learning_rate: float, *, step_size: int, gamma: float) -> Schedule:
    """Multiplied by `gamma` every `step_size` steps."""
    return lambda t: learning_rate * gamma ** (t // step_size)


def cosine(learning_rate: float, *, steps: int, min_learning_rate: float) -> Schedule:
    """Half a wave from `learning_rate` down to `min_learning_rate` after `steps` steps."""
    span = learning_rate - min_learning_rate
    return lambda t: min_learning_rate + span * (1 + math.cos(math.pi * min(t / steps, 1.0))) / 2


def linear(learning_rate: float, *, steps: int, min_learning_rate: float) -> Schedule:
    """A straight line from `learning_rate` down to `min_learning_rate` after `steps` steps."""
    span = learning_rate - min_learning_rate
    return lambda t: learning_rate - span * min(t / steps, 1.0)


def warm_up(schedule: Schedule, learning_rate: float, warmup_steps: int) -> Schedule:
    """`schedule`, after a straight line up to `learning_rate` over `warmup_steps` steps."""

    def at(t: int) -> float:
        if t < warmup_steps:
            return learning_rate * (t + 1) / (warmup_steps + 1)
        return schedule(t - warmup_steps)

    return at


def make_schedule(options: Mapping[str, Any], steps: int) -> Schedule:
    """The schedule of a job of `steps` steps.

    options: name, learning_rate, warmup_steps, and what the named schedule takes besides
    """
    rest = dict(options)
    name, rate, warmup = rest.pop("name"), rest.pop("learning_rate"), rest.pop("warmup_steps", 0)
    after = max(steps - warmup, 1)
    if name == "constant":
        schedule = constant(rate)
    elif name == "step":
        schedule = step(rate, **rest)
    elif name == "cosine":
        schedule = cosine(rate, steps=after, **rest)
    elif name == "linear":
        schedule = linear(rate, steps=after, **rest)
    else:
        raise ValueError(f"expected a schedule of constant, step, cosine, linear; found {name!r}")
    return warm_up(schedule, rate, warmup)
