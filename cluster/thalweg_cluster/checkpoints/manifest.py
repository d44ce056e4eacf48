"""The manifest of a checkpoint: what it is of, and which files it has. Pure: text in, value out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from thalweg_cluster.checkpoints.store import is_plain
from thalweg_proto.layout import Layout

FORMAT = 1
NAME = "manifest.json"
BYTES_MAX = 16 << 20
_FOLDER = re.compile(r"checkpoint_([0-9]{6,18})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


class CheckpointError(Exception):
    """A checkpoint is not what it should be; the text names the file."""


def folder_name(step: int) -> str:
    """Of the checkpoint after `step` steps, as Ray Train numbers its own."""
    return f"checkpoint_{step:06d}"


def step_of(folder: str) -> int | None:
    """The step of a checkpoint's folder; None where it is no such folder."""
    match = _FOLDER.fullmatch(folder)
    return int(match[1]) if match and folder_name(int(match[1])) == folder else None


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One file: elements [begin, end) of the flat vector.

    host:    who wrote it
    updates: how often the rule was applied to them
    names:   (step, part) of the pushes from outside that its owner applied
    """

    name: str
    bytes: int
    sha256: str
    begin: int
    end: int
    host: int
    updates: int
    names: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ShardFile:
        """CheckpointError where it is none."""
        try:
            return _file(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"expected JSON; found {error}") from None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One checkpoint.

    step, version: steps that were taken, and the version that they made
    generation:    of the run that saved it
    job:           its job file with every default filled in
    tensors:       names and shapes of the parameters, in the order of the flat vector
    size:          elements of the flat vector
    rule, slots:   the update rule and the names of its state
    hosts:         how many there were
    files:         in the order of their ranges
    """

    step: int
    version: int
    generation: int
    job: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    size: int
    rule: str
    slots: tuple[str, ...]
    hosts: int
    files: tuple[ShardFile, ...]
    format: int = FORMAT

    @classmethod
    def about(
        cls, *, job: str, layout: Layout, rule: str, slots: Iterable[str], hosts: int, generation: int
    ) -> Manifest:
        """What all checkpoints of a run have in common: no step yet, and no files."""
        return cls(
            step=0,
            version=0,
            generation=generation,
            job=job,
            tensors=tuple((tensor.name, tensor.shape) for tensor in layout.tensors),
            size=layout.size,
            rule=rule,
            slots=tuple(slots),
            hosts=hosts,
            files=(),
        )

    @property
    def layout(self) -> Layout:
        """Where the parameters lie in the flat vector."""
        return Layout.of(dict(self.tensors))

    def to_json(self) -> bytes:
        """With the SHA-256 of what it says, as its last field: a name with a flipped bit is a name, too."""
        table = asdict(self)
        return (json.dumps(table | {"sha256": _digest(table)}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """CheckpointError where this is no manifest, or one of files that do not make up the vector."""
        try:
            fields = _Fields(json.loads(data.decode()), "manifest.json")
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"manifest.json: expected JSON; found {error}") from None
        if fields.take("format", int) != FORMAT:
            raise CheckpointError(f"manifest.json: format: expected {FORMAT}; found {fields.table['format']}")
        manifest = cls(
            step=fields.natural("step"),
            version=fields.natural("version"),
            generation=fields.natural("generation"),
            job=fields.take("job", str),
            tensors=tuple(_tensor(each) for each in fields.take("tensors", list)),
            size=fields.natural("size"),
            rule=fields.take("rule", str),
            slots=tuple(_text(each, "slots") for each in fields.take("slots", list)),
            hosts=fields.natural("hosts"),
            files=tuple(_file(each) for each in fields.take("files", list)),
        )
        if manifest.layout.size != manifest.size:
            found = f"{manifest.size}, where the tensors take {manifest.layout.size}"
            raise CheckpointError(f"manifest.json: size: expected that of all tensors; found {found}")
        ends = [0, *(file.end for file in manifest.files)]
        if [file.begin for file in manifest.files] != ends[:-1] or ends[-1] != manifest.size:
            ranges = ", ".join(f"[{file.begin}, {file.end})" for file in manifest.files) or "none"
            raise CheckpointError(f"manifest.json: files: expected ranges from 0 to {manifest.size}; found {ranges}")
        said = fields.take("sha256", str)
        if said != (found := _digest({key: value for key, value in fields.table.items() if key != "sha256"})):
            raise CheckpointError(f"manifest.json: sha256: expected {said[:64]} of what it says; found {found}")
        return manifest


def _digest(table: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table).encode()).hexdigest()


class _Fields:
    """A table of JSON from anywhere."""

    def __init__(self, table: Any, where: str) -> None:
        if not isinstance(table, dict):
            raise CheckpointError(f"{where}: expected a table; found {type(table).__name__}")
        self.table, self._where = table, where

    def take(self, key: str, kind: type[T]) -> T:
        value = self.table.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise CheckpointError(f"{self._where}: {key}: expected {kind.__name__}; found {value!r:.80}")
        return value

    def natural(self, key: str) -> int:
        value = self.take(key, int)
        if not 0 <= value < 2**62:
            raise CheckpointError(f"{self._where}: {key}: expected a whole number from 0 to 2^62; found {value}")
        return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise CheckpointError(f"manifest.json: {where}: expected text; found {value!r:.80}")
    return value


def _tensor(value: Any) -> tuple[str, tuple[int, ...]]:
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)):
        raise CheckpointError(f"manifest.json: tensors: expected [name, shape]; found {value!r:.80}")
    name, shape = _text(value[0], "tensors"), value[1]
    if not all(isinstance(axis, int) and 0 <= axis < 2**40 for axis in shape):
        raise CheckpointError(f"manifest.json: tensors: {name}: expected a shape; found {shape!r:.80}")
    return name, tuple(shape)


def _file(value: Any) -> ShardFile:
    fields = _Fields(value, "manifest.json: files")
    name, sha256, names = fields.take("name", str), fields.take("sha256", str), fields.take("names", list)
    if not is_plain(name) or "/" in name:
        raise CheckpointError(f"manifest.json: files: expected a plain file name; found {name!r:.80}")
    if not _SHA256.fullmatch(sha256):
        raise CheckpointError(f"manifest.json: files: {name}: sha256: expected 64 hex digits; found {sha256!r:.80}")
    if not all(isinstance(n, list) and len(n) == 2 and all(isinstance(i, int) for i in n) for n in names):
        raise CheckpointError(f"manifest.json: files: {name}: names: expected pairs of numbers; found {names!r:.80}")
    return ShardFile(
        name=name,
        bytes=fields.natural("bytes"),
        sha256=sha256,
        begin=fields.natural("begin"),
        end=fields.natural("end"),
        host=fields.natural("host"),
        updates=fields.natural("updates"),
        names=tuple((step, part) for step, part in names),
    )
