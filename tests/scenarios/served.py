"""The service as a person would start it, and its clients as a person would type them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.scenarios.conftest import THALWEG, environment, until


class Served:
    """`thalweg serve`, and its clients."""

    def __init__(self, state: Path, stack: ExitStack, **variables: str) -> None:
        self.state, self.stack, self.variables = state, stack, variables
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.start()

    def start(self) -> None:
        command = [*THALWEG, "serve", "--address", self.address, "--state", str(self.state), "--page", "127.0.0.1:0"]
        if "RAY_ADDRESS" not in self.variables:
            command += ["--cpus", "2"]
        self.process: Any = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**self.variables)
        )
        self.process.lines = []
        self.stack.callback(self.end, self.process)
        until(self.process, "jobs at ")
        [self.page] = re.findall(r"^page at (\S+),", "".join(self.process.lines), flags=re.MULTILINE)

    def end(self, process: Any) -> None:
        """With all jobs; those on a cluster that is there have to be ended first."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            process.wait()
        process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def command(self, *words: str, status: int = 0, cwd: Path | None = None, **variables: str) -> str:
        """What `thalweg WORDS` prints; it ends with `status`."""
        done = subprocess.run(
            [*THALWEG, *words],
            env=environment(**{"THALWEG_ADDRESS": self.address, "COLUMNS": "200"} | self.variables | variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=cwd,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def watching(self, *words: str) -> Any:
        """`thalweg WORDS` that goes on."""
        process: Any = subprocess.Popen(
            [*THALWEG, *words],
            env=environment(THALWEG_ADDRESS=self.address, **self.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        process.lines = []
        self.stack.callback(process.stdout.close)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def job(self, job_id: str) -> dict[str, Any]:
        return next(job for job in json.loads(self.command("jobs", "--json")) if job["id"] == job_id)

    def summary(self, job_id: str) -> dict[str, Any]:
        return json.loads((self.state / "jobs" / job_id / "summary.json").read_text())
