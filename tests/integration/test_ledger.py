"""The ledger of real runs in every mode: each sample exactly once an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.local_run import Engine, three_clouds, train_locally

from thalweg_cluster.ledger import read_ledger

SAMPLES, BATCH, STEPS = 50, 16, 20  # 6.4 epochs


class Watched(Engine):
    """Notes what the engine was really given, by (step, microbatch)."""

    def __init__(self, engine: Any, seen: dict[tuple[int, int], Any]) -> None:
        super().__init__(engine)
        self.seen = seen

    def before(self, step: int, microbatch: int) -> None:
        self.seen[step, microbatch] = self.batch.x.copy()


@pytest.mark.parametrize(
    "mode",
    [
        {"workers": 1},
        {"workers": 3},
        {"workers": (2, 1)},
        {"workers": (1, 1), "local_steps": 3},
        {"workers": (2,), "consistency": "ssp", "staleness": 2},
        {"workers": (1, 1), "consistency": "async"},
    ],
    ids=["one worker", "workers that meet", "two hosts", "local steps", "ssp", "async"],
)
def test_the_ledger_has_each_sample_once_an_epoch_and_is_what_the_engines_saw(
    mode: Mapping[str, Any], tmp_path: Path
) -> None:
    """Read from the files alone; then compared with the batches that were differentiated."""
    seen: dict[tuple[int, int], Any] = {}
    run = train_locally(
        samples=SAMPLES,
        batch_size=BATCH,
        steps=STEPS,
        ledger=tmp_path,
        engine=lambda engine: Watched(engine, seen),
        **mode,
    )
    assert run.worker_errors == []
    samples = read_ledger(tmp_path, run.result.steps)
    account = samples.account()
    assert (account.steps, account.epochs, account.findings) == (STEPS, STEPS * BATCH // SAMPLES, ())
    data, _ = three_clouds(SAMPLES + 50, seed=0)
    for step in range(STEPS):
        computed = np.concatenate([seen[step, m] for m in range(4)])
        assert np.array_equal(data[samples.samples(step)], computed)
