"""The grid: which configurations there are, what each changes, in which order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from thalweg_cluster.experiments.grid import Configuration, Experiment, Series, asked, configured
from thalweg_proto.errors import InputError
from thalweg_proto.job import Job, job_to_toml, load_job_text

JOB = """
name = "small"
[data]
train = "digits"
[model]
use = "linear"
[train]
steps = 10
batch_size = 64
"""
ASKED = {
    "workers": "1,2",
    "modes": None,
    "wires": None,
    "hosts": None,
    "repeats": 3,
    "weak": False,
    "target_loss": None,
    "emulate_compute": None,
}


def job(more: str = "") -> Job:
    draft = load_job_text(JOB + more, (), Path())
    assert not draft.problems
    return draft.job


def test_the_grid_is_every_combination_with_a_worker_for_each_host():
    experiment = Experiment(workers=(1, 2), modes=("sync", "async"), wires=("float32",), hosts=(1, 2))
    assert {(c.series.mode, c.series.hosts, c.workers) for c in experiment.configurations} == {
        (mode, hosts, workers) for mode in ("sync", "async") for hosts, workers in ((1, 1), (1, 2), (2, 2))
    }


def test_each_repeat_runs_everything_once_in_an_order_of_its_own():
    experiment = Experiment(workers=tuple(range(1, 9)), modes=("sync",), wires=("float32",), repeats=3)
    order = list(experiment.order())
    assert order == list(experiment.order())
    assert set(Counter(order).values()) == {1}
    by_repeat = [[c for r, c in order if r == repeat] for repeat in range(3)]
    assert all(sorted(each) == experiment.configurations for each in by_repeat)
    assert by_repeat[0] != by_repeat[1] != by_repeat[2]


def test_strong_scaling_keeps_the_batch_and_has_microbatches_for_all():
    experiment = Experiment(workers=(1, 12), modes=("sync",), wires=("float32",))
    for workers in (1, 12):
        made = configured(experiment, Configuration(Series("sync", "float32"), workers), job())
        assert (made.train.batch_size, made.train.microbatches, made.cluster.workers) == (64, 12, workers)


def test_weak_scaling_gives_each_worker_the_jobs_batch():
    experiment = Experiment(workers=(1, 3), modes=("sync",), wires=("float32",), weak=True)
    made = configured(experiment, Configuration(Series("sync", "float32"), 3), job())
    assert (made.train.batch_size, made.train.microbatches) == (192, 24)


@pytest.mark.parametrize("mode", ["sync", "ssp", "async"])
@pytest.mark.parametrize(
    "more",
    [
        "consistency = 'ssp'\nstaleness = 7",
        "backup_workers = 1",
        "non_finite = 'skip'",
        "[cluster]\nwire = 'topk'\nwire_fraction = 0.1",
    ],
)
def test_keys_that_the_mode_or_the_wire_does_not_know_are_left_out(mode, more):
    """What comes out is a job without mistakes."""
    experiment = Experiment(workers=(2,), modes=(mode,), wires=("float32",))
    made = configured(experiment, Configuration(Series(mode, "float32"), 2), job(more))
    again = load_job_text(job_to_toml(made), (), Path())
    assert [str(problem) for problem in again.problems] == []
    assert (again.job.train.consistency, again.job.cluster.wire) == (mode, "float32")


def test_what_the_mode_knows_is_kept():
    experiment = Experiment(workers=(2,), modes=("ssp",), wires=("float32",))
    made = configured(experiment, Configuration(Series("ssp", "float32"), 2), job("consistency='ssp'\nstaleness=7"))
    assert made.train.staleness == 7


def test_hosts_and_emulated_compute():
    experiment = Experiment(workers=(2,), modes=("sync",), wires=("bfloat16",), hosts=(1, 2), compute_ms=20.0)
    one, two = (configured(experiment, c, job()).cluster for c in experiment.configurations)
    assert (one.placement, two.placement, two.wire) == ("PACK", "SPREAD", "bfloat16")
    assert (two.engine, two.emulated_ms) == ("emulated", 20.0)


def test_compute_is_emulated_without_what_the_engine_of_the_job_knows():
    experiment = Experiment(workers=(2,), modes=("sync",), wires=("float32",), compute_ms=20.0)
    made = configured(experiment, experiment.configurations[0], job("[cluster]\nengine='torch'\ncompile=true"))
    assert load_job_text(job_to_toml(made), (), Path()).problems == ()


def test_what_is_typed():
    typed = ASKED | {"workers": "4,1,4", "modes": "sync, async", "hosts": "2", "emulate_compute": "0.5s"}
    experiment = asked(job(), **typed)
    assert (experiment.workers, experiment.modes, experiment.wires) == ((1, 4), ("sync", "async"), ("float32",))
    assert (experiment.hosts, experiment.compute_ms) == ((2,), 500.0)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("workers", "0"),
        ("workers", "1,,2"),
        ("workers", "two"),
        ("modes", "sync,bsp"),
        ("wires", "float16"),
        ("hosts", "-1"),
        ("emulate_compute", "20"),
        ("emulate_compute", "-1ms"),
        ("emulate_compute", "nans"),
    ],
)
def test_what_is_typed_wrong_is_named(option, text):
    with pytest.raises(InputError) as error:
        asked(job(), **(ASKED | {option: text}))
    [problem] = error.value.problems
    assert problem.field == f"--{option.replace('_', '-')}"
    assert repr(text) in str(problem)


def test_more_hosts_than_workers():
    with pytest.raises(InputError, match="a worker for each host"):
        asked(job(), **(ASKED | {"hosts": "5"}))
