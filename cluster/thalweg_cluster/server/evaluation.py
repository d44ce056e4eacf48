"""The held-out set is evaluated in chunks of a fixed size, by any worker; this puts the results together.

The sums run in the order of the chunks, so the figures have the same bits for any number of workers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from thalweg_proto.messages import Evaluated


class EvaluationResult(NamedTuple):
    """loss: mean over the held-out labels; accuracy: share of rightly classified ones, None for a regression."""

    loss: float
    accuracy: float | None


class Evaluations:
    """Collects the chunks of each version that is evaluated."""

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks
        self._parts: dict[int, dict[int, Evaluated]] = {}  # by version and chunk

    def on_evaluated(self, message: Evaluated) -> EvaluationResult | None:
        """The result for the message's version, once its last chunk is in; a repeat changes nothing."""
        parts = self._parts.setdefault(message.version, {})
        parts.setdefault(message.chunk, message)
        if len(parts) < self._chunks:
            return None
        del self._parts[message.version]
        ordered = [parts[chunk] for chunk in sorted(parts)]
        labels = sum(part.labels for part in ordered)
        loss = math.fsum(part.loss_sum for part in ordered) / labels
        correct = sum(part.correct for part in ordered)
        return EvaluationResult(loss, correct / labels if ordered[0].correct >= 0 else None)
