"""Find the newest checkpoint that is whole, and load it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from thalweg_cluster.checkpoints.manifest import (
    BYTES_MAX,
    NAME,
    CheckpointError,
    Manifest,
    ShardFile,
    folder_name,
    step_of,
)
from thalweg_cluster.checkpoints.state import TrainingState
from thalweg_cluster.checkpoints.store import Store
from thalweg_cluster.checkpoints.writing import OF_HOST, PARAMETERS, SLOT

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One that is whole: read to the end, and every sum is right."""

    manifest: Manifest
    shards: list[Arrays]

    def state(self, hosts: int) -> TrainingState:
        """What a run goes on from.

        hosts: how many it will have; where that is another number than this checkpoint's, what belongs to a host is
               left out, but for names of pushes from outside: all of them are host 0's then
        """
        manifest = self.manifest
        files = manifest.files
        of_host = {
            file.host: {name.removeprefix(OF_HOST): a for name, a in arrays.items() if name.startswith(OF_HOST)}
            for file, arrays in zip(files, self.shards, strict=True)
        }
        same = hosts == manifest.hosts
        every = tuple(name for file in files for name in file.names)
        return TrainingState(
            version=manifest.version,
            step=manifest.step,
            parameters=np.concatenate([arrays[PARAMETERS] for arrays in self.shards]),
            slots={s: np.concatenate([arrays[SLOT + s] for arrays in self.shards]) for s in manifest.slots},
            updates=max(file.updates for file in files),
            of_host=of_host if same else {},
            names={file.host: file.names for file in files} if same else {0: every},
        )


def newest(store: Store, *, after: int = -1) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, None where there is none, and why newer ones were refused, by name.

    after: of those that are later than this step

    One without a manifest is none: the run that wrote it ended before it was done.
    """
    folders = (name.removesuffix(f"/{NAME}") for name in store.names() if name.endswith(f"/{NAME}"))
    steps = {step_of(folder) for folder in folders}
    refused: list[str] = []
    for step in sorted((step for step in steps if step is not None and step > after), reverse=True):
        found = _read_or_refuse(store, step)
        if isinstance(found, Checkpoint):
            return found, refused
        refused.append(f"{folder_name(step)}: {found}")
    return None, refused


def _read_or_refuse(store: Store, step: int) -> Checkpoint | str:
    try:
        return read(store, step)
    except CheckpointError as error:
        return str(error)


def read(store: Store, step: int) -> Checkpoint:
    """The checkpoint after `step` steps. CheckpointError where it is not whole."""
    try:
        data = store.read(f"{folder_name(step)}/{NAME}")
    except OSError as error:
        raise CheckpointError(f"{NAME}: expected a file that can be read; found {_reason(error)}") from None
    if len(data) > BYTES_MAX:
        raise CheckpointError(f"{NAME}: expected at most {BYTES_MAX} bytes; found {len(data)}")
    manifest = Manifest.from_json(data)
    if manifest.step != step:
        raise CheckpointError(f"{NAME}: step: expected {step}, as its folder says; found {manifest.step}")
    return Checkpoint(manifest, [_shard(store, manifest, file) for file in manifest.files])


def _shard(store: Store, manifest: Manifest, file: ShardFile) -> Arrays:
    try:
        data = store.read(f"{folder_name(manifest.step)}/{file.name}")
    except OSError as error:
        raise CheckpointError(f"{file.name}: expected a file that can be read; found {_reason(error)}") from None
    if len(data) != file.bytes:
        raise CheckpointError(f"{file.name}: expected {file.bytes} bytes; found {len(data)}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise CheckpointError(f"{file.name}: expected SHA-256 {file.sha256[:16]}...; found {digest[:16]}...")
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file.name}: expected a safetensors file; found {error}") from None
    length = file.end - file.begin
    for name in (PARAMETERS, *(SLOT + slot for slot in manifest.slots)):
        array = arrays.get(name)
        if array is None:
            raise CheckpointError(f"{file.name}: {name}: expected an array; found none")
        if array.dtype != np.float32 or array.shape != (length,):
            found = f"{array.dtype} of shape {array.shape}"
            raise CheckpointError(f"{file.name}: {name}: expected float32 of shape ({length},); found {found}")
    if not all(array.dtype == np.float32 and array.ndim == 1 for array in arrays.values()):
        raise CheckpointError(f"{file.name}: expected arrays of float32, of one axis; found others")
    return arrays


def _reason(error: OSError) -> str:
    return "none" if isinstance(error, FileNotFoundError) else str(error)
