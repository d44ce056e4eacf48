"""What a worker writes down of the samples that it takes."""

from __future__ import annotations

import os

import numpy as np
import pytest

from thalweg_proto.errors import LedgerError
from thalweg_proto.ledger import Division, unpack
from thalweg_worker.batch import DataSpec
from thalweg_worker.batches import BatchSource
from thalweg_worker.datasets import Dataset, Shipment
from thalweg_worker.datasets.rows import all_rows
from thalweg_worker.ledger import Ledger
from thalweg_worker.sampler import Sampler

DIVISION = Division(samples=20, batch_size=6, microbatches=2)


def source(ledger):
    spec = DataSpec(input_shape=(1,), task="regression", target_shape=(1,))
    x = np.arange(DIVISION.samples, dtype=np.float32)[:, None]
    training = Dataset.from_shipment(Shipment(spec=spec, x=x, y=x, rows=all_rows(len(x)), scaling=None, classes=None))
    return BatchSource(training, Sampler(0, **DIVISION._asdict()), range(2), ledger)


def test_what_is_taken_is_written_down_and_what_is_only_drawn_is_not(tmp_path):
    """The rows are those that lie in the batch, also where they were drawn ahead. Nobody has closed the file."""
    ledger = Ledger(tmp_path, 4, DIVISION)
    batches = source(ledger)
    assert list(tmp_path.iterdir()) == []
    expected = []
    for step in range(3):
        for m in range(2):
            batches.take(step, m)
            expected.append((step, m, batches.batch(m).x[:, 0].tolist()))
        batches.draw(step + 1, 0)
    [path] = tmp_path.iterdir()
    assert path.name.startswith("00004-")
    pages = unpack(path.read_bytes())
    assert pages.division == DIVISION
    found = zip(pages.step.tolist(), pages.microbatch.tolist(), map(pages.rows, range(6)), strict=True)
    assert [(step, m, rows.tolist()) for step, m, rows in found] == expected
    ledger.close()


def test_each_process_has_a_file_of_its_own(tmp_path):
    """Two of the same rank, one after the other."""
    for _ in range(2):
        with Ledger(tmp_path, 0, DIVISION) as ledger:
            source(ledger).take(0, 0)
    assert len(list(tmp_path.glob("00000-*.ledger"))) == 2


def test_a_folder_that_this_host_does_not_see_is_an_error_in_words(tmp_path):
    """It is not made: each host would have one of its own."""
    with Ledger(tmp_path / "away", 1, DIVISION) as ledger, pytest.raises(LedgerError) as error:
        source(ledger).take(0, 0)
    assert "worker 1: the ledger" in str(error.value)
    assert "cannot be written (No such file or directory)" in str(error.value)
    assert not (tmp_path / "away").exists()


def test_a_full_disk_is_an_error_in_words(tmp_path, monkeypatch):
    """/dev/full, in place of a file on it."""
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(os, "open", lambda *_: full)
    with Ledger(tmp_path, 1, DIVISION) as ledger, pytest.raises(LedgerError, match="No space left on device"):
        source(ledger).take(0, 0)
