"""Places and starts the actors of a run: one server and its workers, on one host, in one placement group."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from threadpoolctl import threadpool_limits

from thalweg_cluster.launch.preparation import Preparation
from thalweg_cluster.metrics import serve_metrics
from thalweg_cluster.server.server import Server
from thalweg_cluster.server.spec import RunResult, ServerSpec, Snapshot
from thalweg_cluster.step import HostStep, StepSpec
from thalweg_worker.actor import Worker, WorkerSpec


class ServerActor:
    """The server as Ray runs it: `serve` in one thread, the questions about it in others."""

    def __init__(self, spec: ServerSpec, initial: NDArray[np.float32]) -> None:
        self._limits = threadpool_limits(1, user_api="blas")
        self._server = Server(spec, initial)
        self._port = serve_metrics(self._server.telemetry, spec.metrics_port)

    def open(self) -> int:
        """Returns the port of /metrics, once the server listens."""
        return self._port

    def serve(self) -> RunResult:
        return self._server.serve()

    def watch(self, rows_seen: int, timeout_s: float) -> Snapshot:
        return self._server.watch(rows_seen, timeout_s)

    def stop(self) -> None:
        self._server.stop()

    def weights(self) -> NDArray[np.float32]:
        return self._server.weights()


@dataclass(frozen=True)
class Run:
    """The handles of a run that goes on.

    opened:  reference to the port of /metrics
    served:  reference to the RunResult
    workers: references to the end of each worker, by rank
    """

    server: Any
    opened: Any
    served: Any
    workers: list[Any]
    group: PlacementGroup

    def close(self) -> None:
        """Ends all actors and gives their resources back."""
        remove_placement_group(self.group)


def start(preparation: Preparation) -> Run:
    """Starts the server and the workers; they train as soon as all are up."""
    job, lengths = preparation.job, preparation.lengths
    workers = job.cluster.workers
    job_id = f"{job.name}-{secrets.token_hex(8)}"
    # One bundle is one host: its workers and its server share memory. The server takes no CPU of its own: the
    # workers do its part of each step.
    group = placement_group([{"CPU": workers}], strategy="STRICT_PACK")
    here = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    step = StepSpec(
        microbatches=lengths.microbatches,
        batch_size=lengths.batch_size,
        steps=lengths.steps,
        rule=job.optimizer.rule,
        rule_options=job.optimizer.options_for("rule"),
        schedule={
            "name": job.optimizer.schedule,
            "learning_rate": job.optimizer.learning_rate,
            "warmup_steps": job.optimizer.warmup_steps,
            **job.optimizer.options_for("schedule"),
        },
        clip_norm=job.optimizer.clip_norm,
        eval_every=job.train.eval_every,
        chunks=preparation.chunks,
    )
    server_spec = ServerSpec(
        address=f"thalweg-{secrets.token_hex(16)}",
        job_id=job_id,
        layout=preparation.layout,
        workers=workers,
        step=step,
        metrics_port=job.metrics.port,
    )
    worker_spec = WorkerSpec(
        job_id=job_id,
        address=server_spec.address,
        layout=preparation.layout,
        model=preparation.model,
        data_spec=preparation.data.spec,
        sampler=preparation.sampler,
        new_server_work=partial(HostStep, step),
    )
    held_out = preparation.data.eval
    data = ray.put((preparation.data.train.to_shipment(), held_out.to_shipment() if held_out is not None else None))
    # Any: Ray's types do not know the methods of an actor handle made without its decorator.
    new_server: Any = ray.remote(ServerActor).options(num_cpus=0, max_concurrency=4, scheduling_strategy=here)
    new_worker: Any = ray.remote(Worker).options(num_cpus=1, scheduling_strategy=here)
    server = new_server.remote(server_spec, preparation.initial)
    actors = [new_worker.remote(worker_spec, rank, data) for rank in range(workers)]
    opened = server.open.remote()
    served = server.serve.remote()
    return Run(server, opened, served, [actor.run.remote(opened) for actor in actors], group)
