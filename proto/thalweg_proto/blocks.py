"""How the flat vector is divided among servers, and each server's shard into the blocks that travel.

Rules:
  - Shards are contiguous, in the order of the hosts, of equal bytes to within a chunk, whatever the tensors' sizes.
  - Shards and blocks begin at a multiple of CHUNK, so that norms, which are summed chunk by chunk, have the same bits
    for any number of shards.
  - A block is what is sent, summed, updated and published in one piece. Short blocks overlap better, long ones cost
    fewer calls: a shard has about BLOCKS of them, within BLOCK_ELEMENTS_MIN and BLOCK_ELEMENTS_MAX.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.shares import share

BLOCKS = 12
BLOCK_ELEMENTS_MIN = 4 * CHUNK
"""128 KiB of float32, some 1 ms on a wire of 1 Gbit/s: what a message costs beside its bytes is a part of that."""
BLOCK_ELEMENTS_MAX = 32 * CHUNK
"""1 MiB of float32."""


class Block(NamedTuple):
    """Elements [begin, end) of the flat vector, owned by host `owner`."""

    begin: int
    end: int
    owner: int


@dataclass(frozen=True)
class Shards:
    """Who owns what.

    bounds: [begin, end) of each host's shard, by host; empty where a host owns none
    blocks: all blocks, in the order of the flat vector
    """

    bounds: tuple[tuple[int, int], ...]
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, size: int, owns: Sequence[bool], *, block: int | None = None) -> Shards:
        """The shards of a flat vector of `size` elements.

        owns:  for each host whether it owns a shard; at least one does
        block: elements of a block, a multiple of CHUNK; by default what fits the shards' size
        """
        owners = [host for host, does in enumerate(owns) if does]
        chunks = -(-size // CHUNK)
        if block is None:
            wanted = round(chunks / len(owners) / BLOCKS) * CHUNK
            block = min(max(wanted, BLOCK_ELEMENTS_MIN), BLOCK_ELEMENTS_MAX)
        bounds = [(0, 0)] * len(owns)
        blocks = []
        for index, host in enumerate(owners):
            part = share(chunks, index, len(owners))
            begin, end = min(part.start * CHUNK, size), min(part.stop * CHUNK, size)
            bounds[host] = (begin, end)
            blocks += [Block(at, min(at + block, end), host) for at in range(begin, end, block)]
        return cls(tuple(bounds), tuple(blocks))

    def owned_by(self, host: int) -> range:
        """The indices of a host's blocks."""
        mine = [i for i, block in enumerate(self.blocks) if block.owner == host]
        return range(mine[0], mine[-1] + 1) if mine else range(0)

    def index(self, begin: int, end: int) -> int | None:
        """The index of the block [begin, end); None where there is no such block."""
        i = bisect_left(self.blocks, begin, key=lambda block: block.begin)
        return i if i < len(self.blocks) and self.blocks[i][:2] == (begin, end) else None
