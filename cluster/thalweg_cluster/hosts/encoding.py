"""Gradients in the job's wire format, with what each block loses kept for the next time that it is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.formats import WireFormat


class GradientEncoder:
    """The error feedback of one sender. Blocks of one name are encoded one after the other."""

    def __init__(self, form: WireFormat, before: Mapping[str, NDArray[np.float32]]) -> None:
        """`before`: the `residuals` of the sender that this one goes on from."""
        self._form = form
        self._residuals = {name: array.copy() for name, array in before.items()}

    @property
    def residuals(self) -> Mapping[str, NDArray[np.float32]]:
        """What is kept, by name of the block."""
        return self._residuals

    @property
    def error_norm(self) -> float:
        """Euclidean norm of all that is kept; one pass over it. While blocks are encoded it mixes two steps."""
        return math.sqrt(sum(float(np.dot(each, each)) for each in list(self._residuals.values())))

    def encode(self, name: str, gradient: NDArray[np.float32]) -> memoryview:
        """`gradient` as bytes; what it loses goes into the next block of the same `name`."""
        if not self._form.keeps_residual:
            return self._form.encode(gradient, None)
        residual = self._residuals.get(name)
        if residual is None:
            residual = self._residuals[name] = np.zeros_like(gradient)
        return self._form.encode(gradient, residual)
