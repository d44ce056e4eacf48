"""The automatic differentiation on a GPU: the same functions on CuPy arrays give NumPy's values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch

cupy = pytest.importorskip(
    "cupy", reason="CuPy is not installed; on a machine with an NVIDIA GPU: pip install 'thalweg[cupy]'"
)


@pytest.fixture(autouse=True)
def gpu() -> None:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"CuPy is installed and finds no GPU ({error}); run on a machine where nvidia-smi shows one")
    if count == 0:
        pytest.skip("CuPy is installed and finds no GPU; run on a machine where nvidia-smi shows one")


def parameters(**shapes: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}


def images() -> Batch:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((16, 8, 8, 1)).astype(np.float32)
    return Batch(x, rng.integers(0, 10, 16), np.array([1, 2, 3], np.uint64))


def mlp(p: Any, b: Batch) -> ad.Tensor:
    h = ad.relu(b.x.reshape(16, 64) @ p["W1"] + p["b1"])
    return ad.softmax_cross_entropy(ad.dropout(h, 0.5, b.key) @ p["W2"] + p["b2"], b.y)


def convnet(p: Any, b: Batch) -> ad.Tensor:
    h = ad.average_pool2d(ad.max_pool2d(ad.relu(ad.conv2d(b.x, p["kernel"]))))
    return ad.softmax_cross_entropy(h.reshape(16, -1) @ p["W"], b.y)


def mixture(p: Any, b: Batch) -> ad.Tensor:
    h = ad.layer_norm(ad.embedding(p["table"], b.y), p["scale"], p["bias"])
    h = ad.concatenate([ad.tanh(h[:8]), ad.where(h[8:] > 0, ad.sigmoid(h[8:]), ad.exp(-(h[8:] ** 2)))])
    return ad.mean_squared_error(h, ad.log_softmax(h @ p["scale"][:, None] * p["bias"])) + h.max(1).mean() / h.sum()


@pytest.mark.parametrize(
    ("fn", "params"),
    [
        (mlp, parameters(W1=(64, 32), b1=32, W2=(32, 10), b2=10)),
        (convnet, parameters(kernel=(3, 3, 1, 4), W=(16, 10))),
        (mixture, parameters(table=(10, 12), scale=12, bias=12)),
    ],
)
def test_a_gpu_computes_what_the_cpu_does(fn: Callable[..., ad.Tensor], params: dict[str, np.ndarray]) -> None:
    """Values and gradients agree to single precision, with the same dropout masks, at the recording and at a replay."""
    b = images()
    value, gradient = ad.value_and_grad(fn)(params, b)
    on_gpu = {name: cupy.asarray(p) for name, p in params.items()}
    out = {name: cupy.empty_like(p) for name, p in on_gpu.items()}
    vg = ad.value_and_grad(fn)
    for batch in (b, Batch(cupy.asarray(b.x), cupy.asarray(b.y), b.key)):
        found, gradients = vg(on_gpu, batch, out=out)
        assert found == pytest.approx(value, rel=1e-4)
        for name in params:
            assert gradients[name] is out[name]
            np.testing.assert_allclose(cupy.asnumpy(out[name]), gradient[name], rtol=1e-3, atol=1e-5, err_msg=name)
