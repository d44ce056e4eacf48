"""`ray job submit -- thalweg train job.toml`, where Ray has its dashboard: `ray[default]`, which we do not need."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack

import pytest
from tests.scenarios.conftest import environment

pytestmark = pytest.mark.slow
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_a_job_of_rays_own_service_trains_on_its_cluster(job, tmp_path, undisturbed):
    """It joins the cluster that it was submitted to, and comes to the same bits."""
    pytest.importorskip("aiohttp_cors", reason="Ray's dashboard needs ray[default]")
    gcs, dashboard = free_port(), free_port()
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="thw")  # short: Ray's sockets lie in it
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        command = [
            *RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}", "--num-cpus=3",
            "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            f"--temp-dir={folder}", "--disable-usage-stats",
        ]  # fmt: skip
        head = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
        stack.callback(head.stdout.close)
        stack.callback(head.wait)
        stack.callback(head.terminate)
        lines = []
        for line in head.stdout:
            lines.append(line)
            if "--block" in line:
                break
        assert head.poll() is None, "".join(lines)
        out = tmp_path / "out"
        submit = [*RAY, "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--"]
        train = [sys.executable, "-m", "thalweg_cluster.cli", "train", str(job), "--out", str(out)]
        done = subprocess.run(
            [*submit, *train],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert json.loads((out / "summary.json").read_text())["weights_sha256"] == undisturbed()
