"""The ledger as a worker writes it: which samples it took for which step."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import LedgerError
from thalweg_proto.ledger import SUFFIX, Division, pack_head, pack_record


class Ledger:
    """The file of one worker process; the format is that of thalweg_proto/ledger.py.

    It is made with the first record. Each record is handed to the kernel at once, so that it stays whatever happens to
    this process; it is not synced: a loss of power may take it away.
    """

    def __init__(self, folder: Path, rank: int, division: Division) -> None:
        """`folder` must be there, made by the launch: where this host does not see it, that is an error."""
        self._path = folder / f"{rank:05d}-{secrets.token_hex(8)}{SUFFIX}"
        self._rank = rank
        self._division = division
        self._fd: int | None = None

    def take(self, step: int, microbatch: int, rows: NDArray[np.int64]) -> None:
        """These rows of the training set, (n,), go into microbatch `microbatch` of step `step`.

        LedgerError where that cannot be written.
        """
        record = pack_record(self._division, step, microbatch, rows)
        try:
            if self._fd is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o644)
                record = pack_head(self._rank, self._division) + record
            while record:  # a disk that is almost full takes a part, and refuses the next
                record = record[os.write(self._fd, record) :]
        except OSError as error:
            raise LedgerError(
                f"worker {self._rank}: the ledger {self._path} cannot be written ({error.strerror}); expected a "
                f"folder of the run that all hosts see, with room in it. Run without --ledger, or with another --out."
            ) from error

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
