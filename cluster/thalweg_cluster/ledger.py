"""Which samples went into which step, as the workers wrote it down, and whether each came exactly once an epoch.

Rules:
  - What counts is what was published: records of steps from `steps` on are of a run that ended before them.
  - A microbatch may stand in several files, and several times in one: it was computed again after a loss. Then all must
    name the same samples, so that it does not matter which of them went into the step.
  - The samples of all steps in order, microbatch by microbatch, are one stream; epoch e is [e N, (e + 1) N) of it.
    Nothing here asks the sampler: that would only show that it agrees with itself.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import LedgerError
from thalweg_proto.ledger import SUFFIX, Division, Pages, unpack
from thalweg_proto.shares import share

_TOLD = 5  # samples that a finding names


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a ledger comes to.

    epochs:      how many are whole
    again:       records of microbatches that were there before: computed again after a loss
    unpublished: records of steps that were never published
    findings:    what speaks against each sample exactly once an epoch; none: it is so
    """

    division: Division
    steps: int
    epochs: int
    again: int
    unpublished: int
    findings: tuple[str, ...]

    @property
    def samples(self) -> int:
        """How many went into all steps."""
        return self.steps * self.division.batch_size


@dataclass(frozen=True)
class StepSamples:
    """The samples of each of the first `steps` steps; `combine` and `read_ledger` make it.

    begin: (n,) of each microbatch that is there, in order, where it begins in the stream of samples
    """

    division: Division
    steps: int
    again: int
    unpublished: int
    begin: NDArray[np.int64]
    _where: list[tuple[Pages, int]] = field(repr=False)  # of each of these: its record

    def samples(self, step: int) -> NDArray[np.int64]:
        """The rows of the training set that went into a step, (n,), in the order of its microbatches."""
        size = self.division.batch_size
        return self._stream(step * size, (step + 1) * size)

    def _stream(self, begin: int, end: int) -> NDArray[np.int64]:
        """The samples at the positions [begin, end) of the stream, those that are missing left out."""
        first = max(0, int(np.searchsorted(self.begin, begin, "right")) - 1)
        last = int(np.searchsorted(self.begin, end, "left"))
        parts = [np.empty(0, dtype=np.int64)]
        for at, (pages, i) in zip(self.begin[first:last].tolist(), self._where[first:last], strict=True):
            parts.append(pages.rows(i)[max(0, begin - at) : end - at].astype(np.int64))
        return np.concatenate(parts)

    def account(self) -> Account:
        """Each epoch is looked at by itself: it takes 16 bytes for each sample of the training set."""
        samples, batch_size, microbatches = self.division
        total = self.steps * batch_size
        expected = self.steps * microbatches
        findings = []
        if len(self.begin) < expected:
            missing = f"{expected - len(self.begin):,} of {expected:,} microbatches are not in the ledger"
            findings.append(f"{missing}, the first of them in step {self._first_gap()}")
        for epoch in range(-(-total // samples)):
            begin, end = epoch * samples, (epoch + 1) * samples
            times = np.bincount(self._stream(begin, min(end, total)), minlength=samples)
            doubled = np.flatnonzero(times > 1)
            absent = np.flatnonzero(times == 0) if end <= total else doubled[:0]  # the last epoch may not be whole
            findings += [
                f"epoch {epoch}: {len(rows):,} samples {what}: {_listed(rows)}"
                for rows, what in ((absent, "missing"), (doubled, "more than once"))
                if len(rows)
            ]
        return Account(
            division=self.division,
            steps=self.steps,
            epochs=total // samples,
            again=self.again,
            unpublished=self.unpublished,
            findings=tuple(findings),
        )

    def _first_gap(self) -> int:
        """The first step that lacks a microbatch."""
        starts = _starts(self.division)
        steps, parts = np.divmod(np.arange(len(self.begin)), self.division.microbatches)
        wrong = np.flatnonzero(self.begin != steps * self.division.batch_size + starts[parts])
        return int((wrong[0] if len(wrong) else len(self.begin)) // self.division.microbatches)


def read_ledger(folder: Path, steps: int) -> StepSamples:
    """The ledger in `folder`, of a run that published `steps` steps.

    LedgerError where there is none, a file is damaged before its end, or files contradict each other.
    """
    found = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with path.open("rb") as stream:
            size = path.stat().st_size
            data = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        try:
            found[path.name] = unpack(memoryview(data))
        except LedgerError as error:
            raise LedgerError(f"{path}: {error}") from None
    if not found:
        raise LedgerError(f"{folder}: expected files named *{SUFFIX}; found none. `--ledger` makes a run write them.")
    return combine(found, steps)


def combine(files: Mapping[str, Pages], steps: int) -> StepSamples:
    """What all files, by name, say of the first `steps` steps. LedgerError where they contradict each other."""
    begun = {name: pages for name, pages in files.items() if pages.division is not None}
    if not begun:
        raise LedgerError(f"expected a record in at least one of {', '.join(files) or 'no files'}; found none")
    division = _division(begun)
    names, all_pages = list(begun), list(begun.values())
    lengths = [len(pages.step) for pages in all_pages]
    file = np.repeat(np.arange(len(all_pages)), lengths)
    index = np.concatenate([np.arange(length) for length in lengths])
    step, part, count = (
        np.concatenate([getattr(pages, name) for pages in all_pages]) for name in ("step", "microbatch", "count")
    )
    order = np.lexsort((file, part, step))
    order = order[step[order] < steps]
    starts = _starts(division)
    begins: list[int] = []
    where: list[tuple[Pages, int]] = []
    of_last = -1  # the file of the last one in `where`
    for f, i, t, m, n in zip(*(a[order].tolist() for a in (file, index, step, part, count)), strict=True):
        if m >= division.microbatches or n != starts[m + 1] - starts[m]:
            raise LedgerError(
                f"step {t}, microbatch {m}: expected one of {division.microbatches} microbatches of a batch of "
                f"{division.batch_size}; found {n} samples in {names[f]}"
            )
        begin = t * division.batch_size + int(starts[m])
        if begins and begins[-1] == begin:
            pages, j = where[-1]
            if not np.array_equal(pages.rows(j), all_pages[f].rows(i)):
                raise LedgerError(
                    f"step {t}, microbatch {m}: expected the same samples each time that it was computed; "
                    f"{names[of_last]} and {names[f]} name others"
                )
            continue
        found = int(all_pages[f].rows(i).max())
        if found >= division.samples:
            raise LedgerError(
                f"step {t}, microbatch {m}: expected rows below {division.samples}; found {found} in {names[f]}"
            )
        begins.append(begin)
        where.append((all_pages[f], i))
        of_last = f
    return StepSamples(
        division,
        steps,
        again=len(order) - len(begins),
        unpublished=len(step) - len(order),
        begin=np.array(begins, dtype=np.int64),
        _where=where,
    )


def _division(files: Mapping[str, Pages]) -> Division:
    """That of all files."""
    (first, pages), *others = files.items()
    division = pages.division
    assert division is not None  # `combine` leaves others out
    for name, other in others:
        if other.division != division:
            raise LedgerError(
                f"expected all files to be of one job; {first} is of one with {division}, {name} of one with "
                f"{other.division}. A run whose batches were cut anew has no one stream of samples."
            )
    return division


def _starts(division: Division) -> NDArray[np.int64]:
    """Where each microbatch begins in a batch, and the end of the last one: (V + 1,)."""
    _, batch_size, microbatches = division
    return np.array([*(share(batch_size, m, microbatches).start for m in range(microbatches)), batch_size])


def _listed(rows: NDArray[np.int64]) -> str:
    return ", ".join(map(str, rows[:_TOLD].tolist())) + (", ..." if len(rows) > _TOLD else "")
