"""`thalweg train`: one run, from the prepared job to summary.json."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from rich.console import Console

from thalweg_cluster.launch.actors import Run, start
from thalweg_cluster.launch.failures import describe_failures, failure_of, only_saw_another_fail
from thalweg_cluster.launch.preparation import Preparation
from thalweg_cluster.launch.ray_cluster import ray_cluster
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
EXIT_STATUS = {"succeeded": 0, "failed": 1, "cancelled": 130}


def train(
    preparation: Preparation, out: Path, console: Console, *, address: str | None, given: Given, started_at: float
) -> int:
    """Runs the job, shows how it goes, writes the files of the contract under `out`; returns the exit status.

    address:    of the Ray cluster; None for one of our own
    given:      to the doors
    started_at: when the command was given, in seconds since 1970

    Raises InputError where the Ray cluster does not take the job; nothing was started then.
    """
    job = preparation.job
    # In this order: Ray, when it connects, puts a handler of its own for SIGTERM.
    with ray_cluster(job.cluster.workers, address) as warning, interruptible():
        if warning is not None:
            console.print(f"[yellow]warning[/] {warning}", highlight=False)
        folder = RunFolder(out)
        folder.write_job(job_to_toml(job))
        run = start(preparation, given)
        topology = run.placement.topology
        try:
            if run.ca is not None:
                folder.write_ca(run.ca)
            result, error = _watched(run, preparation, folder, console)
            if result is not None:
                folder.write_weights(preparation.layout, ray.get(run.server.weights.remote()))
        finally:
            run.close()
    summary = summarise(
        result,
        error,
        parameters=preparation.layout.parameters,
        workers=job.cluster.workers,
        servers=sum(topology.owns),
        hosts=topology.hosts,
        batch_size=preparation.lengths.batch_size,
        started_at=started_at,
    )
    folder.write_summary(summary)
    print_closing(console, summary, str(folder.path))
    return EXIT_STATUS[summary["state"]]


def _watched(
    run: Run, preparation: Preparation, folder: RunFolder, console: Console
) -> tuple[RunResult | None, str | None]:
    """Shows the run to its end. Returns what it came to, None where the server died, and what went wrong, or None."""
    try:
        try:
            opened = ray.get(run.opened[0])
            console.print(f"metrics at http://127.0.0.1:{opened.metrics_port}/metrics", highlight=False)
            console.print(f"parameters at {opened.doors.clients} (gRPC)", highlight=False)
            _show(run, preparation, folder, console)
        except KeyboardInterrupt:
            console.print("interrupted: stopping, and keeping the results so far", highlight=False)
            run.server.stop.remote()
        result: RunResult = ray.get(run.served[0], timeout=STOP_S)
    except GetTimeoutError:
        return None, f"the server did not stop within {STOP_S:.0f} s"
    except RayError as error:
        return None, describe_failures({}, server=f"the server failed: {failure_of(error)}")
    return result, _cause(run, result)


def _show(run: Run, preparation: Preparation, folder: RunFolder, console: Console) -> None:
    """Follows the run until the server is done; a worker that fails stops it."""
    rows_seen = 0
    lengths = preparation.lengths
    with progress_view(console, steps=lengths.steps, workers=preparation.job.cluster.workers) as view:
        running = True
        while running:
            snapshot = ray.get(run.server.watch.remote(rows_seen, WATCH_S))
            rows_seen += len(snapshot.rows)
            folder.append_rows(snapshot.rows)
            view.show(snapshot)
            running = snapshot.running
            if running and _anyone_failed(run):
                run.server.stop.remote()


def _anyone_failed(run: Run) -> bool:
    """Whether a worker or another host's server has failed: the lead may not know of it."""
    others = [*run.workers, *run.served[1:]]
    ended, _ = ray.wait(others, num_returns=len(others), timeout=0)
    return any(failure_of_ref(ref) is not None for ref in ended)


def _cause(run: Run, result: RunResult) -> str | None:
    """What went wrong, the workers' own words first: that a connection closed is only its consequence."""
    wait_s = STOP_S if result.error or result.cancelled else 0
    said, witnesses = _said(run.workers, wait_s)
    server = result.error
    if result.cancelled and len(run.served) > 1 and server is None:
        others, _ = _said(run.served[1:], wait_s)
        server = next(iter(others.values()), None)
    return describe_failures(said, server=server, step=result.steps, witnesses=witnesses)


def _said(refs: list[Any], wait_s: float) -> tuple[dict[int, str], dict[int, str]]:
    """What those say who failed, by position in `refs`: of themselves, and of having seen another fail."""
    ended, _ = ray.wait(refs, num_returns=len(refs), timeout=wait_s)
    own: dict[int, str] = {}
    seen: dict[int, str] = {}
    for index, ref in enumerate(refs):
        error = failure_of_ref(ref) if ref in ended else None
        if isinstance(error, RayError):
            (seen if only_saw_another_fail(error) else own)[index] = failure_of(error)
        elif error is not None:
            own[index] = error
    return own, seen


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
