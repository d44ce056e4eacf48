"""Convolution and pooling: values against loops, gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad

# image (n, h, w, c), kernel (kh, kw, c, o), stride, padding
CONVOLUTIONS = [
    ((2, 5, 6, 2), (3, 3, 2, 3), 1, "same"),
    ((2, 5, 6, 2), (3, 3, 2, 3), 1, "valid"),
    ((1, 6, 5, 1), (2, 3, 1, 2), 2, "same"),
    ((1, 7, 7, 1), (3, 2, 1, 1), (2, 3), "valid"),
    ((1, 7, 8, 2), (4, 4, 2, 1), (3, 1), "same"),
    ((2, 4, 4, 3), (1, 1, 3, 2), 1, "same"),
    ((2, 5, 5, 1), (1, 1, 1, 2), 2, "same"),
    ((1, 3, 3, 2), (3, 3, 2, 2), 1, "valid"),
]
POOLS = [((2, 4, 6, 2), 2, None), ((1, 5, 5, 1), 2, 1), ((1, 7, 5, 2), (3, 2), (2, 3)), ((1, 3, 3, 1), 1, 2)]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def convolve(x: np.ndarray, w: np.ndarray, stride: Any, padding: str) -> np.ndarray:
    """conv2d as its definition, one window at a time."""
    (kh, kw), (sh, sw) = w.shape[:2], pair(stride)
    height, width = x.shape[1:3]
    if padding == "same":
        out = -(-height // sh), -(-width // sw)
        below, right = max((out[0] - 1) * sh + kh - height, 0), max((out[1] - 1) * sw + kw - width, 0)
        x = np.pad(x, [(0, 0), (below // 2, below - below // 2), (right // 2, right - right // 2), (0, 0)])
    else:
        out = (height - kh) // sh + 1, (width - kw) // sw + 1
    y = np.empty((x.shape[0], *out, w.shape[3]))
    for i, j in np.ndindex(out):
        window = x[:, i * sh : i * sh + kh, j * sw : j * sw + kw]
        y[:, i, j] = np.einsum("nhwc,hwco->no", window, w)
    return y


def pooled(x: np.ndarray, window: Any, stride: Any, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    (kh, kw), (sh, sw) = pair(window), pair(window if stride is None else stride)
    out = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    y = np.empty((x.shape[0], *out, x.shape[3]))
    for i, j in np.ndindex(out):
        y[:, i, j] = reduce(x[:, i * sh : i * sh + kh, j * sw : j * sw + kw], axis=(1, 2))
    return y


@pytest.mark.parametrize(("image", "kernel", "stride", "padding"), CONVOLUTIONS)
def test_conv2d(image: Any, kernel: Any, stride: Any, padding: Any, check_gradient: Callable[..., Any]) -> None:
    """A convolution is the sum over each window, and its gradient that of central differences."""
    rng = np.random.default_rng(0)
    params = {"x": rng.standard_normal(image), "w": rng.standard_normal(kernel)}
    value = ad.forward(lambda p: ad.conv2d(p["x"], p["w"], stride, padding))(params)
    expected = convolve(params["x"], params["w"], stride, padding)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    weights = rng.standard_normal(expected.shape)
    check_gradient(lambda p: (ad.conv2d(p["x"], p["w"], stride, padding) * weights).sum(), params)


@pytest.mark.parametrize(("image", "window", "stride"), POOLS)
@pytest.mark.parametrize(("pool", "reduce"), [(ad.max_pool2d, np.max), (ad.average_pool2d, np.mean)])
def test_pooling(
    image: Any, window: Any, stride: Any, pool: Any, reduce: Any, check_gradient: Callable[..., Any]
) -> None:
    """Pooling reduces each window, overlapping or not, and its gradient is that of central differences."""
    rng = np.random.default_rng(0)
    params = {"x": rng.standard_normal(image)}
    value = ad.forward(lambda p: pool(p["x"], window, stride))(params)
    expected = pooled(params["x"], window, stride, reduce)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    weights = rng.standard_normal(expected.shape)
    check_gradient(lambda p: (pool(p["x"], window, stride) * weights).sum(), params)


def test_the_first_of_equal_pixels_gets_the_cotangent_of_max_pooling() -> None:
    """In each window one pixel, the first of the largest, gets it all."""
    x = np.array([[1.0, 1.0, 0.0, 2.0], [1.0, 0.0, 2.0, 2.0]]).reshape(1, 2, 4, 1)
    gradient = ad.grad(lambda p: ad.max_pool2d(p["x"]).sum())({"x": x})["x"]
    assert gradient.reshape(2, 4).tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]


def test_a_convolution_of_an_image_that_is_not_contiguous(check_gradient: Callable[..., Any]) -> None:
    """Windows follow the strides of the image that is handed in, read-only or not, without padding too."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((2, 5, 12, 2))
    wide.flags.writeable = False
    w = {"w": rng.standard_normal((2, 2, 2, 1))}
    fn = ad.grad(lambda p, x: (ad.conv2d(x, p["w"], 1, "valid") ** 2).sum())
    np.testing.assert_array_equal(fn(w, wide[:, :, ::2])["w"], fn(w, wide[:, :, ::2].copy())["w"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ad.conv2d(x, np.ones((3, 3, 2, 1))), r"conv2d: .*found \(1, 4, 4, 1\) and \(3, 3, 2, 1\)"),
        (lambda x: ad.conv2d(x, np.ones((5, 1, 1, 1)), 1, "valid"), r"conv2d: .*fits in \(4, 4\).*found \(5, 1\)"),
        (lambda x: ad.conv2d(x, np.ones((3, 3, 1, 1)), 1, "full"), "conv2d: .*'same' or 'valid', found 'full'"),
        (lambda x: ad.conv2d(x, np.ones((3, 3, 1, 1)), 0), "conv2d: .*>= 1 .*found 0"),
        (lambda x: ad.max_pool2d(x[0]), r"max_pool2d: .*found \(4, 4, 1\)"),
        (lambda x: ad.average_pool2d(x, 5), r"average_pool2d: .*found \(5, 5\)"),
    ],
)
def test_what_does_not_fit_is_named(call: Any, message: str) -> None:
    """A wrong shape, padding or stride is refused with the operation, what it expects and what it found."""
    with pytest.raises(ValueError, match=message):
        ad.grad(lambda p: call(p["x"]).sum())({"x": np.ones((1, 4, 4, 1))})
