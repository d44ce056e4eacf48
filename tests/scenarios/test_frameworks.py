"""A user's model in another framework, unchanged: against a plain loop of it, on any number of workers."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.scenarios.conftest import REPOSITORY, Finished, environment
from tests.scenarios.test_weights import thalweg

from thalweg_proto.job import load_job

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
# Smooth: at the kink of a ReLU a gradient jumps, and a last bit of a weight becomes a tenth of it within 100 steps, in
# PyTorch alone, too (measured: a relative 1e-7 at the start, 0.1 to 0.2 at the end; with SiLU 2.6e-6).
RESIDUAL = """
from torch import nn
from torch.nn.functional import silu


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x):
        inner = silu(self.norm1(self.first(x)))
        return silu(x + self.norm2(self.second(inner)))


class Net(nn.Module):
    def __init__(self, classes, channels=8):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(Block(channels), Block(channels))
        self.head = nn.Linear(64 * channels, classes)

    def forward(self, x):
        x = self.blocks(silu(self.norm(self.stem(x.unsqueeze(1)))))
        return self.head(x.flatten(1))


def build(data_spec):
    return Net(data_spec.classes)
"""
STEPS = 100


def near(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """All of what is found, to 1e-5 of each array's norm. What PyTorch counts beside it has no part in a job."""
    assert found.keys() == {name for name in expected if not name.endswith("num_batches_tracked")}
    for name, array in found.items():
        assert np.linalg.norm(array - expected[name]) <= 1e-5 * np.linalg.norm(expected[name]), name


def evaluated(run: Finished) -> dict[str, float]:
    """What `thalweg eval` says of it."""
    said = thalweg("eval", run.folder, "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    return {name: found[name] for name in ("loss", "accuracy")}


def trained_on_1_2_and_4_workers(train) -> tuple[Finished, dict[str, np.ndarray]]:
    """The module of net.py: it learns, and the bits are the same on each; the run of one worker, and its weights."""
    sets = ('model={use="net.py:build"}', f"train.steps={STEPS}", 'cluster.engine="torch"')
    runs = [train(*sets, f"cluster.workers={workers}", out=f"out{workers}") for workers in (1, 2, 4)]
    assert [run.status for run in runs] == [0] * 3, runs[0].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert runs[0].summary["eval"]["accuracy"] > 0.9
    return runs[0], load_file(runs[0].folder / "weights.safetensors")


@needs("torch")
def test_a_module_is_trained_as_a_plain_loop_does_on_any_number_of_workers(train, job, tmp_path):
    """After 100 steps the weights are those of PyTorch alone, but for rounding; and to the bit those of 1, 2 and 4
    workers."""
    from tests.scenarios.plain_torch import alone

    (tmp_path / "net.py").write_text(NET)
    run, found = trained_on_1_2_and_4_workers(train)
    near(found, alone(load_job(run.folder / "job.toml").job, NET, 1))


@needs("torch")
def test_two_workers_end_where_distributed_data_parallel_does(train, tmp_path):
    """After 100 steps over gloo, with a microbatch for each rank: the same weights, but for rounding."""
    net, weights = tmp_path / "net.py", tmp_path / "ddp.npz"
    net.write_text(NET)
    run = train(
        'model={use="net.py:build"}', f"train.steps={STEPS}", "train.microbatches=2", 'cluster.engine="torch"',
        "cluster.workers=2",
    )  # fmt: skip
    assert run.status == 0, run.output
    command = [sys.executable, "-m", "tests.scenarios.plain_torch", run.folder / "job.toml", net, "2", weights]
    subprocess.run(command, cwd=REPOSITORY, env=environment(), check=True)
    near(load_file(run.folder / "weights.safetensors"), dict(np.load(weights)))


@needs("torch")
def test_running_statistics_are_those_of_a_plain_loop_on_any_number_of_workers(train, tmp_path):
    """A small residual network with BatchNorm: after 100 steps its weights and statistics are those of PyTorch alone,
    with each microbatch's statistics averaged, but for rounding; and to the bit those of 1, 2 and 4 workers."""
    from tests.scenarios.plain_torch import alone

    (tmp_path / "net.py").write_text(RESIDUAL)
    run, found = trained_on_1_2_and_4_workers(train)
    assert found["norm.running_var"].shape == (8,)
    near(found, alone(load_job(run.folder / "job.toml").job, RESIDUAL, 8))
    assert evaluated(run) == run.summary["eval"]
    assert thalweg("export", run.folder, "--to", "torch").returncode == 0
    import torch

    state = torch.load(run.folder / "weights.pt", weights_only=True)
    assert all((state[name].numpy() == array).all() for name, array in found.items())


@needs("torch")
@pytest.mark.parametrize("options", [("cluster.autocast='bfloat16'",), ("cluster.compile=true",)], ids=" ".join)
def test_what_pytorch_can_do_gives_the_same_bits_on_any_number_of_workers(train, tmp_path, options):
    """And others than without it."""
    (tmp_path / "net.py").write_text(RESIDUAL)
    sets = ('model={use="net.py:build"}', f"train.steps={STEPS}", 'cluster.engine="torch"', "train.microbatches=7")
    plain, *runs = (
        train(*sets, *more, f"cluster.workers={workers}", out=f"out{len(more)}{workers}")
        for more, workers in (((), 2), (options, 1), (options, 3))
    )
    assert [run.status for run in runs] == [0, 0], runs[0].output
    one, other = (run.summary["weights_sha256"] for run in runs)
    assert one == other != plain.summary["weights_sha256"]
    assert runs[0].summary["eval"]["accuracy"] > 0.9
    assert evaluated(runs[1]) == runs[1].summary["eval"]


@needs("torch")
def test_statistics_go_on_from_a_checkpoint_and_one_without_them_is_refused(train, resume, tmp_path):
    """To the bits of a run in one piece; and the names of what a checkpoint lacks are told."""
    net = tmp_path / "net.py"
    net.write_text(RESIDUAL)
    sets = ('model={use="net.py:build"}', 'cluster.engine="torch"', "checkpoint.every_steps=10")
    whole = train(*sets, "train.steps=30", out="whole")
    begun = train(*sets, "train.steps=20", out="begun")
    assert (whole.status, begun.status) == (0, 0), whole.output
    gone_on = resume(begun.folder, "train.steps=30", "cluster.workers=3")
    assert gone_on.summary["weights_sha256"] == whole.summary["weights_sha256"]
    net.write_text(RESIDUAL.replace("BatchNorm2d(channels)", "BatchNorm2d(channels, track_running_stats=False)"))
    without = train(*sets, "train.steps=10", out="without")
    assert without.status == 0, without.output
    net.write_text(RESIDUAL)
    refused = resume(without.folder, "train.steps=20")
    assert refused.status == 2
    assert "model: norm.running_mean: expected no such parameter, as in the checkpoint" in refused.output


@needs("torch")
def test_what_has_no_place_for_statistics_is_told_before_anything_starts(train, tmp_path):
    """Local steps, formats that lose something, microbatches of one sample."""
    (tmp_path / "net.py").write_text(RESIDUAL)
    refused = train(
        'model={use="net.py:build"}', 'cluster.engine="torch"', "train.local_steps=4", 'cluster.wire="int8"',
        'cluster.wire_parameters="bfloat16"',
    )  # fmt: skip
    assert refused.status == 2
    for field, right in (("train.local_steps", "1"), ("cluster.wire", '"float32"'), ("cluster.wire_parameters", "")):
        assert f"{field}: expected {right}" in refused.output
    assert "with a model that has running statistics (norm.running_mean, ...)" in refused.output
    net = tmp_path / "net.py"
    net.write_text(NET.replace("nn.ReLU()", "nn.BatchNorm1d(hidden)"))
    single = train('model={use="net.py:build"}', 'cluster.engine="torch"', "train.batch_size=8")
    assert single.status == 2
    assert "model.use (Sequential): expected no exception; found ValueError: Expected more than 1" in single.output
    assert not (refused.folder / "summary.json").exists()


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
