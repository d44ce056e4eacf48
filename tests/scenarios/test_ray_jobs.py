"""`ray job submit -- thalweg train JOB.toml`: a run as a job of a Ray cluster, submitted from elsewhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from tests.scenarios.conftest import REPOSITORY, THALWEG, Finished, environment, free_port, ray_head

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("aiohttp_cors") is None,
        reason="`ray job submit` needs Ray's dashboard: pip install 'thalweg[ray-jobs]'",
    ),
]

READY = """
import sys, time
from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD
from ray._raylet import GcsClient
from ray.dashboard.consts import DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX
from tests.hosts.ready import until

gcs = GcsClient(address=sys.argv[1])
there = lambda: gcs.internal_kv_keys(DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX.encode(), KV_NAMESPACE_DASHBOARD)
sys.exit(not until(there, time.monotonic() + 120.0))
"""
"""`ray start` is done before the agent is there that starts jobs, and the dashboard waits for that for 10 s only."""


@pytest.fixture(scope="module")
def submit():
    """`submit(folder, "train", ...)` runs `thalweg train ...` as a job of a Ray cluster, with the files of a folder."""
    dashboard = free_port()
    with ray_head(free_port(), dashboard) as head:
        ready = [sys.executable, "-c", READY, head.address]
        subprocess.run(ready, cwd=REPOSITORY, env=environment(), check=True)

        def run(folder, *words: str) -> Finished:
            ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
            done = subprocess.run(
                [*ray, f"--address=http://127.0.0.1:{dashboard}", f"--working-dir={folder}", "--", *THALWEG, *words],
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            return Finished(done.returncode, done.stdout, folder / "out")

        yield run


def test_a_run_that_is_submitted_to_ray_ends_in_the_same_bits(submit, job, undisturbed):
    """The job file comes from the working directory; what the run says is shown, and its files are where it says."""
    run = submit(job.parent, "train", job.name, "--out", str(job.parent / "out"))
    assert run.status == 0, run.output
    assert run.summary["state"] == "succeeded"
    assert run.summary["weights_sha256"] == undisturbed()
    assert f"weights sha256 {undisturbed()}" in run.output


def test_a_mistake_fails_the_job_and_is_shown(submit, job):
    """As `thalweg train` says it; Ray has an exit status of its own."""
    run = submit(job.parent, "train", job.name, "--set", "train.steps=0", "--out", str(job.parent / "out"))
    assert run.status == 1
    assert "train.steps: expected a whole number >= 1; found 0" in run.output
    assert "1 mistake; nothing was started" in run.output
