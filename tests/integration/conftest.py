"""A whole run in one process: the real server, workers, sockets and shared memory, and threads instead of Ray."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg_cluster.server.server import Server
from thalweg_cluster.server.spec import RunResult, ServerSpec
from thalweg_cluster.step import HostStep, StepSpec
from thalweg_proto.layout import Layout
from thalweg_worker.batch import DataSpec
from thalweg_worker.batches import evaluation_chunks
from thalweg_worker.datasets import Dataset, Shipment
from thalweg_worker.datasets.rows import all_rows
from thalweg_worker.engines.numpy_engine import NumpyEngine
from thalweg_worker.exchange import Exchange
from thalweg_worker.loop import run
from thalweg_worker.models import ModelSource, initial_parameters
from thalweg_worker.sampler import Sampler

FEATURES, CLASSES = 6, 3


def three_clouds(samples: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Samples of three classes that a small network tells apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, samples)
    centres = rng.normal(size=(CLASSES, FEATURES)) * 2
    x = centres[y] + rng.normal(size=(samples, FEATURES))
    return x.astype(np.float32), y.astype(np.int64)


def dataset(x: NDArray[np.float32], y: NDArray[np.int64], spec: DataSpec) -> Dataset:
    """All of `x` and `y`, as they are."""
    return Dataset.from_shipment(Shipment(spec=spec, x=x, y=y, rows=all_rows(len(x)), scaling=None, classes=None))


@dataclass
class LocalRun:
    """What a run came to, its final weights by name, and the rows of metrics.jsonl."""

    result: RunResult
    weights: dict[str, NDArray[np.float32]]
    rows: tuple[Any, ...]
    worker_errors: list[BaseException]


@pytest.fixture
def train_locally() -> Callable[..., LocalRun]:
    """Trains a small model on made-up data: `train_locally(workers=2, microbatches=4, steps=20, ...)`."""

    def train(
        *,
        workers: int = 2,
        batch_size: int = 16,
        microbatches: int = 4,
        steps: int = 20,
        samples: int = 200,
        model: Mapping[str, Any] | None = None,
        engine: Callable[[Any], Any] = lambda engine: engine,
        **of_step: Any,
    ) -> LocalRun:
        x, y = three_clouds(samples + 50, seed=0)
        spec = DataSpec(input_shape=(FEATURES,), task="classification", classes=CLASSES)
        training, held_out = dataset(x[:samples], y[:samples], spec), dataset(x[samples:], y[samples:], spec)
        source = ModelSource(**(model or {"use": "mlp", "options": {"hidden": [8]}}))
        parameters = initial_parameters(source.build(spec), 0)
        layout = Layout.of({name: array.shape for name, array in parameters.items()})
        initial = np.zeros(layout.size, dtype=np.float32)
        for name, view in layout.views(initial).items():
            view[...] = parameters[name]
        job_id, address = "test", f"thalweg-test-{secrets.token_hex(8)}"
        step = StepSpec(
            microbatches=microbatches,
            batch_size=batch_size,
            steps=steps,
            chunks=evaluation_chunks(len(held_out)),
            rule="momentum",
            rule_options={"momentum": 0.9},
            schedule={"name": "constant", "learning_rate": 0.05, "warmup_steps": 0},
        )
        step = replace(step, **of_step)
        the_server = Server(
            ServerSpec(address=address, job_id=job_id, layout=layout, workers=workers, step=step), initial
        )
        train.server = the_server  # for tests that stop a run from outside
        sampler = Sampler(seed=0, samples=samples, batch_size=batch_size, microbatches=microbatches)
        errors: list[BaseException] = []

        def work(rank: int) -> None:
            the_engine = engine(NumpyEngine(source.build(spec), classify=True))
            try:
                with Exchange(
                    address, job_id=job_id, rank=rank, layout=layout, new_server_work=partial(HostStep, step)
                ) as exchange:
                    run(exchange, the_engine, sampler, training, held_out)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
        for thread in threads:
            thread.start()
        result = the_server.serve()
        for thread in threads:
            thread.join()
        weights = {name: view.copy() for name, view in layout.views(the_server.weights()).items()}
        return LocalRun(result, weights, the_server.watch(0, 0.0).rows, errors)

    return train
