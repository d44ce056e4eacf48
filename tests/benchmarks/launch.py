"""Runs what is measured, each in processes of its own, and reads its figures.

Every run is one process group with a bound on its time. Whatever ends a run early (time out, Ctrl-C), the group is
interrupted, given time to clean up, and then killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

REPOSITORY = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 900.0
CLEAN_UP_TIMEOUT_S = 20.0
ERROR_LINES_MAX = 40

# One thread a worker for every BLAS and OpenMP in play, and no reports to Ray's makers.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class BenchError(Exception):
    """A run failed, took too long or measured something else than it was asked to."""


@contextmanager
def process(command: Sequence[str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, which is gone at the end of the block."""
    # A RAY_ADDRESS would take the run to another machine than the rivals'.
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    child = subprocess.Popen(
        command,
        cwd=cwd,
        env=inherited | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=CLEAN_UP_TIMEOUT_S)
        with suppress(ProcessLookupError):  # also what a failed run left behind
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def finished(child: subprocess.Popen[str], timeout_s: float = RUN_TIMEOUT_S) -> str:
    """Wait for the end of `child`; its standard output.

    Raises BenchError with the end of its output where it fails or takes longer than `timeout_s`.
    """
    command = " ".join(str(part) for part in child.args) if isinstance(child.args, list) else str(child.args)
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise BenchError(f"still running after {timeout_s:.0f} s: {command}") from None
    if child.returncode != 0:
        tail = "\n".join((out + err).splitlines()[-ERROR_LINES_MAX:])
        raise BenchError(f"exit status {child.returncode}: {command}\n{tail}")
    return out


def rival_command(module: str, options: Mapping[str, object]) -> list[str]:
    """The command of `rivals/<module>.py`; the options are the fields of `Task`."""
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", f"tests.benchmarks.rivals.{module}", *flags]


def rival_figures(out: str) -> dict[str, Any]:
    """The figures of the JSON line that a rival wrote last."""
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def run_rival(module: str, options: Mapping[str, object]) -> dict[str, Any]:
    """Run a rival; its figures."""
    [figures] = run_at_once(module, options, 1)
    return figures


def run_at_once(module: str, options: Mapping[str, object], copies: int) -> list[dict[str, Any]]:
    """Run so many of a rival at once, that know nothing of each other; their figures."""
    with ExitStack() as stack:
        children = [stack.enter_context(process(rival_command(module, options), cwd=REPOSITORY)) for _ in range(copies)]
        return [rival_figures(finished(child)) for child in children]


def write_job(job: Mapping[str, object], path: Path) -> Path:
    """Write the job file; its path."""
    path.write_text(tomli_w.dumps(job))
    return path


def thalweg_command(job_path: Path, out: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "thalweg_cluster.cli", "train", str(job_path), "--out", str(out), *flags]


def read_summary(out: Path, **expected: object) -> dict[str, Any]:
    """summary.json of a run; BenchError where the run did not succeed or one of its fields is not as expected."""
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    for name, value in {"state": "succeeded", **expected}.items():
        if summary[name] != value:
            raise BenchError(f"{out}/summary.json: {name}: expected {value}; found {summary[name]}")
    return summary


def train(
    job: Mapping[str, object],
    folder: Path,
    *flags: str,
    start: Callable[[Sequence[str], Path], AbstractContextManager[subprocess.Popen[str]]] = process,
    **expected: object,
) -> dict[str, Any]:
    """Run `thalweg train` on a job file in `folder`; its summary. What it wrote is removed.

    flags:    more of the command's
    start:    runs a command in a folder until the end of its block
    expected: fields of the summary with the values they must have
    """
    out = folder / "out"
    with start(thalweg_command(write_job(job, folder / "job.toml"), out, *flags), folder) as child:
        finished(child)
    try:
        return read_summary(out, **expected)
    finally:
        shutil.rmtree(out, ignore_errors=True)
