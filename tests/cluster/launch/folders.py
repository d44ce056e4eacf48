"""Folders of runs, as a run leaves them, without the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from thalweg_cluster.checkpoints import FileStore, Manifest, ShardState, commit, write_shard
from thalweg_cluster.reporting.files import RunFolder
from thalweg_proto.job import Job, job_to_toml, load_job_text
from thalweg_proto.layout import Layout

LINEAR = """
name = "linear-digits"
[data]
train = "digits"
[model]
use = "linear"
[train]
steps = 60
"""
Arrays = dict[str, np.ndarray]


def some_weights(scale: float = 0.1, seed: int = 0) -> Arrays:
    """Of LINEAR."""
    rng = np.random.default_rng(seed)
    shapes = {"output.weight": (64, 10), "output.bias": (10,)}
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def job_of(text: str, folder: Path) -> Job:
    """A job whose relative paths start at `folder`."""
    draft = load_job_text(text, [], folder)
    assert draft.problems == ()
    return draft.job


def ended_run(folder: Path, text: str = LINEAR, weights: Arrays | None = None, steps: int = 60, **more: Any) -> Path:
    """One that has come to its end."""
    weights = some_weights() if weights is None else weights
    layout, flat = flat_of(weights)
    files = RunFolder(folder)
    files.write_job(job_to_toml(job_of(text, folder.parent)))
    files.write_weights(layout, flat)
    files.write_summary({"state": "succeeded", "steps": steps, **more})
    return folder


def saved_run(folder: Path, step: int, text: str = LINEAR, weights: Arrays | None = None, hosts: int = 2) -> Path:
    """One that has not ended, with a checkpoint of two shards; again, with one more."""
    layout, flat = flat_of(some_weights() if weights is None else weights)
    if not (folder / "job.toml").exists():
        RunFolder(folder).write_job(job_to_toml(job_of(text, folder.parent)))
    store = FileStore(folder / "checkpoints")
    middle = layout.size // 3
    files = [
        write_shard(
            store,
            step,
            ShardState(begin=begin, end=end, parameters=flat[begin:end], slots={}, updates=step),
            host=host,
            hosts=hosts,
        )
        for host, (begin, end) in enumerate([(0, middle), (middle, layout.size)])
    ]
    manifest = Manifest(
        step=step,
        version=step,
        generation=1,
        job=(folder / "job.toml").read_text(),
        tensors=tuple((tensor.name, tensor.shape) for tensor in layout.tensors),
        size=layout.size,
        rule="sgd",
        slots=(),
        hosts=hosts,
        files=tuple(files),
    )
    commit(store, manifest, keep=9)
    return folder


def flat_of(weights: Arrays) -> tuple[Layout, np.ndarray]:
    """In one vector."""
    layout = Layout.of({name: array.shape for name, array in weights.items()})
    flat = np.zeros(layout.size, dtype=np.float32)
    for name, view in layout.views(flat).items():
        view[...] = weights[name]
    return layout, flat


def rewrite_summary(folder: Path, text: str | None = None, **values: Any) -> None:
    """Puts other values, or another text, in place of what summary.json says."""
    file = folder / "summary.json"
    file.write_text(text if text is not None else json.dumps(json.loads(file.read_text()) | values))
