"""The command `thalweg`.

Exit status: 0 succeeded; 2 the user's input is wrong, nothing was started; 1 the run failed; 130 interrupted.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from thalweg_cluster.commands.jobs import Address, cancel, job_meant, jobs, logs, resume_job, submit, watch_job
from thalweg_cluster.commands.mistakes import EXIT_INTERRUPTED, reported
from thalweg_cluster.commands.serve import serve
from thalweg_cluster.commands.weights import evaluate, export
from thalweg_proto.errors import InputError, Problem, attempt

if TYPE_CHECKING:
    from thalweg_cluster.security.given import Given
    from thalweg_proto.faults import Plan

STARTED_AT = time()
"""When the command was given, in seconds since 1970: what is imported later is part of the start-up."""

Insecure = Annotated[
    bool, typer.Option("--insecure", help="No TLS between the hosts of a run; tokens are asked for all the same.")
]

WithLedger = Annotated[
    bool, typer.Option("--ledger", help="Write down which samples go into which step, in DIR/ledger.")
]

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the job file, e.g. train.steps=100. May be given several times.",
    ),
]

Faults = Annotated[
    Path | None,
    typer.Option("--faults", metavar="PLAN.toml", help="Let what this file says go wrong.", show_default=False),
]

app = typer.Typer(
    name="thalweg",
    help="Distributed data-parallel SGD: exact for any number of workers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


def where() -> tuple[str | None, int | None]:
    """The address of the Ray cluster; or, where it will be one of our own, None and the cores of this machine."""
    address = os.environ.get("RAY_ADDRESS") or None
    return address, len(os.sched_getaffinity(0)) if address is None else None


def to_doors(*, insecure: bool) -> tuple[Given, list[Problem]]:
    """What the environment gives to the doors, and what is wrong with it."""
    from thalweg_cluster.security.given import Given, read_given

    problems: list[Problem] = []
    return attempt(problems, lambda: read_given(os.environ, insecure=insecure)) or Given(), problems


def targets() -> Path:
    """Where the runs of this user write what there is to scrape."""
    from thalweg_cluster.launch.announcing import targets_folder

    return targets_folder(os.environ)


def to_faults(file: Path | None, problems: list[Problem]) -> Plan:
    """The plan of what shall go wrong; its mistakes are added to `problems`."""
    from thalweg_proto.faults import Plan, load_plan

    return (attempt(problems, lambda: load_plan(file)) if file is not None else None) or Plan()


@app.callback()
def thalweg() -> None:
    """Distributed data-parallel SGD: exact for any number of workers."""


@app.command()
def train(
    job: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.", show_default=False)],
    set_: Set = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for summary.json, metrics.jsonl, job.toml and weights.safetensors. "
            "Default: runs/NAME/DATE-TIME.",
            show_default=False,
        ),
    ] = None,
    insecure: Insecure = False,
    ledger: WithLedger = False,
    faults: Faults = None,
) -> None:
    """Run one job here, or on the Ray cluster of RAY_ADDRESS."""
    from thalweg_proto.job import load_job

    with reported():
        draft = load_job(job, set_ or [])
        # After each step what takes longer to import: what cannot be read at all is answered without NumPy, and a
        # mistake without Ray.
        from thalweg_cluster.launch.preparation import prepare

        address, cores = where()
        name = draft.job.name if draft.right("name") else ""
        folder = out or Path("runs", name, datetime.now().strftime("%Y%m%d-%H%M%S"))
        given, problems = to_doors(insecure=insecure)
        plan = to_faults(faults, problems)
        preparation = prepare(draft, folder, cores, problems, with_ledger=ledger, faults=plan)
        from thalweg_cluster.launch.train import train as run

        status = run(
            preparation, folder, Console(), address=address, given=given, started_at=STARTED_AT, targets=targets()
        )
        raise typer.Exit(status)


@app.command()
def resume(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|JOB",
            help="The folder of a run, with its checkpoints; or the number of a job of the service.",
            show_default=False,
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key of the job, e.g. train.steps=1000 or cluster.workers=4. May be given several times.",
        ),
    ] = None,
    insecure: Insecure = False,
    ledger: WithLedger = False,
    faults: Faults = None,
    address: Address = None,
) -> None:
    """Go on from the newest whole checkpoint of DIR, to the same bits as if the run had never ended. A JOB of the
    service, which was cancelled or has failed, waits in its queue again."""
    with reported():
        console = Console()
        if (job := job_meant(folder, address)) is not None:
            resume_job(job, console, changed=bool(set_ or ledger or faults))
            return
        from thalweg_cluster.reporting.files import may_go_on

        if may_go_on(folder):
            from thalweg_cluster.launch.train import taken_over

            if (status := taken_over(folder, console, overrides=bool(set_))) is not None:
                raise typer.Exit(status)
        from thalweg_cluster.launch.resuming import find

        found = find(folder)
        from thalweg_cluster.launch.preparation import prepare

        draft = found.draft(set_ or [])
        address, cores = where()
        given, problems = to_doors(insecure=insecure)
        plan = to_faults(faults, problems)
        preparation = prepare(
            draft, folder, cores, problems, checkpoint=found.checkpoint, with_ledger=ledger, faults=plan
        )
        from thalweg_cluster.launch.train import finished, train
        from thalweg_cluster.reporting.wording import warning

        for reason in found.refused:
            console.print(warning(f"not used: {reason}"), highlight=False, soft_wrap=True)
        if finished(preparation, folder, console):
            return
        status = train(
            preparation, folder, console, address=address, given=given, started_at=STARTED_AT, targets=targets()
        )
        raise typer.Exit(status)


@app.command()
def watch(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|JOB", help="The folder of a run; or the number of a job of the service.", show_default=False
        ),
    ],
    address: Address = None,
) -> None:
    """Show a run that goes on, whoever started it, to its end; or how it ended. Exits with its exit status."""
    with reported():
        console = Console()
        job = job_meant(folder, address)
        try:
            if job is not None:
                status = watch_job(job, console)
            else:
                from thalweg_cluster.launch.train import watch as follow

                status = follow(folder, console)
        except KeyboardInterrupt:
            what = f"the run in {folder}" if job is None else f"job {folder}"
            console.print(f"no longer watching; {what} goes on", highlight=False, soft_wrap=True)
            status = EXIT_INTERRUPTED
        raise typer.Exit(status)


for command in (serve, submit, jobs, cancel, logs):
    app.command()(command)


app.command()(export)
app.command("eval")(evaluate)


@app.command()
def scale(
    job: Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.", show_default=False)],
    workers: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of workers.")] = "1,2,4",
    modes: Annotated[
        str | None,
        typer.Option(metavar="MODE,...", help="Of sync, ssp, async. Default: the job's.", show_default=False),
    ] = None,
    wires: Annotated[
        str | None,
        typer.Option(
            metavar="WIRE,...", help="Of float32, bfloat16, int8, topk. Default: the job's.", show_default=False
        ),
    ] = None,
    hosts: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Over how many hosts workers are spread. Default: as Ray likes.", show_default=False
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each configuration runs, in shuffled order.")] = 3,
    weak: Annotated[
        bool,
        typer.Option(
            "--weak/--strong", help="The job's batch is that of one worker, and grows with them; or of all together."
        ),
    ] = False,
    target_loss: Annotated[
        float | None,
        typer.Option(
            metavar="LOSS", help="Tell after which time and how many samples it is reached.", show_default=False
        ),
    ] = None,
    emulate_compute: Annotated[
        str | None,
        typer.Option(
            metavar="20ms",
            help="Microbatches take this long and compute nothing: the system alone, with more workers than cores.",
            show_default=False,
        ),
    ] = None,
    set_: Set = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for runs and results. Default: runs/scale/NAME. To go on, the same again.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure how a job scales: samples/s, speed-up, efficiency, and where they are lost."""
    from thalweg_proto.job import load_job

    with reported():
        draft = load_job(job, set_ or [])
        from thalweg_cluster.experiments.grid import asked

        experiment = asked(
            draft.job,
            workers=workers,
            modes=modes,
            wires=wires,
            hosts=hosts,
            repeats=repeats,
            weak=weak,
            target_loss=target_loss,
            emulate_compute=emulate_compute,
        )
        from thalweg_cluster.experiments.scale import scale as run

        address, _ = where()
        folder = out or Path("runs", "scale", draft.job.name if draft.right("name") else "")
        raise typer.Exit(run(draft, experiment, folder, Console(), address=address))


@app.command()
def ledger(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a run that had --ledger.", show_default=False)
    ],
) -> None:
    """Show whether each sample went into the steps of a run exactly once an epoch. Exit status 1 where not."""
    with reported():
        from thalweg_cluster.ledger import read_ledger
        from thalweg_cluster.reporting.closing import print_account
        from thalweg_cluster.reporting.files import steps_published
        from thalweg_proto.ledger import FOLDER

        account = read_ledger(folder / FOLDER, steps_published(folder)).account()
        print_account(Console(), account)
        raise typer.Exit(1 if account.findings else 0)


@app.command()
def monitor(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write the files.", show_default=False)],
    watched: Annotated[
        Path | None,
        typer.Option(
            "--targets",
            metavar="FOLDER",
            help="Where runs say what there is to scrape. Default: THALWEG_TARGETS, or a folder of your own; `thalweg "
            "train` has the same.",
            show_default=False,
        ),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where a service lists what there is to scrape, as it says at its start: "
            "http://127.0.0.1:8701/targets.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        int, typer.Option(min=1, max=300, metavar="SECONDS", help="Between two scrapes; windows of rules grow with it.")
    ] = 5,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where Prometheus will listen.")] = "127.0.0.1:9090",
) -> None:
    """Write what Prometheus and Grafana need to watch runs: configuration, rules, alerts, dashboards."""
    with reported():
        from thalweg_cluster.commands.monitor import service_of
        from thalweg_cluster.monitoring.files import commands, monitoring_files, write
        from thalweg_cluster.monitoring.rules import Timing

        asked = None if service is None else service_of(service, os.environ)
        whole, scraped = folder.absolute(), (watched or targets()).absolute()
        files = monitoring_files(
            str(scraped),
            str(whole),
            timing=Timing(scrape_s=interval),
            service=asked,
            address=address,
        )
        try:
            write(whole, files)
            # Prometheus hears at once of what comes into a folder that is there.
            scraped.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError([Problem("DIR", "a folder that can be written", str(error))]) from None
        console = Console(highlight=False, soft_wrap=True, markup=False)
        prometheus, grafana = commands(whole, address)
        console.print(f"{len(files)} files written to {folder}; METRICS.md says what each metric means\n")
        console.print(f"{prometheus}\n\n{grafana}")


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
