"""Which samples went into which step, and whether each came exactly once an epoch."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from thalweg_cluster.cli import app
from thalweg_cluster.ledger import combine, read_ledger
from thalweg_proto.errors import LedgerError
from thalweg_proto.ledger import Division, pack_head, pack_record, unpack

DIVISION = Division(samples=6, batch_size=4, microbatches=2)
# Three steps are two epochs of 6: [5 0 3 1 | 4 2] and [0 1 | 2 3 4 5].
RIGHT = {
    (0, 0): [5, 0],
    (0, 1): [3, 1],
    (1, 0): [4, 2],
    (1, 1): [0, 1],
    (2, 0): [2, 3],
    (2, 1): [4, 5],
}


def file(records, division=DIVISION):
    packed = [pack_record(division, *key, np.array(rows)) for key, rows in records]
    return b"".join([pack_head(0, division), *packed])


def combined(*files, steps=3):
    return combine({name: unpack(file(records)) for name, records in zip("abc", files, strict=False)}, steps)


def test_a_ledger_that_is_right():
    """Whichever worker took what, and in which order the files are read."""
    records = list(RIGHT.items())
    samples = combined(records[::2], records[1::2])
    assert [samples.samples(step).tolist() for step in range(3)] == [[5, 0, 3, 1], [4, 2, 0, 1], [2, 3, 4, 5]]
    account = samples.account()
    assert (account.steps, account.samples, account.epochs) == (3, 12, 2)
    assert (account.again, account.unpublished, account.findings) == (0, 0, ())


def test_what_was_computed_again_counts_once():
    """By the same process and by another one."""
    records = list(RIGHT.items())
    account = combined(records, records[2:4] + records[2:3]).account()
    assert (account.again, account.findings) == (3, ())


def test_steps_that_were_never_published_do_not_count():
    """Not even where they contradict each other."""
    account = combined([*RIGHT.items(), ((3, 0), [1, 2])], [((3, 0), [2, 1])]).account()
    assert (account.unpublished, account.findings) == (2, ())


def test_other_samples_for_the_same_microbatch_are_an_error_that_names_both_files():
    """Whichever of them went into the step, nobody knows."""
    error = r"^step 1, microbatch 0: expected the same samples each time that it was computed; a and b name others$"
    with pytest.raises(LedgerError, match=error):
        combined(list(RIGHT.items()), [((1, 0), [2, 4])])


def test_a_sample_that_comes_twice_and_the_one_that_it_replaces_are_named():
    """Sample 4 again in place of 2, in the first epoch; an epoch ends within a step."""
    account = combined(list((RIGHT | {(1, 0): [4, 4]}).items())).account()
    assert account.findings == ("epoch 0: 1 samples missing: 2", "epoch 0: 1 samples more than once: 4")


def test_a_microbatch_that_is_not_there_is_found():
    """With the step, and the samples that its epoch lacks."""
    account = combined([(key, rows) for key, rows in RIGHT.items() if key != (2, 0)]).account()
    assert account.findings == (
        "1 of 6 microbatches are not in the ledger, the first of them in step 2",
        "epoch 1: 2 samples missing: 2, 3",
    )


def test_the_end_of_an_epoch_that_is_not_whole_may_be_missing_but_not_doubled():
    """After two steps, 2 samples of the second epoch were seen."""
    assert combined(list(RIGHT.items()), steps=2).account().findings == ()
    account = combined(list((RIGHT | {(1, 1): [1, 1]}).items()), steps=2).account()
    assert account.findings == ("epoch 1: 1 samples more than once: 1",)


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([((0, 2), [1, 2])], "expected one of 2 microbatches of a batch of 4; found 2 samples in a"),
        ([((0, 1), [1])], "expected one of 2 microbatches of a batch of 4; found 1 samples in a"),
        ([((0, 1), [1, 6])], "expected rows below 6; found 6 in a"),
    ],
)
def test_what_does_not_fit_the_job_is_an_error(records, error):
    """Another microbatch, another size, a row that there is not."""
    with pytest.raises(LedgerError, match=re.escape(error)):
        combined(records)


def test_files_of_jobs_that_cut_batches_differently_are_an_error():
    """Both are named."""
    other = Division(samples=6, batch_size=6, microbatches=2)
    files = {"a": unpack(file(RIGHT.items())), "b": unpack(file([], other))}
    with pytest.raises(LedgerError, match=r"; a is of one with Division\(.*batch_size=4.*, b of one with .*=6"):
        combine(files, 3)


def written(folder, records, steps=3, more=b""):
    (folder / "ledger").mkdir()
    (folder / "ledger" / "00000-a.ledger").write_bytes(file(records) + more)
    (folder / "summary.json").write_text(json.dumps({"steps": steps}))
    return CliRunner().invoke(app, ["ledger", str(folder)])


def test_the_command_says_yes(tmp_path):
    """Exit status 0; a torn last record is dropped."""
    done = written(tmp_path, RIGHT.items(), more=pack_record(DIVISION, 3, 0, np.array([1, 2]))[:-1])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "12 samples in 3 steps, 2 whole epochs of 6",
        "0 microbatches computed again, 0 of steps that were never published",
        "each sample exactly once an epoch: yes",
    ]


def test_the_command_says_no(tmp_path):
    """Exit status 1, and what is wrong."""
    done = written(tmp_path, (RIGHT | {(2, 1): [4, 4]}).items())
    assert done.exit_code == 1
    assert "epoch 1: 1 samples missing: 5" in done.output
    assert "each sample exactly once an epoch: no" in done.output


def test_a_damaged_file_is_named(tmp_path):
    """With its path."""
    done = written(tmp_path, RIGHT.items())
    path = tmp_path / "ledger" / "00000-a.ledger"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    done = CliRunner().invoke(app, ["ledger", str(tmp_path)])
    assert done.exit_code == 1
    assert f"failed: {path}: damaged at byte 44" in done.output


def test_a_folder_without_a_ledger_or_without_a_summary_is_told(tmp_path):
    """What makes one; and that a run must have ended."""
    with pytest.raises(LedgerError, match=r"found none\. `--ledger` makes a run write them"):
        read_ledger(tmp_path, 3)
    done = CliRunner().invoke(app, ["ledger", str(tmp_path)])
    assert done.exit_code == 2
    assert "summary.json: expected the summary of a run that has ended; found no such file" in done.output
