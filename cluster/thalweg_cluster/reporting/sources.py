"""The run's own copy of the user's files that it ran: models and data sets of one's own, with what they import.

    DIR/source/sources.json          {"model.use": {"path": "/jobs/my_model.py", "sha256": {"my_model.py": "...", ...}}}
    DIR/source/model.use/my_model.py what is named there, as it was
    DIR/source/model.use/net/layers.py

Rules:
  - Whoever builds the model of a run anew does it with the files that trained it: where those at the paths of the job
    have changed since, or are gone, the run's own copy is used, and it is said which.
  - A copy whose SHA-256 is another one by now is not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from thalweg_proto.job import Job
from thalweg_proto.job.kinds import function_in

SOURCE, INDEX = "source", "sources.json"


@dataclass(frozen=True, kw_only=True)
class UserSource:
    """
    path:  of the user's file, absolute
    files: contents of that and of the modules beside it that it imports, by their paths from its folder
    """

    path: str
    files: Mapping[str, bytes]


def copies(sources: Mapping[str, UserSource]) -> dict[str, bytes]:
    """What is to be written under DIR/source, by its path there; `sources` by key of the job that names them."""
    index = {
        key: {"path": source.path, "sha256": {name: _sha256(data) for name, data in source.files.items()}}
        for key, source in sources.items()
    }
    found = {f"{key}/{name}": data for key, source in sources.items() for name, data in source.files.items()}
    return {**found, INDEX: (json.dumps(index, indent=2) + "\n").encode()}


def as_it_ran(folder: Path, job: Job) -> tuple[Job, list[str]]:
    """The job of the run in `folder`, with its own copies in place of files that are no longer as they were; and a line
    for each of these. A run of an earlier version has no copies: nothing is known of its files."""
    notes: list[str] = []
    data, model = job.data, job.model
    for key in ("model.use", "data.train", "data.eval"):
        section, _, name = key.partition(".")
        here = getattr(getattr(job, section), name)
        named = function_in(here) if isinstance(here, str) else None
        known = None if named is None else _known(folder / SOURCE, key)
        if named is None or known is None or known[0] != named[0]:
            continue
        path, sha256 = named[0], known[1]
        changed = _changed(Path(path).parent, sha256)
        if changed is None:
            continue
        own = folder.absolute() / SOURCE / key
        broken = _changed(own, sha256)
        if broken is not None:
            notes.append(f"{key}: {changed}, and the run's own copy, too: {broken}; {path} is used as it is")
            continue
        copy = own / Path(path).name
        notes.append(f"{key}: {changed} since the run; its own copy is used: {copy}")
        use = f"{copy}:{named[1]}"
        if name == "use":
            model = replace(model, use=use)
        elif name == "train":
            data = replace(data, train=use)
        else:
            data = replace(data, eval=use)
    return replace(job, data=data, model=model), notes


def _known(folder: Path, key: str) -> tuple[str, dict[str, str]] | None:
    """Path and digests of what the job's `key` named; None where they are not known, or are not to be understood."""
    try:
        found: Any = json.loads((folder / INDEX).read_bytes())[key]
        path, sha256 = str(found["path"]), {str(name): str(digest) for name, digest in found["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    inside = all(not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in sha256)
    return (path, sha256) if inside and Path(path).name in sha256 else None


def _changed(folder: Path, sha256: Mapping[str, str]) -> str | None:
    """What is not as it was of the files in `folder`, in words; None: all are."""
    for name, digest in sha256.items():
        file = folder / name
        try:
            if _sha256(file.read_bytes()) != digest:
                return f"{file} has changed"
        except OSError:
            return f"{file} cannot be read" if file.exists() else f"{file} is gone"
    return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
