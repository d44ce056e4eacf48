"""`thalweg export` and `thalweg eval`, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.cluster.launch.folders import LINEAR, ended_run, saved_run, some_weights
from tests.scenarios.conftest import REPOSITORY, THALWEG, environment
from tests.scenarios.test_readme import BLOCKS, NEEDED

from thalweg_worker.batch import DataSpec
from thalweg_worker.models import ModelSource

DIGITS = DataSpec(input_shape=(8, 8), task="classification", classes=10)


def thalweg(*words: str | Path, cwd: Path | None = None) -> Any:
    """The command to its end; standard output and errors apart."""
    command = [*THALWEG, *map(str, words)]
    return subprocess.run(command, env=environment(), cwd=cwd, capture_output=True, text=True, check=False)


def test_weights_are_exported_and_never_replaced_by_chance(tmp_path):
    """Into the run's folder; again: exit status 2, and the file as it was."""
    folder = ended_run(tmp_path / "run")
    first = thalweg("export", folder, "--to", "npz")
    assert first.returncode == 0, first.stderr
    assert first.stdout == (
        f"linear-digits after step 60, its last: 2 arrays, 650 numbers, written to {folder}/weights.npz\n"
        f'to load them in Python:\nnumpy.load("{folder}/weights.npz")  # an array by name\n'
    )
    with np.load(folder / "weights.npz") as found:
        np.testing.assert_array_equal(found["output.weight"], some_weights()["output.weight"])
    (folder / "weights.npz").write_text("mine")
    again = thalweg("export", folder, "--to", "npz")
    assert (again.returncode, again.stdout) == (2, "")
    assert "1 mistake; nothing was started\n  --out: expected a file that is not there yet" in again.stderr
    assert "--force" in again.stderr
    assert (folder / "weights.npz").read_text() == "mine"


def test_a_checkpoint_is_evaluated_with_a_word_on_which_it_is(tmp_path):
    """The newest whole one; that a newer one was refused stands among the errors, and the JSON is JSON. A pair of files
    is looked for in the present folder."""
    folder = saved_run(saved_run(tmp_path / "run", 20), 40, weights=some_weights(seed=1))
    (folder / "checkpoints/checkpoint_000040/manifest.json").write_text("{}")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.integers(0, 17, (7, 8, 8)).astype(np.float32))
    np.save(tmp_path / "y.npy", np.arange(7))
    table = thalweg("eval", folder)
    assert table.returncode == 0, table.stderr
    assert "warning not used: checkpoint_000040: " in table.stderr
    names = [line.split()[0] for line in table.stdout.splitlines()]
    assert names == ["weights", "data", "samples", "loss", "accuracy"]
    assert "linear-digits after step 20, its newest whole checkpoint: the run has not come to its end" in table.stdout
    assert "samples   359\n" in table.stdout
    said = thalweg("eval", folder, "--data", "x.npy,y.npy", "--json", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert list(found) == ["loss", "accuracy", "samples", "step"]
    assert (found["samples"], found["step"]) == (7, 20)


def test_all_that_is_wrong_is_told_at_once_and_nothing_else_is_printed(tmp_path):
    """The folder and the data; exit status 2."""
    refused = thalweg("eval", tmp_path / "nowhere", "--data", tmp_path / "no.csv", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "2 mistakes" in refused.stderr
    assert f"DIR ({tmp_path}/nowhere): expected the folder of a run" in refused.stderr
    assert f"--data: expected a file; found no such file: {tmp_path}/no.csv" in refused.stderr


def test_neither_needs_ray(tmp_path):
    """It is not even imported; so the answer is there at once."""
    folder = ended_run(tmp_path / "run")
    program = (
        "import sys\n"
        "from thalweg_cluster.cli import app\n"
        f"for words in (['export', {str(folder)!r}, '--to', 'npz'], ['eval', {str(folder)!r}]):\n"
        "    app(words, standalone_mode=False)\n"
        "print([name for name in ('ray', 'torch', 'jax', 'sklearn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("command", ["export", "eval"])
def test_help_says_what_is_taken_and_the_defaults(command):
    """Of each option."""
    said = " ".join(thalweg(command, "--help").stdout.replace("│", " ").split())
    options = {"export": ["--to", "--out", "--force"], "eval": ["--data", "--json"]}[command]
    assert [option for option in options if option not in said] == []
    assert said.count("Default:") == {"export": 2, "eval": 2}[command]


JOBS = REPOSITORY / "cluster" / "jobs"
MODELS = {
    "mlp": ("mlp", "numpy", "numpy", "numpy"),
    "torch": (f"{JOBS}/torch_model.py:build", "torch", *NEEDED["torch_model"]),
    "jax": (f"{JOBS}/jax_model.py:build", "jax", *NEEDED["jax_model"]),
    "equinox": (f"{JOBS}/jax_equinox.py:build", "jax", *NEEDED["jax_equinox"]),
}
"""The model, its engine, and what it needs: a module, and what brings it."""


def needs(model: str) -> Any:
    """A parameter of a test: one of MODELS, where what it needs is installed."""
    _, _, module, package = MODELS[model]
    why = f"needs {module}: pip install {package}"
    return pytest.param(model, marks=() if find_spec(module) is not None else pytest.mark.skip(reason=why))


def shown(file: str) -> str:
    """What the README says to type, in Python, to load this file."""
    [text] = [text for language, text in BLOCKS if language == "python" and file in text]
    return text


@pytest.mark.slow
@pytest.mark.parametrize("model", [needs(model) for model in MODELS])
def test_the_figures_are_those_of_the_run_and_the_file_loads_as_the_readme_says(model, train):
    """After a run of two workers on real Ray, held out are four chunks. What is loaded is as right as the run was."""
    use, engine, *_ = MODELS[model]
    sets = (f'model={{use="{use}"}}', f'cluster.engine="{engine}"', "cluster.workers=2", 'data.eval="digits"')
    run = train(*sets, "train.steps=40")
    assert run.status == 0, run.output
    said = thalweg("eval", run.folder, "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert {name: found[name] for name in ("loss", "accuracy")} == run.summary["eval"]
    assert (found["samples"], found["step"]) == (1797, 40)

    exported = thalweg("export", run.folder, "--to", "npz" if engine == "numpy" else engine)
    assert exported.returncode == 0, exported.stderr
    if engine == "numpy":
        expected = load_file(run.folder / "weights.safetensors")
        with np.load(run.folder / "weights.npz") as arrays:
            assert {name: array.tobytes() for name, array in arrays.items()} == {
                name: array.tobytes() for name, array in expected.items()
            }
        return
    x, y = digits(run.folder)
    built = ModelSource.read(use, {}, folder=Path()).build(DIGITS)
    assert (scores_of_loaded(engine, built, run.folder, x).argmax(axis=1) == y).mean() == found["accuracy"]


def digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All samples as the job in the folder scales them."""
    from thalweg_proto.job import load_job
    from thalweg_worker.datasets import load_dataset

    data = load_dataset(load_job(folder / "job.toml").job.data, 0).data.eval
    x, y = np.empty((len(data), 8, 8), np.float32), np.empty(len(data), np.int64)
    data.take(np.arange(len(data)), x, y)
    return x, y


def scores_of_loaded(engine: str, built: Any, folder: Path, x: np.ndarray) -> np.ndarray:
    """Of a model of the user's that was filled as the README says."""
    if engine == "torch":
        import torch

        text = shown("weights.pt").replace("/tmp/digits-torch", str(folder))
        exec(text, {"torch": torch, "module": built})
        built.eval()
        with torch.no_grad():
            return built(torch.from_numpy(x)).numpy()
    import jax

    if isinstance(built, tuple):
        built = SimpleNamespace(init=built[0], predict=built[2])
    names = {"jax": jax, "numpy": np, "model": built, "key": jax.random.key(5)}
    exec(shown("weights.jax.npz").replace("/tmp/digits-jax", str(folder)), names)
    return np.asarray(built.predict(names["params"], x))


@pytest.mark.slow
@pytest.mark.parametrize("model", [needs("torch")])
def test_of_a_jax_job_no_state_dict_can_be_had(model, tmp_path):
    """What can be is told, with exit status 2, before JAX is imported; of a NumPy job there are tensors by name."""
    import torch

    refused = thalweg("export", ended_run(tmp_path / "jax", LINEAR + '[cluster]\nengine = "jax"\n'), "--to", "torch")
    assert refused.returncode == 2
    assert "--to: expected jax or npz, for a job whose engine is jax; found torch" in refused.stderr
    done = thalweg("export", ended_run(tmp_path / "run"), "--to", "torch", "--out", tmp_path / "w.pt")
    assert done.returncode == 0, done.stderr
    assert f'torch.load("{tmp_path}/w.pt", weights_only=True)  # a tensor by name' in done.stdout
    assert list(torch.load(tmp_path / "w.pt", weights_only=True)) == ["output.bias", "output.weight"]
