"""What is compared: the networks 784-H-H-10, how long each system runs on them, and the random data.

A run lasts about as long whatever the system, so steps follow from the time a step is expected to take. A wrong
expectation makes a run shorter or longer, and changes no figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.benchmarks.rivals.common import CLASSES, FEATURES

ROWS = 60_000
WORKERS = 2
WARMUP_STEPS = 10  # Thalweg's samples_per_s leaves the first 10 steps out, so all others do
STEPS_MIN = 20
LEARNING_RATE, MOMENTUM = 0.01, 0.9


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One size of the network.

    batch:            rows a worker takes in a step
    expected_step_ms: system -> milliseconds a step, as measured on 2 cores; it decides the number of steps only
    """

    hidden: int
    batch: int
    expected_step_ms: Mapping[str, float]

    @property
    def network(self) -> str:
        """Its name."""
        return f"H {self.hidden}"

    @property
    def parameters(self) -> int:
        h = self.hidden
        return (FEATURES + 1) * h + (h + 1) * h + (h + 1) * CLASSES

    def steps(self, system: str, seconds: float) -> int:
        """Steps under the clock for a run of about `seconds`, at least STEPS_MIN."""
        return max(STEPS_MIN, round(seconds * 1000 / self.expected_step_ms[system]))


def _workload(hidden: int, batch: int, *, thalweg: float, ddp: float, ray: float, plain: float) -> Workload:
    expected = {"ddp": ddp, "ray": ray, "ray-numpy": ray, "plain": plain, "plain-2": plain}
    expected |= dict.fromkeys(("thalweg", "thalweg-1"), thalweg)
    return Workload(hidden=hidden, batch=batch, expected_step_ms=expected)


WORKLOADS = {
    128: _workload(128, 64, thalweg=0.9, ddp=4.3, ray=19, plain=0.7),
    512: _workload(512, 128, thalweg=8, ddp=14, ray=49, plain=7),
    1024: _workload(1024, 128, thalweg=20, ddp=27, ray=101, plain=18),
    4096: _workload(4096, 128, thalweg=220, ddp=323, ray=611, plain=220),
}


def rival_options(workload: Workload, *, data: Path, workers: int, steps: int) -> dict[str, object]:
    """The command line of a rival, as `rival_command` takes it, for `steps` steps under the clock."""
    return {
        "data": data,
        "hidden": workload.hidden,
        "batch": workload.batch,
        "workers": workers,
        "warmup_steps": WARMUP_STEPS,
        "steps": steps,
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
    }


def write_data(folder: Path, rows: int = ROWS, seed: int = 0) -> None:
    """Write x.npy, (rows, 784) float32 from N(0, 1), and y.npy, (rows,) int64 classes, into `folder`."""
    rng = np.random.default_rng(seed)
    np.save(folder / "x.npy", rng.standard_normal((rows, FEATURES), np.float32))
    np.save(folder / "y.npy", rng.integers(CLASSES, size=rows))


def thalweg_job(
    workload: Workload,
    *,
    steps: int,
    workers: int = WORKERS,
    cluster: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The job file that does a rival's work: nothing held out, scaled, evaluated or saved on the way.

    A worker has one microbatch a step, as a rival's has one batch. `cluster` are more keys of [cluster].

    The paths are relative to the folder of `write_data`, where the job file must lie.
    """
    return {
        "name": f"bench-{workload.hidden}",
        "data": {
            "train": {"x": "x.npy", "y": "y.npy"},
            "eval": 0.0,
            "task": "classification",
            "scale": "none",
        },
        "model": {"use": "mlp", "hidden": [workload.hidden, workload.hidden]},
        "train": {
            "steps": steps,
            "batch_size": workers * workload.batch,
            "microbatches": workers,
            "eval_every": 0,
        },
        "optimizer": {"rule": "momentum", "learning_rate": LEARNING_RATE, "momentum": MOMENTUM},
        "cluster": {"workers": workers, **(cluster or {})},
        "checkpoint": {"every_steps": 0},
        "metrics": {"port": 0},
    }
