"""What a person gets wrong, as `thalweg train` answers it: exit status 2, field, expected, found; nothing started."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
import sys
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
        (
            "cluster.workers=0",
            ["cluster.workers: expected a whole number >= 1 or [least, most], each a whole number >= 1; found 0"],
        ),
        ("cluster.workers=5", ["train.microbatches: expected at least cluster.workers (5); found 4"]),
        ("train.batch_size=3", ["train.batch_size: expected at least train.microbatches (4); found 3"]),
        ("data.train=nowhere.csv", ["data.train", "expected a file; found no such file", "nowhere.csv"]),
        ("data.label=lable", ['expected a label column "lable"; found the columns label, a, b']),
        ("optimizer.rule=adamm", ["optimizer.rule", "found", "adamm", "adam"]),
        ("train.consistency=sspp", ["train.consistency", "ssp"]),
        ("train.staleness=2", ["train.staleness: expected an option of consistency", "belongs to consistency"]),
        ("train.backup_workers=2", ["train.backup_workers: expected fewer than cluster.workers (2); found 2"]),
        (
            "data.context=32",
            ["data.context: expected a text as data.train (.txt or .md), which", "found 32"],
        ),
        ("data.train=nowhere.txt", ["data.train", "expected a file; found no such file", "nowhere.txt"]),
        ("data.train=nowhere.py:data", ["data.train (nowhere.py): expected a file at", "No such file"]),
        ("cluster.wire=float16", ["cluster.wire", "bfloat16"]),
        ("cluster.wire_fraction=0.5", ["cluster.wire_fraction", 'belongs to wire "topk"']),
        ("cluster.engine=cupy", ["cluster.gpus_per_worker: expected more than 0", "cupy"]),
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


def count(output: str) -> int:
    """How many mistakes the answer says there are; that many are named below it."""
    first, *lines = output.splitlines()
    named = [line for line in lines if re.match(r"  \S.*: expected .*; found ", line)]
    mistakes = int(first.removesuffix("; nothing was started").split()[0])
    assert len(named) == mistakes, output
    return mistakes


def test_mistakes_of_all_stages_are_reported_together(refused, monkeypatch):
    """The job file, its data, its model, the first weights and the machine: one answer names all that is wrong."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    output = refused(
        "optimizer.learning_rate=-1",
        "cluster.wrokers=2",
        "data.train=nowhere.csv",
        "model.use=nofile.py:build",
        "model.init=missing.safetensors",
        "cluster.workers=33",
        "train.microbatches=40",
        "train.batch_size=40",
    )
    assert count(output) == 6
    for part in (
        "optimizer.learning_rate: expected a number > 0; found -1",
        'cluster.wrokers: expected a known key; found 2\n    did you mean "workers"?',
        "nowhere.csv",
        "nofile.py",
        "missing.safetensors",
        "cluster.workers: expected at most 32, 16 for each of the 2 cores of this machine; found 33",
    ):
        assert output.count(part) >= 1, output


MODEL = """
import numpy as np
from thalweg_worker import autodiff as ad

class Model:
    def init(self, rng):
        return {"w": np.zeros((2, 3), np.float32)}
    def loss(self, params, batch):
        return ad.softmax_cross_entropy(batch.x @ params["w"], batch.y)

class NoScalar(Model):
    def loss(self, params, batch):
        return batch.x @ params["w"]

def build(data_spec, width=3): return Model()
def no_scalar(data_spec): return NoScalar()
def raising(data_spec): raise RuntimeError(f"no such shape: {data_spec.input_shape}")
"""


DATA = """
import numpy as np

def good(size=40): return [(np.ones(2) * i, i % 3) for i in range(size)]
class Named(list): classes = ["a", "b", "c"]
def nan(): return Named((np.ones(2) * (np.nan if i == 30 else i), i % 3) for i in range(40))
def raising(size=3): raise RuntimeError(f"no such data: {size}")
"""


@pytest.fixture
def files(tmp_path):
    """Files beside the job, each with one mistake or none."""
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "broken.py").write_text("import numpy\nnumpy.no_such_thing()\n\ndef build(data_spec): ...\n")
    rows = (tmp_path / "data.csv").read_text()
    (tmp_path / "nan.csv").write_text(rows.replace("0,3,2\n", "0,nan,2\n"))
    (tmp_path / "species.csv").write_text(rows.replace("label", "species"))
    (tmp_path / "negative.csv").write_text(rows.replace("0,3,2\n", "-1,3,2\n"))
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "good.txt").write_text("abc" * 200)
    (tmp_path / "other.txt").write_text("abx" * 200)
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9" * 200)
    np.savez(tmp_path / "nan.npz", x=np.full((40, 2), np.nan, np.float32), y=np.arange(40) % 3)
    save_file({"w": np.zeros((2, 3), np.float32)}, tmp_path / "good.safetensors")
    save_file({"w": np.zeros((5, 3), np.float32)}, tmp_path / "other.safetensors")
    save_file({"w": np.full((2, 3), np.nan, np.float32)}, tmp_path / "nan.safetensors")


MISTAKES = [
    # the job file and the data
    (["optimizer.learning_rate=-1", "data.train=nan.csv"], ["optimizer.learning_rate", "nan.csv), line 5"]),
    (["seed=-1", "data.train=nan.csv"], ["seed:", "nan.csv), line 5"]),
    (["data.scale=big", "data.train=nan.csv"], ["data.scale", "nan.csv), line 5"]),
    (["data.eval=2", "data.train=nan.npz"], ["data.eval", "found nan"]),
    (["data.label=3", "data.train=nowhere.csv"], ["data.label", "nowhere.csv"]),
    (["data.lable=a", "data.train=nowhere.csv"], ["data.lable", "nowhere.csv"]),
    (["data.train=3", "data.eval=nowhere.csv"], ["data.train", "nowhere.csv"]),
    (["data.train=negative.csv", "data.eval=nowhere.csv"], ["labels >= 0", "nowhere.csv"]),
    (["data.train=latin.txt", "data.eval=short.txt"], ["byte 0xe9 at offset 3", "found 3 characters"]),
    (["data.train=good.txt", "data.eval=other.txt"], ["found 'x' (U+0078)", "which reads float32 samples"]),
    (["data.train=good.txt", "data.context=0", "data.eval=nowhere.txt"], ["data.context", "nowhere.txt"]),
    (["data.train=data.py:good", "data.siez=3"], ["data.siez: expected an option of good (size)"]),
    (["data.train=data.py:raising", "model.depth=3"], ["no such data: 3", "model.depth"]),
    (["data.train=data.py:nan", "model.use=mine.py:raising"], ["data.py:nan), sample 30", "no such shape: (2,)"]),
    (["data.train=data.py:good", "data.eval=data.csv"], ["data.eval"]),
    # the job file and the model
    (["train.steps=0", "model.depth=3"], ["train.steps", "model.depth"]),
    (["data.scale=big", "model.use=mine.py:raising"], ["data.scale", "no such shape: (2,)"]),
    (["seed=-1", "model.use=mine.py:no_scalar"], ["seed:", "a scalar"]),
    (["model.use=mlb", "model.init=nowhere.safetensors"], ["model.use", "nowhere.safetensors"]),
    (["model.init=3", "model.depth=3"], ["model.init", "model.depth"]),
    # the data and the model
    (["data.train=nowhere.csv", "model.depth=3"], ["nowhere.csv", "model.depth"]),
    (["data.train=nowhere.csv", "model.use=broken.py:build"], ["nowhere.csv", "no_such_thing"]),
    (["data.train=nowhere.csv", "model.use=mine.py:biuld"], ["nowhere.csv", "a function biuld"]),
    (["data.train=nowhere.csv", "model.use=mine.py:build", "model.wdith=1"], ["nowhere.csv", "model.wdith"]),
    (["data.train=nan.npz", "model.use=mine.py:no_scalar"], ["found nan", "a scalar"]),
    (["data.eval=nowhere.csv", "model.use=mine.py:no_scalar"], ["nowhere.csv", "a scalar"]),
    (["data.eval=nowhere.csv", "model.use=mine.py:build", "model.init=other.safetensors"], ["nowhere.csv", "(5, 3)"]),
    (["data.train=nowhere.csv", "model.init=nan.safetensors"], ["nowhere.csv", "w finite"]),
    # the lengths
    (["train.batch_size=full", "train.microbatches=33", "model.depth=3"], ["train.batch_size", "model.depth"]),
    (["train.batch_size=full", "train.microbatches=33", "data.eval=nowhere.csv", "train.steps=3"], ["nowhere.csv"]),
    # an extra that is not installed here, and GPUs
    (["cluster.engine=numpy", "cluster.gpus_per_worker=1", "cluster.placement=pack"], ["gpus_per_worker", "placement"]),
    (["cluster.gpus_per_worker=2", "data.train=nowhere.csv", "model.depth=3"], ["GPU", "nowhere.csv", "model.depth"]),
]


@pytest.mark.parametrize(("given", "said"), MISTAKES, ids=[" ".join(given) for given, _ in MISTAKES])
def test_a_mistake_hides_none_of_another_stage(refused, files, given, said):
    """Each is named, and nothing else: what only follows from another is none."""
    output = refused(*given)
    assert [part for part in said if part not in output] == [], output
    assert count(output) == len(said), output


FOLLOW_UPS = [
    ["data.label=3", "data.train=species.csv"],
    ["data.lable=species", "data.train=species.csv"],
    ["data.target=species", "data.train=species.csv"],
    ["data.task=klassen", "data.train=negative.csv"],
    ["model.use=mine.py:no_scalar", "model.init=other.safetensors"],
    ["data.train=nowhere.csv", "model.use=mine.py:raising"],
    ["data.train=nowhere.csv", "model.use=mine.py:build", "model.init=other.safetensors"],
    ["train.consistency=ssb", "train.staleness=2"],
    ["train.microbatches=0", "cluster.workers=5"],
    ["cluster.workers=0", "train.microbatches=1"],
    ["data=3"],
    ["model=3"],
    ["train=3"],
    ["cluster=3"],
]


@pytest.mark.parametrize("given", FOLLOW_UPS, ids=" ".join)
def test_what_follows_from_a_mistake_is_no_mistake(refused, files, given):
    """Where the first is mended the second is gone, so only the first is told."""
    assert count(refused(*given)) == 1


@pytest.mark.parametrize("table", ["data", "model", "train"])
def test_a_misspelt_table_is_one_mistake(refused, table):
    """What it holds is not missing."""
    output = refused(job=JOB.replace(f"[{table}]", f"[{table}s]"))
    assert f'did you mean "{table}"?' in output
    assert count(output) == 1


FULL: dict[str, dict[str, str]] = {
    "data": {
        "train": "species.csv",
        "eval": "species.csv",
        "label": "species",
        "task": "classification",
        "scale": "none",
    },
    "model": {"use": "mine.py:build", "init": "good.safetensors", "width": "3"},
    "train": {
        "steps": "3",
        "batch_size": "40",
        "microbatches": "5",
        "consistency": "sync",
        "backup_workers": "0",
        "eval_every": "0",
    },
    "optimizer": {
        "rule": "rmsprop",
        "learning_rate": "0.5",
        "weight_decay": "0.1",
        "momentum": "0.9",
        "alpha": "0.9",
        "centered": "true",
        "eps": "0.1",
        "schedule": "cosine",
        "warmup_steps": "1",
        "min_learning_rate": "0.4",
        "clip_norm": "1",
    },
    "cluster": {"workers": "5", "gpus_per_worker": "0", "engine": "numpy", "placement": "PACK", "max_failures": "1"},
    "checkpoint": {"every_steps": "1", "keep": "2"},
    "metrics": {"port": "0"},
}
KEYS = [(table, key) for table, keys in FULL.items() for key in keys]


def full(**changes: str | None) -> list[str]:
    """`--set` of every key of FULL, with changes by field: full(**{"data.label": "3"})."""
    fields = {f"{table}.{key}": FULL[table][key] for table, key in KEYS} | changes
    return [f"{field}={value}" for field, value in fields.items() if value is not None]


@pytest.mark.parametrize(("table", "key"), [pair for pair in KEYS if pair != ("model", "width")])
def test_each_wrong_value_is_one_mistake(refused, files, table, key):
    """A job that gives every key, one of them a value that no key takes: that one is named, and nothing else."""
    output = refused(*full(**{f"{table}.{key}": "{ a = [[]] }"}), job="")
    assert f"  {table}.{key}: expected" in output
    assert count(output) == 1, output


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_each_misspelt_key_is_one_mistake(refused, files, table, key):
    """A job that gives every key, one of them misspelt: that is named, and nothing for which its default is wrong."""
    output = refused(*full(**{f"{table}.{key}": None, f"{table}.{key}x": FULL[table][key]}), job="")
    assert f"  {table}.{key}" in output  # model.use is missing: what else [model] holds is for the model
    assert count(output) == 1, output


def test_a_model_too_large_for_shared_memory_is_found_beside_other_mistakes(refused, monkeypatch):
    """Its size and the number of microbatches are all that it takes."""
    monkeypatch.setattr("thalweg_cluster.launch.preparation.bytes_free", lambda: 100)
    output = refused("data.eval=nowhere.csv", "train.steps=0", "model.init=nowhere.safetensors", "cluster.workers=0")
    assert "100 bytes are free" in output
    assert count(output) == 5
    assert "are free" not in refused("train.batch_size=0")


def test_a_name_that_is_wrong_leaves_a_default_folder_to_check(refused, tmp_path, monkeypatch):
    """Without --out the folder has the job's name in it; a wrong one is one mistake."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "job.toml", "--set", "name=a/b"], catch_exceptions=False)
    assert result.exit_code == 2
    assert count(result.output) == 1
    assert not (tmp_path / "runs").exists()


def test_a_mistake_is_answered_without_ray(refused, tmp_path):
    """To import Ray takes longer than all checks of a small job, and none of them needs it."""
    program = (
        "import sys\n"
        "from thalweg_cluster.cli import app\n"
        "try:\n"
        "    app(['train', 'job.toml', '--set', 'seed=-1', '--set', 'cluster.workers=100000'])\n"
        "finally:\n"
        "    print('ray' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout.strip() == "False"
    assert "seed" in done.stderr
    assert "cluster.workers" in done.stderr


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


@pytest.mark.faults("pickle in a {id}", how="by hand", expected="refused, never executed")
@pytest.mark.parametrize("kind", [".npy", ".npz"], ids=str)
def test_object_arrays_are_never_unpickled(kind, refused, tmp_path):
    """A file with an array of objects is refused, and the code in it does not run."""
    canary = tmp_path / "canary"
    x, y = np.array([Canary(canary)] * 40, dtype=object), np.arange(40) % 3
    if kind == ".npy":
        np.save(tmp_path / "x.npy", x, allow_pickle=True)
        np.save(tmp_path / "y.npy", y)
        output = refused('data.train={ x = "x.npy", y = "y.npy" }')
    else:
        np.savez(tmp_path / "x.npz", x=x, y=y)
        output = refused("data.train=x.npz")
    assert f"x{kind}" in output
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


@pytest.mark.faults("/dev/shm full at start", how="free bytes made up", expected="refused, bytes needed and free")
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
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    output = refused("cluster.workers=33", "train.microbatches=40", "train.batch_size=40")
    assert count(output) == 1  # how many cores this machine has does not matter then
    assert f"RAY_ADDRESS: expected the address of a Ray cluster; found '{address}'" in output


@pytest.mark.faults("unwritable folder", how="--out", expected="refused before anything starts")
def test_a_folder_that_cannot_be_written(refused, tmp_path):
    """--out names a file; that hides no mistake in the job, nor is it hidden by one."""
    (tmp_path / "file").write_text("a file")
    job, out = str(tmp_path / "job.toml"), str(tmp_path / "file")
    result = CliRunner().invoke(app, ["train", job, "--set", "seed=-1", "--set", "model.depth=3", "--out", out])
    assert result.exit_code == 2
    assert "--out: expected a folder that can be written" in result.output
    assert count(result.output) == 3


def test_what_is_wrong_with_the_doors_is_told_with_the_rest(refused, monkeypatch):
    """A file of a token that is not there, and a key of the job file."""
    monkeypatch.setenv("THALWEG_TOKEN_FILE", "/nowhere/token")
    said = refused("train.steps=0")
    assert "THALWEG_TOKEN_FILE: expected a file that can be read; found '/nowhere/token': No such file" in said
    assert "train.steps: expected a whole number >= 1; found 0" in said
    assert "2 mistakes" in said


def test_what_is_wrong_with_a_plan_of_faults_is_told_with_the_rest(refused, tmp_path):
    """Every mistake in it, and one of the job; nothing is started."""
    plan = tmp_path / "plan.toml"
    plan.write_text('[[fault]]\ndo = "kil"\nat = "push.before"\n[[fault]]\ndo = "nan"\nat = "push.after"\n')
    job, out = str(tmp_path / "job.toml"), str(tmp_path / "out")
    result = CliRunner().invoke(app, ["train", job, "--set", "seed=-1", "--faults", str(plan), "--out", out])
    assert result.exit_code == 2
    assert f'{plan}: fault 1: do: expected "kill", ' in result.output
    assert 'did you mean "kill"?' in result.output
    assert (
        f"{plan}: fault 2: do: expected what can happen at push.after: kill, pause or delay; found nan" in result.output
    )
    assert count(result.output) == 3
