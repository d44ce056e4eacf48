"""Jobs that ask for GPUs, on machines that have none: a Ray cluster that says it has two, and one of our own."""

from __future__ import annotations

import subprocess

import pytest
from tests.scenarios.conftest import CPUS, GPUS, THALWEG, environment
from tests.scenarios.test_frameworks import NET, needs


@pytest.fixture
def module(tmp_path):
    """What a job with a module of PyTorch on GPUs sets."""
    (tmp_path / "net.py").write_text(NET)
    return ('model = { use = "net.py:build" }', "cluster.engine=torch")


@pytest.mark.slow
@needs("torch")
def test_more_gpu_workers_than_gpus_are_refused(train, module):
    """Exit status 2, how many there are and how many are asked for, and nothing was started; a share of a GPU each, and
    there would be room."""
    run = train(*module, f"cluster.workers={GPUS + 1}", "cluster.gpus_per_worker=1")
    assert run.status == 2
    assert GPUS == 2 < CPUS
    assert (
        "cluster.workers: expected at most 2 with 1 of a GPU each: Ray finds 2 GPUs; found 3, which need" in run.output
    )
    assert not run.folder.exists()


def test_a_gpu_is_refused_to_engines_that_use_none(train):
    """Before anything starts, and the engines that use one are named."""
    run = train("cluster.gpus_per_worker=1")
    assert run.status == 2
    assert (
        'cluster.gpus_per_worker: expected 0 with the engine "numpy", which computes on the CPU; found 1' in run.output
    )
    assert "torch, jax and cupy" in run.output


@pytest.mark.slow
@needs("torch")
@pytest.mark.parametrize("share", [0.5, 1])
def test_a_worker_whose_framework_finds_no_gpu_says_so(train, module, share):
    """Ray has given each worker a GPU, of which this machine has none: the run fails once, with what to install."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    run = train(*module, "cluster.workers=2", f"cluster.gpus_per_worker={share}")
    assert run.status == 1, run.output
    assert "no GPU to compute on: Ray gave this worker GPU 0, and PyTorch" in run.summary["error"]
    assert "nvidia-smi" in run.summary["error"]
    assert run.summary["restarts"] == {"worker": 0, "server": 0}  # it would only fail again
    assert run.summary["devices"] == []


@pytest.mark.slow
@needs("torch")
def test_a_cluster_of_our_own_has_the_gpus_that_ray_finds(job, module, tmp_path):
    """Here none: one problem, and no summary."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    sets = [word for each in (*module, "cluster.gpus_per_worker=0.5") for word in ("--set", each)]
    done = subprocess.run(
        [*THALWEG, "train", str(job), *sets, "--out", str(tmp_path / "out")],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert "at most 0 with 0.5 of a GPU each: Ray finds 0 GPUs; found" in done.stdout
    assert not (tmp_path / "out").exists()
