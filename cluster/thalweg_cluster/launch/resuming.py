"""What a run goes on from: the newest whole checkpoint of a folder, and whether a job still fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thalweg_cluster.checkpoints import Checkpoint, Manifest, newest, open_store
from thalweg_cluster.launch.steps import step_spec
from thalweg_cluster.reporting.files import CHECKPOINTS, JOB
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job import Draft, Job, ResolvedTrain, load_job_text
from thalweg_proto.job.loading import read_table
from thalweg_proto.layout import Layout


def checkpoint_place(job: Job, folder: Path) -> str:
    """Where the checkpoints of a run in `folder` lie: a path or a URL."""
    return job.checkpoint.url or str(folder.absolute() / CHECKPOINTS)


@dataclass(frozen=True)
class Found:
    """checkpoint: the newest that is whole; refused: why newer ones were refused, by name."""

    checkpoint: Checkpoint
    refused: list[str]

    def draft(self, overrides: Sequence[str]) -> Draft:
        """The job of the checkpoint, with the values of `--set` in place of its own."""
        return load_job_text(self.checkpoint.manifest.job, overrides, Path.cwd())


def find(folder: Path) -> Found:
    """The checkpoint that `thalweg resume FOLDER` goes on from. InputError where there is none."""
    place = str(folder.absolute() / CHECKPOINTS)
    if (folder / JOB).is_file():
        section = read_table(folder / JOB).get("checkpoint")
        url = section.get("url") if isinstance(section, dict) else None
        place = url if isinstance(url, str) else place
    try:
        checkpoint, refused = newest(open_store(place))
    except (OSError, ValueError, ImportError) as error:
        raise InputError([Problem(place, "a place of checkpoints that can be read", str(error))]) from None
    if checkpoint is None:
        found = "".join(f"\n    {reason}" for reason in refused) or "none"
        raise InputError([Problem(place, "a whole checkpoint", found)])
    return Found(checkpoint, refused)


def check_fits(
    checkpoint: Checkpoint, draft: Draft, layout: Layout | None, lengths: ResolvedTrain | None
) -> list[Problem]:
    """Whether a job can go on from a checkpoint: its model, its rule, its lengths.

    layout, lengths: of the job; None where they are not known
    """
    manifest = checkpoint.manifest
    problems = [] if layout is None else other_model(manifest, layout)
    if lengths is None or draft.wrong_in("optimizer") or draft.wrong_in("train"):
        return problems
    step = step_spec(draft.job, lengths, 0)
    names = tuple(slot.name for slot in step.server_rule().slots)
    if names != manifest.slots:
        expected = f"{manifest.rule}, or one with the same state ({', '.join(manifest.slots) or 'none'})"
        problems.append(Problem("optimizer.rule", expected, step.rule))
    if step.steps < manifest.step:
        expected = f"at least the {manifest.step} that were taken before the checkpoint"
        problems.append(Problem("train.steps", expected, str(step.steps)))
    elif step.steps_done(manifest.version) != manifest.step:
        expected = f"rounds of which {manifest.version} take the {manifest.step} steps before the checkpoint"
        problems.append(Problem("train.local_steps", expected, str(step.local_steps)))
    return problems


def other_model(manifest: Manifest, layout: Layout) -> list[Problem]:
    """What differs between the model of a checkpoint and that of the job, tensor by tensor."""
    here = {tensor.name: tensor.shape for tensor in layout.tensors}
    return other_shapes(dict(manifest.tensors), here, "the checkpoint")


def other_shapes(
    saved: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]], where: str
) -> list[Problem]:
    """What differs between the shapes of `saved` parameters, which are in `where`, and those of the model."""
    return [
        Problem(f"model: {name}", f"{_shape(saved.get(name))}, as in {where}", _shape(here.get(name)))
        for name in sorted(saved.keys() | here.keys())
        if saved.get(name) != here.get(name)
    ]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such parameter" if shape is None else f"shape {shape}"
