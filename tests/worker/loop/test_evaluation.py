"""What a worker tells of a chunk of the held-out set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from thalweg_proto.messages import Evaluated
from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.datasets import Dataset, Shipment
from thalweg_worker.datasets.rows import all_rows
from thalweg_worker.engines.numpy_engine import NumpyEngine
from thalweg_worker.loop.evaluation import evaluate

TOKENS = np.array([[0, 1, 2, 0], [1, 1, 2, 2], [0, 0, 0, 0]])
NEXT = np.array([[1, 2, 0, 1], [1, 2, 2, 0], [0, 0, 0, 1]])


class Bigram:
    """The score of a character after another."""

    def predict(self, params: Any, x: Any) -> Any:
        return ad.embedding(params["scores"], x)

    def loss(self, params: Any, batch: Batch) -> Any:
        return ad.softmax_cross_entropy(self.predict(params, batch.x), batch.y)


class Told:
    def __init__(self) -> None:
        self.messages: list[Evaluated] = []

    def evaluated(self, message: Evaluated) -> None:
        self.messages.append(message)


def test_each_position_of_a_sequence_is_a_label() -> None:
    """Three sequences of four: twelve labels, of which those count as hits that are right, and all losses."""
    spec = DataSpec(input_shape=(4,), input_dtype="int64", task="classification", classes=3, target_shape=(4,))
    shipment = Shipment(spec=spec, x=TOKENS, y=NEXT, rows=all_rows(3), scaling=None, classes=None)
    scores = np.random.default_rng(0).standard_normal((3, 3), dtype=np.float32)
    told: Any = Told()
    engine = NumpyEngine(Bigram(), classify=True)
    evaluate(told, engine, {"scores": scores}, Dataset.from_shipment(shipment), version=5, chunks=range(1))
    [message] = told.messages
    rows = scores[TOKENS].astype(float)
    losses = np.log(np.exp(rows).sum(-1)) - np.take_along_axis(rows, NEXT[..., None], -1)[..., 0]
    hits = int((rows.argmax(-1) == NEXT).sum())
    assert message[:4] == (5, 0, 12, hits)
    assert 0 < hits < 12
    assert message.loss_sum == pytest.approx(losses.sum(), rel=1e-6)
