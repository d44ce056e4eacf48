"""What arrives with a Submit, on its way to the disk.

Rules:
  - Names and sizes are checked before anything is written, and nothing is written outside the job's own folder.
  - It lies in `incoming/` until the job is in the table. What is there when the service starts belongs to nobody.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from secrets import token_hex

from thalweg_proto.errors import Problem, ProtocolError
from thalweg_proto.job.loading import FILE_BYTES_MAX
from thalweg_proto.jobs import FILES_MAX, PRIORITY_MAX, is_file_name, is_request_id
from thalweg_proto.v1 import job_service_pb2 as pb

JOB_FILE = "job.toml"
LARGEST = 3
"""So many files are named where all are too large."""


def check_header(header: pb.SubmitHeader) -> None:
    """ProtocolError where the header of a Submit is not as it must be."""
    if not is_request_id(header.request_id):
        raise ProtocolError(_expected("request_id", "8 to 64 letters, digits or -", repr(header.request_id[:80])))
    if not -PRIORITY_MAX <= header.priority <= PRIORITY_MAX:
        raise ProtocolError(_expected("priority", f"from {-PRIORITY_MAX} to {PRIORITY_MAX}", str(header.priority)))
    if len(header.job.encode()) > FILE_BYTES_MAX:
        raise ProtocolError(_expected("job", f"at most {FILE_BYTES_MAX} bytes", f"{len(header.job.encode())}"))
    if len(header.files) > FILES_MAX:
        raise ProtocolError(_expected("files", f"at most {FILES_MAX}", str(len(header.files))))
    names: set[str] = set()
    for file in header.files:
        if not is_file_name(file.name) or file.name in names:
            found = repr(file.name[:200])
            raise ProtocolError(_expected("files.name", "another plain relative path for each file", found))
        names.add(file.name)
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    if both := sorted(names & folders):
        raise ProtocolError(_expected("files.name", "a file or a folder", f"{both[0]!r}, which is both"))


def check_size(header: pb.SubmitHeader, bytes_max: int) -> list[Problem]:
    """Whether the files of a job are small enough to be shipped."""
    total = sum(file.bytes for file in header.files)
    if total <= bytes_max:
        return []
    expected = f"files of at most {_mib(bytes_max)} in all"
    hint = "put them where the service sees them under the same path, and say --in-place; or raise --files-max there"
    largest = sorted(header.files, key=lambda file: -file.bytes)[:LARGEST]
    found = ", ".join(f"{file.name} has {_mib(file.bytes)}" for file in largest)
    return [Problem("submit", expected, f"{_mib(total)}, of which {found}", hint)]


def digest_of(header: pb.SubmitHeader) -> str:
    """By which a repeated Submit is known from another one with the same request id."""
    files = [(file.name, file.bytes) for file in header.files]
    return hashlib.sha256(repr((header.job, files, header.priority)).encode()).hexdigest()


@contextmanager
def receive(incoming: Path, header: pb.SubmitHeader, parts: Iterator[bytes]) -> Iterator[Path]:
    """Within the block what was sent lies in a folder, whole and on the disk; what is still there then is removed.

    ProtocolError where other data come than the header says, OSError where the disk does not take them.
    """
    folder = incoming / token_hex(16)
    folder.mkdir(parents=True)
    try:
        _write(folder / JOB_FILE, iter([header.job.encode()]), len(header.job.encode()))
        for file in header.files:
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, parts, file.bytes)
        if next(parts, None) is not None:
            raise ProtocolError(_expected("data", "no more, since all files are whole", "another part"))
        for inner in {folder, *(path.parent for path in folder.rglob("*"))}:
            sync_folder(inner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Its names survive a loss of power from now on. OSError where the disk does not take them."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(path: Path, parts: Iterator[bytes], size: int) -> None:
    written = 0
    with path.open("xb") as stream:
        while written < size:
            data = next(parts, None)
            if data is None or written + len(data) > size:
                found = "the end" if data is None else f"{written + len(data)}"
                raise ProtocolError(_expected(f"data of {path.name}", f"{size} bytes", found))
            stream.write(data)
            written += len(data)
        stream.flush()
        os.fsync(stream.fileno())


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"


def _expected(field: str, expected: str, found: str) -> str:
    return f"{field}: expected {expected}; found {found}"
