"""The held-out set is evaluated in chunks of a fixed size, by any worker; this puts the results together.

The sums run in the order of the chunks, so the figures have the same bits for any number of workers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from thalweg_proto.messages import Evaluated


class EvaluationResult(NamedTuple):
    """loss: mean over the held-out samples; accuracy: share of rightly classified ones, None for a regression."""

    loss: float
    accuracy: float | None


class EvaluationGate:
    """Collects the chunks of one evaluation.

    wanted: the version that is being evaluated; None: none is
    """

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks
        self._results: dict[int, Evaluated] = {}
        self.wanted: int | None = None

    def begin(self, version: int) -> None:
        """From now on, the chunks of `version` are collected."""
        self.wanted = version
        self._results.clear()

    def on_evaluated(self, message: Evaluated) -> EvaluationResult | None:
        """The result, once the last chunk is in. A chunk of another version and a repeat change nothing."""
        if message.version == self.wanted:
            self._results.setdefault(message.chunk, message)
        if self.wanted is None or len(self._results) < self._chunks:
            return None
        self.wanted = None
        parts = [self._results[chunk] for chunk in sorted(self._results)]
        samples = sum(part.samples for part in parts)
        loss = math.fsum(part.loss_sum for part in parts) / samples
        correct = sum(part.correct for part in parts)
        return EvaluationResult(loss, correct / samples if parts[0].correct >= 0 else None)
