"""The run's own copy of the user's files: when it is used, and what is said then."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.cluster.launch.folders import ended_run
from tests.scenarios.test_weights import thalweg

from thalweg_cluster.launch.evaluating import evaluate_run
from thalweg_cluster.launch.preparation import prepare
from thalweg_cluster.launch.trained import read_trained
from thalweg_cluster.reporting.files import RunFolder
from thalweg_cluster.reporting.sources import copies
from thalweg_proto.errors import InputError
from thalweg_proto.job import load_job
from thalweg_worker.models import ModelSource, initial_parameters

JOB = """
name = "mine"
[data]
train = "rows.py:rows"
eval = 0.5
scale = "none"
[model]
use = "mine.py:build"
[train]
steps = 1
batch_size = 4
"""
FILES = {
    "mine.py": "from net.sizes import hidden\n\ndef build(spec):\n    from thalweg_worker.models import mlp\n\n"
    "    return mlp.build(spec, hidden=[hidden])\n",
    "net/sizes.py": "hidden = 3\n",
    "rows.py": "def rows():\n    return [([i, 1.0], i % 2) for i in range(40)]\n",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has ended, whose job lies beside it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "job.toml").write_text(JOB)
    preparation = prepare(load_job(tmp_path / "job.toml"), tmp_path / "run", 4)
    model = ModelSource.read("mine.py:build", {}, folder=tmp_path).build(preparation.data.spec)
    folder = ended_run(tmp_path / "run", JOB, initial_parameters(model, 0))
    RunFolder(folder, replace=False).write_sources(preparation.sources)
    return folder


def test_the_copy_has_what_ran_by_key_and_its_sha256(run):
    """What is imported from beside a file lies beside its copy, too."""
    for key, names in {"model.use": ["mine.py", "net/sizes.py"], "data.train": ["rows.py"]}.items():
        index = json.loads((run / "source/sources.json").read_text())[key]
        assert index["path"] == str(run.parent / names[0])
        assert index["sha256"] == {name: hashlib.sha256(FILES[name].encode()).hexdigest() for name in names}
        for name in names:
            assert (run / "source" / key / name).read_text() == FILES[name]


def test_files_that_are_as_they_were_are_used_without_a_word(run):
    """Tracebacks show them, then."""
    trained = read_trained(run)
    assert trained.notes == ()
    assert trained.job.model.use == f"{run.parent}/mine.py:build"
    assert evaluate_run(trained, None).samples == 20


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["is gone", "has changed"])
def test_where_one_is_not_as_it_was_the_copy_is_used_and_it_is_said(run, name, how):
    """In one line, for the file of the job that it belongs to; the result is that of before."""
    before = evaluate_run(read_trained(run), None)
    file = run.parent / name
    file.unlink() if how == "is gone" else file.write_text("raise ValueError('another one')\n")
    trained = read_trained(run)
    key, main = ("data.train", "rows.py") if name == "rows.py" else ("model.use", "mine.py")
    assert trained.notes == (f"{key}: {file} {how} since the run; its own copy is used: {run}/source/{key}/{main}",)
    assert evaluate_run(trained, None) == before


def test_a_copy_that_is_not_as_it_was_is_not_used(run):
    """It is said why; without the file that it was made of there is nothing to build."""
    (run.parent / "mine.py").unlink()
    (run / "source/model.use/net/sizes.py").write_text("hidden = 4\n")
    trained = read_trained(run)
    assert trained.job.model.use == f"{run.parent}/mine.py:build"
    [note] = trained.notes
    assert "mine.py is gone, and the run's own copy, too" in note
    assert "net/sizes.py has changed" in note
    with pytest.raises(InputError, match="No such file"):
        evaluate_run(trained, None)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"model.use": 3}', '{"model.use": {"path": "/x/mine.py", "sha256": {"../../mine.py": "0"}}}', None],
)
def test_of_a_run_without_copies_or_with_an_index_that_says_nothing_the_files_are_used(run, index):
    """As of a run of an earlier version."""
    file = run / "source/sources.json"
    file.unlink() if index is None else file.write_text(index)
    (run.parent / "net/sizes.py").write_text("hidden = 3  # changed\n")
    trained = read_trained(run)
    assert (trained.notes, evaluate_run(trained, None).samples) == ((), 20)


def test_copies_of_an_earlier_run_in_the_folder_are_gone(run):
    """A job of built-in parts has none."""
    files = RunFolder(run, replace=False)
    files.write_sources({})
    assert not (run / "source").exists()
    assert json.loads(copies({})["sources.json"]) == {}


def test_names_that_do_not_depend_on_the_model_need_no_word(run):
    """`--to npz` builds nothing; `eval` does, and prints the word beside its result."""
    (run.parent / "mine.py").unlink()
    assert thalweg("export", run, "--to", "npz").stderr == ""
    told = thalweg("eval", run, "--json")
    assert "mine.py is gone since the run; its own copy is used" in told.stderr
    assert json.loads(told.stdout)["samples"] == 20
