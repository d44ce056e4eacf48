"""Convolution and pooling of images (n, height, width, channels).

A convolution is a matrix product: the windows of the image, copied side by side (im2col), times the kernel. Windows
are a strided view of the padded image; their vector-Jacobian product adds each window back where it came from.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from thalweg_worker.autodiff import namespace
from thalweg_worker.autodiff.operands import floats
from thalweg_worker.autodiff.products import matmul
from thalweg_worker.autodiff.reductions import mean
from thalweg_worker.autodiff.shaping import pad, reshape
from thalweg_worker.autodiff.tensor import Operand, Tensor

Pair = int | tuple[int, int]


def conv2d(x: Operand, w: Operand, stride: Pair = 1, padding: Literal["same", "valid"] = "same") -> Tensor:
    """The cross-correlation of images with a kernel, as deep learning's convolution.

    x: (n, h, w, c); w: (kh, kw, c, o). Result (n, h', w', o): with "same" h' = ceil(h / stride), the border of zeros
    being one wider after than before where it is odd (as in TensorFlow and JAX); with "valid"
    h' = (h - kh) // stride + 1, without a border.
    """
    x, w = floats("conv2d", x, w)
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        raise ValueError(f"conv2d: expected x (n, h, w, c) and w (kh, kw, c, o), found {x.shape} and {w.shape}")
    if padding not in ("same", "valid"):
        raise ValueError(f"conv2d: expected padding 'same' or 'valid', found {padding!r}")
    steps = _pair("conv2d", stride)
    if padding == "same":
        borders = (_border(*sizes) for sizes in zip(x.shape[1:3], w.shape[:2], steps, strict=True))
        x = pad(x, [(0, 0), *borders, (0, 0)])
    kh, kw, channels, outputs = w.shape
    views = _windows("conv2d", x, (kh, kw), steps)
    n, height, width = views.shape[:3]
    columns = reshape(views, (n * height * width, kh * kw * channels))
    y = matmul(columns, reshape(w, (kh * kw * channels, outputs)))
    return reshape(y, (n, height, width, outputs))


def average_pool2d(x: Operand, window: Pair = 2, stride: Pair | None = None) -> Tensor:
    """The mean of each window. x: (n, h, w, c); stride defaults to the window; no border, as "valid" of conv2d."""
    x, window, stride = _pooled("average_pool2d", x, window, stride)
    return mean(_windows("average_pool2d", x, window, stride), axis=(3, 4))


def max_pool2d(x: Operand, window: Pair = 2, stride: Pair | None = None) -> Tensor:
    """The largest of each window; of equal ones the first gets the cotangent. Arguments as of average_pool2d."""
    x, window, stride = _pooled("max_pool2d", x, window, stride)
    chain, xp = x.chain, x.chain.xp
    n, height, width = _windows("max_pool2d", x, window, stride).shape[:3]
    shape = (n, height, width, x.shape[3])
    corners = _corners(window, stride, (height, width))

    def kernel(x: Any, out: Any) -> None:
        xp.copyto(out, x[corners[0]])
        for corner in corners[1:]:
            xp.maximum(out, x[corner], out=out)

    def vjp_kernel(g: Any, x: Any, y: Any, out: Any, free: Any, here: Any, share: Any) -> None:
        out.fill(0)
        free.fill(True)
        for corner in corners:
            xp.equal(x[corner], y, here)
            xp.logical_and(here, free, here)
            xp.greater(free, here, free)
            xp.copyto(share, here)
            xp.multiply(share, g, share)
            xp.add(out[corner], share, out[corner])

    spaces = [(shape, np.bool_), (shape, np.bool_), (shape, x.dtype)]
    y = chain.emit(kernel, (x,), shape)
    return y.linked((x, lambda g: chain.emit(vjp_kernel, (g, x, y), x.shape, scratch=spaces)))


def _windows(name: str, x: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """The windows of `x` as a view (n, h', w', kh, kw, c)."""
    chain, xp = x.chain, x.chain.xp
    n, height, width, channels = x.shape
    if not (0 < window[0] <= height and 0 < window[1] <= width):
        raise ValueError(f"{name}: expected a window that fits in {(height, width)} pixels, found {window}")
    size = ((height - window[0]) // stride[0] + 1, (width - window[1]) // stride[1] + 1)
    shape = (n, *size, *window, channels)

    def layout(x: Any) -> Any:
        a, b, c, d = x.strides
        return namespace.as_strided(xp, x, shape, (a, b * stride[0], c * stride[1], b, c, d))

    corners = _corners(window, stride, size)

    def fold(g: Any, out: Any) -> None:
        out.fill(0)
        for corner, (i, j) in zip(corners, np.ndindex(window), strict=True):
            xp.add(out[corner], g[:, :, :, i, j], out[corner])

    y = chain.view(x, layout, shape)
    return y.linked((x, lambda g: chain.emit(fold, (g,), x.shape)))


def _corners(window: tuple[int, int], stride: tuple[int, int], size: tuple[int, int]) -> list[tuple[slice, ...]]:
    """For each place in a window, in C order, the pixels of the image that stand there in some window."""
    return [
        (
            slice(None),
            slice(i, i + stride[0] * (size[0] - 1) + 1, stride[0]),
            slice(j, j + stride[1] * (size[1] - 1) + 1, stride[1]),
        )
        for i, j in np.ndindex(window)
    ]


def _border(length: int, window: int, stride: int) -> tuple[int, int]:
    """How many zeros "same" puts before and after `length` pixels."""
    total = max((-(-length // stride) - 1) * stride + window - length, 0)
    return total // 2, total - total // 2


def _pair(name: str, value: Pair) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name}: expected a whole number >= 1 or two of them, found {value}")
    return pair


def _pooled(
    name: str, x: Operand, window: Pair, stride: Pair | None
) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    (x,) = floats(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name}: expected x (n, h, w, c), found {x.shape}")
    return x, _pair(name, window), _pair(name, window if stride is None else stride)
