"""The update rule as one worker applies it to parameters of its own, in local SGD."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thalweg_cluster.rules import Block, make_rule
from thalweg_cluster.step import StepSpec


class LocalRule:
    """The job's rule and learning rate on a whole flat vector."""

    def __init__(self, spec: StepSpec) -> None:
        self._rule = make_rule(spec.rule, spec.rule_options)
        self._learning_rate = spec.learning_rate()
        self._scratch: list[Block] = []

    def __call__(
        self, step: int, parameters: Block, gradient: Block, before: Sequence[Block], after: Sequence[Block]
    ) -> None:
        """Takes step `step` in place; the gradient is overwritten. The rule's state is read from `before`, and written
        to `after`, which may be the same; each array has the vector's size."""
        if not self._scratch:
            self._scratch = list(np.empty((self._rule.scratch, len(parameters)), dtype=np.float32))
        update = self._rule.block_update(step, self._learning_rate(step))
        update(parameters, gradient, before, after, self._scratch)
        parameters[...] = gradient
