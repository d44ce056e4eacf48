"""A job file and the files that it names, ready to be sent to another machine.

Rules:
  - What the job names gets the name "files/N/NAME", whatever its path here: two files of one name do not meet. What
    belongs to it (modules that a user's file imports from beside it, the tables of a folder) keeps its place beside it
    or in it. What that is the job's own reader says, here as there: see `job.beside`.
  - What is sent is sent byte by byte: nothing is pickled, here or there.
  - The service says what is wrong with a job. Only what cannot be read at all is answered here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.beside import modules_beside, tables_in
from thalweg_proto.job.data_section import BUILT_IN_DATA
from thalweg_proto.job.draft import Draft
from thalweg_proto.job.kinds import ArrayPair, function_in
from thalweg_proto.job.loading import near_missing, override, read_table
from thalweg_proto.job.parsing import parse_job
from thalweg_proto.job.sections import BUILT_IN_MODELS
from thalweg_proto.jobs import CHUNK_BYTES_MAX, FILES_MAX, is_file_name, plain
from thalweg_proto.v1 import job_service_pb2 as pb


@dataclass(kw_only=True)
class Packed:
    """
    job:     the job file
    files:   what is sent, by its name there
    names:   what the job file has for each path that it had
    origins: the path here of each name, also of those that are no file here, and of folders
    """

    job: str
    files: dict[str, Path] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
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

    InputError where the file is no TOML, a value of `--set` is none, or what belongs to the job cannot be shipped: too
    many files, a link that leads out of its folder, a name that another machine might not take.
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
            shipper = _Shipper(packed=packed, key=f"{section}.{key}", in_place=in_place)
            table[section][key] = shipper.shipped(_value(draft, section, key))
    if len(packed.files) > FILES_MAX:
        hint = "put them where the service sees them under the same path, and say --in-place"
        raise InputError([Problem("submit", f"at most {FILES_MAX:,} files", f"{len(packed.files):,}", hint)])
    packed.job = tomli_w.dumps(table)
    return packed


def _value(draft: Draft, section: str, key: str) -> Any:
    return getattr(getattr(draft.job, section), key)


@dataclass(frozen=True, kw_only=True)
class _Shipper:
    """Puts what one key of the job names into `packed`."""

    packed: Packed
    key: str
    in_place: bool

    def shipped(self, value: Any) -> Any:
        """What stands in the job file for what stood there."""
        if isinstance(value, ArrayPair):
            return {"x": self.shipped(value.x), "y": self.shipped(value.y)}
        if not isinstance(value, str) or value in (*BUILT_IN_DATA, *BUILT_IN_MODELS) or self.in_place:
            return value
        function = function_in(value)
        return self._named(value) if function is None else f"{self._named(function[0])}:{function[1]}"

    def _named(self, path: str) -> str:
        packed, here = self.packed, Path(path)
        if path not in packed.names:
            name = f"files/{len(packed.names)}/{plain(here.name)}"
            packed.names[path] = name
            for place, file in self._parts(here, name).items():
                packed.origins[place] = str(file)
                if file.is_file():
                    self._check(place, file)
                    packed.files[place] = file
        return packed.names[path]

    def _parts(self, here: Path, name: str) -> dict[str, Path]:
        """What belongs to `here`, by the names there; itself last: names of its parts begin with its own."""
        field = f"{self.key} ({here.name})"
        try:
            if here.is_dir():
                tables = tables_in(here, f"{self.key} ({here})")
                return {**{f"{name}/{file.name}": file for file in tables}, name: here}
            if here.suffix != ".py":
                return {name: here}
            source = here.read_bytes() if here.is_file() else b""
        except OSError as error:
            raise InputError([Problem(field, "what can be read", f"{here}: {error.strerror or error}")]) from None
        beside = modules_beside(here, source, field)
        folder = name.rpartition("/")[0]
        return {**{f"{folder}/{path}": here.absolute().parent / path for path in beside}, name: here}

    def _check(self, name: str, file: Path) -> None:
        if not is_file_name(name):
            expected = "a path of printable characters, not too long, to be the same on another machine"
            raise InputError([Problem(f"{self.key}", expected, repr(str(file)))])


def problem_of(mistake: pb.Mistake, packed: Packed) -> Problem:
    """A mistake that the service found, in words of this machine."""
    field, expected, found, hint = map(packed.here, (mistake.field, mistake.expected, mistake.found, mistake.hint))
    path = found.removeprefix("no such file: ")
    # What lies near a file that is missing is here, not there.
    return Problem(field, expected, found, near_missing(path) if path != found and hint else hint)
