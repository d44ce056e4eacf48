"""From the [data] section to training and evaluation sets."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg_proto.job import ArrayPair, DataSection
from thalweg_worker.datasets import Dataset, Loaded, TrainEval, load_dataset, ready


def attempt(folder: Path, seed: int = 0, wrong: frozenset[str] = frozenset(), **section: Any) -> Loaded:
    """Data from files: a text is the contents of a .csv file, a pair of arrays is saved as .npz."""
    for key in ("train", "eval"):
        value = section.get(key)
        if isinstance(value, str) and "\n" in value:
            (folder / f"{key}.csv").write_text(value)
            section[key] = str(folder / f"{key}.csv")
        elif isinstance(value, tuple):
            np.savez(folder / f"{key}.npz", x=value[0], y=value[1])
            section[key] = str(folder / f"{key}.npz")
    return load_dataset(DataSection(**section), seed, wrong)


def load(folder: Path, seed: int = 0, **section: Any) -> TrainEval:
    """Data that is right."""
    loaded = attempt(folder, seed, **section)
    assert loaded.problems == ()
    assert loaded.data is not None
    assert (loaded.spec, loaded.samples) == (loaded.data.spec, len(loaded.data.train))
    return loaded.data


def problems(folder: Path, wrong: frozenset[str] = frozenset(), **section: Any) -> str:
    loaded = attempt(folder, wrong=wrong, **section)
    assert loaded.data is None
    return "\n".join(str(problem) for problem in loaded.problems)


def everything(data: Dataset | None) -> tuple[NDArray[Any], NDArray[Any]]:
    assert data is not None
    x = np.empty((len(data), *data.spec.input_shape), data.spec.input_dtype)
    y = np.empty((len(data), *data.spec.target_shape), np.int64 if data.spec.classes else np.float32)
    data.take(np.arange(len(data)), x, y)
    return x, y


X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.array([0, 1] * 5)


def test_digits_are_split_and_scaled() -> None:
    """The built-in set: images of 8 x 8, 10 classes, a fifth held out, mean 0 and deviation 1 in training."""
    pytest.importorskip("sklearn")
    data = load(Path(), train="digits")
    assert (data.spec.input_shape, data.spec.classes, data.spec.task) == ((8, 8), 10, "classification")
    assert (len(data.train), len(data.eval or [])) == (1438, 359)
    x, y = everything(data.train)
    assert abs(x.mean()) < 1e-5
    assert abs(x.std() - 1) < 1e-5
    assert sorted(set(y.tolist())) == list(range(10))
    assert data.class_names == tuple("0123456789")


def test_the_seed_decides_what_is_held_out(tmp_path: Path) -> None:
    """Training and held-out samples are the file's, and depend on the seed alone."""
    split = [load(tmp_path, seed, train=(X, Y), scale="none") for seed in (0, 0, 1)]
    held_out = [everything(data.eval)[0].tolist() for data in split]
    assert held_out[0] == held_out[1] != held_out[2]
    for data in split:
        together = np.concatenate([everything(data.train)[0], everything(data.eval)[0]])
        assert sorted(together[:, 0].tolist()) == X[:, 0].tolist()


def test_nothing_held_out(tmp_path: Path) -> None:
    """With eval = 0 there is no evaluation set, and all rows train."""
    data = load(tmp_path, train=(X, Y), eval=0.0, scale="none")
    assert data.eval is None
    np.testing.assert_array_equal(everything(data.train)[0], X)


def test_another_set_to_evaluate_on_changes_nothing_else(tmp_path: Path) -> None:
    """Training rows, scaling and classes are those of the job, whatever it holds out; that is not even read."""
    np.savez(tmp_path / "other.npz", x=X[:3] + 100, y=np.array([1, 1, 0]))
    for held_out in (0.3, 0.0, str(tmp_path / "nowhere.npz")):
        section = DataSection(train=str(tmp_path / "train.npz"), eval=held_out)
        usual = load(tmp_path, train=(X, Y), eval=held_out if isinstance(held_out, float) else 0.0)
        found = load_dataset(section, 0, instead=str(tmp_path / "other.npz")).data
        assert found is not None
        assert found.scaling is not None
        assert usual.scaling is not None
        assert everything(found.train)[0].tolist() == everything(usual.train)[0].tolist()
        assert found.scaling.offset.tolist() == usual.scaling.offset.tolist()
        x, y = everything(found.eval)
        assert y.tolist() == [1, 1, 0]
        np.testing.assert_allclose(x, (X[:3] + 100 - usual.scaling.offset) * usual.scaling.factor, rtol=1e-5)


def test_a_second_set_is_scaled_by_the_first(tmp_path: Path) -> None:
    """Statistics and classes are those of the training file."""
    data = load(tmp_path, train=(X, Y * 5), eval=(X[:3] + 100, np.array([5, 5, 0])))
    x, y = everything(data.eval)
    np.testing.assert_allclose(x, (X[:3] + 100 - X.mean(0)) / X.std(0), rtol=1e-5)
    assert y.tolist() == [1, 1, 0]
    assert data.class_names == ("0", "5")


def test_csv_columns_are_matched_by_name(tmp_path: Path) -> None:
    """A second table may have its columns in another order, and labels that happen to look like numbers."""
    data = load(
        tmp_path,
        train="a,b,label\n1,10,x\n2,20,7\n3,30,x\n",
        eval="label,b,a\n7,40,4\n7,50,5\n",
        scale="none",
    )
    x, y = everything(data.eval)
    assert x.tolist() == [[4, 40], [5, 50]]
    assert y.tolist() == [0, 0]
    assert data.class_names == ("7", "x")


def test_regression_targets_are_float32(tmp_path: Path) -> None:
    """Floats are targets, of one number or several."""
    data = load(tmp_path, train=(X, Y + 0.5), eval=0.0)
    assert (data.spec.task, data.spec.classes, data.spec.target_shape) == ("regression", 0, ())
    np.testing.assert_array_equal(everything(data.train)[1], Y + 0.5)
    data = load(tmp_path, train=(X, X * 2.0), eval=0.0)
    assert data.spec.target_shape == (2,)
    np.testing.assert_array_equal(everything(data.train)[1], X * 2)


def test_unscaled_whole_numbers_are_tokens(tmp_path: Path) -> None:
    """int64 with scale = "none" stays whole; scaled, and bytes, are features."""
    tokens = np.arange(20).reshape(10, 2)
    assert load(tmp_path, train=(tokens, Y), scale="none").spec.input_dtype == "int64"
    assert load(tmp_path, train=(tokens, Y)).spec.input_dtype == "float32"
    assert load(tmp_path, train=(tokens.astype(np.uint8), Y), scale="none").spec.input_dtype == "float32"


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"train": (X, Y[:9])}, "a label for each of the 10 samples; found 9 labels"),
        ({"train": (X[:, 0], Y)}, "samples of shape (N, ...); found shape (10,)"),
        ({"train": (X, Y - 1)}, "labels >= 0; found -1 in row 0"),
        ({"train": (X, Y), "eval": 0.01}, "data.eval: expected a fraction that leaves rows on both sides"),
        ({"train": (X, Y), "eval": (X[:, :1], Y)}, "samples of the shape (2,) of data.train; found (1,)"),
        ({"train": (X, Y), "eval": (X, Y + 1)}, "labels of data.train (0, 1); found 2 in row 1"),
        ({"train": (X, Y), "eval": (X * np.nan, Y)}, "finite numbers; found nan in row 0, column 0"),
        ({"train": (X, Y / 2), "eval": (X, X)}, "labels of the shape () of data.train; found (2,)"),
        ({"train": (X.astype(int), Y), "eval": (X, Y), "scale": "none"}, "whole numbers (tokens)"),
        ({"train": "a,label\n1,0\n2,1\n", "eval": "b,label\n1,0\n"}, "the columns of data.train; found no a; also b"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, section: dict[str, Any], text: str) -> None:
    """Samples, labels and the two sets are checked against each other."""
    assert text in problems(tmp_path, **section)


def test_mistakes_of_both_sets_are_reported_together(tmp_path: Path) -> None:
    """A wrong training set does not hide a wrong evaluation set, whether in reading or in what was read."""
    found = problems(tmp_path, train=str(tmp_path / "no.npz"), eval=str(tmp_path / "no.csv"))
    assert "data.train (" in found
    assert "data.eval (" in found
    bad = X.copy()
    bad[3, 1] = np.inf
    found = problems(tmp_path, train=(bad, Y - 1), eval=(bad, Y))
    assert found.count("found inf in row 3, column 1") == 2
    assert "labels >= 0" in found


def test_a_second_set_that_is_not_there_hides_nothing_of_the_first(tmp_path: Path) -> None:
    """The first is looked at to its end, and what it says of the samples is known."""
    found = problems(tmp_path, train=(X, Y - 1), eval=str(tmp_path / "no.csv"))
    assert "data.eval (" in found
    assert "labels >= 0" in found
    loaded = attempt(tmp_path, train=(X, Y), eval=str(tmp_path / "no.csv"))
    assert len(loaded.problems) == 1
    assert loaded.spec is not None
    assert (loaded.spec.input_shape, loaded.spec.classes, loaded.samples) == ((2,), 2, 10)


@pytest.mark.parametrize("train_labels", [Y, np.stack([Y, Y], 1)])
def test_labels_of_another_shape_are_one_mistake(tmp_path: Path, train_labels: NDArray[Any]) -> None:
    """Whether they are in the second set or in the first, which leaves nothing to compare the second with."""
    eval_labels = np.stack([Y, Y], 1) if train_labels is Y else Y
    [problem] = attempt(tmp_path, train=(X, train_labels), eval=(X, eval_labels)).problems
    assert "shape" in problem.expected + problem.found


def test_a_first_set_that_is_not_there_hides_no_wrong_number_in_the_second(tmp_path: Path) -> None:
    """A number is of no use whatever it is compared with."""
    found = problems(tmp_path, train=str(tmp_path / "no.csv"), eval=(X * np.nan, Y))
    assert "data.train (" in found
    assert "found nan in row 0, column 0" in found


def test_wrong_numbers_leave_the_shape(tmp_path: Path) -> None:
    """A NaN hides neither how samples look nor how many there are."""
    loaded = attempt(tmp_path, train=(X * np.nan, Y))
    assert len(loaded.problems) == 1
    assert loaded.spec is not None
    assert (loaded.spec.input_shape, loaded.spec.classes, loaded.samples) == ((2,), 2, 8)


TABLE = "a,species\n1,0\nnan,1\n3,1\n"


@pytest.mark.parametrize(
    ("wrong", "section", "said", "spec_known"),
    [
        ("label", {"train": "no.csv"}, "no such file", False),
        ("label", {"train": TABLE}, None, False),
        ("label", {"train": (X, Y), "eval": "no.csv"}, "no such file", True),
        ("label", {"train": (X, Y), "eval": TABLE}, None, True),
        ("label", {"train": (X * np.nan, Y)}, "finite numbers; found nan", True),
        ("scale", {"train": (X * np.nan, Y)}, "finite numbers; found nan", True),
        ("scale", {"train": (X, Y)}, None, True),
        ("scale", {"train": (X.astype(int), Y)}, None, False),
        ("scale", {"train": (X.astype(int), Y), "eval": (X, Y)}, None, False),
        ("task", {"train": (X, Y - 1)}, None, False),
        ("task", {"train": (X * np.nan, Y), "eval": (X, Y / 2)}, "finite numbers; found nan", False),
        ("task", {"train": (X, Y), "eval": (X[:, :1], Y)}, "samples of the shape (2,) of data.train", False),
        ("eval", {"train": (X * np.nan, Y)}, "finite numbers; found nan", True),
        ("eval", {"train": (X, Y)}, None, True),
        ("train", {"train": None, "eval": "no.csv"}, "no such file", False),
        ("train", {"train": None, "eval": (X * np.nan, Y)}, "finite numbers; found nan", False),
    ],
)
def test_what_a_wrong_key_says_is_not_built_on(
    tmp_path: Path, wrong: str, section: dict[str, Any], said: str | None, spec_known: bool
) -> None:
    """All that does not need the key is checked, and nothing that does; the key has no meaning then."""
    paths = {key: str(tmp_path / value) if value == "no.csv" else value for key, value in section.items()}
    loaded = attempt(tmp_path, wrong=frozenset({wrong}), **{wrong: None, **paths})
    assert [said in str(problem) for problem in loaded.problems] == ([True] if said else [])
    assert loaded.data is None
    assert (loaded.spec is not None) == spec_known


@pytest.mark.parametrize("scale", ["none", "standard", "0-1"])
def test_a_fraction_that_leaves_nothing_to_train_on_is_one_problem(tmp_path: Path, scale: str) -> None:
    """Images without a training row have no statistics, and the problem says why."""
    images = np.arange(40, dtype=np.float32).reshape(10, 2, 2)
    [problem] = attempt(tmp_path, train=(images, Y), eval=0.99, scale=scale).problems
    assert problem.field == "data.eval"


def test_a_mapped_set_is_loaded_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading 64 MiB of .npy takes a fraction of that, for any scale, with rows held out."""
    pair = ArrayPair(x=str(tmp_path / "x.npy"), y=str(tmp_path / "y.npy"))
    x = np.lib.format.open_memmap(pair.x, "w+", np.float32, (1 << 18, 64))
    x[:: 1 << 14] = 1
    np.save(pair.y, (np.arange(1 << 18) % 2).astype(np.uint8))
    monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 1 << 20)
    for scale in ("none", "standard", "0-1"):
        tracemalloc.start()
        data = load(tmp_path, train=pair, scale=scale)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert data.train.x.file is not None
        assert peak < 16 << 20
