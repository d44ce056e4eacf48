"""The job file on disk: what cannot be read, and what --set changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from thalweg_proto.errors import InputError
from thalweg_proto.job import Job, load_job

TEXT = """
[data]
train = "train.npz"
[model]
use = "mlp"
hidden = [16]
[train]
steps = 500
[optimizer]
rule = "momentum"
momentum = 0.5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mnist.toml"
    path.write_text(TEXT)
    return path


def load(path: str | Path, *overrides: str) -> Job:
    """A job that is right."""
    draft = load_job(path, overrides)
    assert draft.problems == ()
    return draft.job


def problem(path: Path, *overrides: str) -> str:
    """What is wrong with a job, or with a file that holds none."""
    try:
        return "\n".join(str(found) for found in load_job(path, overrides).problems)
    except InputError as error:
        return str(error)


def test_the_file_gives_name_and_folder(file: Path) -> None:
    """A job without a name is called like its file, and paths start at the file's folder."""
    job = load(file)
    assert (job.name, job.data.train) == ("mnist", str(file.parent / "train.npz"))


def test_a_relative_path_of_the_job_file_makes_no_difference(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is the same whether its file is named from here or from the root."""
    expected = load(file)
    monkeypatch.chdir(file.parent)
    assert load("mnist.toml") == expected


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.steps=100", lambda job: job.train.steps == 100),
        (" train.steps = 100 ", lambda job: job.train.steps == 100),
        ("name=fast", lambda job: job.name == "fast"),
        ('name="fast"', lambda job: job.name == "fast"),
        ("model.hidden=[8, 8]", lambda job: job.model.options["hidden"] == [8, 8]),
        ("model.new=a=b", lambda job: job.model.options["new"] == "a=b"),
        ("cluster.workers=3", lambda job: job.cluster.workers == 3),
        ("data.train={x = 'a.npy', y = 'b.npy'}", lambda job: job.data.train.x.endswith("/a.npy")),
        ("optimizer.momentum=", lambda job: job.optimizer.momentum == 0.9),
        ("train.epochs=2", lambda job: (job.train.steps, job.train.epochs) == (None, 2.0)),
    ],
)
def test_an_override_takes_the_place_of_the_files_value(file: Path, override: str, value) -> None:  # type: ignore[no-untyped-def] # a lambda of each case
    """A value of --set is read as TOML, or as text; an empty one brings the default back."""
    assert value(load(file, override))


def test_later_overrides_win(file: Path) -> None:
    """Of two values for one key the last one holds."""
    assert load(file, "train.steps=1", "train.epochs=2", "train.steps=3").train.steps == 3


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("train.steps", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("train..steps=3", "KEY=VALUE"),
        ("data.train.x=3", "a key inside the table train"),
        ("train.steps=many", 'train.steps: expected a whole number >= 1; found "many"'),
        ("train.stepz=3", 'did you mean "steps"?'),
        ("name=1\nseed = 2", "control character"),
    ],
)
def test_a_wrong_override_is_named(file: Path, override: str, text: str) -> None:
    """A mistake in --set is a mistake like any other."""
    assert text in problem(file, override)


def test_mistakes_of_file_and_overrides_come_together(file: Path) -> None:
    """Neither hides the other."""
    text = problem(file, "nonsense", "seed=-1")
    assert "--set nonsense" in text
    assert "seed: " in text


def test_mistakes_leave_the_rest_of_the_job(file: Path) -> None:
    """The draft holds what is right, so that checks can go on with it."""
    draft = load_job(file, ["nonsense", "seed=-1"])
    assert len(draft.problems) == 2
    assert draft.right("data.train", "train.steps")
    assert not draft.right("seed")
    assert (draft.job.train.steps, draft.job.optimizer.momentum) == (500, 0.5)


def test_only_a_file_that_holds_no_table_raises(file: Path) -> None:
    """There is no draft then."""
    file.write_text("no TOML")
    with pytest.raises(InputError, match="expected TOML"):
        load_job(file)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"name = \n", "expected TOML; found Invalid value (at line 1, column 8)"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"name = 'a'\n\n# caf\xe9\n", "UTF-8 text; found byte 0xe9 in line 3"),
        (b"a = " + b"9" * 5000, "expected TOML"),
        (b"a = " + b"[" * 100_000, "expected TOML"),
        (b"#" * (1 << 20) + b"\n", "at most 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    """The message says where in the file it goes wrong."""
    path = tmp_path / "job.toml"
    path.write_bytes(content)
    found = problem(path)
    assert text in found
    assert str(path) in found


def test_a_byte_order_mark_is_taken(tmp_path: Path, file: Path) -> None:
    """Editors that write a mark before UTF-8 text do no harm."""
    marked = tmp_path / "marked" / "mnist.toml"
    marked.parent.mkdir()
    marked.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(marked).model == load(file).model


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    """The path tried is shown, and a file with nearly that name."""
    missing = file.parent / "mnits.toml"
    assert f"no such file ({missing})" in problem(missing)
    assert f'did you mean "{file}"?' in problem(missing)
    assert "no such file" in problem(file.parent / "nowhere" / "job.toml")


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    """A folder is told from a missing file."""
    assert "expected a job file; found a folder" in problem(tmp_path)


def test_loading_is_a_function_of_the_file(file: Path) -> None:
    """Loading twice gives equal jobs."""
    assert load(file) == load(file)
