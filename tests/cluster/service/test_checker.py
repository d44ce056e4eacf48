"""The checks of `thalweg train`, in processes of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from thalweg_cluster.resources import Resources
from thalweg_cluster.service.checker import Checker
from thalweg_proto.errors import InputError

JOB = '[data]\ntrain = "digits"\n[model]\nuse = "{use}"\n[train]\nsteps = 3\n[cluster]\nworkers = {workers}\n'


@pytest.fixture(scope="module")
def checker():
    made = Checker(check_s=20.0)
    made.start()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    def made(use="linear", workers="2", model="", name="job"):
        path = tmp_path / name
        path.mkdir()
        (path / "job.toml").write_text(JOB.format(use=use, workers=workers))
        (path / "model.py").write_text(model)
        return path

    return made


def test_a_job_that_may_start_is_known_by_its_name_and_its_needs(checker, folder):
    """The least of its workers; and nothing is left in its folder."""
    path = folder(workers="[2, 8]")
    checked = checker.check(path, [Resources(2), Resources(2)])
    assert (checked.name, checked.workers, checked.max_failures) == ("job", 2, 3)
    assert sorted(each.name for each in path.iterdir()) == ["job.toml", "model.py"]


def test_mistakes_are_those_of_train_all_at_once_with_relative_paths(checker, folder):
    """Of the job, of the model, and of the cluster."""
    path = folder(use="model.py:nothing", workers="5")
    with pytest.raises(InputError) as caught:
        checker.check(path, [Resources(2), Resources(2)])
    said = str(caught.value)
    assert "cluster.workers: expected at most 4: the nodes of the Ray cluster have 2, 2 CPUs; found 5" in said
    assert "model.use (model.py): expected a function nothing" in said
    assert str(path) not in said


def test_gpus_are_counted_as_train_counts_them(checker, folder):
    """Those that there are, and those that its workers need."""
    path = folder(workers='3\nengine = "torch"\ngpus_per_worker = 0.5')
    with pytest.raises(InputError) as caught:
        checker.check(path, [Resources(4, 1)])
    said = str(caught.value)
    assert "at most 2 with 0.5 of a GPU each: Ray finds 1 GPU; found 3, which need 1.5 GPUs" in said


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("import os\nos._exit(7)", "exit status 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "exit status -9"),
        ("print('{}' * 10000)\nraise ValueError('no model')", "ValueError: no model"),
    ],
)
def test_what_a_users_model_does_it_does_to_its_own_check(model, said, checker, folder):
    """It may end its process, or print what it likes: the next check is answered."""
    with pytest.raises(InputError, match=said):
        checker.check(folder(use="model.py:build", model=model), None)
    assert checker.check(folder(name="other"), None).name == "job"


def test_a_model_that_never_ends_is_ended(checker, folder, monkeypatch):
    """And others are checked meanwhile."""
    endless = folder(use="model.py:build", model="while True: pass", name="endless")
    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(checker, "_check_s", 3.0)
            waiting = pool.submit(checker.check, endless, None)
            while not checker._waiting:
                wait([waiting], timeout=0.01)
        assert checker.check(folder(), None).name == "job"
        with pytest.raises(InputError, match="a check that took too long"):
            waiting.result()


def test_a_checker_that_was_killed_is_started_again(checker, folder):
    """The next check is answered."""
    checker._process.kill()
    checker._process.wait()
    assert checker.check(folder(), None).name == "job"
