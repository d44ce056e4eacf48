"""A GPU for the engine of PyTorch: the thin layer beneath staging.py, and all of it that needs CUDA.

Rules:
  - What is computed, and the copies to the device, are on the stream that is PyTorch's own; so what was put is there
    for all that follows. Copies to the host are on another, which waits for what computes them and holds up nothing.
  - Hooks are called in a thread of autograd's, whose stream is that of the forward pass: it is the current one there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg_worker.engines.gpu import Card, no_gpu


def card() -> Card:
    """The GPU that this process has. WorkerError where PyTorch finds none."""
    if not torch.cuda.is_available():
        built = torch.version.cuda
        found = "it is built without CUDA" if built is None else f"it is built for CUDA {built}"
        raise no_gpu(f"PyTorch {torch.__version__}", found)
    properties = torch.cuda.get_device_properties(0)
    return Card(str(properties.name), int(properties.total_memory))


class CudaDevice:
    """The GPU that this process has; WorkerError where there is none."""

    def __init__(self) -> None:
        card()
        self.device = torch.device("cuda", 0)
        self._to_host = torch.cuda.Stream(self.device)

    def slot(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Slot:
        return _Slot(torch.from_numpy(np.empty(0, dtype)).dtype, shape, self.device, self._to_host)


class _Slot:
    def __init__(self, dtype: Any, shape: tuple[int, ...], device: Any, to_host: Any) -> None:
        self._host = torch.empty(shape, dtype=dtype, pin_memory=True)
        self._to_host = to_host
        self._copied = torch.cuda.Event()  # the last copy, either way
        self.value = torch.empty(shape, dtype=dtype, device=device)

    def put(self, array: NDArray[Any]) -> None:
        self._copied.synchronize()  # returns at once where nothing was ever copied
        np.copyto(self._host.numpy(), array)
        with torch.no_grad():
            self.value.copy_(self._host, non_blocking=True)
        self._copied.record(torch.cuda.current_stream(self.value.device))

    def fetch(self, result: Any) -> None:
        to_host = self._to_host
        to_host.wait_stream(torch.cuda.current_stream(self.value.device))
        with torch.no_grad(), torch.cuda.stream(to_host):
            self._host.copy_(result, non_blocking=True)
        result.record_stream(to_host)  # its memory is not given to another array before it is copied
        self._copied.record(to_host)

    def arrived(self) -> bool:
        return bool(self._copied.query())

    def take(self, out: NDArray[np.float32]) -> None:
        self._copied.synchronize()
        np.copyto(out, self._host.numpy())
