"""Places and starts the actors of a run: the workers, and a server on each of their hosts."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
from threadpoolctl import threadpool_limits

from thalweg_cluster.checkpoints import Manifest, Memory, TrainingState
from thalweg_cluster.checkpoints.saver import SaveSpec
from thalweg_cluster.hosts.latency import prefer_short_turns
from thalweg_cluster.hosts.local import LocalRule
from thalweg_cluster.hosts.server import HostServer
from thalweg_cluster.hosts.spec import LOOPBACK, Doors, ServedSpec
from thalweg_cluster.hosts.window import Window
from thalweg_cluster.launch.placement import Placement, arrange
from thalweg_cluster.launch.preparation import Preparation
from thalweg_cluster.launch.replicas import RunReplicas, bytes_needed
from thalweg_cluster.launch.room import reserve
from thalweg_cluster.launch.steps import step_spec
from thalweg_cluster.metrics import serve_metrics
from thalweg_cluster.security.given import Given
from thalweg_cluster.security.run import RunSecurity, between_hosts, on_loopback
from thalweg_cluster.server.server import Server
from thalweg_cluster.server.spec import RunResult, ServerSpec, Snapshot
from thalweg_cluster.step import HostStep, StepSpec
from thalweg_proto.job import job_to_toml
from thalweg_worker.actor import Worker, WorkerSpec
from thalweg_worker.engines import Card
from thalweg_worker.loop import ServedLoop

SWITCH_S = 2e-4
"""How long a thread of a HostServer keeps the interpreter: a message passes through several. By default it is 5 ms."""


@dataclass(frozen=True)
class Opened:
    """doors: of gRPC; metrics_port: of /metrics."""

    doors: Doors
    metrics_port: int


class ServerActor:
    """A server as Ray runs it: `serve` in one thread, the questions about it in others.

    Where all workers are on one host and wait for each other, they do the server's part of a step themselves, and this
    is a `Server`; else it is a `HostServer`.
    """

    def __init__(self, spec: ServerSpec | ServedSpec, start: TrainingState) -> None:
        self._limits = threadpool_limits(1, user_api="blas")
        self._server: Server | HostServer
        self._window: Window | None = None
        if isinstance(spec, ServedSpec):
            sys.setswitchinterval(SWITCH_S)
            prefer_short_turns()  # before gRPC starts its threads
            self._server = HostServer(spec, start)
        else:
            self._server = Server(spec, start)
            self._window = Window(self._server)
        self._port = serve_metrics(self._server.account.telemetry, spec.metrics_port)

    def open(self) -> Opened:
        """Returns once the server listens."""
        if isinstance(self._server, HostServer):
            return Opened(self._server.open(), self._port)
        assert self._window is not None  # made with such a server
        self._window.open()
        return Opened(Doors(self._window.address, self._window.address), self._port)

    def serve(self, *opened: Opened) -> RunResult:
        """`opened`: what the servers of all hosts have opened, by host."""
        if isinstance(self._server, HostServer):
            prefer_short_turns()
            return self._server.serve([each.doors for each in opened])
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

    server:  the lead's
    opened:  references to what each server has opened, by host
    served:  references to the RunResult of each server, by host; the first one is that of the run
    workers: references to the end of each worker, by rank
    cards:   references to the GPU of each worker, by rank, where they have any; those that are known are taken out
    new_worker: starts one for a rank; returns the actor, and a reference to its end
    ca:      of the servers' certificates, in PEM, where it was made for the run; None: it was not
    """

    server: Any
    opened: list[Any]
    served: list[Any]
    workers: list[Any]
    cards: dict[int, Any]
    new_worker: Callable[[int], tuple[Any, Any]]
    placement: Placement
    group: PlacementGroup
    actors: list[Any]
    ca: bytes | None

    def can_replace(self, rank: int) -> bool:
        """Whether another worker can take the place of one that died. Where its node is gone, its server is, too."""
        node = self.placement.nodes[self.placement.topology.host_of(rank)]
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray gives it no type
        return any(each["Alive"] for each in nodes if each["NodeID"] == node)

    def replace(self, rank: int) -> None:
        """Starts a worker in the place of one that died."""
        actor, self.workers[rank] = self.new_worker(rank)
        self.actors.append(actor)

    def known_cards(self) -> dict[int, Card]:
        """The GPUs of workers that have become known since this was asked last, by rank."""
        known: dict[int, Card] = {}
        if self.cards:
            refs = {ref: rank for rank, ref in self.cards.items()}
            for ref in ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]:
                del self.cards[refs[ref]]
                with contextlib.suppress(RayError):  # what it failed of its `run` says, too
                    known[refs[ref]] = ray.get(ref)
        return known

    def close(self) -> None:
        """Ends all actors and gives their resources back."""
        for actor in self.actors:
            with contextlib.suppress(ValueError):
                ray.kill(actor)
        remove_placement_group(self.group)


def start(
    preparation: Preparation, place: str, given: Given, replicas: RunReplicas, *, generation: int, place_s: float
) -> Run:
    """Starts the servers and the workers; they train as soon as all are up.

    place:      of the checkpoints, a path or a URL
    given:      to the doors
    replicas:   where they are held
    generation: what the checkpoints of these servers say
    place_s:    how long Ray may take to find room for the workers

    They all belong to the process that calls this: Ray ends them, and gives the room back, where it dies.

    InputError where the cluster has too few nodes for the servers, or a host too little memory for replicas; RunError
    where others use its CPUs.
    """
    job = preparation.job
    group, workers = reserve(job.cluster, place_s)
    try:
        placement = _placement(group, job.cluster.servers)
    except BaseException:
        remove_placement_group(group)
        raise
    step = step_spec(job, preparation.lengths, preparation.chunks)
    hosts = placement.topology.hosts
    security = between_hosts(given, placement.addresses) if hosts > 1 else on_loopback(given)
    every_s = job.checkpoint.replicate_every_s if hosts > 1 else 0.0
    addresses = dict(zip(placement.nodes, placement.addresses, strict=True))
    memories = replicas.on(placement.nodes if every_s else (), addresses)
    specs = _server_specs(preparation, placement, step, place, security, memories, generation)
    # Any: Ray's types do not know the methods of an actor handle made without its decorator.
    new_server: Any = ray.remote(ServerActor)
    begin = ray.put(preparation.start(placement.topology.hosts))
    servers = [
        # It takes no CPU of its own: that of its host's workers is enough.
        new_server.options(
            num_cpus=0, max_concurrency=4, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(spec, begin)
        for node, spec in zip(placement.nodes, specs, strict=True)
    ]
    opened = [server.open.remote() for server in servers]
    served = [server.serve.remote(*opened) for server in servers]
    new_actor = _new_actor(preparation, placement, step, specs[0].job_id, group)

    cards: dict[int, Any] = {}

    def new_worker(rank: int) -> tuple[Any, Any]:
        host = placement.topology.host_of(rank)
        actor = new_actor(rank)
        if job.cluster.gpus_per_worker:
            cards[rank] = actor.card.remote()  # before `run`, which takes as long as the run
        return actor, actor.run.remote(specs[host].address, opened[host])

    actors, runs = zip(*map(new_worker, range(workers)), strict=True)
    run = Run(
        server=servers[0],
        opened=opened,
        served=served,
        workers=list(runs),
        cards=cards,
        new_worker=new_worker,
        placement=placement,
        group=group,
        actors=[*servers, *actors],
        ca=security.ca,
    )
    if memories:
        needed = bytes_needed(preparation.layout.size, sum(placement.topology.owns), len(step.server_rule().slots))
        try:
            replicas.check_room(needed)
        except BaseException:
            run.close()
            raise
    return run


def _placement(group: PlacementGroup, servers: int) -> Placement:
    table = placement_group_table(group)["bundles_to_node_id"]
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray gives it no type
    alive = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    here = ray.get_runtime_context().get_node_id()
    return arrange([table[bundle] for bundle in sorted(table)], here, alive, servers)


def _server_specs(
    preparation: Preparation,
    placement: Placement,
    step: StepSpec,
    place: str,
    security: RunSecurity,
    memories: Sequence[Memory],
    generation: int,
) -> list[ServerSpec | ServedSpec]:
    job = preparation.job
    job_id = f"{job.name}-{secrets.token_hex(8)}"
    save = SaveSpec(
        place=place,
        keep=job.checkpoint.keep,
        of=Manifest.about(
            job=job_to_toml(job),
            layout=preparation.layout,
            rule=step.rule,
            slots=(slot.name for slot in step.server_rule().slots),
            hosts=placement.topology.hosts,
            generation=generation,
        ),
    )
    if placement.topology.hosts == 1 and step.workers_meet:
        return [
            ServerSpec(
                address=_socket(),
                job_id=job_id,
                layout=preparation.layout,
                workers=placement.topology.workers,
                step=step,
                save=save,
                lease_s=job.cluster.lease_s,
                guard=security.clients,
                metrics_port=job.metrics.port,
                faults=preparation.faults,
            )
        ]
    return [
        ServedSpec(
            host=host,
            address=_socket(),
            job_id=job_id,
            layout=preparation.layout,
            topology=placement.topology,
            step=step,
            bind=placement.addresses[host] if placement.topology.hosts > 1 else LOOPBACK,
            security=security,
            wire=job.cluster.wire,
            wire_fraction=job.cluster.wire_fraction,
            wire_parameters=job.cluster.wire_parameters,
            save=save,
            memories=memories,
            replicate_every_s=job.checkpoint.replicate_every_s if memories else 0.0,
            lease_s=job.cluster.lease_s,
            metrics_port=0 if host else job.metrics.port,
            faults=preparation.faults,
        )
        for host in range(placement.topology.hosts)
    ]


def _socket() -> str:
    return f"thalweg-{secrets.token_hex(16)}"


def _new_actor(
    preparation: Preparation, placement: Placement, step: StepSpec, job_id: str, group: PlacementGroup
) -> Callable[[int], Any]:
    """What starts the actor of a worker, given its rank."""
    cluster = preparation.job.cluster
    spec = WorkerSpec(
        job_id=job_id,
        layout=preparation.layout,
        model=preparation.model,
        data_spec=preparation.data.spec,
        sampler=preparation.sampler,
        new_server_work=partial(HostStep, step, averaged=preparation.layout.averaged, faults=preparation.faults),
        served=ServedLoop(
            copies=step.consistency != "sync",
            steps=step.steps,
            local_steps=step.local_steps,
            workers=placement.topology.workers,
            new_local_update=partial(LocalRule, step),
            clip_norm=step.clip_norm,
        ),
        engine=cluster.engine,
        emulated_ms=cluster.emulated_ms,
        autocast=cluster.autocast,
        compile=cluster.compile,
        gpus=cluster.gpus_per_worker,
        ledger=preparation.ledger,
        faults=preparation.faults,
    )
    held_out = preparation.data.eval
    data = ray.put((preparation.data.train.to_shipment(), held_out.to_shipment() if held_out is not None else None))
    new_worker: Any = ray.remote(Worker)

    def start(rank: int) -> Any:
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=placement.bundles[rank])
        options = {"num_cpus": 1, "num_gpus": cluster.gpus_per_worker, "scheduling_strategy": where}
        return new_worker.options(**options).remote(spec, rank, data)

    return start
