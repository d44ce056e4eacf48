"""Products of large matrices, in tiles and blocks: when, where, and that they are the products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.worker.autodiff.watch import (
    Params,
    buffers,
    floats,
    perceptron,
    perceptron_parameters,
    samples,
    small_tiles,
    watched,
)

from thalweg_worker import autodiff as ad
from thalweg_worker.autodiff import tiles
from thalweg_worker.batch import Batch


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


def linear(p: Params, x: Any) -> ad.Tensor:
    return ad.tanh(x @ p["w"].reshape(1700, 700)).mean()


def test_a_product_begins_before_all_of_its_matrix_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of rows is asked for right before the product with it, also where the parameter has another shape."""
    p, x = {"w": floats(2, 850, 700) * np.float32(0.1), "v": floats(1)}, floats(3, 1700)
    assert tiles.parameter_blocks((1700, 700)) == [(0, 932), (932, 1444), (1444, 1700)]
    assert watched(linear, p, x).asked == [("w", 932 * 700), ("w", 1444 * 700), ("w", 1700 * 700), ("v", 1)]

    events: list[Any] = []
    matmul = np.matmul

    def seen(a: Any, b: Any, out: Any) -> None:
        events.append(b.shape)
        matmul(a, b, out=out)

    monkeypatch.setattr(np, "matmul", seen)
    bound = ad.value_and_grad(linear).bind(p, x, out=buffers(p), before_read=lambda name, end: events.append(end))
    bound()
    assert events[:6] == [932 * 700, (932, 700), 1444 * 700, (512, 700), 1700 * 700, (256, 700)]


def test_a_product_in_blocks_works_in_place() -> None:
    """It needs room for its result and for one product more, however many blocks there are."""
    product = ad.forward(lambda p, x: x @ p["w"])
    with small_tiles():
        product({"w": floats(64, 64)}, floats(32, 64))
    (recording,) = product._recordings.values()
    assert recording.program.arena.nbytes == 2 * 32 * 64 * 4


@pytest.mark.parametrize(
    ("fn", "products"),
    [
        (lambda p, x: x @ p["w"], 2),
        (lambda p, x: x @ (p["w"] * 2.0), 1),
        (lambda p, x: x @ p["w"].T, 1),
        (lambda p, x: p["w"] @ x, 1),
        (lambda p, x: x.reshape(2, 2, 4) @ p["w"].reshape(2, 4, 2), 1),
    ],
)
def test_only_a_matrix_that_arrives_row_by_row_is_read_in_blocks(
    fn: Any, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what is computed, turned or an argument, nor a stack of matrices: there blocks would only cost."""
    calls: list[int] = []
    matmul = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: calls.append(matmul(a, b, out=out).size))
    with small_tiles():
        ad.forward(fn)({"w": floats(4, 4)}, floats(4, 4))
    assert len(calls) == products


def test_a_product_in_blocks_is_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """It differs from the product at once by no more than the rounding of another order, with its gradient."""
    p, x = {"w": floats(1700 * 700) * np.float32(0.1)}, floats(3, 1700)
    value, gradient = ad.value_and_grad(linear)(p, x)
    predicted = ad.forward(lambda p, x: x @ p["w"].reshape(1700, 700))(p, x)
    np.testing.assert_allclose(predicted, x @ p["w"].reshape(1700, 700), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(tiles, "UNCUT_MAX", 2**40)
    whole_value, whole = ad.value_and_grad(linear)(p, x)
    assert value == pytest.approx(whole_value, rel=1e-4)
    np.testing.assert_allclose(gradient["w"], whole["w"], rtol=1e-3, atol=1e-7)
