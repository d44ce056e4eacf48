"""The server of one host: its workers on one side, the other hosts' servers on the other, one thread that decides.

    workers of this host --- Unix socket: workers.py ---------.
    servers of other hosts - gRPC: hosts_door.py, peers.py ----> the thread that decides: flow, and on host 0 the lead
    clients ---------------- gRPC: clients_door.py -----------'

Rules:
  - Whatever comes from another thread is an event in one queue. Who reads the queue is the only one to change anything.
  - Every host says something to the lead, and the lead to every host, at least every BEAT_S: who is silent for
    `patience_s` is lost.
  - Any other failure ends the run on all hosts, and is told by the lead.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.checkpoints.state import WORKER, TrainingState
from thalweg_cluster.hosts import events
from thalweg_cluster.hosts.barrier_flow import BarrierFlow
from thalweg_cluster.hosts.checks import Expected
from thalweg_cluster.hosts.clients_door import ClientsDoor
from thalweg_cluster.hosts.events import Event
from thalweg_cluster.hosts.flow import Flow, Name
from thalweg_cluster.hosts.hosts_door import HostsDoor
from thalweg_cluster.hosts.lead import BarrierLead, Lead, StaleLead
from thalweg_cluster.hosts.peers import Peers
from thalweg_cluster.hosts.saving import Saving
from thalweg_cluster.hosts.shard import Shard
from thalweg_cluster.hosts.silence import Silence
from thalweg_cluster.hosts.snapshot import snapshot
from thalweg_cluster.hosts.spec import Doors, ServedSpec
from thalweg_cluster.hosts.stale_flow import StaleFlow
from thalweg_cluster.hosts.status import status_of
from thalweg_cluster.hosts.wording import broke, lost, not_finite
from thalweg_cluster.hosts.workers import Workers
from thalweg_cluster.rules import Slot, make_rule
from thalweg_cluster.server.account import Account
from thalweg_cluster.server.spec import RunResult, Snapshot
from thalweg_cluster.server.telemetry import WireCounts
from thalweg_proto.blocks import Shards
from thalweg_proto.errors import ServerError, ThalwegError
from thalweg_proto.formats import make_format
from thalweg_proto.shared_memory import FLOAT_BYTES, ServedPlan, ServedVectors, create_segment
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import Bytes, Make

BEAT_S = 2.0
EXPLAIN_S = 1.0
"""A stream that breaks is mostly the second sign of something; so long a run waits for the first, a host's own word."""
STOP_S = 10.0
"""How long a run that is asked to stop may take to finish; then it ends with the version that is there."""


class HostServer:
    """One host's server; `open`, then `serve` from the first step to the last."""

    def __init__(self, spec: ServedSpec, start: TrainingState) -> None:
        """Takes the memory, listens, and puts `start` where its version lies.

        Raises OSError where /dev/shm has no room, RuntimeError where the gRPC server cannot listen.
        """
        self.spec = spec
        self.faults = spec.faults.of("server", spec.host)
        self.size = spec.layout.size
        self.ranks = spec.topology.ranks[spec.host]
        self.shards = Shards.of(self.size, spec.topology.owns, block=spec.block)
        begin, end = self.shards.bounds[spec.host]
        blocks = [b.end - b.begin for b in self.shards.blocks]
        leaves = max(spec.step.microbatches, spec.topology.workers)
        self.shard = Shard(
            begin,
            end,
            start,
            spec.step.server_rule(),
            block=max(blocks),
            leaves=leaves,
            averaged=spec.layout.averaged,
        )
        self.gradient_format = _format(spec.wire, spec.wire_fraction)
        self.parameters_format = make_format(spec.wire_parameters)
        stale = spec.step.consistency != "sync"
        kind = StaleFlow if stale else BarrierFlow
        self._flow: Flow = kind(self, start)
        own_rule = make_rule(spec.step.rule, spec.step.rule_options) if spec.step.local_steps > 1 else None
        self._slots = () if own_rule is None else own_rule.slots  # of each worker's own rule
        plan = ServedPlan(
            size=self.size,
            versions=kind.VERSIONS,
            gradients=self._flow.gradients,
            slots=len(self._slots),
            spares=self._flow.spares,
        )
        segment = create_segment(plan.vector_bytes, plan.spare_bytes)
        self.vectors = ServedVectors(plan, segment, server=True)
        self._put_first(start)
        for name, array, slot in self._worker_state(start.version):
            array[...] = start.of_host.get(spec.host, {}).get(name, slot.initial_value)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._expected = Expected(
            job_id=spec.job_id,
            generation=spec.generation,
            host=spec.host,
            hosts=spec.topology.hosts,
            shards=self.shards,
            gradients=self.gradient_format,
            parameters=self.parameters_format,
        )
        self._wire = WireCounts()
        security, patience_s = spec.security, spec.patience_s
        self._grpc = HostsDoor(
            spec.bind, self._expected, self, guard=security.hosts, patience_s=patience_s, wire=self._wire
        )
        self._clients = ClientsDoor(spec.bind, self._expected, self, guard=security.clients, patience_s=patience_s)
        self._peers = Peers(
            self._expected,
            self,
            connect_s=spec.connect_s,
            patience_s=patience_s,
            security=security,
            wire=self._wire,
            faults=self.faults,
        )
        clients = f"{spec.bind}:{self._clients.port}"
        self._doors = [Doors(clients, f"{spec.bind}:{self._grpc.port}" if self._grpc.port else clients)]
        moved = self.size * FLOAT_BYTES
        self.account = Account(
            spec.step, first=start.step, workers=spec.topology.workers, bytes_pushed=moved, bytes_published=moved
        )
        telemetry = self.account.telemetry
        if spec.topology.hosts > 1:
            telemetry.wire[spec.host] = self._wire
        telemetry.wire_formats = {"gradients": spec.wire, "parameters": spec.wire_parameters}
        telemetry.host, telemetry.lead, telemetry.door = spec.host, spec.host == 0, self._expected.counts
        self.workers = Workers(spec, plan, segment, self._flow, telemetry=telemetry, to_lead=self.to_lead)
        self._saving = Saving(spec, self.shard, telemetry, self.faults, self.post)
        lead = StaleLead if stale else BarrierLead
        self._lead: Lead | None = None
        if spec.host == 0:
            self._lead = lead(spec, self.account, self._order, self._saving.commit, start)
            self._saving.clear(start.step)
        self._silence = Silence((), spec.patience_s, 0.0)  # of the hosts that must say something
        self._beat_every_s = min(BEAT_S, spec.patience_s / 4)
        self._beat_s = 0.0
        self._stopped = self._left = False
        self._stop_by = math.inf
        self._suspicion: tuple[float, events.Lost] | None = None  # since when, and what
        self._running = threading.Lock()  # guards the run's end against `stop` and `post`
        self._ended = False

    def _put_first(self, start: TrainingState) -> None:
        """The parameters that the first step is computed on. Those of a checkpoint are what the owners have: workers
        saw what the wire's format makes of them, and do so again."""
        row, form = self.vectors.version(start.version), self.parameters_format
        row[...] = start.parameters
        if start.version and not form.exact:
            form.decode(form.encode(row, None), row)

    def _worker_state(self, version: int) -> Iterator[tuple[str, NDArray[np.float32], Slot]]:
        """With local steps: the name in checkpoints of each array of this host's workers' own rules, and where it lies
        at `version`."""
        for rank in self.ranks if self._slots else ():
            [gradient] = self._flow.gradients_of(rank)
            for array, slot in zip(self.vectors.state(gradient, version), self._slots, strict=True):
                yield f"{WORKER}{rank}.{slot.name}", array, slot

    # The run

    def open(self) -> Doors:
        """Starts to answer; returns the addresses of the gRPC doors."""
        self._grpc.open()
        self._clients.open()
        return self._doors[0]

    def serve(self, doors: Sequence[Doors]) -> RunResult:
        """Runs the job to its end, to `stop`, or to a failure, which the result then names.

        doors: of all hosts, by host
        """
        error = None
        try:
            self._doors = list(doors)
            self._peers.connect([each.hosts for each in doors])
            with np.errstate(all="ignore"):  # what is not finite is found, and named, at the update
                self._loop()
            if self._lead is not None:
                self._lead.end()
        except ThalwegError as failure:
            error = self._fail(failure)
        except Exception as failure:  # a mistake of ours: the others would learn of it only by this host's silence
            traceback.print_exception(failure)  # to the log of this process
            error = self._fail(self._broke(failure))
        finally:
            with self._running:
                self._ended = True
            self.account.end()
            self.workers.close()
            self._saving.close()
            self._peers.take_leave()
            self._grpc.close()
            self._clients.close()
            self._peers.close()
        if self._lead is not None:
            error = self._lead.error or error
        return self.account.result(
            error=error,
            version=self._flow.version,
            published_s=self.account.telemetry.published_s,
            weights_sha256=self.spec.layout.sha256(self.weights()),
        )

    def _fail(self, failure: ThalwegError) -> str:
        """Tells the others; they end, too."""
        self.to_lead(HostMessage(failed=HostMessage.Failed(error=str(failure))))
        return str(failure)

    def _broke(self, failure: Exception) -> ServerError:
        host = self.spec.host
        address = self._doors[host].hosts
        return broke(failure, host=host, address=address, step=self._step, shard=self.shards.bounds[host])

    @property
    def _step(self) -> int:
        """How many steps are done, as this host sees it: a version may be several."""
        return self.spec.step.steps_done(self._flow.version)

    def _loop(self) -> None:
        peers = range(1, self.spec.topology.hosts) if self._lead is not None else (0,)
        self._silence = Silence(peers, self.spec.patience_s, perf_counter())
        while not self._over():
            patience_s = 0.5 if self._suspicion else self._beat_every_s / 2
            self.workers.hear(patience_s)
            self._on_events()
            self._let_go()
            self._keep_time()

    def _over(self) -> bool:
        if self._lead is not None:
            return self._lead.done or (self._stopped and self.workers.deserted) or perf_counter() > self._stop_by
        return self._stopped

    def _keep_time(self) -> None:
        """Beats, and looks who is silent."""
        now = perf_counter()
        if now - self._beat_s >= self._beat_every_s:
            self._beat_s = now
            self._peers.beat()
            self._grpc.beat()
            self.account.telemetry.compression_error = self._flow.compression_error
            if self._lead is None:
                self._beat()
            else:
                for host in range(1, self.spec.topology.hosts):
                    self._order(host, LeadMessage(beat=LeadMessage.Beat()))
        if self._lead is not None:
            self._lead.replicate(now)
        if self._suspicion is not None and now - self._suspicion[0] > EXPLAIN_S:
            raise self._lost(self._suspicion[1].host, self._suspicion[1].error)
        if self._silence.stood_still(now):
            self.workers.in_hand.stood_still(now)
        if (silent := self._silence.silent(now)) is not None:
            raise self._lost(silent, f"it said nothing for {self.spec.patience_s:g} s")
        self.workers.look(now)

    def _beat(self) -> None:
        self.to_lead(HostMessage(beat=HostMessage.Beat(**self._wire.counts)))

    def _lost(self, host: int, found: str) -> ServerError:
        addresses = [each.hosts for each in self._doors]
        bounds = self.shards.bounds
        return lost(host, found, step=self._step, bounds=bounds, addresses=addresses, by=self.spec.host)

    def _let_go(self) -> None:
        """Lets the workers go when nothing is left to do, and the lead, when they have gone."""
        workers = self.workers
        workers.let_go()
        over = workers.finished or self._stopped or not self.ranks
        if workers.ready and over and not self._left and workers.deserted and self._saving.done:
            self._left = True
            if self._lead is None:
                self._beat()  # the last counts
            self.to_lead(HostMessage(left=HostMessage.Left()))

    def not_finite(self, step: int, begin: int, parameters: NDArray[np.float32]) -> None:
        spec = self.spec
        raise not_finite(step, begin, parameters, layout=spec.layout, job=spec.step, host=spec.host)

    # Checkpoints

    def save(
        self,
        version: int,
        *,
        updates: int,
        residuals: Mapping[str, NDArray[np.float32]],
        names: Iterable[Name] = (),
        final: bool = False,
        replica: bool = False,
    ) -> None:
        if not (self.ranks or self.shards.owned_by(self.spec.host)):
            return
        skipped = self._saving.save(
            version,
            updates=updates,
            residuals=residuals,
            workers={name: array for name, array, _ in self._worker_state(version)},
            names=names,
            final=final,
            replica=replica,
        )
        if skipped is not None:
            self.to_lead(skipped)

    # Other hosts

    def post(self, event: Event) -> None:
        with self._running:
            if not self._ended:
                self._events.put(event)
                self.workers.interrupt()

    def _on_events(self) -> None:
        # No more than there are now: the workers and the clock have their turn, however much comes in. For what came
        # meanwhile `receive` returns at once.
        for _ in range(self._events.qsize()):
            self._on_event(self._events.get())

    def _on_event(self, event: Event) -> None:
        if isinstance(event, events.PartArrived):
            self._flow.on_part(event)
        elif isinstance(event, events.ShardSaved):
            self.to_lead(self._saving.on_saved(event))
        elif isinstance(event, events.ParametersArrived):
            self._flow.on_parameters(event)
        elif isinstance(event, events.LeadSaid):
            if self._lead is None:
                self._silence.heard(0, perf_counter())
            self._on_lead(event.message)
        elif isinstance(event, events.HostSaid):
            self._silence.heard(event.host, perf_counter())
            assert self._lead is not None  # the door lets no host attend elsewhere
            self._lead.on(event.host, event.message)
        elif isinstance(event, events.Answered):
            self._flow.on_answered(event.owner, event.step, event.part)
        elif isinstance(event, events.Refreshed):
            self._flow.on_refreshed(event.rank)
        elif isinstance(event, events.OutsidePush):
            self._on_outside(event)
        elif isinstance(event, events.ReplicaEnded):
            assert self._lead is not None  # nobody else commits
            self._lead.replica_ended()
        elif isinstance(event, events.StopAsked):
            self._stop_by = perf_counter() + STOP_S
            if self._lead is not None:
                if self._lead.began:
                    self._lead.stop()
                else:
                    self._stop_by = 0.0
        elif self._suspicion is None:
            self._suspicion = (perf_counter(), event)

    def _on_outside(self, push: events.OutsidePush) -> None:
        if not push.begin():
            return
        if self.workers.began:
            self._flow.on_outside(push)
        else:
            push.refuse(grpc.StatusCode.UNAVAILABLE, "the run has not begun")

    def _on_lead(self, message: LeadMessage) -> None:
        kind = message.WhichOneof("kind")
        if kind == "begin":
            self.workers.begin()
            self._flow.begin()
        elif kind == "stop":
            self._stopped = True
            self.workers.stop()
        elif kind != "beat":
            self._flow.on_lead(message)

    def to_lead(self, message: HostMessage) -> None:
        if self._lead is not None:
            self._lead.on(0, message)
        else:
            assert self._peers.to_lead is not None  # every other host has this stream
            self._peers.to_lead.put((), lambda: [message.SerializeToString()])

    def _order(self, host: int, message: LeadMessage) -> None:
        """What the lead says to a host; to this one, as an event: it is said in the middle of something."""
        if host == self.spec.host:
            self.post(events.LeadSaid(message))
        else:
            self._grpc.orders[host].put((), lambda: [message.SerializeToString()])

    def push(self, owner: int, urgency: tuple[int, ...], make: Make) -> None:
        self._peers.gradients[owner].put(urgency, self._wire.counting("gradients_sent", make))

    def publish(self, urgency: tuple[int, ...], make: Make) -> None:
        for host, outbox in self._grpc.parameters.items():
            if self.spec.topology.ranks[host]:
                outbox.put(urgency, self._wire.counting("parameters_sent", make))

    def answer(self, host: int, step: int, part: int) -> None:
        reply = pb.PushReply(
            result=pb.ACCEPTED, step=step, part_begin=part, part_end=part + 1, version=self._flow.version
        )
        self._grpc.replies[host].put((), lambda: [reply.SerializeToString()])

    def refresh(self, rank: int) -> None:
        self._peers.refresh(rank)

    def pack(self, index: int, *, data: Any, **header: Any) -> list[Bytes]:
        return self._expected.pack(index, data, **header)

    # From other threads

    def room_for_part(self, host: int, step: int, parts: tuple[int, int], index: int) -> NDArray[np.float32]:
        return self._flow.room_for_part(host, step, parts, index)

    def room_for_parameters(self, version: int, index: int) -> NDArray[np.float32]:
        return self._flow.room_for_parameters(version, index)

    def snapshot(self) -> tuple[int, NDArray[np.float32]]:
        begin, end = self.shards.bounds[self.spec.host]
        if isinstance(self._flow, StaleFlow):
            return self._flow.version, self.shard.copy(begin, end)
        # With the next version whole, the blocks of the one after it begin to come over this one.
        return snapshot(lambda: self._flow.version, lambda v: self.vectors.version(v)[begin:end], spare=0)

    def newest(self, index: int) -> tuple[int, NDArray[np.float32]]:
        begin, end, _ = self.shards.blocks[index]
        return self._flow.version, self.shard.copy(begin, end)

    def status(self) -> pb.StatusReply:
        spec = self.spec
        clients = [each.clients for each in self._doors]
        return status_of(self._expected, spec.step, spec.layout, clients, version=self._flow.version)

    def stop(self) -> None:
        """Ends the run soon; `serve` returns with `cancelled`. Nothing where it has ended."""
        self.post(events.StopAsked())

    def watch(self, rows_seen: int, timeout_s: float) -> Snapshot:
        """How far the run is; on the lead."""
        snapshot = self.account.watch(rows_seen, timeout_s)
        return snapshot if self._lead is None else replace(snapshot, hung=dict(self._lead.hung))

    def weights(self) -> NDArray[np.float32]:
        """The newest version, flat, shape (layout.size,); valid after `serve` returned."""
        return self.vectors.version(self._flow.version)


def _format(name: str, fraction: float | None) -> Any:
    return make_format(name) if fraction is None else make_format(name, fraction=fraction)
