"""A whole run in one process: real servers, workers, sockets, gRPC and shared memory, and threads instead of Ray."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.checkpoints import Checkpoint, Manifest, TrainingState
from thalweg_cluster.checkpoints.saver import SaveSpec
from thalweg_cluster.hosts.local import LocalRule
from thalweg_cluster.hosts.server import HostServer
from thalweg_cluster.hosts.spec import Doors, ServedSpec, Topology
from thalweg_cluster.security.run import RunSecurity
from thalweg_cluster.server.server import Server
from thalweg_cluster.server.spec import RunResult, ServerSpec
from thalweg_cluster.step import HostStep, StepSpec
from thalweg_proto.faults import Fault, Plan, PlannedFaults
from thalweg_proto.layout import Layout
from thalweg_proto.ledger import Division
from thalweg_worker.batch import DataSpec
from thalweg_worker.batches import evaluation_chunks
from thalweg_worker.datasets import Dataset, Shipment
from thalweg_worker.datasets.rows import all_rows
from thalweg_worker.engines import with_faults
from thalweg_worker.engines.numpy_engine import NumpyEngine
from thalweg_worker.exchange import MeetingExchange, ServedExchange, join
from thalweg_worker.ledger import Ledger
from thalweg_worker.loop import ServedLoop, run_meeting, run_served
from thalweg_worker.models import ModelSource, initial_parameters
from thalweg_worker.sampler import Sampler

FEATURES, CLASSES = 6, 3
JOB_ID = "test"
RUN_TOKEN = "what-the-hosts-of-the-run-have-in-common"
PATIENCE_S = 60.0
NEVER_S = 1e9
"""A lease: these workers are threads of this process, which nobody shall kill."""


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


class Killed(BaseException):
    """What a worker's thread raises to go as a process goes that is killed: without a word."""


class Engine:
    """Passes everything on to the engine it wraps; tests override what they want to go wrong."""

    deterministic = True

    batch: Any = None

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def gradient(self, parameters: Any, batch: Any, *, weight: float, out: Any, **hooks: Any) -> Callable[[], float]:
        compute = self.engine.gradient(parameters, batch, weight=weight, out=out, **hooks)

        def gradient() -> float:
            step, microbatch = batch.key[1:].tolist()
            self.batch = batch
            self.before(step, microbatch)
            return self.after(step, microbatch, compute(), out)

        return gradient

    def before(self, step: int, microbatch: int) -> None:
        """Called before each gradient, of the samples in `batch`."""

    def after(self, step: int, microbatch: int, loss: float, out: Any) -> float:
        """Called after each gradient; returns the loss."""
        return loss

    def evaluate(self, parameters: Any, batch: Any) -> Any:
        return self.engine.evaluate(parameters, batch)


@dataclass
class LocalRun:
    """A run that goes on, and what it came to once `join` returned.

    servers:   by host
    killed:    the ranks of the workers that raised Killed
    addresses: of their gRPC doors for clients, by host
    hosts_addresses: of those for the other hosts, by host
    """

    layout: Layout
    servers: list[Any]
    addresses: list[str] = field(default_factory=list)
    hosts_addresses: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    results: dict[int, RunResult] = field(default_factory=dict)
    server_errors: list[BaseException] = field(default_factory=list)
    worker_errors: list[BaseException] = field(default_factory=list)
    killed: SimpleQueue[int] = field(default_factory=SimpleQueue)
    work: Callable[..., None] = lambda rank, engine: None

    def replace(self, rank: int, engine: Callable[[Any], Any] = lambda engine: engine) -> None:
        """Starts a worker in the place of one that was killed. Where the others are done before it comes, it finds
        nobody, and nobody misses it."""
        thread = threading.Thread(target=self.work, args=(rank, engine, True), name=f"another worker {rank}")
        self.threads.append(thread)
        thread.start()

    def join(self) -> LocalRun:
        """Waits for the end of all servers and workers."""
        for thread in self.threads:
            thread.join(PATIENCE_S)
        hanging = [thread.name for thread in self.threads if thread.is_alive()]
        assert not hanging, f"after {PATIENCE_S:.0f} s these still run: {hanging}"
        return self

    @property
    def result(self) -> RunResult:
        """Of the lead."""
        if self.server_errors:
            raise self.server_errors[0]
        return self.results[0]

    @property
    def rows(self) -> tuple[Any, ...]:
        """Of metrics.jsonl."""
        rows: tuple[Any, ...] = self.servers[0].watch(0, 0.0).rows
        return rows

    @property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The final ones by name."""
        return {name: view.copy() for name, view in self.layout.views(self.servers[0].weights()).items()}


def start_locally(
    *,
    job_id: str = JOB_ID,
    workers: int | Sequence[int] = 2,
    owns: Sequence[bool] | None = None,
    batch_size: int = 16,
    microbatches: int = 4,
    steps: int = 20,
    samples: int = 200,
    model: Mapping[str, Any] | None = None,
    averaged: Sequence[str] = (),
    engine: Callable[[Any], Any] = lambda engine: engine,
    engines: Mapping[int, Callable[[Any], Any]] | None = None,
    host_step: type[HostStep] = HostStep,
    made: Callable[[list[Any]], None] = lambda servers: None,
    addresses: Callable[[list[str], int], Sequence[str]] = lambda addresses, host: addresses,
    of_server: Mapping[str, Any] | None = None,
    save: Path | None = None,
    resume: Checkpoint | None = None,
    ledger: Path | None = None,
    faults: PlannedFaults = PlannedFaults(),
    opened: Callable[[Dataset], Any] = lambda data: data,
    **of_step: Any,
) -> LocalRun:
    """Starts to train a small model on made-up data.

    workers:   how many, on one host whose workers meet; or how many on each host, each with a server
    owns:      which hosts own a shard
    averaged:  names of parameters that are averaged, and not trained
    engine:    what each worker's engine is made into; `engines`: that of some, by rank
    host_step: what does the server's part of a step where workers meet
    made:      gets the servers before anything starts
    addresses: what each host takes for the addresses of the hosts' doors
    of_server, of_step: what the specs say
    save:      where checkpoints go, with save_every of `of_step`
    resume:    what the run goes on from
    ledger:    folder in which the workers write down which samples they take
    faults:    what shall go wrong; a process cannot be killed or paused here, since all are one
    opened:    what each worker makes of the data that it trains on
    """
    x, y = three_clouds(samples + 50, seed=0)
    spec = DataSpec(input_shape=(FEATURES,), task="classification", classes=CLASSES)
    training, held_out = dataset(x[:samples], y[:samples], spec), dataset(x[samples:], y[samples:], spec)
    source = ModelSource(**(model or {"use": "mlp", "options": {"hidden": [8]}}))
    parameters = initial_parameters(source.build(spec), 0)
    layout = Layout.of({name: array.shape for name, array in parameters.items()}, averaged)
    initial = np.zeros(layout.size, dtype=np.float32)
    for name, view in layout.views(initial).items():
        view[...] = parameters[name]
    step = StepSpec(
        microbatches=microbatches,
        batch_size=batch_size,
        steps=steps,
        chunks=evaluation_chunks(len(held_out)),
        rule="momentum",
        rule_options={"momentum": 0.9},
        schedule={"name": "constant", "learning_rate": 0.05, "warmup_steps": 0},
    )
    step = replace(step, **({"save_every": 0} if save else {}) | of_step)
    hosts = 1 if isinstance(workers, int) else len(workers)
    start = resume.state(hosts) if resume else TrainingState.new(initial)
    saving = save and SaveSpec(
        place=str(save),
        keep=100,
        of=Manifest.about(
            job="",
            layout=layout,
            rule=step.rule,
            slots=(slot.name for slot in step.server_rule().slots),
            hosts=hosts,
            generation=1,
        ),
    )
    sampler = Sampler(seed=0, samples=samples, batch_size=batch_size, microbatches=microbatches)
    division = Division(samples, batch_size, microbatches)
    sockets = [f"thalweg-test-{secrets.token_hex(8)}" for _ in range(hosts)]
    if isinstance(workers, int):
        meeting = Server(
            ServerSpec(
                address=sockets[0],
                job_id=job_id,
                layout=layout,
                workers=workers,
                step=step,
                save=saving,
                lease_s=NEVER_S,
                faults=faults,
            ),
            start,
        )
        run = LocalRun(layout, [meeting])
        serve = [meeting.serve]
        host_of = dict.fromkeys(range(workers), 0)
    else:
        ends = np.cumsum(workers).tolist()
        ranks = tuple(range(end - count, end) for end, count in zip(ends, workers, strict=True))
        topology = Topology(ranks=ranks, owns=tuple(owns or [True] * len(workers)))
        servers = [
            HostServer(
                ServedSpec(
                    host=host,
                    address=sockets[host],
                    job_id=job_id,
                    layout=layout,
                    topology=topology,
                    step=step,
                    save=saving,
                    faults=faults,
                    **{"security": RunSecurity(token=RUN_TOKEN), "lease_s": NEVER_S} | dict(of_server or {}),
                ),
                start,
            )
            for host in range(len(workers))
        ]
        run = LocalRun(layout, list(servers))
        doors = [server.open() for server in servers]
        run.addresses, run.hosts_addresses = [each.clients for each in doors], [each.hosts for each in doors]
        serve = [
            partial(server.serve, list(map(Doors, run.addresses, addresses(run.hosts_addresses, host))))
            for host, server in enumerate(servers)
        ]
        host_of = {rank: host for host, on_host in enumerate(ranks) for rank in on_host}
    how = ServedLoop(
        copies=step.consistency != "sync",
        steps=steps,
        local_steps=step.local_steps,
        workers=len(host_of),
        new_local_update=partial(LocalRule, step),
    )

    new_work = partial(host_step, step, averaged=layout.averaged, faults=faults)
    made(run.servers)

    def serve_host(host: int) -> None:
        try:
            run.results[host] = serve[host]()
        except BaseException as error:
            run.server_errors.append(error)

    def work(rank: int, engine: Callable[[Any], Any], may_be_late: bool = False) -> None:
        own_faults, own_data = faults.of("worker", rank), opened(training)
        the_engine = engine(with_faults(NumpyEngine(source.build(spec), classify=True), own_faults))
        try:
            with (
                nullcontext() if ledger is None else Ledger(ledger, rank, division) as book,
                join(sockets[host_of[rank]], job_id=job_id, rank=rank, layout=layout) as connection,
            ):
                if connection.welcome.meet:
                    with MeetingExchange(connection, new_work, own_faults) as exchange:
                        run_meeting(exchange, the_engine, sampler, own_data, held_out, book)
                else:
                    run_served(
                        ServedExchange(connection, own_faults), the_engine, sampler, own_data, held_out, how, book
                    )
        except Killed:
            run.killed.put(rank)
        except BaseException as error:
            if not (may_be_late and "no server listens" in str(error)):
                run.worker_errors.append(error)

    run.work = work
    run.threads = [
        threading.Thread(target=work, args=(rank, (engines or {}).get(rank, engine)), name=f"worker {rank}")
        for rank in host_of
    ]
    run.threads += [
        threading.Thread(target=serve_host, args=(host,), name=f"server {host}") for host in range(len(serve))
    ]
    for thread in run.threads:
        thread.start()
    return run


def planned(folder: Path, *faults: Fault, seed: int = 0) -> PlannedFaults:
    """What shall go wrong in a run of which `folder` is."""
    return PlannedFaults(Plan(faults=faults, seed=seed), folder / "faults.jsonl")


def train_locally(**options: Any) -> LocalRun:
    """`start_locally`, to the end."""
    return start_locally(**options).join()


def remembering(
    **always: Any,
) -> Callable[..., tuple[RunResult, list[tuple[int, float | None, dict[str, Any] | None]]]]:
    """`remembering(steps=20)(clip_norm=0.1)`: what a run with these options came to, and its rows (step, loss,
    evaluation); trained once for the same options."""
    known: dict[str, Any] = {}

    def result(**of: Any) -> Any:
        key = repr(sorted(of.items()))
        if key not in known:
            run = train_locally(**always, **of)
            known[key] = (run.result, [(row.step, row.train_loss, row.evaluation) for row in run.rows])
        return known[key]

    return result
