"""The update rule as one worker applies it to parameters of its own, in local SGD."""

from __future__ import annotations

import numpy as np

from thalweg_cluster.rules import Block, make_rule
from thalweg_cluster.step import StepSpec


class LocalRule:
    """The job's rule and learning rate on a whole flat vector; its state stays with the worker from round to round."""

    def __init__(self, spec: StepSpec, state: list[Block]) -> None:
        """`state`: of the rule, each array of the vector's size; the host's server has put in what it begins with."""
        self._rule = make_rule(spec.rule, spec.rule_options)
        self._learning_rate = spec.learning_rate()
        self._state = state
        self._scratch: list[Block] = []

    def __call__(self, step: int, parameters: Block, gradient: Block) -> None:
        """Takes step `step` in place; the gradient is overwritten."""
        if not self._scratch:
            self._scratch = list(np.empty((self._rule.scratch, len(parameters)), dtype=np.float32))
        update = self._rule.block_update(step, self._learning_rate(step))
        update(parameters, gradient, self._state, self._state, self._scratch)
        parameters[...] = gradient
