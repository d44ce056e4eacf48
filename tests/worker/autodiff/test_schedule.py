"""The hooks of a run: what it tells of gradients, when, and that listening changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.worker.autodiff import test_plan

from thalweg_worker import autodiff as ad
from thalweg_worker.autodiff import tiles
from thalweg_worker.batch import Batch
from thalweg_worker.engines.numpy_engine import NumpyEngine

Params = dict[str, Any]
Marks = list[tuple[str, int]]


@contextmanager
def small_tiles() -> Iterator[None]:
    """Gradients of a few elements are tiled, as else those of many are."""
    with pytest.MonkeyPatch.context() as patch:
        for constant in ("TILE", "ROWS", "ROWS_MIN"):
            patch.setattr(tiles, constant, 1)
        yield


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def buffers(p: Params) -> Params:
    return {name: np.full_like(a, np.nan) for name, a in p.items()}


def same_bits(a: Params, b: Params) -> bool:
    return {name: array.tobytes() for name, array in a.items()} == {name: array.tobytes() for name, array in b.items()}


class Watch:
    """What the hooks of one run were called with, and what lay in `out` then.

    told: calls of on_ready, each checked against the gradient in `check`
    """

    def __init__(self, out: Params) -> None:
        self.told: Marks = []
        self._out = out
        self._then: list[Params] = []

    def on_ready(self, name: str, first: int) -> None:
        self.told.append((name, first))
        self._then.append({name: array.reshape(-1).copy() for name, array in self._out.items()})

    def check(self) -> None:
        """What was told of was final; each gradient was told of from its end on, in the end as a whole."""
        first_of = {name: array.size + 1 for name, array in self._out.items()}
        for (name, first), then in zip(self.told, self._then, strict=True):
            assert 0 <= first < first_of[name]
            first_of[name] = first
            assert then[name][first:].tobytes() == self._out[name].reshape(-1)[first:].tobytes(), (name, first)
        assert set(first_of.values()) == {0}


def watched(fn: Callable[..., ad.Tensor], p: Params, *args: Any) -> Watch:
    """A bound run with hooks, which must have the bits of one without and of a call; twice, as in a loop."""
    vg = ad.value_and_grad(fn)
    plain = buffers(p)
    value = vg.bind(p, *args, out=plain)()
    assert same_bits(vg(p, *args)[1], plain)
    for _ in range(2):
        out = buffers(p)
        watch = Watch(out)
        assert vg.bind(p, *args, out=out, on_ready=watch.on_ready)() == value or np.isnan(value)
        assert same_bits(out, plain)
        watch.check()
    return watch


def perceptron(p: Params, batch: Batch) -> ad.Tensor:
    hidden = ad.relu(batch.x @ p["W1"] + p["b1"])
    hidden = ad.relu(hidden @ p["W2"] + p["b2"])
    return ad.softmax_cross_entropy(hidden @ p["W3"] + p["b3"], batch.y)


def perceptron_parameters() -> Params:
    shapes = {"W1": (600, 512), "W2": (512, 512), "W3": (512, 10)}
    weights = {name: floats(*shape, seed=i) * np.float32(0.05) for i, (name, shape) in enumerate(shapes.items())}
    return weights | {f"b{i}": floats(n, seed=3 + i) for i, n in ((1, 512), (2, 512), (3, 10))}


def samples(*shape: int) -> Batch:
    return Batch(floats(*shape, seed=9), np.arange(shape[0]) % 7, np.array([1, 2, 3], np.uint64))


def test_gradients_are_told_of_in_the_order_of_the_backward_pass() -> None:
    """Layer by layer from the last to the first, large ones in tiles of rows, the last rows first."""
    watch = watched(perceptron, perceptron_parameters(), samples(8, 600))
    assert watch.told == [
        ("b3", 0), ("W3", 0),
        ("b2", 0), ("W2", 256 * 512), ("W2", 0),
        ("b1", 0), ("W1", 344 * 512), ("W1", 0),
    ]  # fmt: skip


def test_a_tile_is_told_of_before_the_next_is_computed() -> None:
    """At the first word of W1 its other rows are not yet written; W2 is told of before anything of W1 is."""
    p = perceptron_parameters()
    out = buffers(p)
    unwritten: dict[tuple[str, int], int] = {}

    def on_ready(name: str, first: int) -> None:
        unwritten[name, first] = int(np.isnan(out["W1"]).sum())

    ad.value_and_grad(perceptron).bind(p, samples(8, 600), out=out, on_ready=on_ready)()
    assert unwritten["W2", 0] == 600 * 512
    assert unwritten["W1", 344 * 512] == 344 * 512
    assert unwritten["W1", 0] == 0


def test_a_gradient_in_tiles_is_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles differ from the product at once by no more than the rounding of another order."""
    p, batch = perceptron_parameters(), samples(8, 600)
    tiled = ad.grad(perceptron)(p, batch)
    monkeypatch.setattr(tiles, "TILE", 2**40)
    for name, whole in ad.grad(perceptron)(p, batch).items():
        np.testing.assert_allclose(tiled[name], whole, rtol=1e-5, atol=1e-7)


def turned(p: Params, batch: Batch) -> ad.Tensor:
    return (batch.x @ p["w"].T).sum()


def reshaped(p: Params, batch: Batch) -> ad.Tensor:
    return (batch.x @ p["w"].reshape(800, 512)).sum()


def convolved(p: Params, batch: Batch) -> ad.Tensor:
    images = batch.x.reshape(4, 5, 5, 32)
    return ad.tanh(ad.conv2d(images, p["w"], padding="valid")).sum()


@pytest.mark.parametrize(
    ("fn", "shape"),
    [
        (turned, (512, 800)),
        (reshaped, (800 * 512,)),
        (reshaped, (4, 200, 512)),
        (convolved, (5, 5, 32, 512)),
    ],
)
def test_a_gradient_seen_through_a_view_is_tiled_where_it_lies(fn: Any, shape: tuple[int, ...]) -> None:
    """The elements that are told of are those of the parameter as it lies, whatever the shape of the product."""
    watch = watched(fn, {"w": floats(*shape) * np.float32(0.1)}, samples(4, 800))
    product = (512, 800) if fn is turned else (800, 512)
    assert len(watch.told) > 1
    assert watch.told == [("w", begin * product[1]) for begin, _ in tiles.gradient_tiles(product)]


@pytest.mark.parametrize(
    "fn",
    [
        lambda p, b: (b.x @ p["w"]).sum() + (p["w"] * p["w"]).sum(),  # a sum of two
        lambda p, b: (ad.tanh(b.x @ p["w"]) @ p["w"].T).sum(),
        lambda p, b: ad.embedding(p["w"], b.y).sum(),
        lambda p, b: (b.x.reshape(1, 4, 800) @ p["w"].reshape(1, 800, 512)).sum(),  # a stack of products
        lambda p, b: ad.exp(p["w"]).sum(),
    ],
)
def test_a_gradient_that_is_no_single_product_is_told_of_at_once(fn: Any) -> None:
    """However large it is."""
    p = {"w": floats(800, 512) * np.float32(0.1), "other": floats(3)}
    assert watched(fn, p, samples(4, 800)).told == [("w", 0), ("other", 0)]


@pytest.mark.parametrize(
    "fn",
    [lambda p, x: (ad.tanh(x @ p["W"]) @ p["V"]).sum(), lambda p, x: (p["V"].T @ ad.tanh(p["W"].T @ x.T)).sum()],
    ids=["right", "left"],
)
def test_the_gradient_of_a_parameter_comes_before_the_cotangents_of_what_was_computed(fn: Any) -> None:
    """It can leave while the other factor's cotangent is computed, on whichever side of a product it stands."""
    vg = ad.value_and_grad(fn)
    vg({"V": floats(4, 3), "W": floats(5, 4)}, floats(6, 5))
    (recording,) = vg._recordings.values()
    products = [i.out.slot for i in recording.chain.instructions if i.rows is not None]
    gradient_of_v = recording.program._destinations["V"].tensor.slot
    assert products.index(gradient_of_v) == 2  # the first behind the two of the forward pass


def test_parameters_without_gradient_are_told_of_too() -> None:
    """A parameter that the loss does not depend on has its zeros told of, also where no gradient is there at all."""
    p = {"used": floats(2), "unused": floats(3), "empty": floats(0, 3)}
    watch = watched(lambda p: p["used"].sum(), p)
    assert sorted(watch.told) == [("empty", 0), ("unused", 0), ("used", 0)]
    assert watched(lambda p, x: x.sum(), p, floats(2)).told == [("used", 0), ("unused", 0), ("empty", 0)]


def network(p: Params, b: Batch) -> ad.Tensor:
    """An image, an embedding, a normalisation and a dense layer."""
    image = ad.relu(ad.conv2d(b.x.reshape(4, 4, 4, 1), p["kernel"]))
    h = ad.max_pool2d(image).reshape(4, -1) @ p["W"] + ad.embedding(p["table"], b.y)
    h = ad.dropout(ad.layer_norm(h, p["scale"], p["bias"]), 0.5, b.key)
    return ad.softmax_cross_entropy(h @ p["table"].T, b.y) + (p["W"] ** 2).mean() * p["rates"][1] + p["rates"][0]


def network_parameters() -> Params:
    shapes = {"kernel": (3, 3, 1, 6), "W": (24, 5), "table": (7, 5), "scale": (5,), "bias": (5,), "rates": (3,)}
    return {name: floats(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())} | {"unused": floats(4, 4)}


def test_hooks_change_no_bit_of_a_network() -> None:
    """Images, embedding, normalisation, dropout, shared and unused parameters."""
    with small_tiles():
        watch = watched(network, network_parameters(), samples(4, 16))
    assert [first for name, first in watch.told if name == "kernel"] == [48, 36, 0]


@pytest.mark.parametrize("fn", test_plan.CHAINS, ids=lambda fn: fn.__name__)
def test_hooks_change_no_bit(fn: Callable[..., ad.Tensor]) -> None:
    """Chains made to trip the planner."""
    with small_tiles():
        watched(fn, {"a": test_plan.square(0), "b": test_plan.square(1), "unused": test_plan.square(2)})


@given(test_plan.steps, test_plan.ends)
@settings(max_examples=60)
def test_hooks_change_no_bit_of_a_random_chain(program: list[Any], ends: list[int]) -> None:
    """Any chain of operations on earlier results."""
    with small_tiles():
        watched(test_plan.random_chain(program, ends), {"a": test_plan.square(0), "b": test_plan.square(1)})


def test_what_a_hook_raises_ends_the_run() -> None:
    """The caller gets it, nothing more is computed, NumPy's buffer is as before, and the next run is right."""
    p, batch = perceptron_parameters(), samples(8, 600)
    vg, out = ad.value_and_grad(perceptron), buffers(p)

    def on_ready(name: str, first: int) -> None:
        raise ConnectionError(f"{name} from {first}")

    bound, before = vg.bind(p, batch, out=out, on_ready=on_ready), np.setbufsize(4096)
    try:
        with pytest.raises(ConnectionError, match="b3 from 0"):
            bound()
        assert np.getbufsize() == 4096
    finally:
        np.setbufsize(before)
    assert np.isnan(out["W3"]).all()
    assert same_bits(vg(p, batch)[1], ad.value_and_grad(perceptron)(p, batch)[1])


@pytest.mark.parametrize("transform", [ad.value_and_grad, ad.grad])
def test_a_call_takes_the_hooks_too(transform: Any) -> None:
    """With the same calls as a bound run."""
    p, batch = perceptron_parameters(), samples(8, 600)
    out = buffers(p)
    watch = Watch(out)
    transform(perceptron)(p, batch, out=out, on_ready=watch.on_ready)
    watch.check()
    assert watch.told == watched(perceptron, p, batch).told


class Model:
    loss = staticmethod(perceptron)


def test_the_engine_hands_the_hooks_on() -> None:
    """What the step loop gets to hear is what the run says."""
    p, batch = perceptron_parameters(), samples(8, 600)
    out = buffers(p)
    watch = Watch(out)
    NumpyEngine(Model, classify=True).gradient(p, batch, weight=0.5, out=out, on_ready=watch.on_ready)()
    watch.check()
    assert watch.told == watched(perceptron, p, batch).told
