"""Whole runs on one GPU."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.gpu.needs import gpu_for
from tests.scenarios.conftest import DIGITS, THALWEG, environment
from tests.scenarios.test_frameworks import NET

pytestmark = pytest.mark.slow
OWN = '{ use = "net.py:build" }'
USES = {"torch": OWN, "jax": OWN, "cupy": '{ use = "mlp", hidden = [64] }'}
JAX = """
import jax
from jax import numpy as jnp

def build(spec):
    def init(key):
        return {"w": jax.random.normal(key, (64, spec.classes)) / 8, "b": jnp.zeros(spec.classes)}

    def predict(params, x):
        return x.reshape(len(x), -1) @ params["w"] + params["b"]

    def loss(params, batch):
        scores = jax.nn.log_softmax(predict(params, batch.x))
        return -jnp.take_along_axis(scores, batch.y[:, None], axis=1).mean()

    return init, loss, predict
"""


@pytest.mark.parametrize("engine", ["torch", "jax", "cupy"])
def test_two_workers_that_share_a_gpu_have_the_bits_of_one(engine, tmp_path):
    """Equal weights, a loss that falls, and the device in the summary, once for each worker."""
    gpu_for(engine)
    (tmp_path / "net.py").write_text(JAX if engine == "jax" else NET)
    (tmp_path / "job.toml").write_text(DIGITS)
    runs = {}
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        sets = {"model": USES[engine], "cluster.engine": engine, "cluster.workers": workers}
        sets |= {"cluster.gpus_per_worker": 0.5, "train.steps": 200}
        words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        done = subprocess.run(
            [*THALWEG, "train", str(tmp_path / "job.toml"), *words, "--out", str(out)],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        runs[workers] = json.loads((out / "summary.json").read_text())
        assert [device["rank"] for device in runs[workers]["devices"]] == list(range(workers))
        assert all(device["name"] and device["memory_bytes"] > 0 for device in runs[workers]["devices"])
        assert runs[workers]["eval"]["accuracy"] > 0.8
    assert runs[1]["weights_sha256"] == runs[2]["weights_sha256"]


def test_more_workers_than_fit_on_the_gpus_are_refused(tmp_path):
    """With a GPU there, too: how many there are, as Ray finds them."""
    gpu_for("torch")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "job.toml").write_text(DIGITS)
    sets = {"model": USES["torch"], "cluster.engine": "torch", "cluster.workers": 17, "train.microbatches": 17}
    sets |= {"cluster.gpus_per_worker": 1, "train.batch_size": 170}
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [*THALWEG, "train", str(tmp_path / "job.toml"), *words, "--out", str(tmp_path / "out")],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert "with 1 of a GPU each: Ray finds" in done.stdout
