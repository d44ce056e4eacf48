"""The comparison on the same module: its job files, and its rival."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.benchmarks.launch import write_job
from tests.benchmarks.modules import FOLDER, NETWORKS, OF_ONE, RULES, SYSTEMS, job, main, measure
from tests.benchmarks.workload import STEPS_MIN, write_data

from thalweg_proto.job import load_job


@pytest.mark.parametrize("name", NETWORKS)
def test_job_does_a_rivals_work(name: str, tmp_path: Path) -> None:
    """Each network's job file is accepted, builds the module of its file, and has a rival's batch a worker."""
    network = NETWORKS[name]
    for array in ("x.npy", "y.npy", "text.txt"):
        (tmp_path / array).touch()
    draft = load_job(write_job(job(network, workers=2, steps=20), tmp_path / "job.toml"), [])
    assert draft.problems == ()
    assert draft.job.model.use == f"{FOLDER / network.file}:build"
    assert (draft.job.train.batch_size, draft.job.train.microbatches) == (2 * network.batch, 2)


def test_targets_are_of_networks_and_systems_that_there_are() -> None:
    """No ratio is asked for that never comes."""
    assert all(set(rule.targets) <= set(NETWORKS) and {rule.over, rule.under} <= set(SYSTEMS) for rule in RULES)


@pytest.mark.compare
@pytest.mark.parametrize("system", ["ddp", "plain"])
def test_rival_trains_the_module(system: str, tmp_path: Path) -> None:
    """Alone and under DDP, with the rows of each of its workers counted."""
    pytest.importorskip("torch")
    (tmp_path / "rows").mkdir()
    write_data(tmp_path / "rows", rows=100)
    network = replace(NETWORKS["convnet"], batch=4)
    found = measure(system, network, folder=tmp_path, seconds=0.001)
    assert (found.network, found.system) == ("convnet", system)
    per_step = found.samples_per_s * found.step_p50_ms / 1000
    workers = 1 if system in OF_ONE else 2
    # Samples of a step by its median, which is not its mean.
    assert 0.2 < per_step / (workers * network.batch) < 5


def test_a_run_has_enough_steps() -> None:
    """However little time it is given."""
    assert NETWORKS["convnet"].steps(0.0) == STEPS_MIN < NETWORKS["convnet"].steps(4.0)


@pytest.mark.parametrize("wrong", [["--only", "tensorflow"], ["--networks", "H 1"]])
def test_wrong_option_is_answered_before_anything_runs(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown system or network ends with status 2, and what was expected and found."""
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert f"found {wrong[1]}" in capsys.readouterr().err
