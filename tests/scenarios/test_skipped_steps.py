"""A sample that overflows the loss, on real Ray: the run ends, or steps with it are skipped."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

JOB = """
name = "outlier"
[data]
train = "outlier.csv"
eval = 0.0
label = "y"
task = "regression"
scale = "none"
[model]
use = "linear"
[train]
steps = 40
batch_size = 16
microbatches = 4
[optimizer]
learning_rate = 0.01
"""


@pytest.fixture
def outlier(tmp_path):
    """A job on 64 samples: with one of them the loss overflows, so in each epoch one step of four is not finite."""
    rows = [f"{i / 64},{(i * i % 7) / 7},{i / 32}" for i in range(63)]
    (tmp_path / "outlier.csv").write_text("\n".join(["a,b,y", *rows, "1e30,1e30,0"]) + "\n")
    file = tmp_path / "outlier.toml"
    file.write_text(JOB)
    return file


def test_the_run_ends_at_the_first_step_that_is_not_finite(outlier, train):
    """Exit status 1; what was not finite, and what to do."""
    run = train(file=outlier)
    assert run.status == 1, run.output
    assert "the loss of microbatch" in run.summary["error"]
    assert "Lower optimizer.learning_rate" in run.summary["error"]


def test_such_steps_are_skipped_to_the_same_bits_by_any_number_of_workers(outlier, train):
    """Ten epochs of four steps: ten steps are skipped, and summary.json says so."""
    runs = [
        train("train.non_finite='skip'", f"cluster.workers={workers}", file=outlier, out=f"out{workers}")
        for workers in (1, 2, 3)
    ]
    for run in runs:
        assert run.status == 0, run.output
        assert (run.summary["steps"], run.summary["skipped"]) == (40, 10)
        assert len([row for row in run.rows if row["train_loss"] is None]) == 10
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
