"""`thalweg serve`: the table, the Ray cluster, the keeper and the doors, put together.

What is under the folder of the state:

    jobs.sqlite3    the table of jobs
    jobs/ID/        of each: submitted/ (what came), log.txt, and what a run writes
    incoming/       what arrives
    targets/        what there is to scrape of the jobs that run
    service.lock    who serves from it
    ray.token       of its own Ray cluster
    ca.pem          the authority of a certificate that was made for the service
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

from rich.console import Console

from thalweg_cluster.launch.announcing import VARIABLE
from thalweg_cluster.security.given import Given
from thalweg_cluster.security.guard import Guard, Tls, is_loopback
from thalweg_cluster.security.tokens import Tokens
from thalweg_cluster.service.checker import Checker
from thalweg_cluster.service.cluster import Cluster
from thalweg_cluster.service.door import JobDoor
from thalweg_cluster.service.keeper import Changes, Keeper
from thalweg_cluster.service.metrics import Calls
from thalweg_cluster.service.page.door import PageDoor
from thalweg_cluster.service.runner import Commands
from thalweg_cluster.service.table import JobTable
from thalweg_proto.errors import InputError, Problem, ServerError
from thalweg_proto.jobs import ADDRESS

TABLE, JOBS, INCOMING, TARGETS = "jobs.sqlite3", "jobs", "incoming", "targets"
LOCK, CA = "service.lock", "ca.pem"
RAY_TOKEN = "ray.token"


@dataclass(frozen=True, kw_only=True)
class ServeSpec:
    """
    host, port:  to listen on; port 0: a free one
    page:        host and port of the page; None: there is none
    state:       folder
    cpus:        of a Ray cluster of our own
    ray_address: of one that is there; None: one of our own
    files_max:   bytes that the files of a job may have
    """

    host: str
    port: int
    page: tuple[str, int] | None
    state: Path
    cpus: int
    ray_address: str | None
    files_max: int
    given: Given


def serve(spec: ServeSpec, environment: Mapping[str, str], console: Console) -> None:
    """Serves until SIGTERM or Ctrl-C. InputError where it cannot begin; nothing was started then.

    environment: of the jobs' commands
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    with ExitStack() as stack:
        state = spec.state.absolute()
        _claim(state, stack)
        table = JobTable(state / TABLE)
        stack.callback(table.close)
        _tidy(state, table)
        guards, ca = _guards(spec, state)
        changes, calls = Changes(), Calls()
        checker = Checker()
        stack.callback(checker.close)
        variables = {key: value for key, value in environment.items() if key != ADDRESS}
        variables[VARIABLE] = str(state / TARGETS)
        if spec.ray_address is None:
            variables |= _ray_token(state, environment)
        cluster = Cluster(spec.cpus, spec.ray_address, variables, changes.tell)
        stack.callback(cluster.close)
        commands = Commands(variables)
        keeper = Keeper(table, state / JOBS, commands, cluster, changes)
        door = _door(
            spec,
            table=table,
            keeper=keeper,
            checker=checker,
            cluster=cluster,
            changes=changes,
            calls=calls,
            guard=guards[spec.host],
            state=state,
        )
        page = None if spec.page is None else _page(spec.page, table, keeper, changes, calls, guards, state)
        # The ports are ours: what takes long, and what others see, begins now.
        stop = _stopped(stack)
        checker.start()
        cluster.open()
        stack.callback(keeper.close)
        keeper.open()
        stack.callback(door.close)
        door.open()
        if page is not None:
            stack.callback(page.close)
            page.open()
        _say(spec, door.port, page, state, ca, console)
        stop.wait()
        console.print("ending: the jobs that run " + _ends(cluster), highlight=False, soft_wrap=True)


def _door(
    spec: ServeSpec,
    *,
    table: JobTable,
    keeper: Keeper,
    checker: Checker,
    cluster: Cluster,
    changes: Changes,
    calls: Calls,
    guard: Guard,
    state: Path,
) -> JobDoor:
    try:
        return JobDoor(
            spec.host,
            spec.port,
            table=table,
            keeper=keeper,
            checks=checker,
            nodes=lambda: cluster.nodes,
            incoming=state / INCOMING,
            files_max=spec.files_max,
            changes=changes,
            calls=calls,
            guard=guard,
        )
    except ServerError as error:
        raise _not_allowed("--address", error) from None
    except RuntimeError as error:
        found = f"{spec.host}:{spec.port}: {_why_not_bound(spec.host, spec.port) or error}"
        raise InputError([Problem("--address", "an address that is free on this machine", found)]) from None


def _page(
    at: tuple[str, int],
    table: JobTable,
    keeper: Keeper,
    changes: Changes,
    calls: Calls,
    guards: Mapping[str, Guard],
    state: Path,
) -> PageDoor:
    host, port = at
    try:
        return PageDoor(
            host,
            port,
            names=_names(host),
            table=table,
            keeper=keeper,
            changes=changes,
            targets=state / TARGETS,
            calls=calls,
            guard=guards[host],
        )
    except ServerError as error:
        raise _not_allowed("--page", error) from None
    except OSError as error:
        found = f"{host}:{port}: {error.strerror or error}"
        hint = "--page 127.0.0.1:0 takes a free port; --page off leaves the page out"
        raise InputError([Problem("--page", "an address that is free on this machine", found, hint)]) from None


def _not_allowed(option: str, error: ServerError) -> InputError:
    hint = "give tokens in the environment (README, Doors), or listen on 127.0.0.1"
    return InputError([Problem(option, "one that may be listened on", str(error), hint)])


def _why_not_bound(host: str, port: int) -> str | None:
    """gRPC only says that it could not."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        return error.strerror
    return None


def _claim(state: Path, stack: ExitStack) -> None:
    """Makes the folder, and keeps other services off it. InputError where that cannot be."""
    try:
        (state / JOBS).mkdir(parents=True, exist_ok=True)
        lock = os.open(state / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        found = f"{state}: {error.strerror}"
        raise InputError([Problem("--state", "a folder that can be written", found)]) from None
    stack.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found = f"{state}, which another service uses (process {os.read(lock, 20).decode() or 'unknown'})"
        raise InputError([Problem("--state", "a folder of its own", found)]) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _tidy(state: Path, table: JobTable) -> None:
    """Removes what a service left that was killed between two steps: what belongs to no job."""
    shutil.rmtree(state / INCOMING, ignore_errors=True)
    known = {str(job_id) for job_id in table.ids()}
    for folder in (state / JOBS).iterdir():
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)


def _guards(spec: ServeSpec, state: Path) -> tuple[dict[str, Guard], Path | None]:
    """What the doors ask for, by the host that they listen on, and the authority that clients have to trust; None: they
    know it, or there is none."""
    given = spec.given
    any_token = given.token is not None or given.read_token is not None
    tokens = Tokens.of(full=given.token, read=given.read_token) if any_token else None
    guard = Guard(tokens=tokens, tls=given.tls, insecure=given.insecure)
    hosts = [spec.host] if spec.page is None else [spec.host, spec.page[0]]
    beyond = [host for host in hosts if not is_loopback(host)]
    if given.tls is not None or given.insecure or tokens is None or not beyond:
        return dict.fromkeys(hosts, guard), None
    own = replace(guard, tls=_own_tls(beyond, state))
    return {host: own if host in beyond else guard for host in hosts}, state / CA


def _own_tls(hosts: Sequence[str], state: Path) -> Tls:
    """A certificate for the service, made once: its clients go on trusting it when it is started again."""
    from thalweg_cluster.security.certificates import make_certificates, why_no_certificate, why_no_key

    certificate, key, ca = (state / name for name in ("certificate.pem", "key.pem", CA))
    names = state / "certificate.names"
    wanted = " ".join(sorted({name for host in hosts for name in _names(host)}))
    if all(path.is_file() for path in (certificate, key, ca, names)) and names.read_text() == wanted:
        tls = Tls(certificate=certificate.read_bytes(), key=key.read_bytes())
        if why_no_certificate(tls.certificate) is None and why_no_key(tls.key, tls.certificate) is None:
            return tls
    made = make_certificates(wanted.split())
    assert made.ca is not None  # it is made with one
    for path, data in ((certificate, made.certificate), (key, made.key), (ca, made.ca), (names, wanted.encode())):
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(data)
    ca.chmod(0o644)
    return replace(made, ca=None)


def _names(host: str) -> list[str]:
    """By which clients may call a service that listens on `host`."""
    bare = host.strip("[]")
    try:
        if not ip_address(bare).is_unspecified:
            return [bare]
    except ValueError:
        return [bare]
    name = socket.gethostname()
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(name, None)}
    except OSError:
        found = set()
    return sorted({"localhost", "127.0.0.1", name, socket.getfqdn(), *found})


def _ray_token(state: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What lets the commands of jobs into a Ray cluster of our own, and nobody else. Nothing where the environment says
    that Ray is to ask for none."""
    if environment.get("RAY_AUTH_MODE", "token") != "token":
        return {}
    path = state / RAY_TOKEN
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def _stopped(stack: ExitStack) -> threading.Event:
    """Is set by SIGTERM or Ctrl-C, until the stack ends."""
    stop = threading.Event()

    def ask(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        stack.callback(signal.signal, number, signal.signal(number, ask))
    return stop


def _say(spec: ServeSpec, port: int, page: PageDoor | None, state: Path, ca: Path | None, console: Console) -> None:
    where = (
        f"the Ray cluster at {spec.ray_address}" if spec.ray_address else f"a Ray cluster of its own, {spec.cpus} CPUs"
    )
    lines = [
        f"state in {state}, {where}",
        *([f"clients trust {ca}: THALWEG_CA_FILE={ca}"] if ca is not None else []),
        *([f"page at {page.url}, what there is to scrape at {page.url}targets"] if page is not None else []),
        f"jobs at {spec.host}:{port} (gRPC): thalweg submit JOB.toml --address {spec.host}:{port}",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _ends(cluster: Cluster) -> str:
    if cluster.own:
        return "end with a checkpoint, and go on from it when the service is there again"
    return "go on without the service"
