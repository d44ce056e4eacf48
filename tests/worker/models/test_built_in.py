"""The built-in models: what they compute, which options they take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg_proto.errors import InputError
from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models import build_model, check_model, initial_parameters
from thalweg_worker.models.convnet import image_shape

Arrays = dict[str, np.ndarray]

ACTIVATIONS: dict[str, Any] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def classes(input_shape: tuple[int, ...], count: int = 3) -> DataSpec:
    return DataSpec(input_shape=input_shape, task="classification", classes=count)


def targets(input_shape: tuple[int, ...], target_shape: tuple[int, ...]) -> DataSpec:
    return DataSpec(input_shape=input_shape, task="regression", target_shape=target_shape)


def random_batch(spec: DataSpec, n: int = 6, key: bool = False) -> Batch:
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, *spec.input_shape), dtype=np.float32)
    labels, numbers = rng.integers(0, spec.classes or 1, n), rng.standard_normal((n, *spec.target_shape), np.float32)
    y = labels if spec.task == "classification" else numbers
    return Batch(x, y, np.array([1, 2, 3], dtype=np.uint64) if key else None)


def build(use: str, spec: DataSpec, **options: Any) -> Any:
    return build_model(use, options, spec, folder=Path())


def random_start(model: Any) -> Arrays:
    """Parameters of which none is zero, so that a bias counts."""
    rng = np.random.default_rng(1)
    start = initial_parameters(model, 0)
    return {name: rng.standard_normal(array.shape, dtype=np.float32) / 2 for name, array in start.items()}


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    likelihood = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-np.log(likelihood[np.arange(len(labels)), labels]).mean())


def shapes(params: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in params.items()}


# linear


def test_linear_is_softmax_regression() -> None:
    """Loss and gradient are those of the text book: grad W = x^T (softmax - onehot) / n."""
    spec = classes((4,))
    model, batch = build("linear", spec), random_batch(spec)
    params = random_start(model)
    assert shapes(params) == {"output.weight": (4, 3), "output.bias": (3,)}
    loss, grads = ad.value_and_grad(model.loss)(params, batch)
    logits = batch.x @ params["output.weight"] + params["output.bias"]
    error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(3)[batch.y]
    assert loss == pytest.approx(cross_entropy(logits, batch.y), rel=1e-5)
    np.testing.assert_allclose(grads["output.weight"], batch.x.T @ error / 6, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads["output.bias"], error.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_linear_starts_at_log_classes() -> None:
    """With zero parameters each class is as likely as another."""
    spec = classes((2, 2), count=7)
    model = build("linear", spec)
    assert ad.forward(model.loss)(initial_parameters(model, 0), random_batch(spec)) == pytest.approx(np.log(7))


@pytest.mark.parametrize("target_shape", [(), (1,), (3,), (2, 2)])
@pytest.mark.parametrize("use", ["linear", "mlp"])
def test_regression_is_the_mean_squared_error(use: str, target_shape: tuple[int, ...]) -> None:
    """Predictions have the shape of the targets, and the loss is mean((prediction - target)**2)."""
    spec = targets((5,), target_shape)
    model, batch = build(use, spec), random_batch(spec)
    params = random_start(model)
    predicted = np.array(ad.forward(model.predict)(params, batch.x))
    assert predicted.shape == (6, *target_shape)
    loss = ad.forward(model.loss)(params, batch)
    assert loss == pytest.approx(((predicted - batch.y) ** 2).mean(), rel=1e-5)


# mlp


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_composes_layers(activation: str) -> None:
    """predict is f(f(x W1 + b1) W2 + b2) W + b with images flattened, loss its cross-entropy."""
    spec = classes((2, 3))
    model = build("mlp", spec, hidden=[5, 4], activation=activation)
    params, batch = random_start(model), random_batch(spec)
    assert shapes(params) == {
        "hidden1.weight": (6, 5),
        "hidden1.bias": (5,),
        "hidden2.weight": (5, 4),
        "hidden2.bias": (4,),
        "output.weight": (4, 3),
        "output.bias": (3,),
    }
    h = batch.x.reshape(6, 6)
    for layer in ("hidden1", "hidden2"):
        h = ACTIVATIONS[activation](h @ params[f"{layer}.weight"] + params[f"{layer}.bias"])
    logits = h @ params["output.weight"] + params["output.bias"]
    np.testing.assert_allclose(ad.forward(model.predict)(params, batch.x), logits, rtol=1e-5, atol=1e-6)
    assert ad.forward(model.loss)(params, batch) == pytest.approx(cross_entropy(logits, batch.y), rel=1e-5)


def test_mlp_without_hidden_layers_is_linear() -> None:
    """hidden = [] leaves the linear model, with the same parameters."""
    spec = classes((4,))
    perceptron, linear, batch = build("mlp", spec, hidden=[]), build("linear", spec), random_batch(spec)
    params = random_start(perceptron)
    assert ad.forward(perceptron.loss)(params, batch) == ad.forward(linear.loss)(params, batch)


def test_dropout_needs_a_key_and_follows_it() -> None:
    """The loss with a key is a function of the key; without one it is the loss without dropout."""
    spec = classes((4,))
    model, plain = build("mlp", spec, dropout=0.5), build("mlp", spec)
    params, batch = random_start(model), random_batch(spec, key=True)
    loss = ad.forward(model.loss)

    def at(*key: int) -> float:
        return float(loss(params, Batch(batch.x, batch.y, np.array(key, dtype=np.uint64))))

    assert at(0, 1, 2) == at(0, 1, 2)
    assert len({at(0, 1, 2), at(0, 1, 3), at(0, 2, 2), at(1, 1, 2)}) == 4
    unkeyed = Batch(batch.x, batch.y)
    assert float(loss(params, unkeyed)) == float(ad.forward(plain.loss)(params, unkeyed))


# convnet


def convnet_by_hand(params: Arrays, images: np.ndarray) -> np.ndarray:
    """Logits of a convnet with one convolution of size 3 and one hidden layer, pixel by pixel."""
    kernel, bias = params["conv1.weight"], params["conv1.bias"]
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pooled = np.zeros((n, height // 2, width // 2, bias.size))
    for image, i, j in np.ndindex(n, height // 2 * 2, width // 2 * 2):
        pixel = np.einsum("ijc,ijco->o", padded[image, i : i + 3, j : j + 3], kernel) + bias
        pooled[image, i // 2, j // 2] = np.maximum(pooled[image, i // 2, j // 2], pixel)
    h = pooled.reshape(n, -1) @ params["hidden1.weight"] + params["hidden1.bias"]
    logits: np.ndarray = np.maximum(h, 0) @ params["output.weight"] + params["output.bias"]
    return logits


@pytest.mark.parametrize("sample", [(4, 6), (5, 5, 2)])
def test_convnet_convolves_pools_and_classifies(sample: tuple[int, ...]) -> None:
    """predict agrees with loops over pixels; an odd last row and column are dropped by the pooling."""
    spec = classes(sample)
    model = build("convnet", spec, channels=[3], hidden=[4])
    params, batch = random_start(model), random_batch(spec)
    logits = convnet_by_hand(params, batch.x.reshape(6, *sample[:2], -1))
    np.testing.assert_allclose(ad.forward(model.predict)(params, batch.x), logits, rtol=1e-4, atol=1e-5)
    assert ad.forward(model.loss)(params, batch) == pytest.approx(cross_entropy(logits, batch.y), rel=1e-4)


def test_convnet_has_the_documented_parameters() -> None:
    """The defaults on 28 x 28 images: 28 -> 14 -> 7, so that 7 * 7 * 32 numbers enter the hidden layer."""
    assert shapes(initial_parameters(build("convnet", classes((28, 28), 10)), 0)) == {
        "conv1.weight": (3, 3, 1, 16),
        "conv1.bias": (16,),
        "conv2.weight": (3, 3, 16, 32),
        "conv2.bias": (32,),
        "hidden1.weight": (7 * 7 * 32, 64),
        "hidden1.bias": (64,),
        "output.weight": (64, 10),
        "output.bias": (10,),
    }


def test_convnet_takes_flat_samples_as_images() -> None:
    """With `image` a flat sample gives what the image gives."""
    flat, square = build("convnet", classes((64,)), image=[8, 8]), build("convnet", classes((8, 8)))
    params, x = random_start(square), random_batch(classes((8, 8))).x
    assert np.array_equal(ad.forward(flat.predict)(params, x.reshape(6, 64)), ad.forward(square.predict)(params, x))


@pytest.mark.parametrize(
    ("sample", "image", "expected"),
    [
        ((28, 28), None, (28, 28, 1)),
        ((32, 16, 3), None, (32, 16, 3)),
        ((784,), (28, 28), (28, 28, 1)),
        ((3072,), (32, 32, 3), (32, 32, 3)),
        ((28, 28), (28, 28, 1), (28, 28, 1)),
    ],
)
def test_image_shapes(sample: tuple[int, ...], image: tuple[int, ...] | None, expected: tuple[int, ...]) -> None:
    """A missing channel axis is one channel; `image` may spell out what the samples are."""
    assert image_shape(sample, image) == expected


# all of them


@pytest.mark.parametrize("use", ["linear", "mlp", "convnet"])
@pytest.mark.parametrize("spec", [classes((8, 8), 10), targets((8, 8), ()), targets((8, 8), (2,))])
def test_built_in_models_pass_the_check(use: str, spec: DataSpec) -> None:
    """No built-in model has a problem, with its defaults, for classes or for targets."""
    batch = random_batch(spec, key=True)
    assert check_model(build(use, spec), spec, batch, np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("use", "options"), [("linear", {}), ("mlp", {"hidden": [16]}), ("convnet", {"channels": [4]})]
)
def test_built_in_models_learn(use: str, options: dict[str, Any]) -> None:
    """Forty steps of gradient descent on 30 samples bring the loss below half of where it began."""
    spec = classes((6, 6))
    model, batch = build(use, spec, **options), random_batch(spec, n=30)
    batch.x[np.arange(30), batch.y * 2] += 2  # class c: row 2 c is bright
    params, value_and_grad = initial_parameters(model, 0), ad.value_and_grad(model.loss)
    losses = []
    for _ in range(40):
        loss, grads = value_and_grad(params, batch)
        losses.append(loss)
        for name, grad in grads.items():
            params[name] -= 0.1 * grad
    assert losses[-1] < losses[0] / 2


# options


@pytest.mark.parametrize(
    ("use", "options", "field", "expected", "found", "hint"),
    [
        ("mlp", {"hiden": [8]}, "model.hiden", "a known option", "[8]", '"hidden"'),
        ("mlp", {"colour": "red"}, "model.colour", "a known option", '"red"', "hidden, activation, dropout"),
        ("linear", {"hidden": [8]}, "model.hidden", "a known option", "[8]", "no options"),
        ("mlp", {"hidden": 128}, "model.hidden", "a list of whole numbers", "128", ""),
        ("mlp", {"hidden": [128, -1]}, "model.hidden", "from 1", "[128, -1]", ""),
        ("mlp", {"hidden": [0]}, "model.hidden", "from 1", "[0]", ""),
        ("mlp", {"hidden": [1.5]}, "model.hidden", "whole numbers", "[1.5]", ""),
        ("mlp", {"hidden": [True]}, "model.hidden", "whole numbers", "[true]", ""),
        ("mlp", {"hidden": [2**40]}, "model.hidden", "to 1048576", "[1099511627776]", "largest"),
        ("mlp", {"activation": "rleu"}, "model.activation", '"relu", "tanh" or "sigmoid"', '"rleu"', '"relu"'),
        ("mlp", {"dropout": 1.0}, "model.dropout", ">= 0 and < 1", "1.0", ""),
        ("mlp", {"dropout": float("nan")}, "model.dropout", ">= 0 and < 1", "nan", ""),
        ("mlp", {"dropout": "0.5"}, "model.dropout", "a number", '"0.5"', ""),
        ("convnet", {"channels": []}, "model.channels", "a list of whole numbers", "[]", ""),
        ("convnet", {"kernel": -3}, "model.kernel", "a whole number from 1", "-3", ""),
        ("convnet", {"image": [8]}, "model.image", "[28, 28]", "[8]", ""),
        ("convnet", {"image": [8, 9]}, "model.image", "a shape of 64 numbers", "[8, 9], which has 72", "[8, 8]"),
        ("convnet", {"channels": [1, 1, 1, 1]}, "model.channels", "at most 3 convolutions", "4", ""),
    ],
)
def test_a_wrong_option_is_named(
    use: str, options: dict[str, Any], field: str, expected: str, found: str, hint: str
) -> None:
    """A wrong option gives one problem with field, expected, found and a hint."""
    with pytest.raises(InputError) as caught:
        build(use, classes((8, 8)), **options)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert expected in problem.expected
    assert found in problem.found
    assert hint in problem.hint


def test_wrong_options_are_reported_together() -> None:
    """Three mistakes, three problems."""
    with pytest.raises(InputError) as caught:
        build("mlp", classes((4,)), hidden=-1, activation="none", size=3)
    assert [problem.field for problem in caught.value.problems] == [
        "model.hidden",
        "model.activation",
        "model.size",
    ]


@pytest.mark.parametrize(
    ("sample", "options", "field"),
    [
        ((64,), {"image": "8x8"}, "model.image"),
        ((64,), {"imgae": [8, 8]}, "model.imgae"),
        ((64,), {"shape": [8, 8]}, "model.shape"),
        ((2, 2), {"channels": "two"}, "model.channels"),
        ((2, 2), {"chanels": [2]}, "model.chanels"),
    ],
)
def test_what_an_option_would_have_said_is_not_missed(
    sample: tuple[int, ...], options: dict[str, Any], field: str
) -> None:
    """The default in place of a wrong or misspelt option does not fit either; that is no second mistake."""
    with pytest.raises(InputError) as caught:
        build("convnet", classes(sample), **options)
    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(("sample", "hint"), [((64,), "image = [8, 8]"), ((10,), ""), ((2, 2, 2, 2), "[4, 4]")])
def test_samples_that_are_no_images_are_refused(sample: tuple[int, ...], hint: str) -> None:
    """A convnet on a table names the shape of the samples, and the square image where there is one."""
    with pytest.raises(InputError) as caught:
        build("convnet", classes(sample))
    (problem,) = caught.value.problems
    assert problem.field == "model.image"
    assert str(sample) in problem.found
    assert hint in problem.hint


@pytest.mark.parametrize("use", ["linear", "mlp"])
def test_a_label_at_each_position(use: str) -> None:
    """Where a sample has several labels there are scores for each of them, and the loss is the mean over all."""
    spec = DataSpec(input_shape=(4,), task="classification", classes=3, target_shape=(2,))
    model = build(use, spec)
    batch = Batch(np.ones((5, 4), np.float32), np.zeros((5, 2), np.int64), np.zeros(3, np.uint64))
    assert check_model(model, spec, batch, np.random.default_rng(0)) == []
    params = {name: np.zeros_like(array) for name, array in model.init(np.random.default_rng(0)).items()}
    assert ad.forward(model.predict)(params, batch.x).shape == (5, 2, 3)
    assert ad.forward(model.loss)(params, batch) == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize("use", ["linear", "mlp"])
def test_tokens_are_refused(use: str) -> None:
    """The built-in models read numbers; tokens need a model of the user's own."""
    spec = DataSpec(input_shape=(16,), input_dtype="int64", task="classification", classes=2)
    with pytest.raises(InputError, match="int64 tokens"):
        build(use, spec)
