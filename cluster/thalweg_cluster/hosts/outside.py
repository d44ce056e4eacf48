"""Pushes of somebody who is no host of the job, put together from their blocks."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from thalweg_cluster.hosts.checks import Expected, sent_format
from thalweg_cluster.hosts.events import OutsidePush
from thalweg_cluster.update import all_finite
from thalweg_proto.errors import ProtocolError
from thalweg_proto.v1 import parameter_server_pb2 as pb


class OutsidePushes:
    """Of one stream, one push after the other: memory for one shard is taken, and only with the first good block."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._begin, self._end = expected.shards.bounds[expected.host]
        self._name: tuple[int, ...] | None = None  # of the push that is under way
        self._missing = 0  # of its elements
        self._whole: OutsidePush | None = None  # the last one
        self._dropped = False

    def add(self, header: pb.BlockHeader, data: memoryview) -> OutsidePush | None:
        """A block, which was checked; the push, where it is whole with it.

        ProtocolError where the block is none of the push that is under way, overlaps with an earlier one, or holds what
        is not finite: that would end the run.
        """
        name = (header.step, header.part_begin, header.part_end, header.version)
        if self._name is None:
            self._name, self._missing = name, self._end - self._begin
            self._gradient = np.empty(self._missing, dtype=np.float32)
            self._sent = np.zeros(self._missing, dtype=np.bool_)
        elif name != self._name:
            fields = "step, part_begin, part_end, version"
            raise ProtocolError(f"{fields}: expected {self._name}, a push that is not whole; found {name}")
        elements = slice(header.begin - self._begin, header.end - self._begin)
        if self._sent[elements].any():
            found = f"[{header.begin}, {header.end})"
            raise ProtocolError(f"begin, end: expected elements that were not sent yet; found {found}")
        block = self._gradient[elements]
        with np.errstate(all="ignore"):  # what is not finite is found
            sent_format(header.format, self._expected.gradients).decode(data, block)
            finite = all_finite(block)
        if not finite:
            at = int(np.flatnonzero(~np.isfinite(block))[0])
            raise ProtocolError(f"data: expected finite numbers; found {block[at]} as element {header.begin + at}")
        self._sent[elements] = True
        self._missing -= len(block)
        if self._missing:
            return None
        self._name = None
        parts = (header.part_begin, header.part_end)
        self._whole = OutsidePush(header.step, header.version, parts, self._gradient, Future())
        if self._dropped:
            self._whole.verdict.cancel()
        return self._whole

    def drop(self) -> None:
        """The client is gone: what was not begun is not done. From any thread."""
        self._dropped = True
        if self._whole is not None:
            self._whole.verdict.cancel()

    def end(self) -> None:
        """Nothing more comes. ProtocolError where a push is not whole."""
        if self._name is not None:
            found = f"{self._missing} missing"
            raise ProtocolError(f"begin, end: expected all elements of [{self._begin}, {self._end}); found {found}")
