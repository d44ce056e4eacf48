"""A machine without room in /dev/shm, or with a folder that nobody may write to, not even root: by mounts that only the
command sees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.hosts.needs import needs_hosts

pytestmark = needs_hosts  # a namespace of mounts needs the same rights

TIMEOUT_S = 60.0
JOB = """
[data]
train = "digits"
[model]
use = "mlp"
hidden = [512, 512]
[train]
steps = 3
"""
MIB = 1 << 20


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A shell script in which `"$@"` is the command on the job, in a namespace of mounts of its own."""
    (folder / "job.toml").write_text(JOB)
    command = [sys.executable, "-m", "thalweg_cluster.cli", "train", "job.toml", "--out", "out"]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "COLUMNS": "400"},
        check=False,
    )


def refused(folder: Path, mount: str) -> str:
    """What the command says, with exit status 2, where `mount` was done before; nothing is left of it."""
    done = run(folder, f'{mount}; exec "$@"')
    assert done.returncode == 2, done.stdout + done.stderr
    assert not list((folder / "out").glob("*"))
    return done.stdout + done.stderr


@pytest.mark.faults("/dev/shm too full at start", how="tmpfs of 2 MiB", expected="refused, bytes needed and free")
def test_a_model_that_does_not_fit_into_shared_memory_is_refused(tmp_path):
    """Both numbers are named, and nothing is started."""
    said = refused(tmp_path, f"mount -t tmpfs -o size={2 * MIB} tmpfs /dev/shm")
    assert "1 mistake; nothing was started" in said
    [(free, needed)] = re.findall(
        r"model: expected buffers that fit into /dev/shm: ([\d,]+) bytes are free there; found ([\d,]+) bytes needed",
        said,
    )
    assert int(free.replace(",", "")) == 2 * MIB < int(needed.replace(",", ""))


@pytest.mark.faults("folder on a read-only file system", how="read-only tmpfs", expected="refused, nothing started")
def test_a_folder_that_nobody_may_write_to_is_refused(tmp_path):
    """Before anything starts; root may write anywhere but there."""
    (tmp_path / "out").mkdir()
    said = refused(tmp_path, f"mount -t tmpfs -o ro tmpfs {tmp_path / 'out'}")
    assert f"--out: expected a folder that can be written; found {tmp_path / 'out'}" in said
    assert "1 mistake; nothing was started" in said


@pytest.mark.faults("disk too full for the weights", how="tmpfs of 1 MiB", expected="failed, named; resume writes them")
def test_a_disk_that_is_too_full_for_the_weights_fails_the_run_by_name(tmp_path):
    """The file, the bytes that it needs, those that are free, and what to do, with exit status 1; when there is room,
    `thalweg resume` writes it, and the summary says that all went well."""
    resume = f"{sys.executable} -m thalweg_cluster.cli resume out"
    script = f"""
        mkdir out
        mount -t tmpfs -o size={MIB} tmpfs out
        "$@" --set checkpoint.url=file://{tmp_path}/saved && exit
        echo "exit status $?"
        cat out/summary.json
        ls -A out
        mount -o remount,size={16 * MIB} out
        {resume}
        cat out/summary.json
        wc -c out/weights.safetensors
    """
    done = run(tmp_path, script)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    failed, _, resumed = said.partition("finished before: all 3 steps were taken")
    assert "Traceback" not in said
    assert "exit status 1" in failed
    assert '"state": "failed"' in failed
    [needed, free] = re.findall(
        r"^\S+/out/weights.safetensors: expected room for ([\d,]+) bytes; found No space left on device, ([\d,]+) "
        r"bytes free. Make room there; then `thalweg resume \S+/out` goes on from the newest checkpoint, if any$",
        failed,
        flags=re.MULTILINE,
    )[0]
    assert int(free.replace(",", "")) < MIB < int(needed.replace(",", ""))
    assert ".part" not in failed, "what did not fit is gone"
    assert '"state": "succeeded"' in resumed
    assert f"{needed.replace(',', '')} out/weights.safetensors" in resumed
