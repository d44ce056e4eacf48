"""`thalweg train`: one run, from the prepared job to summary.json."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from types import FrameType
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from rich.console import Console
from rich.markup import escape

from thalweg_cluster.checkpoints import newest, open_store
from thalweg_cluster.launch.actors import Run, start
from thalweg_cluster.launch.failures import Failures, Loss, describe_failures, failure_of, only_saw_another_fail
from thalweg_cluster.launch.preparation import Preparation
from thalweg_cluster.launch.ray_cluster import ray_cluster
from thalweg_cluster.launch.resuming import checkpoint_place
from thalweg_cluster.reporting.closing import print_closing
from thalweg_cluster.reporting.files import RunFolder
from thalweg_cluster.reporting.progress import progress_view
from thalweg_cluster.reporting.summary import summarise
from thalweg_cluster.security.given import Given
from thalweg_cluster.server.spec import RunResult
from thalweg_proto.job import job_to_toml

WATCH_S = 0.5
"""How often the run is looked at. Each look costs the workers' cores a millisecond or two."""
STOP_S = 30.0
SAVE_S = 600.0
"""How long the last checkpoint may take."""
EXIT_STATUS = {"succeeded": 0, "failed": 1, "cancelled": 130}


@dataclass(frozen=True)
class _Outcome:
    """What one attempt came to.

    result: None where the server died and nothing is known of the run
    losses: processes that died, where that is all that went wrong: the run can go on without them
    """

    result: RunResult | None
    error: str | None
    losses: list[Loss]
    hosts: int
    servers: int


def train(
    preparation: Preparation, out: Path, console: Console, *, address: str | None, given: Given, started_at: float
) -> int:
    """Runs the job, shows how it goes, writes the files of the contract under `out`; returns the exit status.

    A process that dies costs the steps since the newest checkpoint: new ones go on from there, to the same bits, as
    often as the job allows.

    address:    of the Ray cluster; None for one of our own
    given:      to the doors
    started_at: when the command was given, in seconds since 1970

    Raises InputError where the Ray cluster does not take the job, RunError where it has no room now; nothing was
    started then.
    """
    job = preparation.job
    failures = Failures(job.cluster.max_failures)
    first = preparation.first
    # In this order: Ray, when it connects, puts a handler of its own for SIGTERM.
    with ray_cluster(job.cluster.workers, address) as warning, interruptible():
        if warning is not None:
            console.print(f"[yellow]warning[/] {warning}", highlight=False)
        folder = RunFolder(out, first)
        folder.write_job(job_to_toml(job))
        if first:
            console.print(f"going on after step {first:,} of {preparation.lengths.steps:,}", highlight=False)
        outcome = _attempt(preparation, folder, console, given)
        while outcome.losses and failures.may_go_on(outcome.losses):
            preparation = _after(outcome, failures, preparation, folder, console)
            outcome = _attempt(preparation, folder, console, given)
    error = outcome.error
    if outcome.losses and failures.times:
        error = f"{error}\n{failures.describe()}"
    summary = summarise(
        outcome.result,
        error,
        parameters=preparation.layout.parameters,
        workers=job.cluster.workers,
        servers=outcome.servers,
        hosts=outcome.hosts,
        batch_size=preparation.lengths.batch_size,
        first=first,
        restarts=failures.restarts if failures.times else {"worker": 0, "server": 0},
        started_at=started_at,
        faults=preparation.faults.report(),
    )
    folder.write_summary(summary)
    print_closing(console, summary, str(folder.path))
    return EXIT_STATUS[summary["state"]]


def _attempt(preparation: Preparation, folder: RunFolder, console: Console, given: Given) -> _Outcome:
    """From the start of all processes to their end."""
    run = start(preparation, checkpoint_place(preparation.job, folder.path), given)
    topology = run.placement.topology
    try:
        if run.ca is not None:
            folder.write_ca(run.ca)
        result, error, losses = _watched(run, preparation, folder, console)
        if result is not None:
            folder.write_weights(preparation.layout, ray.get(run.server.weights.remote()))
    finally:
        run.close()
    return _Outcome(result, error, losses, topology.hosts, sum(topology.owns))


def _after(
    outcome: _Outcome, failures: Failures, preparation: Preparation, folder: RunFolder, console: Console
) -> Preparation:
    """What the run goes on from after a loss: the newest whole checkpoint, or where it began."""
    checkpoint, refused = newest(open_store(checkpoint_place(preparation.job, folder.path)))
    for reason in refused:
        console.print(f"[yellow]warning[/] not used: {escape(reason)}", highlight=False, soft_wrap=True)
    if checkpoint is not None and checkpoint.manifest.step > preparation.first:
        preparation = replace(preparation, start=checkpoint.state, first=checkpoint.manifest.step)
    folder.rewind(preparation.first)
    for loss in outcome.losses:
        console.print(f"[yellow]lost[/] {escape(str(loss))}", highlight=False, soft_wrap=True)
    if outcome.result is not None and outcome.result.error:
        console.print(f"  {escape(outcome.result.error)}", highlight=False, soft_wrap=True)
    console.print(
        f"going on after step {preparation.first:,} of {preparation.lengths.steps:,} (failure {failures.allowed})",
        highlight=False,
    )
    return preparation


def finished(preparation: Preparation, out: Path, console: Console) -> bool:
    """Whether a checkpoint has nothing left to train. Then the final files are written, where the run that made the
    checkpoint did not get to it."""
    steps = preparation.lengths.steps
    if preparation.first < steps:
        return False
    folder, layout = RunFolder(out, preparation.first, replace=False), preparation.layout
    weights = preparation.start(1).parameters
    folder.write_weights(layout, weights)
    if not (out / "summary.json").is_file():
        folder.write_job(job_to_toml(preparation.job))
        result = RunResult.of_checkpoint(steps, layout.sha256(weights))
        folder.write_summary(
            summarise(
                result,
                None,
                parameters=layout.parameters,
                workers=preparation.job.cluster.workers,
                servers=1,
                hosts=1,
                batch_size=preparation.lengths.batch_size,
                first=preparation.first,
                restarts={"worker": 0, "server": 0},
                started_at=time(),
                faults=preparation.faults.report(),
            )
        )
    console.print(
        f"finished before: all {steps:,} steps were taken. To train on: thalweg resume {out} --set "
        f"train.steps={2 * steps}",
        highlight=False,
        soft_wrap=True,
    )
    return True


def _watched(
    run: Run, preparation: Preparation, folder: RunFolder, console: Console
) -> tuple[RunResult | None, str | None, list[Loss]]:
    """Shows the run to its end. Returns what it came to, None where the server died; what went wrong, or None; and what
    died, where that is all that went wrong."""
    interrupted = False
    try:
        try:
            opened = ray.get(run.opened[0])
            console.print(f"metrics at http://127.0.0.1:{opened.metrics_port}/metrics", highlight=False)
            console.print(f"parameters at {opened.doors.clients} (gRPC)", highlight=False)
            _show(run, preparation, folder, console)
        except KeyboardInterrupt:
            interrupted = True
            console.print("interrupted: stopping, and keeping the results so far", highlight=False)
            run.server.stop.remote()
        result: RunResult = ray.get(run.served[0], timeout=STOP_S + SAVE_S)
    except GetTimeoutError:
        return None, f"the server did not stop within {STOP_S + SAVE_S:.0f} s", []
    except RayActorError as error:
        cause = failure_of(error)
        return None, f"the server failed: {cause}", [] if interrupted else [Loss("server", 0, cause)]
    except RayError as error:
        return None, f"the server failed: {failure_of(error)}", []
    wait_s = STOP_S if result.error or result.cancelled else 0
    workers, servers = _said(run.workers, wait_s), _said(run.served[1:], wait_s)
    server = result.error
    if result.cancelled and server is None:
        server = next(iter(servers.own.values()), None)
    told = describe_failures(workers.own, server=server, step=result.steps, witnesses=workers.seen)
    losses = [Loss("worker", rank, cause) for rank, cause in workers.died.items()]
    losses += [Loss("server", 1 + index, cause) for index, cause in servers.died.items()]
    only_died = workers.died == workers.own and not interrupted
    return result, told, losses if only_died else []


def _show(run: Run, preparation: Preparation, folder: RunFolder, console: Console) -> None:
    """Follows the run until the server is done; a worker that fails stops it."""
    rows_seen, warned = 0, ""
    lengths = preparation.lengths
    with progress_view(console, steps=lengths.steps, workers=preparation.job.cluster.workers) as view:
        running = True
        while running:
            snapshot = ray.get(run.server.watch.remote(rows_seen, WATCH_S))
            rows_seen += len(snapshot.rows)
            folder.append_rows(snapshot.rows)
            view.show(snapshot)
            if snapshot.checkpoint_error != warned:
                warned = snapshot.checkpoint_error
                console.print(f"[yellow]warning[/] {escape(warned)}", highlight=False, soft_wrap=True)
            running = snapshot.running
            if running and _anyone_failed(run):
                run.server.stop.remote()


def _anyone_failed(run: Run) -> bool:
    """Whether a worker or another host's server has failed: the lead may not know of it."""
    others = [*run.workers, *run.served[1:]]
    ended, _ = ray.wait(others, num_returns=len(others), timeout=0)
    return any(failure_of_ref(ref) is not None for ref in ended)


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


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM does what Ctrl-C does: it raises KeyboardInterrupt."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
