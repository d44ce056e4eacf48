"""A job as it was read, with its mistakes, and what of it a check may build on."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg_proto.errors import Problem
from thalweg_proto.job.options import options_in
from thalweg_proto.job.sections import SECTIONS, Job


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A job that may still have mistakes.

        if draft.right("train.consistency") and draft.job.train.consistency != "sync": ...

    job:      whole where there is no problem; a field that is not right has None or its default, which means nothing
    problems: every mistake in the job file
    doubt:    fields ("data.label") and tables ("data") that an unknown key may have been meant for, see doubt.py
    """

    job: Job
    problems: tuple[Problem, ...]
    doubt: frozenset[str]

    def right(self, *fields: str) -> bool:
        """Whether a check may build on these fields ("seed", "data.label"): none has a problem or is in doubt."""
        wrong = self.doubt | {problem.field for problem in self.problems}
        return not any(field in wrong or field.partition(".")[0] in wrong for field in fields)

    def wrong_in(self, table: str) -> frozenset[str]:
        """The keys of a table that are not right: `wrong_in("data")` may be {"label"}."""
        return frozenset(key for key in options_in(SECTIONS[table]) if not self.right(f"{table}.{key}"))
