"""Where checkpoints lie: a folder of the file system, or an object store.

Rules:
  - A name is a path of plain parts, "checkpoint_000100/manifest.json": no "..", no control characters, not absolute.
  - What `write` has returned from is there, whole, whatever happens next; before that, nothing is under the name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
PART_SUFFIX = ".part"
"""Of a file that is being written, behind a dot and its name."""

Point = Callable[[str, Path], None]
"""Called before and after each act that cannot be taken back, with what a file has come to, "write", "rename" or
"written", and where it is or will be; for planned faults."""


def is_plain(name: str) -> bool:
    """Whether a name leads nowhere but into the store."""
    parts = name.split("/")
    return 1 <= len(parts) <= 2 and all(_PART.fullmatch(part) and ".." not in part for part in parts)


def check_name(name: str) -> None:
    """ValueError where a name may lead elsewhere."""
    if not is_plain(name):
        raise ValueError(f"expected a plain name of a checkpoint's file; found {name!r}")


class Store(Protocol):
    """Files by name. OSError where the storage fails."""

    def write(self, name: str, data: bytes) -> None:
        """Replaces what was there."""
        ...

    def read(self, name: str) -> bytes:
        """FileNotFoundError where there is none."""
        ...

    def names(self) -> list[str]:
        """Of all files, also of those that a writer left unfinished."""
        ...

    def remove(self, name: str) -> None:
        """Nothing where there is none."""
        ...


def write_whole(path: Path, data: bytes, at: Point = lambda act, path: None) -> None:
    """Replaces the file at `path`, and makes its folder. OSError where the storage fails: what was there stays."""
    at("write", path)
    new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in new:
        _sync_folder(folder.parent)
    part = path.parent / f".{path.name}{PART_SUFFIX}"
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        at("rename", path)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)  # a full disk is not kept full by what did not fit
        raise
    _sync_folder(path.parent)
    at("written", path)


class FileStore:
    """A folder."""

    def __init__(self, folder: Path, at: Point = lambda act, path: None) -> None:
        self._folder = folder
        self._at = at

    def write(self, name: str, data: bytes) -> None:
        check_name(name)
        write_whole(self._folder / name, data, self._at)

    def read(self, name: str) -> bytes:
        check_name(name)
        return (self._folder / name).read_bytes()

    def names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        found = [path.relative_to(self._folder) for path in self._folder.glob("*/*") if path.is_file()]
        return sorted(path.as_posix() for path in found)

    def remove(self, name: str) -> None:
        path = self._folder / name
        path.unlink(missing_ok=True)
        if path.parent != self._folder and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


class ObjectStore:
    """A folder of anything that fsspec knows: an object is there when its upload has ended, and never in part."""

    def __init__(self, url: str) -> None:
        """ValueError or ImportError where fsspec has no such storage."""
        fsspec: Any = __import__("fsspec")
        self._system, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        check_name(name)
        self._system.pipe_file(f"{self._root}/{name}", data)

    def read(self, name: str) -> bytes:
        check_name(name)
        data: bytes = self._system.cat_file(f"{self._root}/{name}")
        return data

    def names(self) -> list[str]:
        self._system.invalidate_cache()
        try:
            found = self._system.find(self._root)
        except FileNotFoundError:
            return []
        prefix = self._root.lstrip("/") + "/"
        return sorted(str(path).lstrip("/").removeprefix(prefix) for path in found)

    def remove(self, name: str) -> None:
        path = f"{self._root}/{name}"
        if self._system.exists(path):
            self._system.rm_file(path)


def open_store(place: str, at: Point = lambda act, path: None) -> Store:
    """The store of a URL ("s3://bucket/runs/1/checkpoints"), or of a folder's path; `at` is of a folder."""
    path = place.removeprefix("file://")
    return ObjectStore(path) if "://" in path else FileStore(Path(path), at)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
