"""What each worker of one host has in hand, where the server says what to compute, and since when. Pure: what happens
goes in, with its time; who is to do what, and who is at work, comes out.

    deal --> given --> done
              |  |
              |  '--(its worker is slow)--> in another hand, too; done by one, it is late in the other
              '--(its worker is gone)--> deal, to those who live; to whoever joins next, where nobody does

Rules:
  - A piece, a part of a step or a chunk of the held-out set, is in one hand at a time, but for a part that a slow
    worker is in the middle of. It leaves the hand of one who does not finish it only when that one's process has ended,
    so that it cannot wake up and write, or when another one has done it.
  - Who is at a part that another one has done is away until it is done with that, too: it gets nothing to do, unless
    all are.
  - Whoever waits for parameters hangs on others: its time begins when the version that it waits for is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from thalweg_proto.shares import share


@dataclass(frozen=True, order=True)
class Part:
    """A part of a step: the gradient of a microbatch, or with local steps what a worker changed."""

    step: int
    part: int


@dataclass(frozen=True, order=True)
class Chunk:
    """A chunk of the held-out set, to be evaluated as `version`."""

    version: int
    chunk: int


Piece = Part | Chunk
P = TypeVar("P", Part, Chunk)


class InHand:
    """Of the workers of one host."""

    def __init__(self) -> None:
        self._hands: dict[int, set[Piece]] = {}  # by rank, of those who are there
        self._late: dict[int, set[Part]] = {}  # by rank: what others have done, and it may still be at
        self._since: dict[int, float] = {}  # by rank: when it got something to do, or said something
        self._needs: dict[int, int] = {}  # by rank: the version that its newest work starts from
        self._nobodys: list[Piece] = []
        self._version = -1  # the newest that is whole
        self._whole_s = 0.0  # since when

    @property
    def living(self) -> list[int]:
        """The ranks of those who are there, ascending."""
        return sorted(self._hands)

    def away(self, rank: int) -> bool:
        """Whether a worker may still be at what others have done."""
        return bool(self._late.get(rank))

    @property
    def there(self) -> list[int]:
        """The ranks of those who are there, and not away, ascending."""
        return [rank for rank in self.living if not self.away(rank)]

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done any more."""
        return not self._nobodys and not any(self._hands.values())

    def has(self, rank: int, piece: Piece) -> bool:
        return piece in self._hands[rank]

    def hand(self, rank: int) -> list[Piece]:
        """What one has in hand, in order."""
        pieces = self._hands[rank]
        chunks = sorted(piece for piece in pieces if isinstance(piece, Chunk))
        return [*chunks, *sorted(piece for piece in pieces if isinstance(piece, Part))]

    def holders(self, piece: Piece) -> list[int]:
        """Who has it in hand."""
        return [rank for rank in self.living if piece in self._hands[rank]]

    # Who is there

    def joined(self, rank: int) -> None:
        """A worker is there; `deal(())` says whether there is something for it."""
        self._hands[rank] = set()

    def gone(self, rank: int) -> list[Piece]:
        """The process of a worker has ended; returns what it alone had in hand, in order, which is to be dealt anew."""
        pieces = self.hand(rank)
        del self._hands[rank]
        self._late.pop(rank, None)
        return [piece for piece in pieces if not self.holders(piece)]

    # What is to be done

    def deal(self, pieces: Iterable[Piece]) -> dict[int, list[Piece]]:
        """Who is to do these, and what is left from when nobody was there: chunks first, since who computes parts goes
        on to parameters that come over those of the chunks. `give` says that it was told.

        Each gets a run; those who have less in hand get more.
        """
        pieces = [*self._nobodys, *pieces]
        self._nobodys = []
        if not self._hands:
            self._nobodys = pieces
            return {}
        chunks = [piece for piece in pieces if isinstance(piece, Chunk)]
        parts = [piece for piece in pieces if isinstance(piece, Part)]
        dealt: dict[int, list[Piece]] = {rank: [] for rank in self.there or self.living}
        for rank, chunk in self._dealt(chunks, Chunk):
            dealt[rank].append(chunk)
        for rank, part in self._dealt(parts, Part):
            dealt[rank].append(part)
        return {rank: some for rank, some in dealt.items() if some}

    def _dealt(self, pieces: Sequence[P], kind: type[P]) -> Iterator[tuple[int, P]]:
        living = self.there or self.living
        loads = [sum(isinstance(piece, kind) for piece in self._hands[rank]) for rank in living]
        if any(loads):
            counts = _fill(loads, len(pieces))
        else:
            counts = [len(share(len(pieces), place, len(living))) for place in range(len(living))]
        return zip(chain.from_iterable([rank] * n for rank, n in zip(living, counts, strict=True)), pieces, strict=True)

    def give(self, rank: int, pieces: Iterable[Piece], version: int, now: float) -> None:
        """A worker was told to do these, on version `version`, now."""
        if not self._hands[rank]:
            self._since[rank] = now
        self._hands[rank].update(pieces)
        self._needs[rank] = version

    def done(self, rank: int, piece: Piece) -> bool:
        """A worker has done a piece; whether it had it in hand."""
        if piece not in self._hands[rank]:
            return False
        self._hands[rank].remove(piece)
        if isinstance(piece, Part):
            for other in self.holders(piece):
                self._hands[other].remove(piece)
                self._late.setdefault(other, set()).add(piece)
        return True

    def late(self, rank: int, part: Part) -> bool:
        """A worker is at a part no more; whether another one had done it."""
        late = self._late.get(rank, set())
        was = part in late
        late.discard(part)
        return was

    def drop_parts(self) -> None:
        """Nobody waits any more for the parts that were given: their step is over."""
        for rank, hand in self._hands.items():
            self._hands[rank] = {piece for piece in hand if isinstance(piece, Chunk)}
        self._nobodys = [piece for piece in self._nobodys if isinstance(piece, Chunk)]

    # Who is at work

    def said(self, rank: int, now: float) -> None:
        """A worker said something."""
        self._since[rank] = now

    def whole(self, version: int, now: float) -> None:
        """All of `version` is there, and those who waited for it have work, since `now`."""
        if version > self._version:
            self._version, self._whole_s = version, now

    def stood_still(self, now: float) -> None:
        """Whoever takes these times stood still itself, until now."""
        self._since = dict.fromkeys(self._since, now)
        self._whole_s = now

    @property
    def working_since(self) -> dict[int, float]:
        """Since when each who has something to do, and all that it needs, is at it, by rank."""
        return {
            rank: max(self._since[rank], self._whole_s) if self._needs[rank] == self._version else self._since[rank]
            for rank, hand in self._hands.items()
            if (hand or self.away(rank)) and self._needs[rank] <= self._version
        }


def runs(numbers: Sequence[int]) -> Iterator[range]:
    """Ascending numbers as contiguous ranges."""
    begin = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[begin] + end - begin:
            yield range(numbers[begin], numbers[begin] + end - begin)
            begin = end


def _fill(loads: Sequence[int], count: int) -> list[int]:
    """How many of `count` pieces go to each, so that the least loaded get the most; ties go to the first."""
    more = [0] * len(loads)
    for _ in range(count):
        least = min(range(len(loads)), key=lambda place: loads[place] + more[place])
        more[least] += 1
    return more
