"""The comparison on a GPU, as far as it can be tried without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.benchmarks import gpu
from tests.benchmarks.launch import write_job
from tests.benchmarks.modules import FOLDER

from thalweg_proto.errors import WorkerError
from thalweg_proto.job import load_job
from thalweg_worker.batch import DataSpec


@pytest.mark.parametrize("name", gpu.NETWORKS)
@pytest.mark.parametrize("workers", [1, 2])
def test_job_does_the_plain_loops_work(name: str, workers: int, tmp_path: Path) -> None:
    """Each network's job file is accepted, with 256 samples a step on one GPU, whoever computes them."""
    for array in ("x.npy", "y.npy"):
        (tmp_path / array).touch()
    path = write_job(gpu.job(gpu.NETWORKS[name], workers=workers, steps=20), tmp_path / "job.toml")
    draft = load_job(path, [])
    assert draft.problems == ()
    train, cluster = draft.job.train, draft.job.cluster
    assert (train.batch_size, train.microbatches) == (256, workers)
    assert cluster.workers * cluster.gpus_per_worker == 1.0


@pytest.mark.compare
@pytest.mark.parametrize("name", gpu.NETWORKS)
def test_models_have_25_million_parameters(name: str) -> None:
    """To 2 %."""
    from thalweg_worker.models import ModelSource

    network = gpu.NETWORKS[name]
    spec = DataSpec(input_shape=network.shape, task="classification", classes=10)
    source = ModelSource.read(f"{FOLDER / network.name}.py:build", network.options, folder=Path())
    module = source.build(spec)
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(25e6, rel=0.02)


@pytest.mark.compare
def test_the_plain_loop_runs_on_the_cpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is not of CUDA is tried: a small model, some samples."""
    monkeypatch.setattr(gpu, "BATCH", 4)
    network = replace(gpu.NETWORKS["mlp"], options={"hidden": 8})
    (tmp_path / "mlp").mkdir()
    gpu.write_data(tmp_path / "mlp", network, rows=50)
    found = gpu.measure("plain", network, folder=tmp_path, seconds=0.001, device="cpu")
    assert (found.network, found.system) == ("mlp", "plain")
    assert found.samples_per_s > 0


def test_without_a_gpu_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, before data is made."""

    def none() -> None:
        raise WorkerError("PyTorch finds none")

    monkeypatch.setattr(gpu, "find_card", none)
    assert gpu.main([]) == 2
    assert "bench-gpu measures on a GPU, and there is none: PyTorch finds none" in capsys.readouterr().err
