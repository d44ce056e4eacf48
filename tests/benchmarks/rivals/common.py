"""What all rivals share: the task on the command line, the initial weights, the rows of a step, the timing.

Every rival does the same work in each step: take `batch` random rows of the data for each worker, forward, backward
with the mean softmax cross-entropy over the global batch, momentum SGD. Every rival prints one JSON line at its end.
Given the same rows (`--rows`) they end in the same weights up to rounding; tests/benchmarks/test_rivals.py checks it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FEATURES, CLASSES = 784, 10

Array = NDArray[np.float32]
RowSource = Callable[[int], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run of a rival on the network 784-hidden-hidden-10.

    data:         folder with x.npy, (rows, 784) float32, and y.npy, (rows,) int64
    batch:        rows a worker takes in a step
    warmup_steps: steps done before the clock starts, at least 1
    steps:        steps under the clock, at least 1
    rows:         .npy of shape (warmup_steps + steps, workers, batch): the rows to take; None draws them at random
    weights_out:  .npz to write the final weights to, named 0 to 5 in the order of `initial_weights`
    """

    data: Path
    hidden: int
    batch: int
    workers: int
    warmup_steps: int
    steps: int
    learning_rate: float = 0.01
    momentum: float = 0.9
    seed: int = 0
    rows: Path | None = None
    weights_out: Path | None = None

    @property
    def samples_per_step(self) -> int:
        return self.batch * self.workers


def count(text: str) -> int:
    """A number of something on a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1; found {text}")
    return int(text)


def parse_task(argv: Sequence[str] | None = None) -> Task:
    """The task on a rival's command line; the options are the fields of `Task`."""
    parser = argparse.ArgumentParser(description="Run one rival and print its timing as a JSON line.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    for name in ("hidden", "batch", "workers", "warmup-steps", "steps"):
        parser.add_argument(f"--{name}", type=count, required=True, metavar="N")
    parser.add_argument("--learning-rate", type=float, default=Task.learning_rate)
    parser.add_argument("--momentum", type=float, default=Task.momentum)
    parser.add_argument("--seed", type=int, default=Task.seed)
    parser.add_argument("--rows", type=Path, metavar="ROWS.npy")
    parser.add_argument("--weights-out", type=Path, metavar="WEIGHTS.npz")
    return Task(**vars(parser.parse_args(argv)))


def load_data(task: Task) -> tuple[Array, NDArray[np.int64]]:
    """x (rows, 784) and y (rows,), read into the process's own memory: no rival pays for page faults on a file."""
    return np.load(task.data / "x.npy"), np.load(task.data / "y.npy")


def initial_weights(hidden: int, seed: int) -> list[Array]:
    """[W1, b1, W2, b2, W3, b3] for `x @ W + b`: W (fan_in, fan_out) drawn from N(0, 2 / fan_in), b (fan_out,) zero.

    He et al. 2015, "Delving Deep into Rectifiers", eq. 10.
    """
    rng = np.random.default_rng(seed)
    widths = (FEATURES, hidden, hidden, CLASSES)
    weights: list[Array] = []
    for fan_in, fan_out in pairwise(widths):
        scale = np.float32(np.sqrt(2 / fan_in))
        weights += [rng.standard_normal((fan_in, fan_out), np.float32) * scale, np.zeros(fan_out, np.float32)]
    return weights


def row_source(task: Task, rank: int, rows_total: int) -> RowSource:
    """step -> the rows of that step for one worker, (batch,) int64 in [0, rows_total)."""
    if task.rows is not None:
        fixed = np.load(task.rows)
        return lambda step: np.ascontiguousarray(fixed[step, rank])
    rng = np.random.default_rng((task.seed, rank))
    return lambda step: rng.integers(rows_total, size=task.batch)


def timing(stamps_s: Sequence[float], samples_per_step: int) -> dict[str, object]:
    """The figures of a run from its clock readings.

    stamps_s: the reading when the clock started, then one after each counted step; seconds, at least 2 of them
    """
    steps_ms = np.diff(np.asarray(stamps_s)) * 1000
    wall_s = stamps_s[-1] - stamps_s[0]
    return {
        "samples_per_s": samples_per_step * len(steps_ms) / wall_s,
        "steps": len(steps_ms),
        "wall_s": wall_s,
        "step_ms": {"p50": float(np.median(steps_ms)), "mean": float(np.mean(steps_ms))},
    }


def finish(task: Task, stamps_s: Sequence[float], weights: Sequence[Array]) -> None:
    """Write the weights where they are asked for, and print the JSON line."""
    if task.weights_out is not None:
        np.savez(task.weights_out, **{str(i): w for i, w in enumerate(weights)})
    print(json.dumps(timing(stamps_s, task.samples_per_step)), flush=True)
