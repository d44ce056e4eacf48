"""A user's model in another framework, unchanged: against a plain loop of it, on any number of workers."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.scenarios.conftest import REPOSITORY

from thalweg_proto.job import load_job
from thalweg_worker.batches import BatchSource
from thalweg_worker.datasets import load_dataset
from thalweg_worker.sampler import Sampler

pytestmark = pytest.mark.slow


def needs(engine: str) -> pytest.MarkDecorator:
    why = f"needs the extra {engine}: pip install 'thalweg[{engine}]'"
    return pytest.mark.skipif(find_spec(engine) is None, reason=why)


NET = """
from torch import nn


def build(data_spec, hidden=64):
    rows, columns = data_spec.input_shape
    return nn.Sequential(
        nn.Flatten(), nn.Linear(rows * columns, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, data_spec.classes),
    )
"""
STEPS, BATCH = 100, 64


def plain_loop(job) -> dict[str, np.ndarray]:
    """What PyTorch alone makes of the same batches: the weights after STEPS steps, by name."""
    import torch

    data = load_dataset(job.data, job.seed).data.train
    torch.manual_seed(job.seed)
    space: dict = {}
    exec(NET, space)
    net = space["build"](data.spec)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    batches = BatchSource(data, Sampler(job.seed, samples=len(data), batch_size=BATCH, microbatches=1))
    for step in range(STEPS):
        batches.draw(step, 0)
        batch = batches.batch(0)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.from_numpy(batch.x)), torch.from_numpy(batch.y)).backward()
        optimiser.step()
    return {name: parameter.detach().numpy() for name, parameter in net.named_parameters()}


@needs("torch")
def test_a_module_is_trained_as_a_plain_loop_does_on_any_number_of_workers(train, job, tmp_path):
    """After 100 steps the weights are those of PyTorch alone, but for rounding; and to the bit those of 1, 2 and 4
    workers."""
    (tmp_path / "net.py").write_text(NET)
    sets = ('model={use="net.py:build"}', f"train.steps={STEPS}", 'cluster.engine="torch"')
    runs = [train(*sets, f"cluster.workers={workers}", out=f"out{workers}") for workers in (1, 2, 4)]
    assert [run.status for run in runs] == [0] * 3, runs[0].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert runs[0].summary["eval"]["accuracy"] > 0.9
    found = load_file(runs[0].folder / "weights.safetensors")
    expected = plain_loop(load_job(runs[0].folder / "job.toml").job)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.linalg.norm(found[name] - array) <= 1e-5 * np.linalg.norm(array), name


@needs("torch")
def test_a_mistake_of_a_module_is_told_before_anything_starts(train, tmp_path):
    """In the words of train, with exit status 2."""
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef build(data_spec):\n    return nn.Linear(8, 10)\n")
    refused = train('model={use="net.py:build"}', 'cluster.engine="torch"')
    assert refused.status == 2
    assert "model.use (Linear): output: expected scores of shape (n, classes) = (4, 10)" in refused.output
    assert not (refused.folder / "summary.json").exists()


@needs("jax")
def test_functions_of_jax_learn_to_the_same_bits_on_any_number_of_workers(train):
    """The model of the README."""
    use = f'model={{use="{REPOSITORY / "cluster/jobs/jax_model.py"}:build"}}'
    runs = [
        train(use, "train.steps=100", 'cluster.engine="jax"', f"cluster.workers={workers}", out=f"out{workers}")
        for workers in (1, 3)
    ]
    assert [run.status for run in runs] == [0, 0], runs[0].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert runs[0].summary["eval"]["accuracy"] > 0.9
    assert set(load_file(runs[0].folder / "weights.safetensors")) == {"hidden.b", "hidden.w", "last.b", "last.w"}
