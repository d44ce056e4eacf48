"""A job file and the files that it names, ready to be sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from thalweg_cluster.client import packing
from thalweg_cluster.client.packing import pack, problem_of
from thalweg_proto.errors import InputError
from thalweg_proto.job.loading import _toml, load_job
from thalweg_proto.v1 import job_service_pb2 as pb

JOB = """
[data]
train = { x = "x.npy", y = "../y.npy" }
eval = "held out.csv"
[model]
use = "my_model.py:build"
init = "nowhere.safetensors"
width = 3
[train]
steps = 3
"""


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name in ("x.npy", "../y.npy", "held out.csv", "my_model.py"):
        (folder / name).write_text(name)
    file = folder / "mine.toml"
    file.write_text(JOB)
    return file


def test_the_files_that_a_job_names_are_shipped_wherever_they_lie(job):
    """Under names of their own, by which the job file has them; what is not there is not shipped."""
    packed = pack(job)
    table = _toml.loads(packed.job)
    assert table["name"] == "mine"
    assert table["data"] == {
        "train": {"x": "files/0/x.npy", "y": "files/1/y.npy"}, "eval": "files/2/held_out.csv",
    }  # fmt: skip
    assert table["model"] == {
        "use": "files/3/my_model.py:build", "init": "files/4/nowhere.safetensors", "width": 3,
    }  # fmt: skip
    assert {name: path.read_text() for name, path in packed.files.items()} == {
        "files/0/x.npy": "x.npy", "files/1/y.npy": "../y.npy", "files/2/held_out.csv": "held out.csv",
        "files/3/my_model.py": "my_model.py",
    }  # fmt: skip
    assert b"".join(packed.chunks()) == b"x.npy../y.npyheld out.csvmy_model.py"
    assert [file.bytes for file in packed.header("request-1", 0, 1).files] == [5, 8, 12, 11]


def test_a_file_that_is_named_twice_is_shipped_once(job):
    """As training and held-out set."""
    job.write_text('[data]\ntrain = "x.npy"\neval = "./x.npy"\n[model]\nuse = "mlp"\n[train]\nsteps = 1\n')
    packed = pack(job)
    assert list(packed.files) == ["files/0/x.npy"]
    assert _toml.loads(packed.job)["data"] == {"train": "files/0/x.npy", "eval": "files/0/x.npy"}


def test_values_of_set_are_part_of_the_job_that_is_sent(job):
    """Their paths, too."""
    packed = pack(job, ["train.steps=7", "data.eval=0.5", "data.train=digits"])
    table = _toml.loads(packed.job)
    assert table["train"]["steps"] == 7
    assert table["data"] == {"train": "digits", "eval": 0.5}
    assert list(packed.files) == ["files/0/my_model.py"]


def test_in_place_ships_nothing_and_names_absolute_paths(job):
    """The job is the same one from whatever folder it is read."""
    packed = pack(job, in_place=True)
    assert packed.files == {}
    elsewhere = job.parent.parent / "mine.toml"
    elsewhere.write_text(packed.job)
    assert load_job(elsewhere).job == load_job(job).job


def test_a_data_sets_function_is_shipped_with_its_file_and_keys(job):
    """As that of a model is."""
    job.write_text('[data]\ntrain = "my_model.py:data"\nsize = 3\n[model]\nuse = "mlp"\n[train]\nsteps = 1\n')
    packed = pack(job)
    assert _toml.loads(packed.job)["data"] == {"train": "files/0/my_model.py:data", "size": 3}
    assert list(packed.files) == ["files/0/my_model.py"]


def test_what_belongs_to_a_file_or_folder_keeps_its_place_in_it(job, tmp_path):
    """Modules beside a user's file that it imports, the tables of a folder: nothing else that lies there."""
    for name in ("tables/b 2.parquet", "tables/a.parquet", "tables/.hidden.parquet", "tables/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (job.parent / "my_model.py").write_text("import helpers\nfrom net.layers import Layer\n")
    (job.parent / "helpers.py").write_text("")
    for name in ("net/__init__.py", "net/layers.py", "net/.git/x.py", "net/__pycache__/y.py", "other.py"):
        (job.parent / name).parent.mkdir(exist_ok=True)
        (job.parent / name).write_text(name)
    job.write_text('[data]\ntrain = "../tables"\n[model]\nuse = "my_model.py:build"\n[train]\nsteps = 1\n')
    packed = pack(job)
    assert _toml.loads(packed.job)["data"]["train"] == "files/0/tables"
    assert list(packed.files) == [
        "files/0/tables/a.parquet", "files/0/tables/b 2.parquet", "files/1/helpers.py", "files/1/net/__init__.py",
        "files/1/net/layers.py", "files/1/my_model.py",
    ]  # fmt: skip
    assert packed.here("data.train (files/0/tables), a.parquet: files/0/tables/b 2.parquet; files/1/net/layers.py") == (
        f"data.train ({tmp_path}/tables), a.parquet: {tmp_path}/tables/b 2.parquet; {job.parent}/net/layers.py"
    )
    assert pack(job, in_place=True).files == {}


def test_a_folder_that_cannot_be_shipped_is_answered_here(job, tmp_path, monkeypatch):
    """Without tables, with a link that leads out of it, with a name that another machine might not take, with too many
    files."""
    (tmp_path / "tables").mkdir()
    job.write_text('[data]\ntrain = "../tables"\n[model]\nuse = "mlp"\n[train]\nsteps = 1\n')
    with pytest.raises(InputError, match=r"data\.train \(/.*/tables\): expected a folder with \.parquet files"):
        pack(job)
    (tmp_path / "tables" / "a.parquet").symlink_to(job)
    with pytest.raises(InputError, match=r"expected a link that stays in .*/tables; found one to .*/mine\.toml"):
        pack(job)
    (tmp_path / "tables" / "a.parquet").unlink()
    (tmp_path / "tables" / "a\n.parquet").touch()
    with pytest.raises(InputError, match=r"data\.train: expected a path of printable characters.*a\\n\.parquet"):
        pack(job)
    (tmp_path / "tables" / "a\n.parquet").unlink()
    monkeypatch.setattr(packing, "FILES_MAX", 2)
    for name in "abc":
        (tmp_path / "tables" / f"{name}.parquet").touch()
    with pytest.raises(InputError, match=r"submit: expected at most 2 files; found 3\n    .*--in-place"):
        pack(job)


def test_a_job_with_mistakes_is_sent_as_it_is(tmp_path):
    """The service tells them all at once, with those of its data."""
    file = tmp_path / "job.toml"
    file.write_text('data = 3\n[model]\nuse = 4\n[train]\nsteps = "many"\n')
    packed = pack(file)
    assert _toml.loads(packed.job) == {"name": "job", "data": 3, "model": {"use": 4}, "train": {"steps": "many"}}


def test_what_cannot_be_read_at_all_is_answered_here(tmp_path, job):
    """No file, no TOML, and a value of --set that is none."""
    with pytest.raises(InputError, match="no such file"):
        pack(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match="--set steps: expected KEY=VALUE"):
        pack(job, ["steps"])


def test_mistakes_are_told_with_the_paths_of_this_machine(job):
    """Not with those that the service gave."""
    packed = pack(job)
    mistake = pb.Mistake(field="data.eval (files/2/held_out.csv)", expected="a", found="files/3/my_model.py:build")
    problem = problem_of(mistake, packed)
    assert problem.field == f"data.eval ({Path(job).parent / 'held out.csv'})"
    assert problem.found == f"{job.parent / 'my_model.py'}:build"
