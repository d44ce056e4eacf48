"""Layer normalisation and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from thalweg_worker.autodiff import namespace
from thalweg_worker.autodiff.arithmetic import add, multiply, power, subtract
from thalweg_worker.autodiff.operands import detached, elementwise, floats, tensors
from thalweg_worker.autodiff.reductions import mean
from thalweg_worker.autodiff.tensor import Operand, Tensor


def layer_norm(x: Operand, scale: Operand, bias: Operand, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * scale + bias, over the last axis; the variance is the biased one.

    x: (..., d); scale, bias: (d,). Source: Ba, Kiros, Hinton, "Layer Normalization", 2016; torch.nn.LayerNorm.
    """
    x, scale, bias = floats("layer_norm", x, scale, bias)
    if not x.ndim or x.shape[-1] == 0 or not scale.shape == bias.shape == x.shape[-1:]:
        raise ValueError(
            f"layer_norm: expected x (..., d), scale (d,) and bias (d,), found {x.shape}, {scale.shape}, {bias.shape}"
        )
    past = detached(x)
    centred = subtract(past, mean(past, -1, keepdims=True))
    inverse = power(add(mean(elementwise("square", centred), -1, keepdims=True), eps), -0.5)
    y = multiply(centred, inverse)

    def vjp(g: Tensor) -> Tensor:
        along = multiply(y, mean(multiply(g, y), -1, keepdims=True))
        return multiply(subtract(subtract(g, mean(g, -1, keepdims=True)), along), inverse)

    return add(multiply(y.linked((x, vjp)), scale), bias)


def dropout(x: Operand, rate: float, key: Operand | None) -> Tensor:
    """`x` with each element set to 0 with probability `rate` and the others divided by 1 - rate.

    key: (3,) uint64 = (seed, step, microbatch), as `Batch.key`; None: nothing is dropped. The mask is a function of
    the key, of how many dropouts the chain has before this one, and of the shape: the same in any process and on any
    device.
    """
    (x,) = floats("dropout", x)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: expected a rate in [0, 1), found {rate}")
    if key is None:
        return x
    x, key = tensors("dropout", x, key)
    if key.shape != (3,) or key.dtype != np.uint64:
        raise TypeError(f"dropout: expected a key of shape (3,) and dtype uint64, found {key.shape} and {key.dtype}")
    chain, xp, mask_number = x.chain, x.chain.xp, x.chain.random_masks
    chain.random_masks += 1

    def kernel(key: Any, out: Any, uniform: Any, keep: Any) -> None:
        seed, step, microbatch = key.tolist()
        # The generator counts in the first word of the counter, so no two streams overlap.
        namespace.uniform(xp, (seed, mask_number), (0, 0, step, microbatch), uniform)
        xp.greater_equal(uniform, rate, keep)
        xp.copyto(out, keep)
        xp.multiply(out, 1 / (1 - rate), out)

    mask = chain.emit(kernel, (key,), x.shape, scratch=[(x.shape, np.float32), (x.shape, np.bool_)])
    return multiply(x, mask)
