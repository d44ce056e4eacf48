"""What a run has learned, from its folder: without Ray, and whether it has ended or not."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from thalweg_cluster.launch.resuming import find, other_shapes
from thalweg_cluster.reporting.files import JOB, SUMMARY, WEIGHTS, read_summary
from thalweg_cluster.reporting.sources import as_it_ran
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job import Draft, Job, load_job
from thalweg_proto.layout import Layout
from thalweg_worker.batch import DataSpec
from thalweg_worker.engines import model_for, shapes_beside
from thalweg_worker.models import ModelSource, initial_parameters


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The weights of a run.

    job:        without a mistake; where a user's file is not as it was, it names the run's own copy of that
    parameters: float32 by name, in one vector and aligned as a worker sees them
    step:       how many steps were taken to get there
    ended:      whether the run has ended; else they are of its newest whole checkpoint
    refused:    why newer checkpoints were refused, by name
    notes:      where the run's own copies are used, a line for each: of interest to who builds the model, or data
    """

    job: Job
    parameters: dict[str, NDArray[np.float32]]
    step: int
    ended: bool
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def model(self, spec: DataSpec) -> Any:
        """The job's model, built anew as training did, as its engine takes it. InputError where it cannot be built, or
        has other parameters than the run had."""
        job = self.job
        # A run's job file has the path of a user's model as an absolute one.
        source = ModelSource.read(job.model.use, job.model.options, folder=Path())
        model = model_for(job.cluster.engine, source, spec, job.seed)
        here = {name: array.shape for name, array in initial_parameters(model, job.seed).items()}
        beside = shapes_beside(job.cluster.engine, model)
        here |= {name: beside[name] for name in self.parameters.keys() & beside.keys()}
        saved = {name: array.shape for name, array in self.parameters.items()}
        if problems := other_shapes(saved, here, "the run's weights"):
            raise InputError(problems)
        return model


def read_trained(folder: Path) -> Trained:
    """The weights of the run in `folder`: the final ones, or where it has not ended those of its newest whole
    checkpoint. InputError where there are none, or what is there cannot be read."""
    if not (folder / JOB).is_file():
        found = f"no {JOB} in it" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        raise InputError([Problem(f"DIR ({folder})", f"the folder of a run, with {JOB} and {WEIGHTS}", found)])
    step = _step_at_end(folder)
    if step is not None:
        parameters = _read_weights(folder / WEIGHTS)
        job, notes = as_it_ran(folder, _right(load_job(folder / JOB)))
        return Trained(job=job, parameters=aligned(parameters), step=step, ended=True, notes=tuple(notes))
    try:
        newest = find(folder)
    except InputError as error:
        what = f"{WEIGHTS} of a run that has ended, or a whole checkpoint"
        raise InputError([Problem(f"DIR ({folder})", what, f"neither: {_found(error)}")]) from None
    checkpoint = newest.checkpoint
    layout = Layout.of(dict(checkpoint.manifest.tensors))
    vector = checkpoint.state(checkpoint.manifest.hosts).parameters
    job, notes = as_it_ran(folder, _right(newest.draft([])))
    return Trained(
        job=job,
        parameters=aligned(layout.views(vector)),
        step=checkpoint.manifest.step,
        ended=False,
        refused=tuple(newest.refused),
        notes=tuple(notes),
    )


def aligned(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Copies by name in a vector that begins with a page, as the one in shared memory does: what an engine computes may
    depend, in the last bit, on how its numbers are aligned."""
    layout = Layout.of({name: array.shape for name, array in arrays.items()})
    vector = np.frombuffer(mmap.mmap(-1, 4 * max(1, layout.size)), dtype=np.float32)
    views = layout.views(vector)
    for name, array in arrays.items():
        views[name][...] = array
    return views


def _step_at_end(folder: Path) -> int | None:
    """How many steps the run took; None where it has not ended, or came to no weights."""
    try:
        summary = read_summary(folder)
    except (OSError, ValueError) as error:
        raise InputError([Problem(str(folder / SUMMARY), "what a run writes", str(error))]) from None
    if summary is None or not (folder / WEIGHTS).is_file():
        return None
    steps = summary.get("steps") if isinstance(summary, dict) else None
    if not isinstance(steps, int):
        raise InputError([Problem(f"{folder / SUMMARY}: steps", "a whole number", repr(steps))])
    return steps


def _read_weights(file: Path) -> dict[str, NDArray[np.float32]]:
    try:
        arrays = load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError([Problem(str(file), "a whole safetensors file", str(error))]) from None
    others = {name: array.dtype for name, array in arrays.items() if array.dtype != np.float32}
    if others or not arrays:
        found = ", ".join(f"{name} of {dtype}" for name, dtype in others.items()) or "no array"
        raise InputError([Problem(str(file), "arrays of float32", found)])
    return arrays


def _right(draft: Draft) -> Job:
    if draft.problems:
        raise InputError(draft.problems)
    return draft.job


def _found(error: InputError) -> str:
    return "; ".join(f"{problem.field}: {problem.found}" for problem in error.problems)
