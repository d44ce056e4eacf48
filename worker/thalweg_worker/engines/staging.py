"""Parameters on their way to a device, and gradients on their way back; for all frameworks.

    host's shared memory -> page-locked memory -> device      when a pass begins
    device -> page-locked memory -> host's shared memory      while the backward pass still computes what is left

Rules:
  - A parameter is copied as soon as `before_read` says that it is there, one after the other: while the last ones still
    come over the network, the first are on the device.
  - The parameters of a step stay on the device for its other microbatches, where whoever makes the engine says that
    they are the same.
  - A gradient is announced once its bytes are in `out`, in the thread that runs the pass; that of a parameter that the
    loss did not come through is zero. Who has arrived is announced first, whoever was sent first.
  - Nothing is written to memory that a copy of before, of a pass that was broken off, may still use (`Slot.put`).

Why page-locked memory in between, and not the shared memory itself, registered with CUDA: each worker of a host would
have to lock all of it, that of other workers' gradients too, and parameters are mapped so that a worker cannot write to
them, which not every GPU takes. It costs a copy in memory each way, in the shadow of what the device computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.batch import Batch
from thalweg_worker.engines.protocol import Arrays, BeforeRead, OnReady


class Slot(Protocol):
    """Room for one array on a device, and page-locked memory beside it, which serves one direction at a time.

    value: the device's array; what was put is in it for all that the device is told to compute after that
    """

    @property
    def value(self) -> Any: ...

    def put(self, array: NDArray[Any]) -> None:
        """Begins to copy `array`, which may change once this returns, to the device; waits for all copies of before."""

    def fetch(self, result: Any) -> None:
        """Begins to copy `result`, an array of the device of the same shape, once what computes it is done. Any thread
        may call."""

    def arrived(self) -> bool:
        """Whether `take` has nothing to wait for."""
        ...

    def take(self, out: NDArray[np.float32]) -> None:
        """Waits for what was fetched, and writes it to `out`."""


class Device(Protocol):
    """One device of one framework: the thin layer, beneath which nothing is decided."""

    def slot(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Slot:
        """Room for an array."""
        ...


class Gradients:
    """Those of one backward pass, on their way to `out`."""

    def __init__(self, out: Arrays, on_ready: OnReady | None) -> None:
        self._out = out
        self._on_ready = on_ready
        self._open: dict[str, None] = {}

    def begin(self) -> None:
        """Nothing is final."""
        self._open = dict.fromkeys(self._out)

    def send(self, name: str, gradient: Any) -> None:
        """The framework's gradient of `name`, weighted, is computed, or will be by what a device was told. Any thread
        may call."""
        raise NotImplementedError

    def finish(self) -> None:
        """Returns once all are in `out`, and announced; what was not sent is zero."""
        for name in list(self._open):
            self._out[name].fill(0.0)
            self._final(name)

    def _final(self, name: str) -> None:
        """That of `name` is in `out`."""
        self._open.pop(name, None)
        if self._on_ready is not None:
            self._on_ready(name, 0)


Bring = Callable[[NDArray[np.uint64] | None, BeforeRead | None], dict[str, Any]]
"""Called with the key of a batch, and with `before_read`: asks for the parameters, and returns the framework's arrays
of them, which last until it is called again."""


class Memory(Protocol):
    """Where a framework has parameters and batches: in memory of the host, or on a device."""

    def reader(self, parameters: Arrays) -> Bring:
        """What brings these parameters to where the framework computes."""
        ...

    def batch(self, batch: Batch) -> Callable[[], tuple[Any, Any]]:
        """What brings the samples and targets that the batch then holds, and returns the framework's arrays of them."""
        ...

    def gradients(self, out: Arrays, on_ready: OnReady | None) -> Gradients:
        """Those that go to `out`."""
        ...

    def forget(self) -> None:
        """What was brought last is of no step."""


class HostMemory:
    """Memory of the host, in place: nothing is copied on the way there."""

    def __init__(self, view: Callable[[NDArray[Any]], Any], writer: Callable[[NDArray[Any]], Callable[[Any], Any]]):
        """
        view:   the framework's array on the same memory
        writer: what writes a gradient of the framework into an array
        """
        self._view = view
        self._writer = writer

    def reader(self, parameters: Arrays) -> Bring:
        values = {name: self._view(array) for name, array in parameters.items()}

        def bring(key: NDArray[np.uint64] | None, before_read: BeforeRead | None) -> dict[str, Any]:
            if before_read is not None:
                for name, array in parameters.items():
                    before_read(name, array.size)
            return values

        return bring

    def batch(self, batch: Batch) -> Callable[[], tuple[Any, Any]]:
        arrays = self._view(batch.x), self._view(batch.y)
        return lambda: arrays

    def gradients(self, out: Arrays, on_ready: OnReady | None) -> Gradients:
        return HostGradients(out, on_ready, {name: self._writer(array) for name, array in out.items()})

    def forget(self) -> None:
        """Nothing is known."""


class HostGradients(Gradients):
    """Gradients in memory of the host: each is written and announced at once."""

    def __init__(self, out: Arrays, on_ready: OnReady | None, write: dict[str, Callable[[Any], Any]]) -> None:
        super().__init__(out, on_ready)
        self._write = write

    def send(self, name: str, gradient: Any) -> None:
        self._write[name](gradient)
        self._final(name)


class Staging:
    """A device's memory: the parameters of a model, with room for one pass at a time.

    stays: whether the parameters are the same for all microbatches of a step (`Batch.key`), as long as they lie in the
           same memory of the host
    """

    def __init__(self, device: Device, *, stays: bool = False) -> None:
        self._device = device
        self._stays = stays
        self._slots: dict[str, Slot] = {}
        self._batches: dict[tuple[Any, ...], Slot] = {}
        self._there: tuple[int, ...] | None = None  # whose parameters are on the device; None: nobody knows
        self.on_their_way: dict[str, Slot] = {}  # gradients that were sent and not taken

    def reader(self, parameters: Arrays) -> Bring:
        for name, array in parameters.items():
            if name not in self._slots:
                self._slots[name] = self._device.slot(array.shape, array.dtype)
        slots = {name: self._slots[name] for name in parameters}

        def bring(key: NDArray[np.uint64] | None, before_read: BeforeRead | None) -> dict[str, Any]:
            self.on_their_way.clear()  # of a pass that was broken off
            whose = self._whose(parameters, key)
            known = whose is not None and whose == self._there
            self._there = None  # in case that this is broken off
            for name, array in parameters.items():
                if before_read is not None:
                    before_read(name, array.size)
                if not known:
                    slots[name].put(array)
            self._there = whose
            return {name: slot.value for name, slot in slots.items()}

        return bring

    def batch(self, batch: Batch) -> Callable[[], tuple[Any, Any]]:
        """The arrays on the device last until the next batch of the same shapes is brought."""
        return lambda: (self._given("x", batch.x), self._given("y", batch.y))

    def gradients(self, out: Arrays, on_ready: OnReady | None) -> Gradients:
        return StagedGradients(self, out, on_ready)

    def forget(self) -> None:
        """What is on the device is of no step."""
        self._there = None

    def fetch(self, name: str, gradient: Any) -> None:
        """Begins to copy a gradient to the host."""
        slot = self._slots[name]
        slot.fetch(gradient)
        self.on_their_way[name] = slot

    def _whose(self, parameters: Arrays, key: NDArray[np.uint64] | None) -> tuple[int, ...] | None:
        if not self._stays or key is None:
            return None
        return int(key[1]), *(array.ctypes.data for array in parameters.values())

    def _given(self, what: str, array: NDArray[Any]) -> Any:
        key = (what, array.shape, array.dtype)
        if key not in self._batches:
            self._batches[key] = self._device.slot(array.shape, array.dtype)
        self._batches[key].put(array)
        return self._batches[key].value


class StagedGradients(Gradients):
    """Gradients that come from a device."""

    def __init__(self, staging: Staging, out: Arrays, on_ready: OnReady | None) -> None:
        super().__init__(out, on_ready)
        self._staging = staging

    def send(self, name: str, gradient: Any) -> None:
        self._staging.fetch(name, gradient)

    def finish(self) -> None:
        waiting = self._staging.on_their_way
        while waiting:
            arrived = [name for name, slot in waiting.items() if slot.arrived()]
            for name in arrived or [next(iter(waiting))]:  # else for the one that was sent first
                waiting[name].take(self._out[name])
                del waiting[name]
                self._final(name)
        super().finish()
