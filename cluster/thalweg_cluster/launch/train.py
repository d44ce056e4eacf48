"""`thalweg train`, `resume`, `watch`: prepare a run, start its coordinator, and follow it."""

from __future__ import annotations

import contextlib
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from time import time
from types import FrameType
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from thalweg_cluster.launch import room
from thalweg_cluster.launch.announcing import Announcement
from thalweg_cluster.launch.coordinator import Coordinator, CoordinatorSpec
from thalweg_cluster.launch.following import Follower, follow
from thalweg_cluster.launch.journal import Ended
from thalweg_cluster.launch.preparation import Preparation
from thalweg_cluster.launch.ray_cluster import connect, ray_cluster, why_nobody_answers
from thalweg_cluster.launch.record import Record, read_record
from thalweg_cluster.reporting.closing import print_closing
from thalweg_cluster.reporting.files import RECORD, RunFolder, read_summary
from thalweg_cluster.reporting.summary import summarise
from thalweg_cluster.reporting.wording import warning
from thalweg_cluster.security.given import Given
from thalweg_cluster.server.spec import RunResult
from thalweg_proto.errors import InputError, Problem, RunError
from thalweg_proto.job import job_to_toml

EXIT_STATUS = {"succeeded": 0, "failed": 1, "cancelled": 130}
NAMESPACE = "thalweg"
"""In which coordinators have their names, on each Ray cluster."""
CALLS = 16
"""So many may ask a coordinator at the same time; others wait for their turn."""


def train(
    preparation: Preparation,
    out: Path,
    console: Console,
    *,
    address: str | None,
    given: Given,
    started_at: float,
    targets: Path | None = None,
) -> int:
    """Starts the run, follows it, and ends it where it is interrupted; returns the exit status.

    A process that dies costs the steps since the newest checkpoint: new ones go on from there, to the same bits, as
    often as the job allows. Where this one dies, the run goes on, unless the Ray cluster is our own.

    address:    of the Ray cluster; None for one of our own
    given:      to the doors
    started_at: when the command was given, in seconds since 1970
    targets:    the folder in which Prometheus looks for what to scrape; None: nobody is told

    Raises InputError where the Ray cluster does not take the job, RunError where it has no room now; nothing was
    started then.
    """
    first = preparation.first
    # In this order: Ray, when it connects, puts a handler of its own for SIGTERM.
    with ray_cluster(preparation.job.cluster, address) as doubt, interruptible():
        if doubt is not None:
            console.print(warning(doubt), highlight=False)
        folder = RunFolder(out, first, with_ledger=preparation.ledger is not None)
        folder.write_job(job_to_toml(preparation.job))
        folder.write_sources(preparation.sources)
        if first:
            console.print(f"going on after step {first:,} of {preparation.lengths.steps:,}", highlight=False)
        coordinator = _start(preparation, folder, given, started_at, targets)
        del preparation  # the coordinator has it: one copy of the data is enough
        record = read_record(out)
        follower = Follower(coordinator, record.address)
        try:
            return _to_its_end(follower, out, console)
        finally:
            if targets is not None:  # the coordinator removes its file, where it is not killed before that
                Announcement(targets, record.name).remove()


def _start(preparation: Preparation, folder: RunFolder, given: Given, started_at: float, targets: Path | None) -> Any:
    """The handle of a new coordinator of the run in `folder`, on this node."""
    context = ray.get_runtime_context()
    record = Record(
        address=context.gcs_address,
        namespace=NAMESPACE,
        name=f"{preparation.job.name}-{secrets.token_hex(8)}",
        started_at=started_at,
        first=preparation.first,
        generation=preparation.generation,
        ledger=preparation.ledger is not None,
    )
    record.write(folder.path)
    spec = CoordinatorSpec(
        folder=str(folder.path.absolute()),
        given=given,
        place_s=room.PLACE_S,
        faults=preparation.faults.plan,
        targets=str(targets or ""),
    )
    # Any: Ray's types do not know the methods of an actor handle made without its decorator.
    new_coordinator: Any = ray.remote(Coordinator)
    coordinator = new_coordinator.options(
        name=record.name,
        namespace=record.namespace,
        lifetime="detached",
        max_restarts=-1,
        max_concurrency=CALLS,
        num_cpus=0,
        # The folder, and the files that the job names, are here.
        scheduling_strategy=NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False),
    ).remote(spec)
    coordinator.begin.remote(preparation)
    return coordinator


def _to_its_end(follower: Follower, folder: Path, console: Console) -> int:
    """As the command of the run: what interrupts it ends the run, and nothing is left behind."""
    try:
        ended = follow(follower, console, stops=True)
    finally:
        follower.end()
    return _closed(ended, folder, console)


def _closed(ended: Ended | None, folder: Path, console: Console) -> int:
    """Says how a run ended; its exit status. ThalwegError where it came to nothing."""
    if ended is not None and ended.error is not None:
        raise ended.error
    # Another command that follows the run may have ended the coordinator before it told this one.
    summary = ended.summary if ended is not None else read_summary(folder)
    if summary is None:
        raise RunError(_not_alive(folder))
    print_closing(console, summary, str(folder))
    return EXIT_STATUS[summary["state"]]


def _not_alive(folder: Path) -> str:
    address = read_record(folder).address
    where = f"on the Ray cluster at {address}"
    if (why := why_nobody_answers(address)) is not None:
        where += f", whose control store (GCS) does not answer: {why}. With that Ray loses a cluster, and all on it"
    return (
        f"the run in {folder} has not ended, and nothing of it is alive {where}. To go on from its newest checkpoint, "
        f"on a cluster that is there: thalweg resume {folder}"
    )


@contextlib.contextmanager
def going_on(folder: Path) -> Iterator[Follower | None]:
    """Within the block this process is joined to the run in `folder`; None where nothing of it is alive.

    InputError where `folder` is not that of a run, or where its Ray cluster does not let us in.
    """
    record = read_record(folder)
    if why_nobody_answers(record.address) is not None:
        yield None
        return
    try:
        connect(record.address)
    except InputError as error:
        hint = f"where that cluster is gone, remove {folder / RECORD}"
        found = "; ".join(problem.found for problem in error.problems)
        raise InputError([Problem(str(folder / RECORD), "the Ray cluster of the run", found, hint)]) from None
    try:
        try:
            coordinator = ray.get_actor(record.name, namespace=record.namespace)
        except ValueError:
            yield None
            return
        with interruptible():
            yield Follower(coordinator, record.address)
    finally:
        ray.shutdown()


def watch(folder: Path, console: Console) -> int:
    """Shows the run in `folder` to its end, or how it has ended; its exit status. KeyboardInterrupt ends the watching.

    Raises InputError where there is none, RunError where nothing of it is alive and it has not ended.
    """
    ended: Ended | None = None
    if read_summary(folder) is None:
        with going_on(folder) as follower:
            if follower is not None:
                ended = follow(follower, console, stops=False)
    return _closed(ended, folder, console)


def taken_over(folder: Path, console: Console, overrides: bool) -> int | None:
    """Where the run in `folder` still goes on: follows it in place of the command that started it, and returns its exit
    status. None where it does not, or is not known to.

    overrides: whether the job was to be changed, which a run that goes on does not take: InputError
    """
    with going_on(folder) as follower:
        if follower is None:
            return None
        if overrides:
            hint = "stop it first: Ctrl-C in `thalweg train` or `thalweg resume`"
            raise InputError([Problem("--set", f"nothing, since the run in {folder} still goes on", "a change", hint)])
        console.print(f"the run in {folder} still goes on: following it", highlight=False, soft_wrap=True)
        return _to_its_end(follower, folder, console)


def finished(preparation: Preparation, out: Path, console: Console) -> bool:
    """Whether a checkpoint has nothing left to train. Then the final files are written, where the run that made the
    checkpoint did not get to it."""
    steps = preparation.lengths.steps
    if preparation.first < steps:
        return False
    folder, layout = RunFolder(out, preparation.first, replace=False), preparation.layout
    weights = preparation.start(1).parameters
    folder.write_weights(layout, weights)
    summary = read_summary(out)
    if summary is None or summary["state"] == "failed":
        folder.write_job(job_to_toml(preparation.job))
        result = RunResult.of_checkpoint(steps, layout.sha256(weights))
        folder.write_summary(
            summarise(
                result,
                None,
                parameters=layout.parameters,
                workers=preparation.job.cluster.most,
                servers=1,
                hosts=1,
                batch_size=preparation.lengths.batch_size,
                first=preparation.first,
                restarts={"worker": 0, "server": 0},
                started_at=time(),
                faults=preparation.faults.report(),
                devices=[],
            )
        )
    console.print(
        f"finished before: all {steps:,} steps were taken. To train on: thalweg resume {out} --set "
        f"train.steps={2 * steps}",
        highlight=False,
        soft_wrap=True,
    )
    return True


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
