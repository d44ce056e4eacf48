"""Ray's control store (GCS) dies: it keeps what it knows in memory, and with it Ray loses the cluster and all on it."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from tests.scenarios.conftest import ended, free_port, ray_head, spawn, until

from thalweg_cluster.checkpoints import FileStore, newest

pytestmark = pytest.mark.slow
ENDLESS = ("--set", "train.steps=10000000", "--set", "checkpoint.every_steps=20")


def kill_gcs(head: Any) -> None:
    """`ray start --block` then ends the other processes of its host, and itself."""
    [gcs] = [each for each in psutil.Process(head.pid).children(recursive=True) if each.name() == "gcs_server"]
    gcs.kill()
    head.communicate()


@pytest.mark.faults("Ray's GCS {id}", how="SIGKILL", expected="failed, cluster named, resumed =bits")
@pytest.mark.parametrize("anew", [False, True], ids=["killed", "killed, Ray started anew at its address"])
def test_a_run_whose_ray_loses_its_gcs_ends_and_can_be_resumed(anew, job, tmp_path, train, resume):
    """The command names what is gone, and what to type, with exit status 1; it waits for nobody for ever."""
    folder, port = tmp_path / "lost", free_port()
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(port))
        words = ("train", str(job), "--out", str(folder), *ENDLESS)
        command = spawn(stack, folder, *words, RAY_ADDRESS=head.address)
        until(command, "step 30/")
        kill_gcs(head)
        if anew:
            stack.enter_context(ray_head(port))
        run = ended(command)
    assert run.status == 1, run.output
    assert "program will terminate" not in run.output, "Ray ended the command before it could say so"
    said = rf"failed: the run in {folder} has not ended, and nothing of it is alive on the Ray cluster at \S+:{port}\b"
    assert re.search(said, run.output), run.output
    assert ("control store (GCS) does not answer" in run.output) == (not anew)
    assert f"on a cluster that is there: thalweg resume {folder}" in run.output
    checkpoint, _ = newest(FileStore(folder / "checkpoints"))
    steps = f"train.steps={checkpoint.manifest.step + 30}"
    resumed = resume(folder, steps)
    assert resumed.status == 0, resumed.output
    assert resumed.summary["weights_sha256"] == train(steps, out="whole").summary["weights_sha256"]
