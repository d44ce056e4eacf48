"""What a server says of what ended the run: where, at which step, with what, and whose mistake it is."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.step import ADVICE, StepSpec
from thalweg_proto.errors import NonFiniteError, ServerError
from thalweg_proto.layout import Layout


def lost(
    host: int, found: str, *, step: int, bounds: Sequence[tuple[int, int]], addresses: Sequence[str], by: int
) -> ServerError:
    """Another host is gone.

    bounds:    of the shard of each host, by host
    addresses: at which each host's server answers others, as far as they are known
    by:        the host that noticed it
    """
    begin, end = bounds[host]
    address = addresses[host] if host < len(addresses) else "unknown address"
    return ServerError(
        f"host {host} at {address} is gone at step {step}, with shard [{begin}, {end}): {found} "
        f"(noticed by host {by} at {addresses[by]})"
    )


def broke(failure: Exception, *, host: int, address: str, step: int, shard: tuple[int, int]) -> ServerError:
    """What nobody designed, in words."""
    last = traceback.extract_tb(failure.__traceback__)[-1]
    begin, end = shard
    return ServerError(
        f"the server of host {host} at {address} broke at step {step}, with shard [{begin}, {end}): "
        f"{type(failure).__name__}: {failure} ({Path(last.filename).name}, line {last.lineno}). "
        f"This is a mistake in Thalweg, not in the job; the traceback is in the log of that process."
    )


def not_finite(
    version: int, begin: int, parameters: NDArray[np.float32], *, layout: Layout, job: StepSpec, host: int
) -> NonFiniteError:
    """The update of the block at `begin` gave `parameters`, of which one is not finite; or else the rule's state is."""
    bad = np.flatnonzero(~np.isfinite(parameters))
    at = begin + int(bad[0]) if len(bad) else begin
    tensor = next(t for t in layout.tensors if at < t.end)
    where = f" at {layout.locate(at)[1]}" if len(bad) and tensor.begin <= at else ""
    found = f"{parameters[at - begin]}{where}" if len(bad) else "an infinite state of the rule"
    first = min(job.steps_done(version), job.steps - 1)
    return NonFiniteError(
        f"step {first}: the update of {tensor.name!r} is {found} (shard of host {host}); the learning rate was "
        f"{job.learning_rate()(first):g}. Nothing of this block was published. {ADVICE}"
    )
