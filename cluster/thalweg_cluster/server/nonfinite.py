"""Which loss or tensor was not finite, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.layout import Layout


def describe_non_finite(layout: Layout, gradients: Sequence[NDArray[np.float32]], losses: Sequence[float]) -> str:
    """Names the first microbatch with a loss that is not finite, and the first such element of the gradients.

    gradients: of each microbatch, (layout.size,)
    losses:    mean loss of each microbatch
    """
    findings = [f"the loss of microbatch {m} is {loss}" for m, loss in enumerate(losses) if not np.isfinite(loss)][:1]
    for m, gradient in enumerate(gradients):
        for tensor in layout.tensors:
            bad = np.flatnonzero(~np.isfinite(gradient[tensor.begin : tensor.end]))
            if len(bad):
                name, position = layout.locate(tensor.begin + int(bad[0]))
                value = gradient[tensor.begin + bad[0]]
                findings.append(
                    f"the gradient of {name!r} is {value} at {position} ({len(bad):,} of its "
                    f"{tensor.end - tensor.begin:,} elements are not finite) in microbatch {m}"
                )
                return ", ".join(findings)
    findings.append("every gradient is finite, but the new parameters overflow float32")
    return ", ".join(findings)
