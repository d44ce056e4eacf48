"""Checkpoints: what a run needs to go on, bit for bit, from where it was.

    checkpoints/
      checkpoint_000100/                       the state after 100 steps
        shard_00000_of_00002.safetensors       written by the owner of each shard, at the same time as the others
        shard_00001_of_00002.safetensors
        manifest.json                          written last: with it the checkpoint is there

Rules:
  - A checkpoint is there when its manifest is, which names every file with its size and SHA-256. What has no manifest
    is a left-over of a run that ended in the middle of it.
  - Each file is written beside its name, flushed, synced and renamed, and its folder is synced. So what a manifest
    names survives a loss of power.
  - Nothing that is read is trusted: sizes, sums, names, types and shapes are checked, and nothing is ever unpickled.
  - A shard is a range of the flat vector: how many there were when it was saved does not matter to who loads it.
"""

from thalweg_cluster.checkpoints.manifest import CheckpointError, Manifest, ShardFile, folder_name
from thalweg_cluster.checkpoints.reading import Checkpoint, newest
from thalweg_cluster.checkpoints.replicas import Memory, ReplicaMemory, ReplicaStore
from thalweg_cluster.checkpoints.state import ShardState, TrainingState
from thalweg_cluster.checkpoints.store import FileStore, ObjectStore, Store, open_store, write_whole
from thalweg_cluster.checkpoints.writing import clear, commit, write_shard

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "FileStore",
    "Manifest",
    "Memory",
    "ObjectStore",
    "ReplicaMemory",
    "ReplicaStore",
    "ShardFile",
    "ShardState",
    "Store",
    "TrainingState",
    "clear",
    "commit",
    "folder_name",
    "newest",
    "open_store",
    "write_shard",
    "write_whole",
]
