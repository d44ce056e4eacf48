# ruff: noqa: RUF009 - option() makes dataclass fields, as dataclasses.field() does
"""The table [data] of the job file, and which form of data a value of it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from thalweg_proto.job.kinds import (
    FROM_0_TO_1,
    ArrayPair,
    Choice,
    Either,
    FilePath,
    PathPair,
    Text,
    Whole,
    function_in,
)
from thalweg_proto.job.options import Section, option

BUILT_IN_DATA = ("digits",)
TEXT_ENDINGS = (".txt", ".md")
CONTEXT = 64  # where the job does not say
CONTEXT_MAX = 2**20  # a slip of the keyboard must not ask for a petabyte

DATA_SOURCES = (FilePath(expected='a built-in name ("digits"), a path', built_in=BUILT_IN_DATA), PathPair())


def is_text(data: object) -> TypeGuard[str]:
    """Whether `data`, a value of `train` or `eval`, names a text file."""
    return isinstance(data, str) and data.lower().endswith(TEXT_ENDINGS)


def is_function(data: object) -> TypeGuard[str]:
    """Whether `data`, a value of `train` or `eval`, names a user's function: "FILE.py:FUNCTION"."""
    return isinstance(data, str) and function_in(data) is not None


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """[data]: what is trained and evaluated on.

    context: None where `train` is no text
    options: keys that no data set but a user's function takes; {} without one
    """

    train: str | ArrayPair = option(
        Either(DATA_SOURCES),
        "a built-in name or a file: .npz (arrays x and y), .csv or .parquet; a pair of .npy or idx files; a folder of "
        '.parquet files; a text, .txt or .md; or "FILE.py:FUNCTION", which returns a data set and gets the other keys',
    )
    eval: float | str | ArrayPair = option(
        Either((FROM_0_TO_1, *DATA_SOURCES)),
        "a held-out fraction (0: no evaluation), or a second data set in the same forms",
        default=0.2,
    )
    label: str = option(Text(), "the label's column in .csv and .parquet files", default="label")
    task: Literal["auto", "classification", "regression"] = option(
        Choice(("auto", "classification", "regression")),
        "auto: whole numbers and text are classes, other numbers are targets",
        default="auto",
    )
    scale: Literal["none", "standard", "0-1"] = option(
        Choice(("none", "standard", "0-1")),
        "by the statistics of the training part: mean 0 and deviation 1, or from 0 to 1; a text is never scaled",
        default="standard",
    )
    context: int | None = option(
        Whole(minimum=1, maximum=CONTEXT_MAX),
        f"of a text only: characters of a sample; {CONTEXT} if not given",
        default=None,
    )
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is None and is_text(self.train):
            object.__setattr__(self, "context", CONTEXT)
