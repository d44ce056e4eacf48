"""The hooks of a run: what it asks for and tells of, when, and that listening changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.worker.autodiff import test_plan
from tests.worker.autodiff.watch import (
    Marks,
    Params,
    Watch,
    buffers,
    floats,
    perceptron,
    perceptron_parameters,
    same_bits,
    samples,
    small_tiles,
    watched,
)

from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch
from thalweg_worker.engines.numpy_engine import NumpyEngine


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
    assert watched(fn, p, samples(4, 800)).told == [("other", 0), ("w", 0)]


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


def test_parameters_without_gradient_are_told_of_first() -> None:
    """Who waits for all of a range need not wait for zeros in it; they are told of also where there is nothing else."""
    p = {"used": floats(2), "unused": floats(3), "empty": floats(0, 3)}
    assert watched(lambda p: p["used"].sum(), p).told == [("unused", 0), ("empty", 0), ("used", 0)]
    assert watched(lambda p, x: x.sum(), p, floats(2)).told == [("used", 0), ("unused", 0), ("empty", 0)]


def test_parameters_are_asked_for_in_the_order_of_the_forward_pass() -> None:
    """Layer by layer, once each; what is not read, before the first gradient."""
    p = perceptron_parameters() | {"none": floats(0), "other": floats(3, 2)}
    assert watched(perceptron, p, samples(8, 600)).asked == [
        ("W1", 600 * 512), ("b1", 512), ("W2", 512 * 512), ("b2", 512), ("W3", 5120), ("b3", 10),
        ("none", 0), ("other", 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fn", "asked"),
    [
        (lambda p: p["w"][1:3].sum() + p["w"][0].sum() + p["w"][2:, :2].sum(), [18, 20, 24]),
        (lambda p: p["w"][:, 1].sum(), [20, 24]),
        (lambda p: p["w"][1:3, ::-1].sum(), [18, 24]),
        (lambda p: p["w"][2, 3] * p["w"][0, 0] + p["w"][3, 1], [16, 20, 24]),
        (lambda p: p["w"][:, 2:2].sum() + p["w"][0].sum(), [0, 6, 24]),
        (lambda p: p["w"].T[1].sum(), [20, 24]),
        (lambda p: p["w"].reshape(3, 8)[1, ::3].sum(), [15, 24]),
        (lambda p: ad.average_pool2d(p["w"].reshape(1, 4, 6, 1)[:, :3, :3]).sum(), [8, 24]),
        (lambda p: (p["w"][0] * p["w"][1]).sum(), [6, 12, 24]),
        (lambda p: p["w"][np.array([0, 1])].sum(), [24]),
        (lambda p: (p["w"] @ p["w"].T).sum(), [24]),
        (lambda p: p["w"][0, 0], [24]),  # read by no instruction
    ],
)
def test_a_parameter_is_asked_for_as_far_as_a_view_of_it_reaches(fn: Any, asked: list[int]) -> None:
    """Elements are counted in the flat array, whatever the view; the rest of it comes before the first gradient."""
    assert watched(fn, {"w": floats(4, 6)}).asked == [("w", end) for end in asked]


def test_all_is_asked_for_before_a_forward_result_lies_in_a_gradient() -> None:
    """exp(a) is computed where the gradient of a will lie, long before that: nothing may be missing by then."""
    p = {"a": floats(5), "b": floats(2), "z": floats(3)}

    def fn(p: Params) -> ad.Tensor:
        return (p["b"] * p["b"]).sum() * ad.exp(p["a"]).sum() * ad.tanh(p["z"]).sum()

    assert watched(fn, p).asked == [("b", 2), ("a", 5), ("z", 3)]
    written: list[bool] = []
    out = buffers(p)
    ad.value_and_grad(fn).bind(p, out=out, before_read=lambda *_: written.append(bool(np.isnan(out["a"]).all())))()
    assert written == [True] * 3


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
    assert [end for name, end in watch.asked if name == "kernel"] == [36, 48, 54]
    assert [name for name, _ in watch.asked][-1] == "unused"


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


@pytest.mark.parametrize(("hook", "mark"), [("on_ready", "b3 0"), ("before_read", "W1 307200")])
def test_what_a_hook_raises_ends_the_run(hook: str, mark: str) -> None:
    """The caller gets it, nothing more is computed, NumPy's buffer is as before, and the next run is right."""
    p, batch = perceptron_parameters(), samples(8, 600)
    vg, out = ad.value_and_grad(perceptron), buffers(p)

    def gone(name: str, element: int) -> None:
        raise ConnectionError(f"{name} {element}")

    hooks: Any = {hook: gone}
    bound, before = vg.bind(p, batch, out=out, **hooks), np.setbufsize(4096)
    try:
        with pytest.raises(ConnectionError, match=mark):
            bound()
        assert np.getbufsize() == 4096
    finally:
        np.setbufsize(before)
    assert np.isnan(out["W3"]).all()
    assert same_bits(vg(p, batch)[1], ad.value_and_grad(perceptron)(p, batch)[1])


@pytest.mark.parametrize("transform", [ad.value_and_grad, ad.grad])
def test_a_call_tells_what_a_bound_run_tells(transform: Any) -> None:
    """It takes on_ready, too."""
    p, batch = perceptron_parameters(), samples(8, 600)
    told: Marks = []
    transform(perceptron)(p, batch, on_ready=lambda *mark: told.append(mark))
    assert told == watched(perceptron, p, batch).told


class Model:
    loss = staticmethod(perceptron)


def test_the_engine_hands_the_hooks_on() -> None:
    """What the step loop gets to hear is what the run says."""
    p, batch = perceptron_parameters(), samples(8, 600)
    watch, expected = Watch(p, np.nan), watched(perceptron, p, batch)
    hooks = {"on_ready": watch.on_ready, "before_read": watch.before_read}
    NumpyEngine(Model, classify=True).gradient(watch.parameters, batch, weight=0.5, out=watch.out, **hooks)()
    watch.check()
    assert (watch.asked, watch.told) == (expected.asked, expected.told)
