"""The backward pass: reverse-mode differentiation of a recorded chain.

The chain rule, once for each tensor, from the loss back: the cotangent of y (d loss / d y) gives, through the
vector-Jacobian products of y's operation, a share of the cotangent of each of y's inputs; the shares of one tensor add
up. Tensors are walked in the reverse of the order in which they were recorded, so a cotangent is complete when its
tensor is reached. Of the inputs of one operation the parameters come first: their gradients can leave while the other
cotangents are computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from thalweg_worker.autodiff.arithmetic import add
from thalweg_worker.autodiff.tensor import Tensor


def backpropagate(loss: Tensor, seed: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Record the backward pass of `loss` behind its chain.

    seed: the cotangent of the loss, a scalar. Returns d loss / d p * seed for each parameter p, in p's shape and dtype;
    None where the loss does not depend on p.
    """
    cotangents = {loss.slot: seed}
    for y in reversed(loss.chain.tensors[: loss.slot + 1]):
        if y.slot not in cotangents:
            continue
        for x, vjp in sorted(y.vjps, key=lambda link: link[0].root.computed):
            share = vjp(cotangents[y.slot])
            assert (share.shape, share.dtype) == (x.shape, x.dtype), (share, x)
            cotangents[x.slot] = add(cotangents[x.slot], share) if x.slot in cotangents else share
    return [cotangents.get(p.slot) for p in parameters]
