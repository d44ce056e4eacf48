"""`thalweg submit | jobs | cancel | logs`, and what `watch` and `resume` do with a job of the service."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from thalweg_cluster.commands.mistakes import EXIT_INTERRUPTED, reported
from thalweg_cluster.commands.visible import visible, visible_pieces
from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.jobs import ADDRESS, LIST_DEFAULT, PRIORITY_MAX, State

if TYPE_CHECKING:
    from thalweg_cluster.client import Client, Job, MetricsRow

CA = "THALWEG_CA_FILE"
AWAY_S = 60.0
"""How long who watches waits for a service that is started again."""
LINE_EVERY_S = 2.0
"""Rows of metrics between evaluations are shown so far apart."""
EXIT_STATUS = {"succeeded": 0, "failed": 1, "cancelled": EXIT_INTERRUPTED}

Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help=f"Of the service that has the job. Default: that of {ADDRESS}.", show_default=False
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The number of a job.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client_for(address: str | None) -> Client:
    """Of the service at `address`, or of the environment. InputError with all that is wrong with these."""
    from thalweg_cluster.client import Client
    from thalweg_cluster.security.given import Given, read_given

    problems: list[Problem] = []
    given = attempt(problems, lambda: read_given(os.environ, insecure=False)) or Given()
    where = address or os.environ.get(ADDRESS, "")
    if not where:
        hint = "where a service listens; to start one: thalweg serve"
        problems.append(Problem("--address", f"HOST:PORT, here or in {ADDRESS}", "nothing", hint))
    ca = None
    if path := os.environ.get(CA):
        try:
            ca = Path(path).read_bytes()
        except OSError as error:
            problems.append(Problem(CA, "a file that can be read", f"{path!r}: {error.strerror}"))
    if problems:
        raise InputError(problems)
    tls = given.tls
    return Client(
        where,
        token=given.token or given.read_token,
        ca=ca,
        certificate=tls.certificate if tls is not None else None,
        key=tls.key if tls is not None else None,
        insecure=bool(os.environ.get("THALWEG_INSECURE")),
    )


def job_meant(word: Path, address: str | None) -> tuple[str, str | None] | None:
    """The job and the address that are meant, where `word` is no folder; None: it is one, or is to be."""
    text = str(word)
    if address is None and (word.exists() or not text.isdigit()):
        return None
    return text, address


def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the job file, e.g. train.steps=100. May be given several times.",
        ),
    ] = None,
    priority: Annotated[
        int, typer.Option(min=-PRIORITY_MAX, max=PRIORITY_MAX, help="Jobs with a higher one start first.")
    ] = 0,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="8 to 64 letters, digits or -: the same one makes one job, however often it is submitted. "
            "Default: a new one.",
            show_default=False,
        ),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Ship no files: the service sees them under the same paths.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the job to its end, and exit with its exit status.")
    ] = False,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Hand a job over to the service; it starts when there is room.

    What the job names goes with it: data, a folder of .parquet files, first weights, a model or data set of your own
    and what that imports from beside it; 256 MiB in all, unless the service was started with another --files-max.
    """
    with reported(), client_for(address) as client:
        taken = client.submit(job, set_ or [], priority=priority, request_id=request_id, in_place=in_place)
        if as_json:
            print(json.dumps(dataclasses.asdict(taken)))
        else:
            print(f"job {taken.id} ({taken.name}): {taken.state}. To see it: thalweg watch {taken.id}", flush=True)
        if watch:
            raise typer.Exit(_watched(client, taken.id, Console()))


def jobs(
    limit: Annotated[int, typer.Option(min=1, help="So many jobs at most, the newest.")] = LIST_DEFAULT,
    state: Annotated[
        State | None, typer.Option(help="Only jobs in this state. Default: all.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Show the jobs of the service, the newest first: state, step, loss, speed, and cost in worker-seconds."""
    with reported(), client_for(address) as client:
        found = client.jobs(limit=limit, state=state.value if state is not None else None)
        if as_json:
            print(json.dumps([dataclasses.asdict(job) for job in found], indent=2))
            return
        from thalweg_cluster.commands.tables import print_jobs

        print_jobs(Console(), found, time())


def cancel(job: JobId, address: Address = None) -> None:
    """End a job: one that waits at once, one that runs with a checkpoint. `thalweg resume JOB` lets it go on."""
    with reported(), client_for(address) as client:
        print(f"job {job}: {client.cancel(job).state}")


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    address: Address = None,
) -> None:
    """Show what the command of a job has printed. On a terminal, control characters of it are shown, and do nothing."""
    with reported(), client_for(address) as client:
        client.get(job)  # what is wrong is told at once
        client.patience_s = AWAY_S
        try:
            for data in _shown(client.logs(job, follow=follow)):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None


def _shown(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A log as it is; on a terminal, nothing but text."""
    if not sys.stdout.isatty():
        return pieces
    return (piece.encode(sys.stdout.encoding, "backslashreplace") for piece in visible_pieces(pieces))


def watch_job(job: tuple[str, str | None], console: Console) -> int:
    """Shows a job to its end; its exit status. KeyboardInterrupt ends the watching."""
    job_id, address = job
    with client_for(address) as client:
        return _watched(client, job_id, console)


def resume_job(job: tuple[str, str | None], console: Console, *, changed: bool) -> None:
    """Lets a job of the service go on; `changed`: it was to be another one, which it cannot be: InputError."""
    job_id, address = job
    if changed:
        hint = "submit another job, with model.init = the weights of this one"
        raise InputError([Problem("resume", f"nothing but the number, for job {job_id}", "other options", hint)])
    with client_for(address) as client:
        taken = client.resume(job_id)
        console.print(f"job {taken.id}: {taken.state}. To see it: thalweg watch {taken.id}", highlight=False)


def _watched(client: Client, job_id: str, console: Console) -> int:
    from thalweg_cluster.client import Job

    client.get(job_id)  # what is wrong is told at once
    client.patience_s = AWAY_S
    status, last = 1, 0.0
    for news in client.watch(job_id):
        if isinstance(news, Job):
            line = _line(news)
            status = EXIT_STATUS.get(news.state, 1)
        elif news.eval_loss is None and monotonic() - last < LINE_EVERY_S:
            continue
        else:
            line, last = _row(news), monotonic()
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return status


def _line(job: Job) -> str:
    """e.g. "job 3 (digits): queued, needs 4 CPUs, 2 free"."""
    text = f"job {job.id} ({job.name}): {job.state}"
    if job.why:
        text += f", {job.why}"
    if job.started_s is not None and job.state == State.RUNNING.value:
        text += f" since {datetime.fromtimestamp(job.started_s):%H:%M:%S}, attempt {job.attempts}"
    if job.ended:
        text += f", {job.worker_seconds:,.0f} worker-seconds, in {job.folder} of the service's machine"
    return f"{text}\n{visible(job.error)}" if job.error else text


def _row(row: MetricsRow) -> str:
    parts = [f"step {row.step:,}"]
    if row.train_loss is not None:
        parts.append(f"loss {row.train_loss:.4f}")
    if row.samples_per_s:
        parts.append(f"{row.samples_per_s:,.0f} samples/s")
    if row.eval_loss is not None:
        accuracy = "" if row.eval_accuracy is None else f", accuracy {100 * row.eval_accuracy:.2f} %"
        parts.append(f"held-out loss {row.eval_loss:.4f}{accuracy}")
    return "  ".join(parts)
