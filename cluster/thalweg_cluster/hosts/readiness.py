"""What of a step is there: on this host, at a shard's owner, and of the next version. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg_proto.blocks import Block


class Finals:
    """Which blocks of the gradients of this host are final, as its workers tell from the end of the vector down."""

    def __init__(self, blocks: Sequence[Block], gradients: int) -> None:
        """`gradients`: how many there are on this host in a step."""
        self._blocks = blocks
        self._final = [blocks[-1].end] * gradients  # elements from here on are final
        self._next = len(blocks)  # blocks from here on are final in all gradients

    def reset(self) -> None:
        """Another step begins."""
        self._final = [self._blocks[-1].end] * len(self._final)
        self._next = len(self._blocks)

    def begin(self, gradient: int) -> int:
        """Elements from here on are final in `gradient`."""
        return self._final[gradient]

    def final(self, gradient: int, begin: int) -> range:
        """Elements from `begin` on are final in `gradient`: the indices of the blocks that now are in all gradients."""
        self._final[gradient] = min(begin, self._final[gradient])
        last, least = self._next, max(self._final)
        while self._next and self._blocks[self._next - 1].begin >= least:
            self._next -= 1
        return range(self._next, last)


class Presence:
    """Which blocks of the next version are there."""

    def __init__(self, blocks: Sequence[Block], first: int = 0) -> None:
        """Of `blocks`, which are all that is waited for; the index of blocks[0] is `first`."""
        self._blocks = blocks
        self._first = first
        self._there = [False] * len(blocks)
        self._count = self._prefix = 0

    def reset(self) -> None:
        """Another version begins."""
        self._there = [False] * len(self._blocks)
        self._count = self._prefix = 0

    def there(self, index: int) -> bool:
        """A block is there; whether the elements [0, end) did grow by it."""
        index -= self._first
        if self._there[index]:
            return False
        self._there[index] = True
        self._count += 1
        before = self._prefix
        while self._prefix < len(self._blocks) and self._there[self._prefix]:
            self._prefix += 1
        return self._prefix > before

    @property
    def end(self) -> int:
        """The elements [0, end) are there."""
        return self._blocks[self._prefix - 1].end if self._prefix else 0

    @property
    def whole(self) -> bool:
        return self._count == len(self._blocks)

    @property
    def missing(self) -> list[int]:
        """The indices of the blocks that are not there."""
        return [self._first + i for i, there in enumerate(self._there) if not there]
