"""A user's function that returns a data set: fetched sample by sample, and what a wrong one is told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job import DataSection
from thalweg_worker.datasets import Fetcher, Loaded, Samples, TrainEval, load_dataset

GOOD = '''
import numpy as np

FETCHED = []


class Rows:
    """x is (i, 2 i, 3), y is i % 3; what is wrong with one sample is an option."""

    def __init__(self, size, at=None, **wrong):
        self.size, self.at, self.wrong = size, at, wrong

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        FETCHED.append(i)
        x, y = np.array([i, 2.0 * i, 3.0]), i % 3
        return x, y


class Wrong(Rows):
    def __init__(self, size, at, x=None, y=None, pair=None):
        super().__init__(size)
        self.at, self.x, self.y, self.pair = at, x, y, pair

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        if i == self.at:
            if self.pair is not None:
                return self.pair
            x, y = x if self.x is None else np.array(self.x), y if self.y is None else self.y
        return x, y


def dataset(size=30):
    return Rows(size)


def wrong(at, size=30, **how):
    return Wrong(size, at, **how)
'''

CLASSES = "\nRows.classes = ['a', 'b', 'c']\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_data.py").write_text(GOOD)
    return tmp_path


def attempt(folder: Path, function: str = "dataset", text: str = "", seed: int = 0, **section: Any) -> Loaded:
    """The data that `function` gives; text: of the file, instead of GOOD."""
    if text:
        (folder / "my_data.py").write_text(dedent(text))
    file = folder / "my_data.py"
    if isinstance(section.get("eval"), str):
        section["eval"] = f"{file}:{section['eval']}"
    return load_dataset(DataSection(train=f"{file}:{function}", **section), seed)


def load(folder: Path, function: str = "dataset", text: str = "", seed: int = 0, **section: Any) -> TrainEval:
    """Data that is right."""
    loaded = attempt(folder, function, text, seed, **section)
    assert loaded.problems == ()
    assert loaded.data is not None
    assert (loaded.spec, loaded.samples) == (loaded.data.spec, len(loaded.data.train))
    return loaded.data


def problem_of(folder: Path, function: str = "dataset", text: str = "", **section: Any) -> Problem:
    """The one mistake of it."""
    loaded = attempt(folder, function, text, **section)
    assert loaded.data is None
    [problem] = loaded.problems
    return problem


def taken(samples: Samples | None, indices: Any = None) -> tuple[NDArray[Any], NDArray[Any]]:
    assert samples is not None
    indices = np.arange(len(samples)) if indices is None else np.array(indices)
    x = np.full((len(indices), *samples.spec.input_shape), 77, samples.spec.input_dtype)
    y_dtype = np.int64 if samples.spec.task == "classification" else np.float32
    y = np.full((len(indices), *samples.spec.target_shape), 77, y_dtype)
    samples.take(indices, x, y)
    return x, y


def test_samples_are_those_of_the_function(folder: Path) -> None:
    """Each once, in training or held out; float32 and class indices."""
    data = load(folder, scale="none", options={"size": 40}, eval=0.25)
    assert (len(data.train), len(data.eval or [])) == (30, 10)
    assert (data.spec.input_shape, data.spec.classes, data.spec.task) == ((3,), 3, "classification")
    x = np.concatenate([taken(data.train)[0], taken(data.eval)[0]])
    y = np.concatenate([taken(data.train)[1], taken(data.eval)[1]])
    assert sorted(x[:, 0].tolist()) == list(range(40))
    np.testing.assert_array_equal(x[:, 1], 2 * x[:, 0])
    np.testing.assert_array_equal(y, x[:, 0] % 3)
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize("scale", ["standard", "0-1"])
def test_scaling_is_that_of_the_training_part(folder: Path, tmp_path: Path, scale: Any) -> None:
    """The same as of an array of the same samples."""
    data = load(folder, scale=scale, seed=3)
    x = np.array([[i, 2.0 * i, 3.0] for i in range(30)])
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(30) % 3)
    other = load_dataset(DataSection(train=str(tmp_path / "set.npz"), scale=scale), 3).data
    assert other is not None
    for mine, theirs in ((data.train, other.train), (data.eval, other.eval)):
        for array, expected in zip(taken(mine), taken(theirs), strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_second_function_is_held_out(folder: Path) -> None:
    """It gets the same keys, and is scaled by the first."""
    text = GOOD + "\ndef held_out(size):\n    return Rows(size // 10)\n"
    data = load(folder, text=text, eval="held_out", options={"size": 50})
    assert (len(data.train), len(data.eval or [])) == (50, 5)
    np.testing.assert_array_equal(taken(data.eval)[0], taken(data.train, range(5))[0])


def test_another_function_to_evaluate_on(folder: Path) -> None:
    """In place of what the job holds out, with the job's keys."""
    (folder / "my_data.py").write_text(GOOD + "\ndef other(size):\n    return Rows(size // 10)\n")
    section = DataSection(train=f"{folder / 'my_data.py'}:dataset", options={"size": 50})
    found = load_dataset(section, 0, instead=f"{folder / 'my_data.py'}:other").data
    assert found is not None
    assert (len(found.train), len(found.eval or [])) == (40, 5)
    [problem] = load_dataset(section, 0, instead=f"{folder / 'my_data.py'}:others").problems
    assert problem.field == "--data (my_data.py)"


def test_a_class_is_a_function_too_and_a_list_a_data_set(folder: Path) -> None:
    assert len(load(folder, "Rows", eval=0.0, options={"size": 12}).train) == 12
    text = "import numpy as np\ndef dataset():\n    return [(np.ones(2) * i, i * 0.5) for i in range(10)]\n"
    data = load(folder, text=text, eval=0.0, scale="none")
    assert (data.spec.task, data.spec.classes, data.spec.target_shape) == ("regression", 0, ())
    np.testing.assert_array_equal(taken(data.train)[1], np.arange(10) * 0.5)


@pytest.mark.parametrize(
    ("attribute", "names"),
    [
        ("classes = ['cat', 'dog', 'eel']", ("cat", "dog", "eel")),
        ("targets = [i % 3 for i in range(30)]", ("0", "1", "2")),
    ],
)
def test_nothing_is_fetched_for_what_the_data_set_says(folder: Path, attribute: str, names: tuple[str, ...]) -> None:
    """With `classes` or `targets`, as torchvision's have, and scale = "none", only the first sample is looked at."""
    text = GOOD + f"\nclass Named(Rows):\n    {attribute}\n\ndef named():\n    return Named(30)\n"
    data = load(folder, "named", text, scale="none")
    assert data.class_names == names
    train: Any = data.train
    assert set(vars(sys.modules[type(train.source.open()._returned).__module__])["FETCHED"]) == {0}


def test_tokens_and_a_label_at_each_position(folder: Path) -> None:
    """Whole numbers of 8 bytes stay whole with scale = "none", and an array of them is a class at each position."""
    text = """
        import numpy as np
        def dataset():
            rng = np.random.default_rng(0)
            return [(rng.integers(0, 9, 5), rng.integers(0, 9, 5)) for _ in range(40)]
    """
    data = load(folder, text=text, scale="none", eval=0.0)
    assert (data.spec.input_dtype, data.spec.target_shape, data.spec.classes) == ("int64", (5,), 9)
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 9, (40, 2, 5))
    x, y = taken(data.train)
    np.testing.assert_array_equal(np.stack([x, y], 1), expected)


def test_a_worker_has_the_file_that_was_read(folder: Path) -> None:
    """The set travels as the file's text, once for both parts, and gives the same where the file is gone."""
    data = load(folder)
    sent = pickle.dumps((data.train.to_shipment(), data.eval and data.eval.to_shipment()))
    assert sent.count(b"x is (i, 2 i, 3)") == 1
    (folder / "my_data.py").unlink()
    code = (
        "import pickle, sys, numpy as np\n"
        "from thalweg_worker.datasets import Fetcher\n"
        "fetcher = Fetcher()\n"
        "train, held_out = [part.open(fetcher) for part in pickle.load(sys.stdin.buffer)]\n"
        "assert train.to_shipment().source is held_out.to_shipment().source\n"
        "x, y = np.empty((len(train), 3), np.float32), np.empty(len(train), np.int64)\n"
        "train.take(np.arange(len(train)), x, y)\n"
        "sys.stdout.buffer.write(x.tobytes() + y.tobytes())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    x, y = taken(data.train)
    assert done.stdout == x.tobytes() + y.tobytes()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    made = Fetcher()
    yield made
    made.close()


def test_what_is_fetched_ahead_is_what_is_fetched(folder: Path, fetcher: Fetcher) -> None:
    """Scaled, whether it was expected, is asked for in another order, or was never expected."""
    data = load(folder, eval=0.0)
    there = data.train.to_shipment().open(fetcher)
    assert (there.apart, data.train.apart) == (True, False)
    assert (there.spec, len(there)) == (data.train.spec, len(data.train))
    batches = [np.array(rows) for rows in ([3, 1, 3], [5], [7], [0, 29])]
    there.ahead(batches[:3])
    for rows in (batches[2], batches[3], batches[0], batches[1], batches[0]):
        for found, expected in zip(taken(there, rows), taken(data.train, rows), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_sample_of_no_use_is_told_by_who_takes_it(folder: Path, fetcher: Fetcher) -> None:
    """With its index, however early it was fetched; the batches beside it are whole."""
    data = load(folder, "wrong", scale="none", eval=0.0, options={"at": 7, "y": 5}, text=GOOD + CLASSES)
    there = data.train.to_shipment().open(fetcher)
    there.ahead([np.array([6, 7, 8]), np.array([9])])
    assert taken(there, [9])[0].tolist() == [[9, 18, 3]]
    with pytest.raises(InputError, match="sample 7: expected labels from 0 to 2; found 5"):
        taken(there, [6, 7, 8])


def test_all_that_a_user_wrote_runs_in_one_thread_of_the_worker(folder: Path, fetcher: Fetcher) -> None:
    """So what belongs to the thread that made it can be used, such as a connection to SQLite."""
    text = """
        import sqlite3
        class Table:
            classes = ["a", "b"]
            def __init__(self):
                self.table = sqlite3.connect(":memory:")
                self.table.execute("create table t (i)")
                self.table.executemany("insert into t values (?)", [(i,) for i in range(9)])
            def __len__(self):
                return self.table.execute("select count(*) from t").fetchone()[0]
            def __getitem__(self, i):
                return [1.0 * self.table.execute("select i from t where i = ?", (i,)).fetchone()[0]], i % 2
        def dataset():
            return Table()
    """
    data = load(folder, text=text, scale="none", eval=0.5)
    # As in another process, where the function was not called yet.
    train, held_out = pickle.loads(pickle.dumps((data.train, data.eval)))
    train, held_out = train.open(fetcher), held_out.open(fetcher)
    train.ahead([np.array([0, 1])])
    rows = [*taken(held_out)[0].reshape(-1), *taken(train)[0].reshape(-1)]
    assert sorted(rows) == list(range(9))


def test_indices_beyond_the_set_are_refused(folder: Path) -> None:
    data = load(folder)
    with pytest.raises(IndexError):
        taken(data.train, [0, len(data.train)])


WRONG = [
    ({"x": [1.0, 2.0]}, "sample 7", "x of the shape (3,) of the first sample; found (2,)"),
    ({"x": [1.0, float("nan"), 2.0]}, "sample 7", "x: finite numbers within float32's range; found nan at (1,)"),
    ({"x": [1.0, 1e300, 2.0]}, "sample 7", "found 1e+300 at (1,)"),
    ({"x": ["a", "b", "c"]}, "sample 7", "x of the dtype float64 of the first sample; found <U1"),
    ({"y": -1}, "sample 7", "labels from 0 to 65535; found -1"),
    ({"y": 0.5}, "sample 7", "y of the dtype int64 of the first sample; found float64"),
    ({"y": [1, 2]}, "sample 7", "y of the shape () of the first sample; found (2,)"),
    ({"pair": [1, 2, 3]}, "sample 7", "a pair (x, y); found 3 parts"),
    ({"pair": {"x": 1}}, "sample 7", "a pair (x, y); found a dict"),
]


@pytest.mark.parametrize(("how", "where", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_a_sample_of_no_use_is_named_before_anything_starts(
    folder: Path, how: dict[str, Any], where: str, said: str
) -> None:
    """Where all samples are gone through, its index and what is wrong."""
    problem = problem_of(folder, "wrong", options={"at": 7, **how})
    assert problem.field == f"data.train (my_data.py:wrong), {where}"
    assert said in str(problem)


def test_a_sample_of_no_use_is_named_when_it_is_fetched(folder: Path) -> None:
    """With scale = "none" and known classes nobody has looked at it before."""
    text = GOOD + "\nclass Known(Wrong):\n    classes = ['a', 'b', 'c']\n"
    for how, said in (({"x": [1.0, 2.0]}, "found (2,)"), ({"y": 3}, "labels from 0 to 2; found 3")):
        data = load(folder, "Known", text, scale="none", eval=0.0, options={"size": 30, "at": 7, **how})
        taken(data.train, [6, 8])
        with pytest.raises(InputError, match="sample 7") as caught:
            taken(data.train, [6, 7, 8])
        assert said in str(caught.value)


def test_what_the_users_code_raises_has_its_traceback(folder: Path) -> None:
    """In the file, in the function, in the length and in a sample: the user's own lines and no others."""
    a_class = (
        "class D:\n    def __len__(self):\n        return {}\n    def __getitem__(self, i):\n        return 1 / 0\n"
    )
    cases = {
        "file": "1 / 0\n",
        "function": "def dataset():\n    return 1 / 0\n",
        "length": a_class.format("1 / 0") + "dataset = D\n",
        "sample": a_class.format("9") + "dataset = D\n",
    }
    for text in cases.values():
        problem = problem_of(folder, text=text)
        assert problem.field.startswith("data.train (my_data.py")
        assert "ZeroDivisionError" in problem.found
        assert "1 / 0" in problem.hint
        assert problem.hint.count("  File") == 1
        assert "my_data.py" in problem.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def dataset():\n    return 3\n", "a data set with len(...) and [index]; found a int"),
        ("def dataset():\n    return (i for i in range(3))\n", "an iterable-style data set has no order"),
        (
            "class Dataset:\n    __module__ = 'ray.data.dataset'\ndataset = Dataset\n",
            "found a Dataset\n    a Ray Data set has no samples by index: write it once",
        ),
        ("def dataset():\n    return []\n", "at least one sample; found none"),
        ("def dataset():\n    return [(1.0, 2)] * 9\n", "sample 0: expected x: an array; found a single number"),
        ("def dataset():\n    return [(['a'], 2)] * 9\n", "sample 0: expected x: numbers; found dtype <U1"),
        ("def dataset():\n    return [([1.0], 'cat')] * 9\n", "sample 0: expected y: numbers; found dtype <U3"),
        ("def dataset():\n    return [([1.0], 0)] * 9\n", "at least 2 classes; found only 0"),
        ("def datasets():\n    return []\n", 'did you mean "datasets"?'),
        ("def dataset(root):\n    return []\n", "data.root: expected a value, which dataset needs; found nothing"),
    ],
)
def test_what_is_no_data_set_is_refused(folder: Path, text: str, said: str) -> None:
    assert said in str(problem_of(folder, text=text))


def test_options_are_checked_as_those_of_a_model(folder: Path) -> None:
    """One that the function does not take is named under [data], with the nearest that it does."""
    problem = problem_of(folder, options={"siez": 3})
    assert problem.field == "data.siez"
    assert problem.hint == 'did you mean "size"?'


def test_the_task_may_be_said(folder: Path) -> None:
    """Whole numbers as targets of a regression; floats are no classes."""
    data = load(folder, task="regression")
    assert (data.spec.task, taken(data.train)[1].dtype) == ("regression", np.float32)
    text = "import numpy as np\ndef dataset():\n    return [(np.ones(2), 0.5)] * 9\n"
    assert "whole numbers as classes; found y of dtype float64" in str(
        problem_of(folder, text=text, task="classification")
    )


def test_a_second_set_has_to_be_like_the_first(folder: Path) -> None:
    """Shapes, labels and kind."""
    text = GOOD + dedent("""
        def narrow(): return [(np.ones(2), 1)] * 5
        def sequences(): return [(np.ones(3), [1, 2])] * 5
        def unknown(): return [(np.ones(3), 1)] * 4 + [(np.ones(3), 3)]
        def targets(): return [(np.ones(3), 0.5)] * 5
    """)
    for function, said in (
        ("narrow", "x of the shape (3,) of data.train; found (2,)"),
        ("sequences", "y of the shape () of data.train; found (2,)"),
        ("unknown", "sample 4: expected labels from 0 to 2; found 3"),
        ("targets", "y of whole numbers (classes), as in data.train; found float64"),
    ):
        problem = problem_of(folder, text=text, eval=function)
        assert problem.field.startswith(f"data.eval (my_data.py:{function}), sample")
        assert said in str(problem)


def test_a_function_goes_with_a_function(folder: Path) -> None:
    """With no table as the second set, nor as the second set of one."""
    file, table = str(folder / "my_data.py"), folder / "table.csv"
    table.write_text("a,label\n1,x\n2,y\n3,x\n4,y\n")
    [problem] = load_dataset(DataSection(train=f"{file}:dataset", eval=str(table)), 0).problems
    assert 'data.eval: expected a held-out fraction, or "FILE.py:FUNCTION"' in str(problem)
    [problem] = load_dataset(DataSection(train=str(table), eval=f"{file}:dataset"), 0).problems
    assert "found a user's function" in str(problem)


def test_a_wrong_task_or_scale_hides_nothing_else(folder: Path) -> None:
    """What needs it is left out; how many samples there are is known."""
    section = DataSection(train=f"{folder / 'my_data.py'}:dataset")
    for key in ("task", "scale"):
        loaded = load_dataset(section, 0, frozenset({key}))
        assert (loaded.problems, loaded.data, loaded.samples) == ((), None, 24)


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    [problem] = load_dataset(DataSection(train=str(folder / "nowhere.py:dataset")), 0).problems
    assert "data.train (nowhere.py): expected a file at" in str(problem)


@pytest.mark.compare
def test_a_data_set_of_pytorch_is_taken_as_it_is(folder: Path) -> None:
    """TensorDataset and a Subset of it, with tensors; PyTorch is imported by the user's file."""
    text = """
        import torch
        from torch.utils.data import Subset, TensorDataset
        def dataset():
            whole = TensorDataset(torch.arange(40.0).reshape(20, 2), torch.arange(20) % 4)
            return Subset(whole, range(4, 20))
    """
    data = load(folder, text=text, scale="none", eval=0.0)
    assert (data.spec.input_shape, data.spec.classes) == ((2,), 4)
    x, y = taken(data.train)
    np.testing.assert_array_equal(x, np.arange(8, 40).reshape(16, 2))
    np.testing.assert_array_equal(y, np.arange(4, 20) % 4)


def test_pytorch_is_not_imported_for_it(folder: Path) -> None:
    code = (
        "import sys\n"
        "from thalweg_proto.job import DataSection\n"
        "from thalweg_worker.datasets import load_dataset\n"
        f"assert load_dataset(DataSection(train={str(folder / 'my_data.py:dataset')!r}), 0).data\n"
        "assert not {'torch', 'jax', 'pyarrow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
