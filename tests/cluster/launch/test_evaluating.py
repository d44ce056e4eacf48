"""`thalweg eval`: a run's weights on another data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.cluster.launch.folders import ended_run, some_weights
from tests.integration.local_run import three_clouds, train_locally

from thalweg_cluster.launch.evaluating import evaluate_run, read_data
from thalweg_cluster.launch.trained import read_trained
from thalweg_proto.errors import InputError, NonFiniteError, WorkerError
from thalweg_proto.job import ArrayPair
from thalweg_worker.datasets import load_dataset


def test_loss_and_accuracy_are_those_of_a_plain_computation(tmp_path):
    """On all digits, four chunks of them, scaled by the training part alone."""
    trained = read_trained(ended_run(tmp_path / "run"))
    found = evaluate_run(trained, "digits")
    data = load_dataset(trained.job.data, 0).data
    raw = load_dataset(replace(trained.job.data, scale="none", eval=0.0), 0).data.train
    x, y = np.empty((1797, 8, 8), np.float32), np.empty(1797, np.int64)
    raw.take(np.arange(1797), x, y)
    weights = some_weights()
    flat = ((x - data.scaling.offset) * data.scaling.factor).reshape(1797, 64)
    scores = flat @ weights["output.weight"] + weights["output.bias"]
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(1797), y]
    assert found.samples == 1797
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert found.accuracy == (scores.argmax(axis=1) == y).mean()


def test_the_figures_are_those_of_the_run_to_the_bit(tmp_path):
    """Servers, workers and sockets in this process, and then the folder alone."""
    run = train_locally(steps=30, workers=2)
    x, y = three_clouds(250, seed=0)
    np.savez(tmp_path / "train.npz", x=x[:200], y=y[:200])
    np.savez(tmp_path / "held.npz", x=x[200:], y=y[200:])
    text = """
    [data]
    train = "train.npz"
    eval = "held.npz"
    scale = "none"
    [model]
    use = "mlp"
    hidden = [8]
    [train]
    steps = 30
    batch_size = 16
    """
    trained = read_trained(ended_run(tmp_path / "run", f'name = "clouds"\n{text}', run.weights))
    for instead in (None, str(tmp_path / "held.npz")):
        found = evaluate_run(trained, instead)
        assert {"loss": found.loss, "accuracy": found.accuracy} == run.result.evaluation
        assert found.samples == 50


X = np.arange(60, dtype=np.float32).reshape(20, 3)
JOB = 'name = "small"\n[data]\ntrain = "train.csv"\n[model]\nuse = "linear"\n[train]\nsteps = 1\nbatch_size = 8\n'
WEIGHTS = {"output.weight": np.ones((2, 3), np.float32), "output.bias": np.zeros(3, np.float32)}


@pytest.fixture
def small(tmp_path):
    """A run on a table: columns a and b, labels x, y and z."""
    rows = "".join(f"{'xyz'[i % 3]},{i},{-i % 5}\n" for i in range(40))
    (tmp_path / "train.csv").write_text("label,a,b\n" + rows)
    return ended_run(tmp_path / "run", JOB, WEIGHTS)


def test_columns_stand_in_any_order(small, tmp_path):
    """They are found by their names."""
    trained = read_trained(small)
    (tmp_path / "one.csv").write_text("label,a,b\nx,1,2\nz,30,4\n")
    (tmp_path / "two.csv").write_text("b,label,a\n2,x,1\n4,z,30\n")
    assert evaluate_run(trained, str(tmp_path / "one.csv")) == evaluate_run(trained, str(tmp_path / "two.csv"))


MISTAKES = {
    "missing column": ("label,a\nx,1\n", "the columns of data.train; found no b"),
    "no label": ("a,b\n1,2\n", 'expected a label column "label"; found the columns a, b'),
    "unknown label": ("label,a,b\nq,1,2\n", "expected labels of data.train (x, y, z); found q in row 0"),
    "no number": ("label,a,b\nx,1,\n", "expected a number; found an empty cell"),
    "not finite": ("label,a,b\nx,1,inf\n", "expected a finite number"),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_data_that_does_not_fit_is_named_as_an_option(small, tmp_path, text, said):
    """With the problems of data.eval."""
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(InputError) as refused:
        evaluate_run(read_trained(small), str(tmp_path / "other.csv"))
    [problem] = refused.value.problems
    assert problem.field.startswith(f"--data ({tmp_path / 'other.csv'})")
    assert said in str(problem)


def test_samples_of_another_shape_are_named(small, tmp_path):
    """Of a pair of files, which of them."""
    np.save(tmp_path / "x.npy", np.zeros((4, 3), np.float32))
    np.save(tmp_path / "y.npy", np.array(list("xyzx")))
    with pytest.raises(
        InputError, match=r"--data\.x \(.*x\.npy\): expected samples of the shape \(2,\) of data\.train"
    ):
        evaluate_run(read_trained(small), ArrayPair(x=str(tmp_path / "x.npy"), y=str(tmp_path / "y.npy")))


def test_a_job_that_holds_nothing_out_needs_data(small):
    """And with it, it needs nothing else."""
    file = small / "job.toml"
    file.write_text(file.read_text().replace("eval = 0.2", "eval = 0.0"))
    trained = read_trained(small)
    assert trained.job.data.eval == 0.0
    with pytest.raises(InputError, match=r"--data: expected a data set, since the job holds nothing out"):
        evaluate_run(trained, None)
    assert evaluate_run(trained, str(small.parent / "train.csv")).samples == 40


def test_a_regression_has_a_loss_alone(tmp_path):
    """The mean squared error."""
    np.savez(tmp_path / "train.npz", x=X, y=X.sum(axis=1) / 2)
    text = JOB.replace("train.csv", "train.npz").replace("[model]", 'scale = "none"\n[model]')
    weights = {"output.weight": np.ones((3, 1), np.float32), "output.bias": np.zeros(1, np.float32)}
    found = evaluate_run(read_trained(ended_run(tmp_path / "run", text, weights)), str(tmp_path / "train.npz"))
    assert found.accuracy is None
    assert found.loss == pytest.approx(float(((X.sum(axis=1) / 2) ** 2).mean()), rel=1e-6)


def test_a_loss_that_is_no_number_is_an_error(small, tmp_path):
    """There is no JSON for it, and nobody learns anything from it."""
    weights = {name: np.full_like(array, np.float32(3e38)) for name, array in WEIGHTS.items()}
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"the loss on these 8 samples is (nan|inf)"):
        evaluate_run(read_trained(ended_run(tmp_path / "large", JOB, weights)), None)


MODEL = """
import numpy as np
from thalweg_worker import autodiff as ad

class Model:
    def init(self, rng):
        return {"output.weight": np.ones((2, 3), np.float32), "output.bias": np.zeros(3, np.float32)}
    def loss(self, params, batch):
        if batch.x.shape[0] > 8:
            raise RuntimeError("too many at once")
        return ad.softmax_cross_entropy(batch.x @ params["output.weight"] + params["output.bias"], batch.y)

def build(data_spec): return Model()
"""


def test_an_exception_of_the_users_model_shows_the_users_line(small, tmp_path):
    """As in a worker."""
    (tmp_path / "mine.py").write_text(MODEL)
    trained = read_trained(ended_run(tmp_path / "mine", JOB.replace('"linear"', '"mine.py:build"'), WEIGHTS))
    assert evaluate_run(trained, None).accuracy is None  # it has no predict
    with pytest.raises(WorkerError, match='raise RuntimeError\\("too many at once"\\)'):
        evaluate_run(trained, str(tmp_path / "train.csv"))


def test_a_data_set_of_the_users_own(tmp_path):
    """The figures are those of the same samples in a file, and a sample of no use is a mistake with its index."""
    (tmp_path / "data.py").write_text(
        "import numpy as np\n\n"
        "class Rows(list):\n    classes = ['a', 'b']\n\n"
        "def good(): return Rows((np.ones(3) * i, i % 2) for i in range(20))\n"
        "def bad(): return Rows((np.ones(3) * (np.nan if i == 7 else i), i % 2) for i in range(20))\n"
    )
    x = np.ones(3) * np.arange(20)[:, None]
    np.savez(tmp_path / "good.npz", x=x, y=np.arange(20) % 2)
    weights = {"output.weight": np.ones((3, 2), np.float32), "output.bias": np.float32([0, 1])}
    job = '[data]\ntrain = "{}"\nscale = "none"\n[model]\nuse = "linear"\n[train]\nsteps = 60\n'
    found = []
    for name, train in (("of-code", "data.py:good"), ("of-a-file", "good.npz")):
        folder = ended_run(tmp_path / name, f'name = "{name}"\n{job.format(train)}', weights)
        found += [evaluate_run(read_trained(folder), data) for data in (None, str(tmp_path / train))]
    assert found[:2] == found[2:]
    assert found[1].samples == 20
    with pytest.raises(InputError, match=r"--data \(data.py:bad\), sample 7: expected x: finite"):
        evaluate_run(read_trained(tmp_path / "of-code"), f"{tmp_path / 'data.py'}:bad")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The present folder, with files."""
    monkeypatch.chdir(tmp_path)
    for name in ("x.npy", "y.npy", "a,b.npz", "set.csv"):
        (tmp_path / name).write_text("")
    return tmp_path


def test_data_is_said_in_all_forms_of_a_job_file(here):
    """And as two files with a comma; paths start at the present folder."""
    pair = ArrayPair(x=str(here / "x.npy"), y=str(here / "y.npy"))
    assert read_data("digits") == "digits"
    assert read_data("set.csv") == read_data(str(here / "set.csv")) == str(here / "set.csv")
    assert read_data("x.npy,y.npy") == read_data('{ x = "x.npy", y = "y.npy" }') == pair
    assert read_data("a,b.npz") == str(here / "a,b.npz")
    (here / "data.py").touch()
    assert read_data("data.py:held_out") == f"{here / 'data.py'}:held_out"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--data: expected a built-in name"),
        ("{ x = 3 }", "--data: expected a built-in name"),
        ("{ x = ", "no such file"),
        ("sets.csv", 'no such file: {here}/sets.csv\n    did you mean "set.csv"? looked in {here}'),
        ("x.npy,z.npy", "no such file: {here}/z.npy"),
        ("nothing", "a relative path starts at the present folder"),
        ("digit", 'no such file: {here}/digit\n    did you mean "digits"?'),
        ("nothing.py:held_out", "no such file: {here}/nothing.py"),
    ],
)
def test_data_that_is_none_is_told(here, text, said):
    """With what lies near."""
    with pytest.raises(InputError) as refused:
        read_data(text)
    assert said.format(here=here) in str(refused.value)
    assert Path.cwd() == here
