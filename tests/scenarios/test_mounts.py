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


def refused(folder: Path, mount: str) -> str:
    """What the command says, with exit status 2, where `mount` was done before; nothing is left of it."""
    (folder / "job.toml").write_text(JOB)
    out = folder / "out"
    command = [sys.executable, "-m", "thalweg_cluster.cli", "train", str(folder / "job.toml"), "--out", str(out)]
    shell = ["unshare", "--mount", "sh", "-ec", f'{mount}; exec "$@"', "sh", *command]
    done = subprocess.run(
        shell, capture_output=True, text=True, timeout=TIMEOUT_S, env={**os.environ, "COLUMNS": "400"}
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert not list(out.glob("*"))
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
