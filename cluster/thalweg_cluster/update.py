"""Sum and update in one pass over memory: the gradients of a step become the next version of the parameters.

Rules:
  - The flat vector is cut into blocks that stay in a core's cache. For each block: add the V gradients up along the
    tree, apply the rule, look whether the new parameters are finite; then the next block. So each number is fetched
    from memory once.
  - All of it happens in the place of gradients, which become the next version and the next state: no line of memory is
    fetched only to be overwritten, and nothing of the version before is lost until the next one is published.
  - Everything is elementwise, or summed over chunks of a fixed size in a fixed order. So the bits depend neither on the
    number of processes and threads nor on where the share of one begins, as long as it begins at a chunk.
  - Nothing is allocated, and no view is made but of what is averaged, after the first step.
  - Clipping needs the norm of the whole gradient before the first parameter changes: then `measure` sums first, in
    place, and `apply` goes on from there once the norm is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.averaging import Averaged, averaged_within
from thalweg_cluster.rules import Block, Blocks, BlockUpdate, Rule
from thalweg_cluster.rules.rule import scalar
from thalweg_cluster.summation import microbatch_leaves, sum_plan, tree_sum
from thalweg_cluster.threads import Threads
from thalweg_proto.shared_memory import CHUNK, STATE_ROWS, VERSION_ROWS, MemoryPlan, Vectors
from thalweg_proto.shares import share

BLOCK = 32 * CHUNK
"""Elements of a block: 1 MB for each array. Long enough that calls do not count, short enough for the shared cache."""
ALONE = 2 * BLOCK
"""Up to so many elements, one thread is quicker: two hand the interpreter to and fro between NumPy calls."""


@dataclass(frozen=True, eq=False)
class _Views:
    """Views of one block, made once.

    chunks:   which chunks the block is
    versions: rows that versions take turns in, by version
    others:   the gradients of microbatches 1 .. V-1, by step
    state:    the rule's state, by version; `hiding` the arrays of it that can hide an infinity
    averaged: what no rule updates; None: all is updated
    """

    chunks: range
    versions: list[Block]
    others: list[list[Block]]
    state: list[list[Block]]
    hiding: list[list[Block]]
    scratch: Blocks
    averaged: Averaged | None


class UpdatePass:
    """The arithmetic on a share of the flat vector.

    vectors: all rows; version t of the share becomes version t + 1
    chunks:  the share
    squares: (chunks of the whole,) float64: where the sums of squares of the summed gradient are put
    averaged: ranges [begin, end) of the flat vector that are averaged, and not updated by the rule (averaging.py)
    """

    def __init__(
        self,
        plan: MemoryPlan,
        vectors: Vectors,
        rule: Rule,
        *,
        chunks: range,
        squares: NDArray[np.float64],
        threads: int = 1,
        averaged: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._rule = rule
        self._squares = squares
        self._averaged = averaged
        self._sum = sum_plan(microbatch_leaves(plan.microbatches))
        alone = len(chunks) * CHUNK <= ALONE
        count = 1 if alone else max(1, min(threads, len(chunks)))
        self._threads = Threads(count)
        parts = [share(len(chunks), thread, count) for thread in range(count)]
        self._shares = [list(self._views(plan, vectors, chunks[part.start : part.stop])) for part in parts]

    def _views(self, plan: MemoryPlan, vectors: Vectors, chunks: range) -> Iterator[_Views]:
        needed = max(self._rule.scratch, self._sum.scratch)
        scratch = np.empty((needed, BLOCK), dtype=np.float32)
        for first in range(chunks.start, chunks.stop, BLOCK // CHUNK):
            last = min(first + BLOCK // CHUNK, chunks.stop)
            cut = slice(first * CHUNK, min(last * CHUNK, plan.size))
            state = [[slot[cut] for slot in vectors.state(t)] for t in range(STATE_ROWS)]
            yield _Views(
                chunks=range(first, last),
                # The row of version t + 1 is that of microbatch 0's gradient for step t.
                versions=[vectors.gradient(row - 1, 0)[cut] for row in range(VERSION_ROWS)],
                others=[[vectors.gradient(t, m)[cut] for m in range(1, plan.microbatches)] for t in range(STATE_ROWS)],
                state=state,
                hiding=[
                    [array for array, slot in zip(arrays, self._rule.slots, strict=True) if slot.hides]
                    for arrays in state
                ],
                scratch=[array[: cut.stop - cut.start] for array in scratch],
                averaged=averaged_within(self._averaged, cut.start, cut.stop),
            )

    def measure(self, step: int) -> None:
        """Sums the gradients of step `step`, and notes the squares of the sum; before `apply(..., summed=True)`."""

        def task(thread: int) -> None:
            for views in self._shares[thread]:
                summed = views.versions[(step + 1) % VERSION_ROWS]
                self._sum_up(views, step, summed)
                self._note_squares(views, summed)

        self._threads.run(task)

    def _sum_up(self, views: _Views, step: int, block: Block) -> None:
        """Sums the gradients of step `step` in the place of the first, `block`; what is averaged is set aside."""
        tree_sum(self._sum, [block, *views.others[step % STATE_ROWS]], views.scratch)
        if views.averaged is not None:
            views.averaged.set_aside(views.versions[step % VERSION_ROWS], block)

    def apply(
        self,
        step: int,
        learning_rate: float,
        *,
        summed: bool = False,
        factor: float | None = None,
        note_squares: bool = False,
        middle: Callable[[], object] | None = None,
    ) -> bool:
        """Makes version `step + 1` of the share; whether all of it is finite. If not, it must not be published.

        summed:       `measure` has summed the gradients already
        factor:       what the sum is multiplied by before the rule is applied
        note_squares: of the sum, before it is multiplied
        middle:       called when the first block is summed, and its parameters are still the old ones
        """
        update = self._rule.block_update(step, learning_rate)
        by = None if factor is None else scalar(factor)

        def task(thread: int) -> bool:
            own = None if thread else middle
            return self._apply(self._shares[thread], step, update, summed, by, note_squares, own)

        return all(self._threads.run(task))

    def _apply(
        self,
        blocks: list[_Views],
        step: int,
        update: BlockUpdate,
        summed: bool,
        factor: NDArray[np.float32] | None,
        note_squares: bool,
        middle: Callable[[], object] | None,
    ) -> bool:
        old, new = step % STATE_ROWS, (step + 1) % STATE_ROWS
        finite = True
        for views in blocks:
            block = views.versions[(step + 1) % VERSION_ROWS]
            if not summed:
                self._sum_up(views, step, block)
            if middle is not None:
                middle()
                middle = None
            if note_squares:
                self._note_squares(views, block)
            if factor is not None:
                np.multiply(block, factor, block)
            update(views.versions[step % VERSION_ROWS], block, views.state[old], views.state[new], views.scratch)
            if views.averaged is not None:
                views.averaged.put_back(block, views.state[new])
            finite = finite and all_finite(block) and all(map(all_finite, views.hiding[new]))
        return finite

    def keep(self, step: int) -> None:
        """Makes version `step` of the share, and the rule's state at it, version `step + 1`."""
        old, new = step % STATE_ROWS, (step + 1) % STATE_ROWS

        def task(thread: int) -> None:
            for views in self._shares[thread]:
                np.copyto(views.versions[(step + 1) % VERSION_ROWS], views.versions[step % VERSION_ROWS])
                for before, after in zip(views.state[old], views.state[new], strict=True):
                    np.copyto(after, before)

        self._threads.run(task)

    def _note_squares(self, views: _Views, summed: Block) -> None:
        for i, chunk in enumerate(views.chunks):
            part = summed[i * CHUNK : (i + 1) * CHUNK]
            self._squares[chunk] = sum_of_squares(part)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.close()


def all_finite(block: Block) -> bool:
    """Whether every element of a block is finite.

    Its dot product with itself is, if so; one pass in cache, and nothing written. Where it overflows, it takes a look.
    """
    return math.isfinite(np.dot(block, block)) or bool(np.isfinite(block).all())


def sum_of_squares(chunk: Block) -> float:
    """In float32, which is quick; in float64 where that overflows."""
    squares = float(np.dot(chunk, chunk))
    return squares if math.isfinite(squares) else float(np.sum(np.square(chunk, dtype=np.float64)))


def norm(squares: NDArray[np.float64]) -> float:
    """The Euclidean norm from the sums of squares of all chunks. fsum rounds once, so their order does not matter."""
    return math.sqrt(math.fsum(squares))
