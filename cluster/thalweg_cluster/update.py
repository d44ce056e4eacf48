"""Sum and update in one pass over memory: the gradients of a step become the next version of the parameters.

Rules:
  - The flat vector is cut into blocks that stay in a core's cache. For each block: add the V gradients up along the
    tree, apply the rule, write the new parameters, look whether they are finite; then the next block. So each number
    is fetched from memory once.
  - Everything is elementwise, or summed over chunks of a fixed size in a fixed order. So the bits depend neither on the
    number of threads nor on where a shard begins, as long as it begins at a chunk.
  - Nothing is allocated, and no view is made, after the first step.
  - Clipping needs the norm of the whole gradient before the first parameter changes: then, and only then, the
    gradients are summed twice, first for the norm alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.rules import Block, BlockUpdate, Rule
from thalweg_cluster.summation import microbatch_leaves, sum_plan, tree_sum, tree_sum_scalars
from thalweg_cluster.threads import Threads

BLOCK = 64 * 1024
"""Elements of a block: 256 KB for each array. Long enough that the calls do not count, short enough for the cache."""
CHUNK = 8 * 1024
"""Elements over which a sum of squares runs in float32; the sums of the chunks are added in float64."""
ALONE = 1024 * 1024
"""Up to so many elements, one thread is quicker: two hand the interpreter to and fro between NumPy's calls."""


@dataclass(frozen=True)
class UpdateResult:
    """finite: whether every new parameter is; gradient_norm: of the summed gradient before clipping, where asked."""

    finite: bool
    gradient_norm: float | None


class _Views:
    """Views of one block of every array, made once."""

    def __init__(
        self, begin: int, end: int, parameters: Block, gradients: Block, state: list[Block], hiding: list[Block]
    ) -> None:
        cut = slice(begin, end)
        self.size = end - begin
        self.versions = (parameters[0, cut], parameters[1, cut])
        self.gradients = [gradient[cut] for gradient in gradients]
        self.state = [slot[cut] for slot in state]
        self.hiding = [slot[cut] for slot in hiding]


class UpdatePass:
    """The arithmetic of one shard.

    parameters: (2, size); version t in row t % 2
    gradients:  (V, size), one row for each microbatch; only read
    clip_norm:  the largest norm of the summed gradient, longer ones are shortened to it; 0: off
                (torch.nn.utils.clip_grad_norm_)
    """

    def __init__(
        self,
        *,
        parameters: NDArray[np.float32],
        gradients: NDArray[np.float32],
        rule: Rule,
        clip_norm: float = 0.0,
        threads: int = 1,
    ) -> None:
        size = parameters.shape[1]
        self._rule = rule
        self._clip_norm = clip_norm
        self.slots = {slot.name: np.full(size, slot.initial_value, dtype=np.float32) for slot in rule.slots}
        state = list(self.slots.values())
        hiding = [self.slots[slot.name] for slot in rule.slots if slot.hides]
        self._blocks = [
            _Views(begin, min(begin + BLOCK, size), parameters, gradients, state, hiding)
            for begin in range(0, size, BLOCK)
        ]
        self._plan = sum_plan(microbatch_leaves(len(gradients)))
        count = max(1, min(threads, len(self._blocks))) if size > ALONE else 1
        self._threads = Threads(count)
        bounds = [len(self._blocks) * i // count for i in range(count + 1)]
        self._shares = [range(bounds[i], bounds[i + 1]) for i in range(count)]
        # The sum; then what the inner sums of the tree, and after them the rule, are computed in.
        self._scratch = [
            np.empty((1 + max(rule.scratch, self._plan.scratch), BLOCK), dtype=np.float32) for _ in range(count)
        ]
        self._squares = [0.0] * len(self._blocks)

    def run(self, *, step: int, learning_rate: float, want_norm: bool = False) -> UpdateResult:
        """Makes version `step + 1` from version `step` and the gradients.

        Where the result is not finite, the new version and the state are of no use and must not be published.
        """
        update = self._rule.block_update(step, learning_rate)
        factor = None
        if self._clip_norm:
            self._threads.run(self._square_share)
            norm = self._norm()
            # A norm that is not finite shortens nothing: the pass itself will find what is not finite.
            if self._clip_norm < norm < math.inf:
                factor = np.array(self._clip_norm / (norm + 1e-6), dtype=np.float32)
        want_squares = want_norm and not self._clip_norm
        finite = self._threads.run(lambda share: self._update_share(share, step, update, factor, want_squares))
        return UpdateResult(all(finite), self._norm() if want_norm else None)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.close()

    def _norm(self) -> float:
        return math.sqrt(tree_sum_scalars(self._squares))

    def _square_share(self, share: int) -> None:
        """The first pass of clipping: sums each block, and keeps only the squares."""
        scratch = self._scratch[share]
        for index in self._shares[share]:
            views = self._blocks[index]
            summed, *work = scratch[:, : views.size]
            tree_sum(self._plan, views.gradients, summed, work)
            self._squares[index] = sum_of_squares(summed)

    def _update_share(
        self, share: int, step: int, update: BlockUpdate, factor: Block | None, want_squares: bool
    ) -> bool:
        old, new = step % 2, (step + 1) % 2
        scratch = self._scratch[share]
        summed, *work = scratch
        finite = True
        for index in self._shares[share]:
            views = self._blocks[index]
            if views.size < BLOCK:  # the last one
                summed, *work = scratch[:, : views.size]
            tree_sum(self._plan, views.gradients, summed, work)
            if want_squares:
                self._squares[index] = sum_of_squares(summed)
            if factor is not None:
                np.multiply(summed, factor, summed)
            out = views.versions[new]
            update(views.versions[old], summed, views.state, out, work)
            finite = finite and all_finite(out) and all(map(all_finite, views.hiding))
        return finite


def all_finite(block: Block) -> bool:
    """Whether every element of a block is finite.

    Its dot product with itself is, if so; one pass in cache, and nothing written. Where it overflows, it takes a look.
    """
    return math.isfinite(np.dot(block, block)) or bool(np.isfinite(block).all())


def sum_of_squares(block: Block) -> float:
    """The sum of the squares of a block, chunk by chunk, in float64."""
    return math.fsum(
        float(np.dot(chunk, chunk)) for chunk in (block[i : i + CHUNK] for i in range(0, len(block), CHUNK))
    )
