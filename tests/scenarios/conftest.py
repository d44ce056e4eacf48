"""Scenarios run the command as a person would type it, as a subprocess, on real Ray."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.hosts.ray_hosts import GIVE_WAY_TO_NOBODY

from thalweg_cluster.reporting.files import may_go_on

REPOSITORY = Path(__file__).parents[2]
# Where tests run in the background of a script, SIGINT is ignored, and so it would be in what they start.
THALWEG = ["env", "--default-signal=INT", sys.executable, "-m", "thalweg_cluster.cli"]
CPUS = 4
GPUS = 2  # said to be there, so that GPUs are given away on machines without any

DIGITS = """
name = "digits"
[data]
train = "digits"
[model]
use = "mlp"
hidden = [32]
[train]
steps = 60
batch_size = 64
eval_every = 30
[optimizer]
rule = "momentum"
learning_rate = 0.05
"""
STEPS = 4000
TARGETS = str(Path(tempfile.gettempdir(), "thalweg-test-targets"))
"""Where runs say what there is to scrape, instead of in the home directory."""
LONG = (f"train.steps={STEPS}", "train.eval_every=400", "checkpoint.every_steps=400")
"""Long enough for something to happen on the way."""
END = """
import pathlib, sys
from thalweg_cluster.launch.train import going_on
with going_on(pathlib.Path(sys.argv[1])) as follower:
    if follower is not None:
        follower.end()
"""


@dataclass(frozen=True)
class Finished:
    """A command that has ended, and what it left."""

    status: int
    output: str
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A Ray cluster of 4 CPUs, and 2 GPUs as it believes, that is there already, with token authentication as
    `ray start` turns it on."""
    with ray_head(free_port()) as head:
        yield head.address


def free_port() -> int:
    """A port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def ray_head(port: int, dashboard_port: int | None = None) -> Iterator[Any]:
    """`ray start --head` at a port, once it is there: a process with an `address`. With a port for it, it has a
    dashboard, which takes jobs."""
    with contextlib.ExitStack() as stack:
        # Short: Ray's sockets lie in it, and their paths have at most 107 bytes.
        folder = tempfile.mkdtemp(prefix="thw")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1",
            f"--port={port}", f"--num-cpus={CPUS}", f"--num-gpus={GPUS}", f"--temp-dir={folder}",
            "--disable-usage-stats", "--no-monitor",
            "--include-log-monitor=false", f"--include-dashboard={str(dashboard_port is not None).lower()}",
            # Each head's agent listens, too, and the port that it takes by default is another one's.
            f"--dashboard-agent-listen-port={free_port()}",
            *([] if dashboard_port is None else ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]),
        ]  # fmt: skip
        variables = environment(**GIVE_WAY_TO_NOBODY)
        head: Any = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
        )
        stack.callback(head.wait)
        stack.callback(head.terminate)
        lines = []
        for line in head.stdout:  # ends when the head dies
            lines.append(line)
            if "--block" in line or "Ray runtime started" in line:
                break
        assert head.poll() is None, "".join(lines)
        head.address = f"127.0.0.1:{port}"
        yield head
        head.stdout.close()


def environment(**more: str) -> dict[str, str]:
    """This process's environment without a cluster of its caller's, and `more`."""
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return own | {"RAY_AUTH_MODE": "token", "THALWEG_TARGETS": TARGETS} | more


def arguments(words: tuple[str, ...]) -> list[str]:
    """Options as they are, and `--set` before each key of the job."""
    return [part for word in words for part in ([word] if word.startswith("-") else ["--set", word])]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job file: a small network on digits."""
    file = tmp_path / "digits.toml"
    file.write_text(DIGITS)
    return file


@pytest.fixture
def train(ray_address: str, job: Path, tmp_path: Path) -> Callable[..., Finished]:
    """`train("train.steps=5", "--ledger", file=...)` runs the job on the cluster that is there, to its end."""

    def run(*overrides: str, file: Path = job, out: str = "out", cwd: Path | None = None) -> Finished:
        folder = tmp_path / out
        sets = arguments(overrides)
        done = subprocess.run(
            [*THALWEG, "train", str(file), *sets, "--out", str(folder)],
            env=environment(RAY_ADDRESS=ray_address),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout, folder)

    return run


@pytest.fixture
def resume(ray_address: str) -> Callable[..., Finished]:
    """`resume(folder, "cluster.workers=3")` goes on from the newest checkpoint in it, to the end."""

    def run(folder: Path, *overrides: str) -> Finished:
        sets = arguments(overrides)
        done = subprocess.run(
            [*THALWEG, "resume", str(folder), *sets],
            env=environment(RAY_ADDRESS=ray_address),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout, folder)

    return run


@pytest.fixture(scope="session")
def bits() -> dict[tuple[str, ...], str]:
    """What is known of undisturbed runs, for `undisturbed`."""
    return {}


@pytest.fixture
def undisturbed(train: Callable[..., Finished], bits: dict[tuple[str, ...], str]) -> Callable[..., str]:
    """`undisturbed("train.steps=500")` is the weights_sha256 of the job when nothing happens."""

    def run(*overrides: str) -> str:
        if overrides not in bits:
            bits[overrides] = train(*overrides, out="undisturbed").summary["weights_sha256"]
        return bits[overrides]

    return run


@pytest.fixture
def watch(ray_address: str) -> Callable[..., Finished]:
    """`watch(folder)` shows the run in it to its end."""

    def run(folder: Path) -> Finished:
        done = subprocess.run(
            [*THALWEG, "watch", str(folder)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout, folder)

    return run


@pytest.fixture
def started(ray_address: str, job: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`started("train.steps=500")` gives the command on the job, once it has said how far it is for the first time."""
    with ExitStack() as stack:
        folder = tmp_path / "out"

        def start(*overrides: str) -> Any:
            sets = arguments(overrides)
            command = spawn(stack, folder, "train", str(job), "--out", str(folder), *sets, RAY_ADDRESS=ray_address)
            until(command, "step ")
            return command

        yield start


def spawn(stack: ExitStack, folder: Path, *arguments: str, **variables: str) -> Any:
    """The command on the run in `folder`; when `stack` ends, so do the command and the run."""
    command: Any = subprocess.Popen(
        [*THALWEG, *arguments],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    command.folder, command.lines = folder, []

    def end() -> None:
        command.kill()
        command.wait()
        command.stdout.close()
        if may_go_on(folder):
            end_run(folder)

    stack.callback(end)
    return command


@pytest.fixture
def endless(started: Callable[..., Any]) -> Any:
    """The command on a job that does not end by itself, once it has told of a step."""
    return started("train.steps=10000000", "checkpoint.every_steps=20")


def end_run(folder: Path) -> None:
    """Ends the run in `folder`, whoever started it, and all that belongs to it."""
    subprocess.run([sys.executable, "-c", END, str(folder)], env=environment(), check=True)


def until(command: Any, begin: str) -> str:
    """Waits for the next line that the command prints and that begins so."""
    for line in command.stdout:
        command.lines.append(line)
        if line.startswith(begin):
            return str(line)
    raise AssertionError("".join(command.lines))


def actors(name: str) -> list[psutil.Process]:
    """The processes of Ray actors with this name, of the cluster that these tests started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{name}"):
                found.append(process)
    return found


def ended(command: Any) -> Finished:
    """Waits for the command; everything that it printed."""
    rest = command.stdout.read()
    command.wait()
    return Finished(command.returncode, "".join(command.lines) + rest, command.folder)
