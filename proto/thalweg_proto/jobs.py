"""What the service that runs jobs and its clients agree on (v1/job_service.proto), and the states of a job. Pure.

queued      waits for room                            -> running, cancelled
running     its command goes on                       -> succeeded, failed, cancelling, cancelled,
                                                         queued (it was lost: it goes on when there is room)
cancelling  its command was asked to end              -> cancelled, succeeded, failed: what comes first
succeeded
failed, cancelled                                     -> queued (resume)
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

PROTOCOL_VERSION: Final = 1
CHUNK_BYTES_MAX: Final = 1 << 20
LOG_BYTES_MAX: Final = 64 << 10
"""Of one message of a log."""
FILES_MAX: Final = 1000
PRIORITY_MAX: Final = 100
LIST_MAX, LIST_DEFAULT = 1000, 100
ADDRESS: Final = "THALWEG_ADDRESS"
"""The environment variable that has the service's address, for its clients."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_PARTS_MAX, _PART_BYTES_MAX = 16, 255


class State(str, Enum):
    """Of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    @property
    def started(self) -> bool:
        """Whether a command of it goes on, as far as is known: it takes room."""
        return self in (State.RUNNING, State.CANCELLING)

    def may_become(self, other: State) -> bool:
        return other in _NEXT[self]


_NEXT: Final = {
    State.QUEUED: (State.RUNNING, State.CANCELLED),
    State.RUNNING: (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.CANCELLING, State.QUEUED),
    State.CANCELLING: (State.CANCELLED, State.SUCCEEDED, State.FAILED),
    State.SUCCEEDED: (),
    State.FAILED: (State.QUEUED,),
    State.CANCELLED: (State.QUEUED,),
}


def is_request_id(text: str) -> bool:
    """Whether `text` may name a request."""
    return _REQUEST_ID.fullmatch(text) is not None


def is_file_name(name: str) -> bool:
    """Whether `name` leads nowhere but into the folder of a job that was shipped, and not to the job file itself: 2 to
    16 parts, none hidden, "..", longer than 255 bytes or with characters that are not printed."""
    parts = name.split("/")
    return 2 <= len(parts) <= _PARTS_MAX and all(map(_is_part, parts))


def _is_part(part: str) -> bool:
    # What is not printable has control characters, and surrogates, which UTF-8 does not have.
    plain = part.isprintable() and "\\" not in part
    return plain and 0 < len(part.encode()) <= _PART_BYTES_MAX and not part.startswith(".")


def plain(name: str) -> str:
    """A file's own name as a part that anything takes; its suffix stays."""
    text = re.sub(r"[^A-Za-z0-9_.+-]", "_", name).lstrip(".+-")[-100:].lstrip(".+-")
    return text or "file"
