"""The first parameters: a function of the seed, scaled as the papers say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg_worker.batch import DataSpec
from thalweg_worker.models import initial_parameters
from thalweg_worker.models.initialisation import glorot_uniform, he_normal
from thalweg_worker.models.source import build_model

IMAGES = DataSpec(input_shape=(8, 8), task="classification", classes=10)


@pytest.mark.parametrize("use", ["linear", "mlp", "convnet"])
def test_the_seed_alone_decides(use: str, tmp_path: Path) -> None:
    """Two models built alike start with the same bits from one seed, float32 and contiguous."""
    first, again = (initial_parameters(build_model(use, {}, IMAGES, folder=tmp_path), -5) for _ in range(2))
    assert first.keys() == again.keys()
    for name, array in first.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.tobytes() == again[name].tobytes()


def test_another_seed_starts_elsewhere(tmp_path: Path) -> None:
    """Weights differ between seeds; biases are zero with each."""
    model = build_model("mlp", {}, IMAGES, folder=tmp_path)
    first, other = initial_parameters(model, 0), initial_parameters(model, 1)
    for name in first:
        assert np.array_equal(first[name], other[name]) == name.endswith(".bias")
        assert np.any(first[name]) == name.endswith(".weight")


def test_a_float64_start_is_made_float32() -> None:
    """Whatever `init` returns, a run starts from contiguous float32 arrays."""

    class Transposed:
        def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"W": np.arange(6.0).reshape(2, 3).T}

        def loss(self, params: object, batch: object) -> None: ...

    start = initial_parameters(Transposed(), 0)["W"]
    assert start.dtype == np.float32
    assert start.shape == (3, 2)
    assert start.flags.c_contiguous


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_the_activation_chooses_the_scale(activation: str, tmp_path: Path) -> None:
    """Before a ReLU the weights are He's, which pass Glorot's limit; other layers and the last stay within it."""
    model = build_model("mlp", {"hidden": [64, 64], "activation": activation}, IMAGES, folder=tmp_path)
    for name, array in initial_parameters(model, 0).items():
        if name.endswith(".weight"):
            beyond = np.abs(array).max() > math.sqrt(6 / sum(array.shape))
            assert beyond == (activation == "relu" and name != "output.weight"), name


@pytest.mark.parametrize("shape", [(500, 400), (5, 5, 20, 400)])
def test_he_weights_are_normal_with_variance_2_over_fan_in(shape: tuple[int, ...]) -> None:
    """200,000 weights: mean 0, variance 2 / fan_in, fourth moment 3 variance**2, each within 4 deviations."""
    weights = he_normal(np.random.default_rng(0), shape).astype(np.float64).reshape(-1)
    z = weights / math.sqrt(2 / 500)
    count = z.size
    assert abs(z.mean()) < 4 / math.sqrt(count)
    assert abs((z**2).mean() - 1) < 4 * math.sqrt(2 / count)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / count)


@pytest.mark.parametrize(("shape", "fans"), [((500, 400), 900), ((5, 5, 20, 400), 500 + 25 * 400)])
def test_glorot_weights_are_uniform_within_their_limit(shape: tuple[int, ...], fans: int) -> None:
    """200,000 weights: within sqrt(6 / (fan_in + fan_out)), close to it at both ends, variance limit**2 / 3."""
    weights = glorot_uniform(np.random.default_rng(0), shape).astype(np.float64).reshape(-1)
    limit = math.sqrt(6 / fans)
    assert 0.999 < weights.max() / limit <= 1
    assert -1 <= weights.min() / limit < -0.999
    assert abs((weights**2).mean() / (limit**2 / 3) - 1) < 4 * math.sqrt(0.8 / weights.size)


def test_each_parameter_keeps_its_shape() -> None:
    """A single number too; what lies in another order is put in rows."""

    class Drawn:
        def init(self, rng: np.random.Generator) -> dict[str, Any]:
            return {"one": np.float32(2) * np.ones((), np.float32), "columns": np.ones((2, 3), np.float32, order="F")}

    model: Any = Drawn()
    drawn = initial_parameters(model, 0)
    assert {name: array.shape for name, array in drawn.items()} == {"one": (), "columns": (2, 3)}
    assert all(array.flags.c_contiguous for array in drawn.values())
