"""A device that is none: its memory is the host's, and what it copies comes late and in an order of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class LateSlot:
    def __init__(self, device: LateDevice, value: Any) -> None:
        self._device = device
        self.value = value
        self._on_way: Any = None

    def put(self, array: np.ndarray) -> None:
        if self in self._device.fetched:
            self._device.waits += 1
            self._device.fetched.remove(self)
        self._device.copies += 1
        self._device.write(self.value, array)

    def fetch(self, result: Any) -> None:
        assert self not in self._device.fetched, "the same gradient is sent twice"
        self._on_way = result  # copied when it arrives, as late as that may be
        self._device.fetched.append(self)

    def arrived(self) -> bool:
        return self._device.arrives(self)

    def take(self, out: np.ndarray) -> None:
        self._device.fetched.remove(self)
        out[...] = self._device.read(self._on_way)
        self._on_way = None


class LateDevice:
    """`arriving`: how many of what is on its way have arrived, each time that is asked, the newest first; None: none
    ever does, it is waited for.

    copies: how many arrays were put; waits: how often that had to wait for a gradient of before; fetched: on their way,
    in the order in which they were sent
    """

    def __init__(
        self,
        new: Callable[[tuple[int, ...], Any], Any] = np.empty,
        write: Callable[[Any, np.ndarray], None] = np.copyto,
        read: Callable[[Any], np.ndarray] = np.asarray,
        arriving: int | None = 1,
    ) -> None:
        self._new, self.write, self.read = new, write, read
        self._arriving = arriving
        self.copies = self.waits = 0
        self.fetched: list[LateSlot] = []

    def slot(self, shape: tuple[int, ...], dtype: Any) -> LateSlot:
        return LateSlot(self, self._new(shape, dtype))

    def arrives(self, slot: LateSlot) -> bool:
        return self._arriving is not None and slot in self.fetched[-self._arriving :]
