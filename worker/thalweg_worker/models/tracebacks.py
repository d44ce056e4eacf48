"""The traceback of a mistake in a user's model, without the frames that are not the user's."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_THALWEG = str(Path(__file__).parent.parent)
_INSTALLED = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")}
_NOT_THE_USERS = ("<frozen ", *(folder + os.sep for folder in (_THALWEG, *_INSTALLED)))


def user_traceback(error: BaseException) -> str:
    """The traceback of an exception and of those that it followed, cut down to the user's frames.

    Frames of Thalweg, of installed packages and of Python are left out. Where that leaves none (a call that
    did not fit, a syntax error) the exception stands alone.
    """
    report = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = report
    while part is not None:
        kept = [frame for frame in part.stack if not frame.filename.startswith(_NOT_THE_USERS)]
        part.stack = traceback.StackSummary.from_list(kept)
        part = part.__cause__ or part.__context__
    lines = "".join(report.format()).splitlines()
    headless = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if not line.startswith("Traceback (most") or following.startswith("  File")
    ]
    return "\n".join(headless)


def summary(error: BaseException) -> str:
    """The exception in one line: "ValueError: shapes do not match"."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def indented(text: str) -> str:
    """A text of several lines as the hint of a Problem, whose first line is indented already."""
    return text.replace("\n", "\n    ")
