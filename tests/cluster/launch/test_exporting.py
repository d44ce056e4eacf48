"""`thalweg export`: weights as files of a user's framework."""

from __future__ import annotations

import numpy as np
import pytest
from tests.cluster.launch.folders import LINEAR, ended_run, some_weights

from thalweg_cluster.launch import exporting
from thalweg_cluster.launch.exporting import check_form, check_out, export, how_to_load
from thalweg_cluster.launch.trained import read_trained
from thalweg_proto.errors import InputError, StorageError
from thalweg_worker import engines


def test_npz_has_an_array_by_name_and_needs_neither_data_nor_model(tmp_path):
    """Nothing in it is pickled; the same weights are the same bytes."""
    gone = LINEAR.replace('"digits"', '"gone.npz"').replace('"linear"', '"gone.py:build"')
    folder = ended_run(tmp_path / "run", gone)
    trained, file = export(folder, "npz", None, force=False)
    assert (trained.step, file) == (60, folder / "weights.npz")
    with np.load(file, allow_pickle=False) as found:
        assert set(found) == {"output.weight", "output.bias"}
        for name, array in some_weights().items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], array)
    first = file.read_bytes()
    export(folder, "npz", None, force=True)
    assert file.read_bytes() == first


def test_of_a_numpy_job_jax_gets_a_dict_by_name_and_need_not_be_installed(tmp_path, monkeypatch):
    """The paths are those of JAX in a dict."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    _, file = export(ended_run(tmp_path / "run"), "jax", tmp_path / "new" / "w.npz", force=False)
    with np.load(file) as found:
        assert set(found) == {"['output.weight']", "['output.bias']"}


@pytest.mark.parametrize("engine", ["numpy", "emulated", "torch", "jax", "cupy"])
def test_npz_can_be_had_of_any_job(engine, monkeypatch):
    """With nothing installed."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert check_form(engine, "npz") == []


@pytest.mark.parametrize(
    ("engine", "form", "said"),
    [
        ("numpy", "torch", None),
        ("torch", "torch", None),
        ("jax", "jax", None),
        ("numpy", "jax", None),
        ("jax", "torch", "--to: expected jax or npz, for a job whose engine is jax; found torch\n    --to jax gives"),
        ("torch", "jax", "--to: expected torch or npz, for a job whose engine is torch; found jax\n    --to torch"),
    ],
)
def test_what_cannot_be_had_is_told_with_what_can(engine, form, said, monkeypatch):
    """With all installed."""
    monkeypatch.setattr(engines, "find_spec", lambda name: "there")
    problems = list(map(str, check_form(engine, form)))
    assert (not problems) if said is None else problems[0].startswith(said)


@pytest.mark.parametrize(("engine", "form"), [("numpy", "torch"), ("torch", "torch"), ("jax", "jax")])
def test_an_extra_that_is_not_installed_is_named(engine, form, monkeypatch):
    """With the command that brings it."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    [problem] = check_form(engine, form)
    assert f'--to: expected a framework that is installed; found "{form}", and no module {form}' in str(problem)
    assert f"pip install 'thalweg[{form}]'" in problem.hint


def test_a_file_that_is_there_stays_unless_forced(tmp_path):
    """And what to type is told; a folder is no file; a file is no folder."""
    folder = ended_run(tmp_path / "run")
    file = tmp_path / "mine.npz"
    file.write_text("mine")
    with pytest.raises(InputError, match=r"--out: expected a file that is not there yet; found .*mine\.npz, which is"):
        export(folder, "npz", file, force=False)
    assert "to replace it: --force" in str(check_out(file, force=False)[0])
    assert file.read_text() == "mine"
    export(folder, "npz", file, force=True)
    assert set(np.load(file)) == {"output.weight", "output.bias"}
    assert "which is a folder" in str(check_out(tmp_path, force=True)[0])
    assert "which is a file" in str(check_out(file / "below" / "w.npz", force=True)[0])
    assert check_out(tmp_path / "new" / "w.npz", force=False) == []


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    """A form that cannot be had, and a file that is there; a folder that is none, and the file."""
    folder = ended_run(tmp_path / "run", LINEAR + '[cluster]\nengine = "jax"\n')
    (tmp_path / "w.pt").write_text("")
    for where, fields in ((folder, ["--to", "--out"]), (tmp_path / "no", [f"DIR ({tmp_path / 'no'})", "--out"])):
        with pytest.raises(InputError) as refused:
            export(where, "torch", tmp_path / "w.pt", force=False)
        assert [problem.field for problem in refused.value.problems] == fields
    with pytest.raises(InputError) as refused:
        export(tmp_path / "no", "torch", None, force=False)
    assert len(refused.value.problems) == 1


def test_data_that_is_gone_is_named_and_what_needs_none(tmp_path, monkeypatch):
    """A module is built for the shape of its data."""
    monkeypatch.setattr(engines, "find_spec", lambda name: "there")
    text = LINEAR.replace('"digits"', '"gone.npz"').replace('"linear"', '"net.py:build"')
    folder = ended_run(tmp_path / "run", text + '[cluster]\nengine = "torch"\n')
    with pytest.raises(InputError, match=r"data\.train \(.*gone\.npz\): expected a file") as refused:
        export(folder, "torch", None, force=False)
    assert "for --to npz neither data nor model need be there" in str(refused.value)


def test_storage_that_fails_is_told_with_the_bytes_needed(tmp_path, monkeypatch):
    """And it is no mistake of the user's input."""

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_whole", full)
    with pytest.raises(StorageError, match=r"weights\.npz: expected room for [\d,]+ bytes; found No space left"):
        export(ended_run(tmp_path / "run"), "npz", None, force=False)


def test_how_to_load_is_python(tmp_path):
    """For each form."""
    trained = read_trained(ended_run(tmp_path / "run"))
    for form in exporting.FORMS:
        compile(how_to_load(trained, form, tmp_path / "it's here.npz"), "typed", "exec")
