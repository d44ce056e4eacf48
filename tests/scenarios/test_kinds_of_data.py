"""Kinds of data on real runs: a text with a transformer, a user's own data set, a folder of tables."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from tests.scenarios.conftest import REPOSITORY, THALWEG, environment
from tests.scenarios.test_readme import BLOCKS

from thalweg_proto.job import load_job
from thalweg_worker.batches import BatchSource
from thalweg_worker.datasets import load_dataset
from thalweg_worker.models import ModelSource
from thalweg_worker.sampler import Sampler

pytestmark = pytest.mark.slow

STEPS, BATCH = 60, 32
WORDS = ["gradient", "step", "sum", "server", "worker", "update", "batch", "loss", "rule", "push", "pull", "seed"]


def plain_loop(job) -> tuple[float, float]:
    """What PyTorch alone makes of the same model on the same batches: the held-out loss before and after all steps."""
    import torch

    data = load_dataset(job.data, job.seed).data
    path, _, function = job.model.use.rpartition(":")
    torch.manual_seed(job.seed)
    net = ModelSource.read(job.model.use, job.model.options, folder=REPOSITORY).build(data.spec)
    assert (path, function) == (str(REPOSITORY / "cluster/jobs/char_transformer.py"), "build")
    optimiser = torch.optim.AdamW(net.parameters(), lr=job.optimizer.learning_rate)
    batches = BatchSource(data.train, Sampler(job.seed, samples=len(data.train), batch_size=BATCH, microbatches=1))

    def loss(x, y):
        return torch.nn.functional.cross_entropy(net(torch.from_numpy(x)).flatten(0, 1), torch.from_numpy(y).flatten())

    def held_out() -> float:
        x, y = (np.empty((len(data.eval), job.data.context), np.int64) for _ in range(2))
        data.eval.take(np.arange(len(data.eval)), x, y)
        with torch.no_grad():
            return float(loss(x, y))

    before = held_out()
    for step in range(STEPS):
        batches.draw(step, 0)
        batch = batches.batch(0)
        optimiser.zero_grad()
        loss(batch.x, batch.y).backward()
        optimiser.step()
    return before, held_out()


@pytest.mark.skipif(find_spec("torch") is None, reason="needs the extra torch: pip install 'thalweg[torch]'")
def test_a_transformer_on_a_text_learns_as_in_a_plain_loop(train, tmp_path):
    """The repository's example on a text of a few words: after the same steps on the same batches its held-out loss is
    that of PyTorch alone within 1 %, and far below what it began with."""
    text = tmp_path / "words.txt"
    text.write_text(" ".join(np.random.default_rng(0).choice(WORDS, 8000)))
    done = train(
        f"data.train={text}", f"train.steps={STEPS}", "train.eval_every=0", "cluster.workers=2",
        file=REPOSITORY / "cluster/jobs/char_transformer.toml",
    )  # fmt: skip
    assert done.status == 0, done.output
    found = done.summary["eval"]
    before, expected = plain_loop(load_job(done.folder / "job.toml").job)
    print(f"held-out loss after {STEPS} steps: {found['loss']:.6f}; plain loop: {expected:.6f}, before: {before:.4f}")
    assert found["loss"] == pytest.approx(expected, rel=0.01)
    assert expected < 0.7 * before
    assert 0.2 < found["accuracy"] < 1


BIGRAM = """
import numpy as np
from thalweg_worker import autodiff as ad

class Bigram:
    def __init__(self, characters):
        self.characters = characters

    def init(self, rng):
        return {"scores": np.zeros((self.characters, self.characters), np.float32)}

    def predict(self, params, x):
        return ad.embedding(params["scores"], x)

    def loss(self, params, batch):
        return ad.softmax_cross_entropy(self.predict(params, batch.x), batch.y)

def build(data_spec):
    return Bigram(data_spec.classes)
"""


def test_a_text_with_the_engine_numpy(train, tmp_path):
    """A text in which each character says the next: all held-out positions are right, and the bits are those of any
    number of workers."""
    (tmp_path / "net.py").write_text(BIGRAM)
    (tmp_path / "cycle.txt").write_text("abcdefg" * 500)
    sets = ('data={train="cycle.txt", context=16}', 'model={use="net.py:build"}', "optimizer.learning_rate=1.0")
    runs = [train(*sets, f"cluster.workers={workers}", out=f"out{workers}") for workers in (1, 3)]
    assert [run.status for run in runs] == [0, 0], runs[0].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
    assert runs[0].summary["eval"]["accuracy"] == 1
    assert runs[0].summary["eval"]["loss"] < 0.5
    (tmp_path / "net.py").unlink()
    done = subprocess.run(
        [*THALWEG, "eval", str(runs[0].folder), "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        f"net.py is gone since the run; its own copy is used: {runs[0].folder}/source/model.use/net.py" in done.stderr
    )
    assert json.loads(done.stdout)["loss"] == runs[0].summary["eval"]["loss"]


DATA = """
import numpy as np

class Clouds:
    classes = ["left", "right", "above"]

    def __init__(self, size, wrong):
        rng = np.random.default_rng(0)
        self.y = rng.integers(0, 3, size)
        self.x = rng.normal(size=(size, 2)) + 4 * np.array([[-1, 0], [1, 0], [0, 1]])[self.y]
        self.wrong = wrong

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return (self.x[i] if i != self.wrong else self.x[i] * np.nan), int(self.y[i])

def clouds(size=500, wrong=None):
    return Clouds(size, wrong)
"""


def test_a_data_set_of_ones_own_gives_the_bits_of_an_array(train, tmp_path):
    """Of the same samples, with any number of workers; its file need not be there where they run."""
    (tmp_path / "data.py").write_text(DATA)
    space: dict = {}
    exec(DATA, space)
    clouds = space["clouds"]()
    np.savez(tmp_path / "set.npz", x=clouds.x, y=clouds.y)
    sets = ('model={use="linear"}', "train.steps=40")
    array = train('data={train="set.npz"}', *sets, out="array")
    runs = [
        train('data={train="data.py:clouds", size=500}', *sets, f"cluster.workers={workers}", out=f"out{workers}")
        for workers in (1, 3)
    ]
    assert [run.status for run in (array, *runs)] == [0, 0, 0], runs[0].output
    assert len({run.summary["weights_sha256"] for run in (array, *runs)}) == 1
    assert {run.summary["eval"]["accuracy"] for run in (array, *runs)} == {array.summary["eval"]["accuracy"]}
    assert array.summary["eval"]["accuracy"] > 0.9


def test_a_sample_of_no_use_ends_the_run_with_its_index(train, tmp_path):
    """With scale = "none" nobody has looked at it before; a worker meets it, and nothing is tried again."""
    (tmp_path / "data.py").write_text(DATA)
    run = train('data={train="data.py:clouds", wrong=77, scale="none", eval=0.0}', 'model={use="linear"}')
    assert run.status == 1
    assert "data.train (data.py:clouds), sample 77: expected x: finite numbers" in run.output
    assert run.summary["restarts"]["worker"] == 0


def test_a_folder_of_tables_gives_the_bits_of_an_array(train, tmp_path, monkeypatch):
    """Of the same rows."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    space: dict = {}
    exec(DATA, space)
    clouds = space["clouds"]()
    (tmp_path / "tables").mkdir()
    for part in range(4):
        rows = slice(125 * part, 125 * part + 125)
        columns = {"a": clouds.x[rows, 0], "b": clouds.x[rows, 1], "label": clouds.y[rows]}
        parquet.write_table(pyarrow.table(columns), tmp_path / "tables" / f"{part}.parquet", row_group_size=50)
    np.savez(tmp_path / "set.npz", x=clouds.x, y=clouds.y)
    sets = ('model={use="linear"}', "train.steps=40")
    runs = [train(f'data={{train="{data}"}}', *sets, out=data[:3]) for data in ("set.npz", "tables")]
    assert [run.status for run in runs] == [0, 0], runs[1].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1


def test_a_ray_data_set_becomes_a_folder_of_tables_in_its_order(train, tmp_path, monkeypatch, ray_address):
    """As the README shows it, on many blocks whose tasks end in any order: the bits are those of an array."""
    for module in ("pandas", "pyarrow"):
        pytest.importorskip(module, reason="it comes with ray[data]")
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    i = np.arange(500)
    x, y = np.stack([1.5 * i, i % 7], axis=1), i % 3
    np.savez(tmp_path / "set.npz", x=x, y=y)
    shown = next(text for language, text in BLOCKS if language == "python" and "ray.data" in text)
    (tmp_path / "events").mkdir()
    for part in range(20):
        rows = [f"{n},{1.5 * n},{n % 7},{n % 3}" for n in range(25 * part, 25 * part + 25)]
        (tmp_path / "events" / f"{part:02}.csv").write_text("\n".join(["id,a,b,label", *rows]) + "\n")
    code = shown.replace("/tmp/", f"{tmp_path}/")
    subprocess.run([sys.executable, "-c", code], env=environment(RAY_ADDRESS=ray_address), check=True)
    assert len(list((tmp_path / "table").glob("*.parquet"))) > 1
    sets = ('model={use="linear"}', "train.steps=40")
    runs = [train(f'data={{train="{data}"}}', *sets, out=data[:3]) for data in ("set.npz", "table")]
    assert [run.status for run in runs] == [0, 0], runs[1].output
    assert len({run.summary["weights_sha256"] for run in runs}) == 1
