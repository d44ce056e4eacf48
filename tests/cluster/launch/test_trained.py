"""What a run has learned, from its folder."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.cluster.launch.folders import LINEAR, ended_run, rewrite_summary, saved_run, some_weights

from thalweg_cluster.launch.trained import Trained, aligned, read_trained
from thalweg_proto.errors import InputError
from thalweg_worker.batch import DataSpec

IMAGES = DataSpec(input_shape=(8, 8), task="classification", classes=10)


def same(found: Trained, weights) -> bool:
    return found.parameters.keys() == weights.keys() and all(
        (array == weights[name]).all() and array.shape == weights[name].shape
        for name, array in found.parameters.items()
    )


def test_of_a_run_that_has_ended_they_are_the_final_ones(tmp_path):
    """Also where checkpoints are there; the step is that of the summary."""
    saved_run(tmp_path / "run", 40, weights=some_weights(seed=1))
    (tmp_path / "other").mkdir()
    final = ended_run(tmp_path / "other" / "run", steps=60)
    for name in ("summary.json", "weights.safetensors"):
        (final / name).rename(tmp_path / "run" / name)
    found = read_trained(tmp_path / "run")
    assert (found.step, found.ended, found.refused, found.job.name) == (60, True, (), "linear-digits")
    assert same(found, some_weights())


def test_of_a_run_that_has_not_ended_they_are_of_the_newest_whole_checkpoint(tmp_path):
    """A newer one that is broken is refused by name; the shards are put together."""
    for step in (20, 40):
        saved_run(tmp_path / "run", step, weights=some_weights(seed=step))
    found = read_trained(tmp_path / "run")
    assert (found.step, found.ended, found.refused) == (40, False, ())
    assert same(found, some_weights(seed=40))
    next((tmp_path / "run/checkpoints/checkpoint_000040").glob("*.safetensors")).write_bytes(b"cut")
    found = read_trained(tmp_path / "run")
    assert (found.step, found.ended) == (20, False)
    assert same(found, some_weights(seed=20))
    assert [reason.split(":")[0] for reason in found.refused] == ["checkpoint_000040"]


def test_weights_without_a_summary_are_of_a_run_that_has_not_ended(tmp_path):
    """Their step is not known: a run writes them first."""
    folder = saved_run(ended_run(tmp_path / "run"), 40, weights=some_weights(seed=1))
    (folder / "summary.json").unlink()
    found = read_trained(folder)
    assert (found.step, found.ended) == (40, False)
    assert same(found, some_weights(seed=1))


def without(folder, name):
    (folder / name).unlink()


def damaged(folder):
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


MISTAKES = {
    "no job": (lambda folder: without(folder, "job.toml"), "DIR .*: expected the folder of a run.*found no job.toml"),
    "no weights": (
        lambda folder: without(folder, "weights.safetensors"),
        "or a whole checkpoint; found neither: .*checkpoints: none",
    ),
    "cut": (damaged, r"weights\.safetensors: expected a whole safetensors file; found "),
    "of float64": (
        lambda folder: save_file({"w": np.zeros(3)}, folder / "weights.safetensors"),
        "expected arrays of float32; found w of float64",
    ),
    "none in it": (lambda folder: save_file({}, folder / "weights.safetensors"), "float32; found no array"),
    "a summary of nothing": (lambda folder: rewrite_summary(folder, steps=None), "steps: expected a whole number"),
    "a summary that is no table": (lambda folder: rewrite_summary(folder, "[]"), "steps: expected a whole number"),
    "a summary that is cut": (lambda folder: rewrite_summary(folder, "{"), "summary.json: expected what a run writes"),
    "a job with a mistake": (
        lambda folder: (folder / "job.toml").write_text(LINEAR.replace("steps = 60", "steps = 0")),
        "train.steps: expected a whole number >= 1; found 0",
    ),
    "an engine that is not there": (
        lambda folder: (folder / "job.toml").write_text(LINEAR + '[cluster]\nengine = "cubi"\n'),
        'cluster.engine: expected .*; found "cubi"',
    ),
}


@pytest.mark.parametrize(("spoil", "said"), MISTAKES.values(), ids=MISTAKES)
def test_what_is_missing_or_damaged_is_named(tmp_path, spoil, said):
    """One problem, with the file."""
    folder = ended_run(tmp_path / "run")
    spoil(folder)
    with pytest.raises(InputError, match=said) as refused:
        read_trained(folder)
    assert len(refused.value.problems) == 1


def test_what_is_no_folder_is_named(tmp_path):
    """Nothing at all, or a file."""
    with pytest.raises(InputError, match="found no such folder"):
        read_trained(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="found a file"):
        read_trained(tmp_path / "file")


def test_numbers_are_aligned_as_those_of_a_worker(tmp_path):
    """Each begins with a cache line, and what has no element does no harm."""
    found = aligned({"b": np.ones(3, np.float32), "a": np.ones((5, 1), np.float32), "none": np.ones(0, np.float32)})
    assert all(found[name].ctypes.data % 64 == 0 for name in "ab")
    assert aligned({"none": np.ones(0, np.float32)})["none"].shape == (0,)


def test_a_model_that_has_changed_since_is_told_tensor_by_tensor(tmp_path):
    """Other shapes, other names."""
    trained = read_trained(ended_run(tmp_path / "run"))
    assert trained.model(IMAGES) is not None
    other = ended_run(tmp_path / "other", weights={"output.weight": np.zeros((64, 9), np.float32)})
    with pytest.raises(InputError) as refused:
        read_trained(other).model(IMAGES)
    assert list(map(str, refused.value.problems)) == [
        "model: output.bias: expected no such parameter, as in the run's weights; found shape (10,)",
        "model: output.weight: expected shape (64, 9), as in the run's weights; found shape (64, 10)",
    ]
