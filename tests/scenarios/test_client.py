"""The README's client, in a process of its own, against a real run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scenarios.conftest import REPOSITORY, THALWEG, environment
from tests.scenarios.test_readme import BLOCKS

pytestmark = pytest.mark.slow

LINES_MAX = 40
ASYNC = ("train.consistency=async", "optimizer.learning_rate=0.001", "optimizer.momentum=0.0")
TENSORS = """\
hidden1.bias (32,)
hidden1.weight (64, 32)
output.bias (10,)
output.weight (32, 10)
"""


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """The README's block, as a file."""
    [shown] = [text for language, text in BLOCKS if language == "python" and "import grpc" in text]
    file = tmp_path / "client.py"
    file.write_text(shown)
    return file


@pytest.fixture
def endless(ray_address: str, job: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`endless("train.steps=5")` starts a job that does not end by itself; returns the address of its parameters.

    It ends well after the test: interrupted, with its results.
    """
    commands = []

    def start(*overrides: str) -> str:
        sets = [part for override in ("train.steps=10000000", *overrides) for part in ("--set", override)]
        command = subprocess.Popen(
            [*THALWEG, "train", str(job), *sets, "--out", str(tmp_path / "out")],
            env=environment(RAY_ADDRESS=ray_address), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        commands.append(command)
        address = ""
        for line in command.stdout:
            if line.startswith("parameters at "):
                address = line.split()[2]
            if line.startswith("step 30/"):
                break
        return address

    yield start
    [command] = commands
    command.send_signal(signal.SIGINT)
    output, _ = command.communicate()
    assert command.returncode == 130, output


def run(client: Path, address: str) -> str:
    """What the client prints."""
    done = subprocess.run(
        [sys.executable, str(client), address],
        env=environment(PYTHONPATH=str(REPOSITORY / "proto")),
        cwd=client.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_short_and_needs_only_grpcio_numpy_and_the_generated_modules(client):
    """In 40 lines."""
    text = client.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    modules = re.findall(r"^(?:import|from) (\S+)", text, flags=re.MULTILINE)
    assert [module for module in modules if module not in sys.stdlib_module_names] == [
        "grpc", "numpy", "thalweg_proto.v1", "thalweg_proto.v1.parameter_server_pb2_grpc",
    ]  # fmt: skip


def test_the_client_pulls_the_parameters_and_pushes_a_gradient(client, endless):
    """Of an async job: the shapes of its tensors, and the push is accepted, each time under a new name."""
    address = endless(*ASYNC)
    for _ in range(2):
        assert re.fullmatch(
            rf"version \d+ of digits-[0-9a-f]+, async\n{re.escape(TENSORS)}elements 0 to \d+: ACCEPTED\n",
            run(client, address),
        )


def test_a_sync_job_shows_its_parameters_and_takes_no_gradient(client, endless):
    """Also where all its workers are on one host."""
    assert re.fullmatch(
        rf"version \d+ of digits-[0-9a-f]+, sync\n{re.escape(TENSORS)}elements 0 to \d+: (DUPLICATE|LATE)\n",
        run(client, endless()),
    )
