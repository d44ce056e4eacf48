"""Dropout: its masks follow from the key and the number of the dropout, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad

X = {"x": np.ones((50, 40), np.float32)}


def key(seed: int = 0, step: int = 0, microbatch: int = 0) -> np.ndarray:
    return np.array([seed, step, microbatch], np.uint64)


def dropped(p: dict[str, Any], k: Any) -> ad.Tensor:
    return ad.dropout(p["x"], 0.25, k)


def test_kept_elements_are_scaled_so_that_the_mean_stays() -> None:
    """Elements are 0 or 1 / (1 - rate), and about `rate` of them are 0."""
    y = ad.forward(dropped)(X, key())
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 4 * (0.25 * 0.75 / y.size) ** 0.5


def test_a_mask_is_a_function_of_the_key() -> None:
    """The same key gives the same mask in another object; another seed, step or microbatch gives another."""
    fn = ad.forward(dropped)
    first = fn(X, key()).copy()
    keys = [key(seed=1), key(step=1), key(microbatch=1), key(2**64 - 1, 2**64 - 1, 2**64 - 1)]
    masks = [first, *(fn(X, k).copy() for k in keys)]
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    np.testing.assert_array_equal(ad.forward(dropped)(X, key()), first)


def test_masks_are_the_same_in_float64() -> None:
    """What is dropped does not depend on the dtype of the chain."""
    single, double = ad.forward(dropped)(X, key()), ad.forward(dropped)({"x": np.ones((50, 40))}, key())
    np.testing.assert_array_equal(single == 0, double == 0)


def test_two_dropouts_of_one_chain_differ() -> None:
    """Each dropout of a chain has its own mask."""
    a, b = ad.forward(lambda p, k: (ad.dropout(p["x"], 0.5, k), ad.dropout(p["x"], 0.5, k)))(X, key())
    assert 0.4 < (a == b).mean() < 0.6


def test_the_cotangent_goes_through_the_same_mask(check_gradient: Callable[..., Any]) -> None:
    """The gradient of a dropped element is 0, of a kept one the scale."""
    gradient = check_gradient(lambda p, k: dropped(p, k).sum(), {"x": np.ones((4, 5))}, key(7))["x"]
    np.testing.assert_array_equal(gradient, ad.forward(dropped)({"x": np.ones((4, 5))}, key(7)))


def test_nothing_is_dropped_without_a_key() -> None:
    """With key None, as in evaluation, dropout is the identity."""
    assert (ad.forward(dropped)(X, None) == 1).all()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate: float) -> None:
    """The rate is in [0, 1)."""
    with pytest.raises(ValueError, match=r"dropout: expected a rate in \[0, 1\), found"):
        ad.forward(lambda p, k: ad.dropout(p["x"], rate, k))(X, key())


def test_a_key_of_another_kind_is_refused() -> None:
    """The key has shape (3,) and dtype uint64."""
    with pytest.raises(TypeError, match=r"dropout: .*uint64, found \(2,\) and int64"):
        ad.forward(dropped)(X, np.zeros(2, np.int64))
