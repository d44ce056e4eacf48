"""Pushes of somebody who is no host of the job, put together from their blocks."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from thalweg_cluster.hosts.checks import Expected, sent_format
from thalweg_cluster.hosts.events import OutsidePush
from thalweg_proto.errors import ProtocolError
from thalweg_proto.v1 import parameter_server_pb2 as pb


class OutsidePushes:
    """Of one stream, one push after the other: memory for one shard is taken, and only with the first good block."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._name: tuple[int, int, int] | None = None
        self._covered: dict[int, int] = {}  # end by begin

    def add(self, header: pb.BlockHeader, data: memoryview) -> OutsidePush | None:
        """A block, which was checked; the push, where it is whole with it.

        ProtocolError where the block is none of the push that is under way, or overlaps with an earlier one.
        """
        name = (header.step, header.part_begin, header.part_end)
        begin, end = self._expected.shards.bounds[self._expected.host]
        if self._name is None:
            self._name = name
            self._gradient = np.zeros(end - begin, dtype=np.float32)
            self._covered = {}
        elif name != self._name:
            raise ProtocolError(f"step, part_begin, part_end: expected {self._name}, which is not whole; found {name}")
        for other_begin, other_end in self._covered.items():
            if header.begin < other_end and other_begin < header.end:
                raise ProtocolError(
                    f"begin, end: expected elements that were not sent yet; found [{header.begin}, {header.end})"
                )
        self._covered[header.begin] = header.end
        block = self._gradient[header.begin - begin : header.end - begin]
        sent_format(header.format, self._expected.gradients).decode(data, block)
        if sum(e - b for b, e in self._covered.items()) < end - begin:
            return None
        self._name = None
        parts = (header.part_begin, header.part_end)
        return OutsidePush(header.step, header.version, parts, self._gradient, Future())
