"""One attempt at a run: from the start of its servers and workers to their end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from thalweg_cluster.checkpoints import Store
from thalweg_cluster.exposition import LOOPBACK
from thalweg_cluster.launch.actors import Run, start
from thalweg_cluster.launch.failures import Loss, describe_failures, failure_of, only_saw_another_fail
from thalweg_cluster.launch.journal import Journal
from thalweg_cluster.launch.preparation import Preparation
from thalweg_cluster.launch.replicas import RunReplicas
from thalweg_cluster.launch.resuming import checkpoint_place
from thalweg_cluster.launch.room import Growth, free
from thalweg_cluster.launch.run_telemetry import RunTelemetry
from thalweg_cluster.reporting.files import RunFolder
from thalweg_cluster.reporting.wording import warning
from thalweg_cluster.security.given import Given
from thalweg_cluster.server.spec import RunResult
from thalweg_proto.errors import StorageError

Announce = Callable[[Mapping[int, int]], None]
WATCH_S = 0.5
"""How often the run is looked at. Each look costs the workers' cores a millisecond or two."""
STOP_S = 30.0
SAVE_S = 600.0
"""How long the last checkpoint may take."""


@dataclass(frozen=True)
class Outcome:
    """What one attempt came to.

    result: None where the server died and nothing is known of the run
    losses: processes that died, where that is all that went wrong: the run can go on without them
    resizes: whether it ended so that the run can go on with more workers
    """

    result: RunResult | None
    error: str | None
    losses: list[Loss]
    hosts: int
    servers: int
    workers: int
    resizes: bool = False


class Attempts:
    """Makes one attempt after another. One thread calls `make`; any may call `stop`."""

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        given: Given,
        place_s: float,
        telemetry: RunTelemetry,
        replicas: RunReplicas,
        announce: Announce = lambda ports: None,
    ) -> None:
        """
        given:    to the doors
        place_s:  how long Ray may take to find room for the workers
        replicas: of the run
        announce: called with the ports of /metrics of those servers, by host, that this machine reaches
        """
        self._telemetry = telemetry
        self._announce = announce
        self._folder = folder
        self._journal = journal
        self._given = given
        self._place_s = place_s
        self._lock = Lock()
        self._run: Run | None = None
        self._replicas = replicas
        self._stopping = self._resizes = False

    def replicas(self) -> Store | None:
        """What the hosts of the last attempt hold in memory; None where they hold nothing."""
        return self._replicas.store()

    def take_over(self) -> None:
        """Another coordinator made attempts before; what they left in memory is found."""
        self._replicas.adopt()

    def close(self) -> None:
        """No attempt follows."""
        self._replicas.close()

    def stop(self) -> bool:
        """Ends the attempt that goes on, with its results and a checkpoint; False where nothing runs that could."""
        with self._lock:
            if self._run is None:
                return False
            self._stopping = True
            self._run.server.stop.remote()
            return True

    def make(
        self,
        preparation: Preparation,
        generation: int,
        on_opened: Callable[[], None],
        may_replace: Callable[[Loss], bool],
    ) -> Outcome:
        """From the start of all processes to their end.

        on_opened:   called once the servers listen
        may_replace: where a worker died whose work the others go on with: whether another one may take its place; if
                     not, the attempt ends

        RunError or InputError where the cluster has no room for them.
        """
        place = checkpoint_place(preparation.job, self._folder.path)
        self._telemetry.begins()
        run = start(preparation, place, self._given, self._replicas, generation=generation, place_s=self._place_s)
        topology = run.placement.topology
        cluster = preparation.job.cluster
        growth = Growth(topology.workers, cluster.most, cluster.gpus_per_worker)
        self._journal.about(preparation.lengths.steps, topology.workers)
        self._resizes = False
        with self._lock:
            self._run = run
        try:
            if run.ca is not None:
                self._folder.write_ca(run.ca)
            result, error, losses = self._watched(run, on_opened, may_replace, growth)
            if result is not None:
                weights = ray.get(run.server.weights.remote())
                try:
                    self._folder.write_weights(preparation.layout, weights)
                except StorageError as failed:  # what the run came to is told all the same
                    error = f"{error}\n{failed}" if error else str(failed)
        finally:
            with self._lock:
                self._run = None
            run.close()
        resizes = self._resizes and not self._stopping and result is not None and result.cancelled and not losses
        return Outcome(result, error, losses, topology.hosts, sum(topology.owns), topology.workers, resizes)

    def _watched(
        self, run: Run, on_opened: Callable[[], None], may_replace: Callable[[Loss], bool], growth: Growth
    ) -> tuple[RunResult | None, str | None, list[Loss]]:
        """Shows the run to its end. Returns what it came to, None where the server died; what went wrong, or None; and
        what died, where that is all that went wrong."""
        try:
            opened = ray.get(run.opened[0])
            on_opened()
            self._announce(_ports(run))
            self._journal.say(f"metrics at http://127.0.0.1:{opened.metrics_port}/metrics")
            self._journal.say(f"parameters at {opened.doors.clients} (gRPC)")
            self._show(run, may_replace, growth)
            result: RunResult = ray.get(run.served[0], timeout=STOP_S + SAVE_S)
        except GetTimeoutError:
            return None, f"the server did not stop within {STOP_S + SAVE_S:.0f} s", []
        except RayActorError as error:
            cause = failure_of(error)
            return None, f"the server failed: {cause}", [] if self._stopping else [Loss("server", 0, cause)]
        except RayError as error:
            return None, f"the server failed: {failure_of(error)}", []
        if not result.error and not result.cancelled:
            return result, None, []  # who dies now is not missed
        workers, servers = _said(run.workers, STOP_S), _said(run.served[1:], STOP_S)
        server = result.error
        if result.cancelled and server is None:
            server = next(iter(servers.own.values()), None)
        told = describe_failures(workers.own, server=server, step=result.steps, witnesses=workers.seen)
        losses = [Loss("worker", rank, cause) for rank, cause in workers.died.items()]
        losses += [Loss("server", 1 + index, cause) for index, cause in servers.died.items()]
        only_died = workers.died == workers.own and not self._stopping
        return result, told, losses if only_died else []

    def _show(self, run: Run, may_replace: Callable[[Loss], bool], growth: Growth) -> None:
        """Follows the run until the server is done. A process that fails stops it, but for a worker that can be
        replaced; and so does room for more workers, where the job wants them."""
        warned: tuple[str, ...] = ()
        rows_seen, announced = 0, run.placement.topology.hosts == 1
        running, ends = True, False
        while running:
            snapshot = ray.get(run.server.watch.remote(rows_seen, WATCH_S))
            rows_seen += len(snapshot.rows)
            self._folder.append_rows(snapshot.rows)
            self._journal.show(snapshot)
            workers = run.placement.topology.workers
            self._telemetry.has_cards(run.known_cards())
            self._telemetry.seen(snapshot.step, snapshot.joined, workers, perf_counter())
            if snapshot.step and not announced:  # by now all have opened
                announced = True
                self._announce(_ports(run))
            for each in snapshot.warnings:
                if each not in warned:
                    self._journal.say(warning(each))
            warned = snapshot.warnings
            running = snapshot.running
            if running and not (ends or self._stopping):
                self._resizes = snapshot.step > 0 and growth.possible(free)
                ends = self._resizes or not _mended(run, may_replace, snapshot.hung)
                if ends:
                    run.server.stop.remote()


def _ports(run: Run) -> dict[int, int]:
    """Where the servers on this machine that have opened answer scrapes, by host: /metrics is on loopback."""
    here: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray gives it no type
    near = {ref: host for host, ref in enumerate(run.opened) if run.placement.addresses[host] in (here, LOOPBACK)}
    opened, _ = ray.wait(list(near), num_returns=len(near), timeout=0) if near else ([], [])
    ports = {}
    for ref in opened:
        with contextlib.suppress(RayError):  # who failed is found by those who watch the run
            ports[near[ref]] = ray.get(ref).metrics_port
    return ports


def _mended(run: Run, may_replace: Callable[[Loss], bool], hung: Mapping[int, str]) -> bool:
    """Replaces the workers that died, where that can be done; False where the run is to end. The lead may not know of
    a worker or another host's server that failed.

    hung: why the server killed workers, by rank
    """
    others = [*run.workers, *run.served[1:]]
    ended, _ = ray.wait(others, num_returns=len(others), timeout=0)
    failed = [(ref, error) for ref in ended if (error := failure_of_ref(ref)) is not None]
    if any(ref in run.served for ref, _ in failed):
        return False
    for ref, error in failed:
        rank = run.workers.index(ref)
        if not (isinstance(error, RayActorError) and run.can_replace(rank)):
            return False
        if not may_replace(Loss("worker", rank, hung.get(rank) or failure_of(error))):
            return False
        run.replace(rank)
    return True


class _Said(NamedTuple):
    """What those say who failed, by position: of themselves, and of having seen another fail; `died`: of the first."""

    own: dict[int, str]
    seen: dict[int, str]
    died: dict[int, str]


def _said(refs: list[Any], wait_s: float) -> _Said:
    ended, _ = ray.wait(refs, num_returns=len(refs), timeout=wait_s) if refs else ([], [])
    said = _Said({}, {}, {})
    for index, ref in enumerate(refs):
        error = failure_of_ref(ref) if ref in ended else None
        if isinstance(error, RayError):
            (said.seen if only_saw_another_fail(error) else said.own)[index] = failure_of(error)
            if isinstance(error, RayActorError):
                said.died[index] = failure_of(error)
        elif error is not None:
            said.own[index] = error
    return said


def failure_of_ref(ref: Any) -> RayError | str | None:
    """What a finished task raised, or what a server's result says went wrong; None where it went well."""
    try:
        result = ray.get(ref)
    except RayError as error:
        return error
    return result.error if isinstance(result, RunResult) else None
