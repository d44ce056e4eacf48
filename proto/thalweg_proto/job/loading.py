"""Read a job file from disk, with the values of `--set` in place of the file's."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.draft import Draft
from thalweg_proto.job.kinds import nearest
from thalweg_proto.job.parsing import describe, parse_job

FILE_BYTES_MAX = 1 << 20
_KEY_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
# Setting one of these takes the other out: a job has exactly one of them.
_INSTEAD = {"train.steps": "epochs", "train.epochs": "steps"}

# Python 3.10 has no tomllib; tomli is the same module. By name, since only one of the two is installed.
_toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def load_job(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Draft:
    """The job of a TOML file, with all mistakes in the file and in `overrides`.

    overrides: of `--set`, in order: "train.steps=100". The value is read as TOML, or as text where it is
               none. An empty one ("train.steps=") takes the file's value out, so that the default holds.

    Relative paths start at the file's folder, those of `overrides` too. Raises InputError where the file cannot be
    read as TOML: nothing is known of the job then.
    """
    file = Path(path)
    table = read_table(file)
    table.setdefault("name", file.stem)
    return _draft(table, overrides, file.absolute().parent)


def load_job_text(text: str, overrides: Sequence[str], folder: Path) -> Draft:
    """The same of a job that `job_to_toml` wrote; relative paths of `overrides` start at `folder`.

    ValueError where the text is no TOML.
    """
    return _draft(_toml.loads(text), overrides, folder)


def _draft(table: dict[str, Any], overrides: Sequence[str], folder: Path) -> Draft:
    problems = [problem for text in overrides for problem in override(table, text)]
    draft = parse_job(table, folder=folder)
    return replace(draft, problems=(*problems, *draft.problems))


def read_table(file: Path) -> dict[str, Any]:
    """The table of a TOML file. Raises InputError where it cannot be read."""
    field = str(file)
    try:
        if file.is_dir():
            raise InputError([Problem(field, "a job file", "a folder")])
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        there = sorted(str(other) for other in file.parent.glob("*.toml")) if file.parent.is_dir() else []
        hint = nearest(field, there) or "the path starts at the present folder"
        raise InputError([Problem(field, "a job file", f"no such file ({file.absolute()})", hint)]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise InputError([Problem(field, "a file that can be read", str(error))]) from None
    if len(data) > FILE_BYTES_MAX:
        raise InputError([Problem(field, f"at most {FILE_BYTES_MAX} bytes of TOML", "more")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} in line {line}"
        raise InputError([Problem(field, "UTF-8 text", found)]) from None
    try:
        table: dict[str, Any] = _toml.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: the parser's own error, and endless numbers
        raise InputError([Problem(field, "TOML", str(error) or "tables nested too deep")]) from None
    return table


def override(table: dict[str, Any], text: str) -> list[Problem]:
    """Put one `--set` value into the table, in place; the problems where that makes no sense."""
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not (equals and _KEY_PATH.fullmatch(key.strip())):
        return [Problem(f"--set {text}", "KEY=VALUE, as in train.steps=100", describe(text))]
    inner = table
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            return [Problem(f"--set {text}", f"a key inside the table {part}", f"{part} = {describe(inner)}")]
    if value.strip():
        inner[path[-1]] = toml_value(value)
        inner.pop(_INSTEAD.get(".".join(path), ""), None)
    else:
        inner.pop(path[-1], None)
    return []


def toml_value(text: str) -> object:
    """What a person has typed where a job file has a value: as TOML, or as text where it is none."""
    try:
        table: Mapping[str, object] = _toml.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    # A text of several lines could be a whole document; it is meant as text.
    return table["value"] if len(table) == 1 else text


def near_missing(path: str, begin: str = "the folder of the job file") -> str:
    """What lies near a `path` at which there is no file, as a hint for who has named it; `begin`: where one that is
    relative starts."""
    folder = Path(path).parent
    rest = f"a relative path starts at {begin}"
    if not folder.is_dir():
        return f"there is no folder {folder}; {rest}"
    near = nearest(Path(path).name, sorted(os.listdir(folder)))
    return f"{near} looked in {folder}; {rest}" if near else f"looked in {folder}; {rest}"
