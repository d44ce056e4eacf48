"""Save a checkpoint: each owner its shard, then one of them the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from safetensors.numpy import save

from thalweg_cluster.checkpoints.manifest import NAME, Manifest, ShardFile, folder_name, step_of
from thalweg_cluster.checkpoints.state import ShardState
from thalweg_cluster.checkpoints.store import PART_SUFFIX, Store

PARAMETERS, SLOT, OF_HOST = "parameters", "state.", "host."
"""Names of arrays in a shard's file; SLOT and OF_HOST stand before a name."""


def write_shard(store: Store, step: int, state: ShardState, *, host: int, hosts: int) -> ShardFile:
    """Writes what one of `hosts` hosts has; what the manifest has to say of it. OSError where the storage fails."""
    arrays = {PARAMETERS: state.parameters}
    arrays |= {SLOT + name: array for name, array in state.slots.items()}
    arrays |= {OF_HOST + name: array for name, array in state.of_host.items()}
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    name = f"shard_{host:05d}_of_{hosts:05d}.safetensors"
    store.write(f"{folder_name(step)}/{name}", data)
    return ShardFile(
        name=name,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        begin=state.begin,
        end=state.end,
        host=host,
        updates=state.updates,
        names=state.names,
    )


def commit(store: Store, manifest: Manifest, *, keep: int) -> None:
    """Writes the manifest, with which the checkpoint is there; then removes what is too old. OSError as above."""
    store.write(f"{folder_name(manifest.step)}/{NAME}", manifest.to_json())
    by_step = _files(store)
    whole = [step for step, names in by_step.items() if f"{folder_name(step)}/{NAME}" in names]
    # Files of a later step are those of a checkpoint that other hosts are writing already.
    kept = sorted(step for step in whole if step <= manifest.step)[-keep:]
    for step, names in by_step.items():
        if step <= manifest.step and step not in kept:
            _remove(store, names)


def clear(store: Store, *, after: int) -> None:
    """Before a run that starts after step `after` saves anything: removes what was left unfinished up to there, and all
    that is later: another run's, behind which this one has gone back. OSError as above."""
    for step, names in _files(store).items():
        unfinished = f"{folder_name(step)}/{NAME}" not in names
        _remove(store, names if step > after or unfinished else filter(_is_part, names))


def discard(store: Store, step: int) -> None:
    """Removes what there is of the checkpoint after `step` steps, where it is not whole. OSError as above."""
    names = _files(store).get(step, [])
    if f"{folder_name(step)}/{NAME}" not in names:
        _remove(store, names)


def _files(store: Store) -> dict[int, list[str]]:
    """Names by step."""
    by_step: dict[int, list[str]] = {}
    for name in store.names():
        step = step_of(name.partition("/")[0])
        if step is not None:
            by_step.setdefault(step, []).append(name)
    return by_step


def _is_part(name: str) -> bool:
    return name.endswith(PART_SUFFIX)


def _remove(store: Store, names: Iterable[str]) -> None:
    """The manifest first: a checkpoint is there whole, or not at all."""
    for name in sorted(names, key=lambda name: not name.endswith(f"/{NAME}")):
        store.remove(name)
