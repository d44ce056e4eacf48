"""A GPU for the engine of JAX: the thin layer beneath staging.py.

JAX has streams and page-locked memory of its own, and orders copies and computations itself. What it is given is copied
first: it may read an array of NumPy's after the call that it was given with.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from thalweg_worker.engines.gpu import Card, no_gpu


def card() -> Card:
    """The GPU that this process has, and what JAX may use of its memory. WorkerError where JAX finds none."""
    device = _gpu()
    stats = device.memory_stats() or {}
    return Card(str(device.device_kind), int(stats.get("bytes_limit", 0)))


def _gpu() -> Any:
    try:
        return jax.devices("gpu")[0]
    except RuntimeError as error:
        raise no_gpu(f"JAX {jax.__version__}", str(error).strip().splitlines()[0]) from None


class JaxDevice:
    """`device`: of JAX; None: the GPU that this process has, WorkerError where there is none."""

    def __init__(self, device: Any = None) -> None:
        self._device = _gpu() if device is None else device

    def slot(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Slot:
        return _Slot(self._device)


class _Slot:
    def __init__(self, device: Any) -> None:
        self._device = device
        self._result: Any = None
        self.value: Any = None  # nothing was put yet

    def put(self, array: NDArray[Any]) -> None:
        self.value = jax.device_put(array.copy(), self._device)

    def fetch(self, result: Any) -> None:
        result.copy_to_host_async()
        self._result = result

    def arrived(self) -> bool:
        return bool(self._result.is_ready())

    def take(self, out: NDArray[np.float32]) -> None:
        np.copyto(out, np.asarray(self._result))
        self._result = None
