"""A copy of the newest version of parameters that others go on changing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import ProtocolError

TRIES = 100


def snapshot(
    newest: Callable[[], int], parameters: Callable[[int], NDArray[np.float32]], *, spare: int
) -> tuple[int, NDArray[np.float32]]:
    """The newest version, and a copy of it.

    newest:     the newest whole version
    parameters: where a version lies
    spare:      how many more versions may be there before that place is used again

    ProtocolError where versions come faster than they can be copied.
    """
    for _ in range(TRIES):
        version = newest()
        copy = parameters(version).copy()
        if newest() <= version + spare:
            return version, copy
    raise ProtocolError("the parameters change faster than they can be copied")
