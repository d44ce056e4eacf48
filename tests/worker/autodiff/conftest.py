"""What the tests of the automatic differentiation share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad

Gradient = dict[str, np.ndarray]
STEP = 1e-6  # of the central difference: its error, STEP**2 and 1e-16 / STEP, is far below the tolerance


def numerical_gradient(fn: Callable[..., ad.Tensor], params: Gradient, *args: Any) -> Gradient:
    """Central differences of fn(params, *args), one element at a time; params: float64."""
    value = ad.forward(fn)
    gradient = {}
    for name, p in params.items():
        gradient[name] = np.empty_like(p)
        for place in np.ndindex(p.shape):
            sides = []
            for step in (STEP, -STEP):
                moved = {**params, name: p.copy()}
                moved[name][place] += step
                sides.append(float(value(moved, *args)))
            gradient[name][place] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient


@pytest.fixture
def check_gradient() -> Callable[..., Gradient]:
    """check_gradient(fn, params, *args): the gradient of a scalar function equals its central differences.

    It must also be the same, bit for bit, when the block of memory held garbage before the replay.
    """

    def check(fn: Callable[..., ad.Tensor], params: Gradient, *args: Any) -> Gradient:
        gradient = ad.grad(fn)
        found = gradient(params, *args)
        for name, expected in numerical_gradient(fn, params, *args).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-7, err_msg=name)
        spoil(gradient)
        again = gradient(params, *args)
        assert all(again[name].tobytes() == found[name].tobytes() for name in params)
        return found

    return check


def spoil(transformed: Any) -> None:
    """Overwrite all that a transformed function keeps between calls, with bits that are NaN."""
    for recording in transformed._recordings.values():
        recording.program.arena.fill(255)


@pytest.fixture(name="spoil")
def spoil_fixture() -> Callable[[Any], None]:
    return spoil
