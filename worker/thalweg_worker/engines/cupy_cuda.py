"""A GPU for the engine of CuPy: the thin layer beneath staging.py, and all of it that needs CUDA.

What is computed, and the copies to the device, are on the stream that is CuPy's own. Copies to the host are on another,
which waits for what computes them and holds up nothing.
"""

from __future__ import annotations

from typing import Any

import cupy
import cupyx
import numpy as np
from numpy.typing import NDArray

from thalweg_worker.engines.gpu import Card, no_gpu


def card() -> Card:
    """The GPU that this process has. WorkerError where CuPy finds none."""
    try:
        cupy.cuda.runtime.getDeviceCount()  # raises where there is none
        properties = cupy.cuda.runtime.getDeviceProperties(0)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise no_gpu(f"CuPy {cupy.__version__}", str(error)) from None
    return Card(properties["name"].decode(), int(properties["totalGlobalMem"]))


class CudaDevice:
    """The GPU that this process has; WorkerError where there is none."""

    def __init__(self) -> None:
        card()
        self._to_host = cupy.cuda.Stream(non_blocking=True)

    def slot(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Slot:
        return _Slot(shape, dtype, self._to_host)


class _Slot:
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], to_host: Any) -> None:
        self._host = cupyx.empty_pinned(shape, dtype)
        self._to_host = to_host
        self._copied = cupy.cuda.Event(disable_timing=True)  # the last copy, either way
        self._computed = cupy.cuda.Event(disable_timing=True)
        self._result: Any = None  # as long as it is on its way, nothing else is to be in its memory
        self.value = cupy.empty(shape, dtype)

    def put(self, array: NDArray[Any]) -> None:
        self._copied.synchronize()  # returns at once where nothing was ever copied
        np.copyto(self._host, array)
        stream = cupy.cuda.get_current_stream()
        self.value.data.copy_from_host_async(self._host.ctypes.data, self._host.nbytes, stream)
        self._copied.record(stream)

    def fetch(self, result: Any) -> None:
        self._result = result
        self._computed.record(cupy.cuda.get_current_stream())
        self._to_host.wait_event(self._computed)
        result.data.copy_to_host_async(self._host.ctypes.data, self._host.nbytes, self._to_host)
        self._copied.record(self._to_host)

    def arrived(self) -> bool:
        return bool(self._copied.done)

    def take(self, out: NDArray[np.float32]) -> None:
        self._copied.synchronize()
        np.copyto(out, self._host)
        self._result = None
