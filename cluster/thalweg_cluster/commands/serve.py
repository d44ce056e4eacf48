"""`thalweg serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from thalweg_cluster.commands.mistakes import reported
from thalweg_proto.errors import InputError, Problem, attempt

MIB = 1 << 20
FILES_MAX_MIB = 256
PORT_MAX = (1 << 16) - 1


def serve(
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients reach it. Port 0: a free one, printed.")
    ] = "127.0.0.1:8700",
    page: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where browsers reach its page; off: there is none. Default: 127.0.0.1, the port after that of "
            "--address.",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the table of jobs, and what their runs write.")
    ] = Path("thalweg-state"),
    cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="CPUs of the Ray cluster that is started on this machine, one for each worker that runs. "
            "Default: as many as it has.",
            show_default=False,
        ),
    ] = None,
    files_max: Annotated[
        int, typer.Option(min=0, metavar="MIB", help="How large the files of a job may be in all, in MiB.")
    ] = FILES_MAX_MIB,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS beyond loopback; a token is asked for all the same.")
    ] = False,
) -> None:
    """Run jobs for clients, on a Ray cluster of its own or that of RAY_ADDRESS, until SIGTERM or Ctrl-C."""
    with reported():
        from thalweg_cluster.security.given import Given, read_given

        problems: list[Problem] = []
        host, port = attempt(problems, lambda: parsed("--address", address)) or ("", 0)
        where = attempt(problems, lambda: page_address(page, port))
        given = attempt(problems, lambda: read_given(os.environ, insecure=insecure)) or Given()
        ray_address = os.environ.get("RAY_ADDRESS") or None
        if ray_address is not None and cpus is not None:
            problems.append(Problem("--cpus", "nothing, since RAY_ADDRESS names a Ray cluster", str(cpus)))
        if problems:
            raise InputError(problems)
        from thalweg_cluster.service.serve import ServeSpec
        from thalweg_cluster.service.serve import serve as run

        spec = ServeSpec(
            host=host,
            port=port,
            page=where,
            state=state,
            cpus=cpus or len(os.sched_getaffinity(0)),
            ray_address=ray_address,
            files_max=files_max * MIB,
            given=given,
        )
        run(spec, os.environ, Console())


def page_address(given: str | None, port: int) -> tuple[str, int] | None:
    """Host and port of the page of a service whose clients reach it at `port`; None: there is none. `given`: None where
    nothing is said. InputError where it is no address."""
    if given is None:
        return "127.0.0.1", port + 1 if 0 < port < PORT_MAX else 0
    return None if given == "off" else parsed("--page", given)


def parsed(option: str, address: str) -> tuple[str, int]:
    """Host and port. InputError where `address`, the value of `option`, is not both."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise InputError([Problem(option, "HOST:PORT, as in 127.0.0.1:8700", repr(address))])
    return host, int(port)
