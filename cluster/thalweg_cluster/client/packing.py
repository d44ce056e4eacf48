"""A job file and the files that it names, ready to be sent to another machine.

Rules:
  - Each file gets the name "files/N/NAME", whatever its path here: two files of one name do not meet.
  - What is sent is what the job names, byte by byte: nothing is pickled, here or there.
  - The service says what is wrong with a job. Only what cannot be read at all is answered here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.data_section import BUILT_IN_DATA
from thalweg_proto.job.draft import Draft
from thalweg_proto.job.kinds import ArrayPair
from thalweg_proto.job.loading import near_missing, override, read_table
from thalweg_proto.job.parsing import parse_job
from thalweg_proto.job.sections import BUILT_IN_MODELS
from thalweg_proto.jobs import CHUNK_BYTES_MAX, plain
from thalweg_proto.v1 import job_service_pb2 as pb


@dataclass(kw_only=True)
class Packed:
    """job: the job file, whose paths are the names of `files`; origins: the path here of each name, and of those that
    are no file here."""

    job: str
    files: dict[str, Path] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def header(self, request_id: str, priority: int, protocol_version: int) -> pb.SubmitHeader:
        return pb.SubmitHeader(
            protocol_version=protocol_version,
            request_id=request_id,
            job=self.job,
            files=[pb.FileHeader(name=name, bytes=path.stat().st_size) for name, path in self.files.items()],
            priority=priority,
        )

    def chunks(self) -> Iterator[bytes]:
        """The data of all files in order. OSError where one cannot be read."""
        for path in self.files.values():
            with path.open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES_MAX):
                    yield chunk

    def here(self, text: str) -> str:
        """What the service says, with the paths of this machine."""
        for name, origin in self.origins.items():
            text = text.replace(name, origin)
        return text


def pack(job: Path, overrides: Sequence[str] = (), *, in_place: bool = False) -> Packed:
    """The job in the file `job`, with the values of `--set` in place of its own.

    in_place: nothing is shipped: the service finds the files under the same absolute paths

    InputError where the file is no TOML, a value of `--set` is none, or the job names a folder that would be shipped.
    """
    table = read_table(job)
    table.setdefault("name", job.stem)
    problems = [problem for text in overrides for problem in override(table, text)]
    draft = parse_job(table, folder=job.absolute().parent)
    if problems:
        raise InputError((*problems, *draft.problems))
    packed = Packed(job="")
    # Each table is looked into only where what is meant is right, so it is a table.
    for section, key in (("data", "train"), ("data", "eval"), ("model", "use"), ("model", "init")):
        if draft.right(f"{section}.{key}") and key in table.get(section, {}):
            value = _value(draft, section, key)
            if not in_place and isinstance(value, str) and os.path.isabs(value) and os.path.isdir(value):
                hint = "put it where the service sees it under the same path, and say --in-place"
                raise InputError([Problem(f"{section}.{key} ({value})", "a file, which can be sent", "a folder", hint)])
            table[section][key] = _shipped(value, packed, in_place=in_place)
    packed.job = tomli_w.dumps(table)
    return packed


def _value(draft: Draft, section: str, key: str) -> Any:
    return getattr(getattr(draft.job, section), key)


def _shipped(value: Any, packed: Packed, *, in_place: bool) -> Any:
    """What stands in the job file for what stood there."""
    if isinstance(value, ArrayPair):
        return {part: _shipped(path, packed, in_place=in_place) for part, path in (("x", value.x), ("y", value.y))}
    if not isinstance(value, str) or value in (*BUILT_IN_DATA, *BUILT_IN_MODELS) or in_place:
        return value
    path, colon, function = value.rpartition(":")
    if path.endswith(".py"):
        return f"{_named(path, packed)}{colon}{function}"
    return _named(value, packed)


def _named(path: str, packed: Packed) -> str:
    for name, origin in packed.origins.items():
        if origin == path:
            return name
    name = f"files/{len(packed.origins)}/{plain(Path(path).name)}"
    packed.origins[name] = path
    if Path(path).is_file():
        packed.files[name] = Path(path)
    return name


def problem_of(mistake: pb.Mistake, packed: Packed) -> Problem:
    """A mistake that the service found, in words of this machine."""
    field, expected, found, hint = map(packed.here, (mistake.field, mistake.expected, mistake.found, mistake.hint))
    path = found.removeprefix("no such file: ")
    # What lies near a file that is missing is here, not there.
    return Problem(field, expected, found, near_missing(path) if path != found and hint else hint)
