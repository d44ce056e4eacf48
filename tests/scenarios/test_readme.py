"""The README tells the truth: its commands run, its files are the files."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.scenarios.conftest import REPOSITORY, environment
from tests.scenarios.served import Served

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SESSIONS = [
    [line.split("#")[0].strip() for line in text.splitlines() if line.startswith(("thalweg ", "make "))]
    for language, text in BLOCKS
    if not language
]
COMMANDS = [command for session in SESSIONS for command in session]


def test_every_command_is_known_to_this_test():
    """`make` targets exist, and the rest is `thalweg`, which the next test runs; .ci/run runs `make train`."""
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    made = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert {"train", "test", "bench"} <= set(made) <= set(targets)
    assert "make train" in (REPOSITORY / ".ci" / "run").read_text()


NEEDED = {
    "torch_model": ("torch", "'thalweg[torch]'"),
    "char_transformer": ("torch", "'thalweg[torch]'"),
    "jax_model": ("jax", "'thalweg[jax]'"),
    "jax_equinox": ("equinox", "equinox 'thalweg[jax]'"),
}
"""What jobs need: a module, and what brings it."""
OF_THE_SERVICE = ("thalweg serve ", "thalweg submit ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "session",
    [
        session
        for session in SESSIONS
        if any(command.startswith("thalweg ") for command in session) and not session[0].startswith(OF_THE_SERVICE)
    ],
    ids=str,
)
def test_commands_of_the_readme_run(session, ray_address, tmp_path):
    """Each command ends with status 0, from the repository's folder, after those that stand before it."""
    for job, (module, package) in NEEDED.items():
        if job in str(session) and find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install {package}")
    for command in session:
        words = command.replace("/tmp/digits", str(tmp_path / "digits")).split()
        out = ["--out", str(tmp_path / "out")] if words[1] == "train" and "--out" not in words else []
        done = subprocess.run(
            [sys.executable, "-m", "thalweg_cluster.cli", *words[1:], *out],
            cwd=REPOSITORY, env=environment(RAY_ADDRESS=ray_address), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said = {
            "ledger": "exactly once an epoch: yes",
            "scale": "report.html",
            "monitor": "prometheus --config.file=",
            "export": "to load them in Python:",
            "eval": "accuracy",
        }
        assert said.get(words[1], "succeeded") in done.stdout


@pytest.mark.slow
def test_commands_of_the_service_run(tmp_path):
    """Those of the clients in order, each with the status and the words that it should have."""
    [served] = [session for session in SESSIONS if session and session[0].startswith("thalweg serve ")]
    [typed] = [session for session in SESSIONS if session and session[0].startswith("thalweg submit ")]
    expected = {
        "submit": "queued",
        "jobs": "digits",
        "watch": "succeeded",
        "logs": "weights sha256",
        "cancel": "cancel",
    }
    [words] = [command.split() for command in served]
    assert words[:3] == ["thalweg", "serve", "--address"]
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack)
        for command in typed:
            name = command.split()[1]
            assert expected.get(name, "queued") in service.command(*command.split()[1:], cwd=REPOSITORY), command


@pytest.mark.slow
def test_the_client_shown_works_as_shown(tmp_path):
    """It gives the state of a job and its losses."""
    [shown] = [text for language, text in BLOCKS if language == "python" and "thalweg_cluster.client" in text]
    names = {}
    exec(compile(shown, "README.md", "exec"), names)
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack)
        state, losses = names["losses"](service.address, REPOSITORY / "cluster/jobs/digits.toml", "train.steps=40")
    assert state == "succeeded"
    assert losses[-1] < losses[0]


def test_the_job_shown_is_the_job_that_make_train_runs():
    """The README's job file and cluster/jobs/digits.toml say the same."""
    from thalweg_proto.job.loading import _toml

    shown, *_ = [text for language, text in BLOCKS if language == "toml"]
    assert _toml.loads(shown) == _toml.loads((REPOSITORY / "cluster/jobs/digits.toml").read_text())


def test_the_keys_shown_are_those_of_a_job():
    """Each other piece of a job file in the README fits into that job."""
    from thalweg_proto.job.loading import _toml
    from thalweg_proto.job.parsing import parse_job

    tables = [_toml.loads(text) for language, text in BLOCKS if language == "toml"]
    shown, *pieces = [table for table in tables if "fault" not in table]
    assert pieces
    for piece in pieces:
        job = shown | {table: shown[table] | keys for table, keys in piece.items()}
        assert parse_job(job, folder=REPOSITORY / "cluster/jobs").problems == ()


def test_the_plan_shown_is_the_plan_that_is_carried_out():
    """The README's plan of faults is cluster/jobs/faults.toml to the letter."""
    [shown] = [text for language, text in BLOCKS if language == "toml" and "[[fault]]" in text]
    assert shown == Path(REPOSITORY, "cluster/jobs/faults.toml").read_text()


def test_the_data_set_shown_is_one(tmp_path):
    """With the keys that are shown beside it."""
    from thalweg_proto.job import load_job
    from thalweg_worker.datasets import load_dataset

    [code] = [text for language, text in BLOCKS if language == "python" and "class Sines" in text]
    [keys] = [text for language, text in BLOCKS if language == "toml" and ":Sines" in text]
    (tmp_path / "my_data.py").write_text(code)
    (tmp_path / "job.toml").write_text(f'{keys}\n[model]\nuse = "mlp"\n[train]\nsteps = 3\n')
    draft = load_job(tmp_path / "job.toml")
    assert draft.problems == ()
    loaded = load_dataset(draft.job.data, 0)
    assert loaded.problems == ()
    assert (loaded.samples, loaded.spec.input_shape, loaded.spec.classes) == (1600, (16,), 2)


MODELS = ("my_model.py", "torch_model.py", "jax_model.py", "jax_equinox.py")


def test_the_model_shown_is_the_model_that_runs():
    """The README's models are files of cluster/jobs to the letter."""
    shown = [text for language, text in BLOCKS if language == "python" and "def build" in text]
    for text, name in zip(shown, MODELS, strict=True):
        assert text in Path(REPOSITORY, "cluster/jobs", name).read_text()


def test_python_shown_runs():
    """The other snippets run by themselves."""
    for language, text in BLOCKS:
        # test_client.py runs what imports grpc, test_weights.py what loads weights.
        if language == "python" and not any(words in text for words in ("def build", "import grpc", "/tmp/")):
            exec(compile(text, "README.md", "exec"), {})


def test_links_lead_somewhere():
    """Every relative link of the README names a file or folder that is there."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
