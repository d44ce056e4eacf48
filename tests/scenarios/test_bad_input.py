"""What a person gets wrong, as `thalweg train` answers it: exit status 2, field, expected, found; nothing started."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import ray
from safetensors.numpy import save_file
from typer.testing import CliRunner

from thalweg_cluster.cli import app

JOB = """
[data]
train = "data.csv"
[model]
use = "linear"
[train]
steps = 3
batch_size = 8
microbatches = 4
"""


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """`refused("--set ...")` runs the command in a folder with a good job and good data; returns what it said."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("COLUMNS", "400")
    rows = "".join(f"{i % 3},{i},{-i % 5}\n" for i in range(40))
    (tmp_path / "data.csv").write_text("label,a,b\n" + rows)
    (tmp_path / "job.toml").write_text(JOB)

    def run(*sets: str, job: str | None = None) -> str:
        if job is not None:
            (tmp_path / "job.toml").write_text(job)
        words = [word for text in sets for word in ("--set", text)]
        result = CliRunner().invoke(
            app, ["train", str(tmp_path / "job.toml"), *words, "--out", str(tmp_path / "out")], catch_exceptions=False
        )
        assert result.exit_code == 2, result.output
        assert "nothing was started" in result.output
        assert not (tmp_path / "out").exists()
        assert not ray.is_initialized()
        return result.output

    return run


def write_idx(path: Path, array: np.ndarray, cut: int = 0) -> None:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    with gzip.open(path, "wb") as stream:
        stream.write(data[: len(data) - cut])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("train.step=3", ["train.step: expected a known key; found 3", 'did you mean "steps"?']),
        ("train.steps=many", ["train.steps: expected a whole number >= 1; found", "many"]),
        ("train.batch_size=true", ["train.batch_size: expected a whole number", "found true"]),
        ("optimizer.learning_rate=-0.1", ["optimizer.learning_rate: expected a number > 0; found -0.1"]),
        ("optimizer.learning_rate=0", ["optimizer.learning_rate: expected a number > 0; found 0"]),
        ("optimizer.learning_rate=nan", ["optimizer.learning_rate: expected a number > 0; found nan"]),
        ("cluster.workers=0", ["cluster.workers: expected a whole number >= 1; found 0"]),
        ("cluster.workers=5", ["train.microbatches: expected at least cluster.workers (5); found 4"]),
        ("train.batch_size=3", ["train.batch_size: expected at least train.microbatches (4); found 3"]),
        ("data.train=nowhere.csv", ["data.train", "expected a file; found no such file", "nowhere.csv"]),
        ("data.label=lable", ['expected a label column "lable"; found the columns label, a, b']),
        ("optimizer.rule=adamm", ["optimizer.rule", "found", "adamm", "adam"]),
        ("train.consistency=ssp", ["train.consistency", "sync"]),
        ("cluster.engine=jax", ["cluster.engine", "numpy"]),
        ("model.depth=3", ["depth"]),
    ],
)
def test_a_mistake_in_the_job(refused, given, said):
    """Each wrong key or value is named with what was expected and found."""
    output = refused(given)
    assert [part for part in said if part not in output] == [], output


def test_several_mistakes_are_reported_together(refused):
    """Three mistakes in three sections, one answer."""
    output = refused("train.batch_size=0", "optimizer.learning_rate=-1", "cluster.wrokers=2")
    assert "3 mistakes" in output
    for field in ("train.batch_size", "optimizer.learning_rate", "cluster.wrokers"):
        assert field in output


def test_mistakes_in_data_and_model_are_reported_together(refused):
    """A file that is not there does not hide what else is wrong."""
    output = refused("data.train=nowhere.csv", "model.init=nothing.safetensors", "cluster.engine=jax")
    for part in ("nowhere.csv", "cluster.engine"):
        assert part in output


def test_more_workers_than_sixteen_a_core(refused, monkeypatch):
    """The cluster of our own takes 16 workers a core, and says how many cores there are."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    output = refused("cluster.workers=33", "train.microbatches=40", "train.batch_size=40")
    assert "cluster.workers: expected at most 32, 16 for each of the 2 cores of this machine; found 33" in output


def test_truncated_idx(refused, tmp_path):
    """Expected and found bytes."""
    write_idx(tmp_path / "x-idx.gz", np.zeros((40, 4, 4)), cut=100)
    write_idx(tmp_path / "y-idx.gz", np.arange(40) % 3)
    output = refused('data.train={ x = "x-idx.gz", y = "y-idx.gz" }')
    assert "x-idx.gz" in output
    assert "640" in output
    assert "540" in output


def test_truncated_npz(refused, tmp_path):
    """An archive with its tail cut off."""
    np.savez(tmp_path / "whole.npz", x=np.zeros((40, 4)), y=np.arange(40) % 3)
    data = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    assert "cut.npz" in refused("data.train=cut.npz")


class Canary:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_object_arrays_are_never_unpickled(refused, tmp_path):
    """A .npy of objects is refused, and the code in it does not run."""
    canary = tmp_path / "canary"
    np.save(tmp_path / "x.npy", np.array([Canary(canary)] * 40, dtype=object), allow_pickle=True)
    np.save(tmp_path / "y.npy", np.arange(40) % 3)
    output = refused('data.train={ x = "x.npy", y = "y.npy" }')
    assert "x.npy" in output
    assert "object" in output
    assert not canary.exists()


def test_nan_in_the_data(refused, tmp_path):
    """Row (the line of the file) and column."""
    lines = (tmp_path / "data.csv").read_text().splitlines()
    lines[7] = "1,nan,2"
    (tmp_path / "data.csv").write_text("\n".join(lines))
    output = refused()
    assert "line 8" in output
    assert '"a"' in output


def test_labels_out_of_range(refused, tmp_path):
    """A label of the second data set that the training set does not have."""
    (tmp_path / "eval.csv").write_text("label,a,b\n0,1,2\n7,1,2\n")
    output = refused("data.eval=eval.csv")
    assert "7" in output
    assert "0, 1, 2" in output


def test_a_model_file_that_does_not_import(refused, tmp_path):
    """The user's own line is shown."""
    (tmp_path / "broken.py").write_text("import numpy\nnumpy.no_such_thing()\n\ndef build(data_spec): ...\n")
    output = refused("model.use=broken.py:build")
    assert "broken.py" in output
    assert "line 2" in output
    assert "no_such_thing" in output


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def init(self, rng): return {'w': np.zeros((2, 3), np.float32)}", ["loss"]),
        (
            "def init(self, rng): return {'w': np.zeros((2, 3), np.float32)}\n"
            "    def loss(self, p, b): return b.x @ p['w']",
            ["scalar", "(4, 3)"],
        ),
        (
            "def init(self, rng): return {'w': np.zeros((2, 3), np.float32), 'unused': np.zeros(1, np.float32)}\n"
            "    def loss(self, p, b): return ad.softmax_cross_entropy(b.x @ p['w'], b.y)",
            ["unused"],
        ),
        (
            "def init(self, rng): return {'w': np.zeros((2, 3))}\n"
            "    def loss(self, p, b): return ad.softmax_cross_entropy(b.x @ p['w'], b.y)",
            ["float32", "float64"],
        ),
    ],
)
def test_a_wrong_model(refused, tmp_path, body, said):
    """A missing method, a loss that is no scalar, a parameter never used, a parameter not float32."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom thalweg_worker import autodiff as ad\n\n"
        f"class Model:\n    {body}\n\ndef build(data_spec): return Model()\n"
    )
    output = refused("model.use=mine.py:build")
    assert [part for part in said if part not in output] == [], output


def test_start_weights_of_another_shape(refused, tmp_path):
    """Expected and found shapes by name."""
    save_file({"output.weight": np.zeros((5, 3), np.float32)}, tmp_path / "w.safetensors")
    output = refused("model.init=w.safetensors")
    assert "(2, 3)" in output
    assert "(5, 3)" in output


def test_a_model_that_does_not_fit_into_shared_memory(refused, monkeypatch):
    """Bytes needed and bytes free."""
    monkeypatch.setattr("thalweg_cluster.launch.preparation.bytes_free", lambda: 100)
    output = refused()
    assert "100 bytes are free" in output
    assert "bytes needed" in output


def test_a_ray_cluster_that_is_not_there(refused, monkeypatch):
    """RAY_ADDRESS is named, with what to start."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    output = refused()
    assert f"RAY_ADDRESS: expected the address of a Ray cluster; found '{address}'" in output


def test_a_folder_that_cannot_be_written(tmp_path):
    """--out names a file."""
    (tmp_path / "job.toml").write_text(
        JOB.replace("data.csv", "digits").replace('train = "digits"', 'train = "digits"')
    )
    (tmp_path / "out").write_text("a file")
    result = CliRunner().invoke(app, ["train", str(tmp_path / "job.toml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "--out: expected a folder that can be written" in result.output
