"""Real servers and workers that save, and others that go on from what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.local_run import Engine, train_locally
from tests.tiers import slow_but

from thalweg_cluster.checkpoints import FileStore, newest
from thalweg_cluster.checkpoints.reading import read
from thalweg_proto.shared_memory import CHUNK

STEPS = 20
SCHEDULE = {"name": "cosine", "learning_rate": 0.05, "warmup_steps": 4, "min_learning_rate": 0.0}
LARGE = {"model": {"use": "mlp", "options": {"hidden": [300, 120]}}}  # several chunks, so that each host has a shard
SMALL_BLOCKS = {"block": CHUNK}
MODES = {
    "one host": {"workers": 2},
    "one host, one microbatch": {"workers": 1, "microbatches": 1},
    "clipped": {"workers": 2, "clip_norm": 0.5},
    "adam, one host": {"workers": 2, "rule": "adam", "rule_options": {}},
    "adagrad, one host": {"workers": 3, "rule": "adagrad", "rule_options": {"initial_accumulator_value": 0.1}},
    "two hosts": {"workers": [1, 2], **LARGE, "of_server": SMALL_BLOCKS},
    "adam, two hosts": {"workers": [1, 2], **LARGE, "rule": "adam", "rule_options": {}},
    "a server apart": {"workers": [2, 0], "owns": [False, True], **LARGE},
    "int8": {"workers": [1, 1], **LARGE, "of_server": SMALL_BLOCKS | {"wire": "int8", "wire_parameters": "bfloat16"}},
    "topk": {"workers": [1, 1], **LARGE, "of_server": SMALL_BLOCKS | {"wire": "topk", "wire_fraction": 0.1}},
    "local steps": {"workers": [1, 1], "local_steps": 4},
    "local steps of adam": {"workers": [1, 1], "local_steps": 4, "rule": "adam", "rule_options": {}},
    "ssp": {"workers": [1], "consistency": "ssp", "staleness": 2, "rule": "adam", "rule_options": {}},
    "async": {"workers": [1], "consistency": "async"},
    "async, int8": {
        "workers": [1, 0],
        **LARGE,
        "consistency": "async",
        "of_server": SMALL_BLOCKS | {"wire": "int8"},
        "schedule": SCHEDULE | {"learning_rate": 0.005},
    },
}


def bits(run):
    assert (run.result.error, run.worker_errors) == (None, [])
    return run.result.weights_sha256


def at(folder: Path, step: int):
    return read(FileStore(folder), step)


@pytest.mark.parametrize("mode", slow_but(MODES, 0, 5, 8, 13))
def test_a_run_that_goes_on_from_a_checkpoint_ends_in_the_same_bits(mode, tmp_path):
    """From one in the middle, which was taken while the run went on, to the end."""
    options = {"steps": STEPS, "schedule": SCHEDULE, **MODES[mode]}
    whole = train_locally(**options, save=tmp_path / "whole", save_every=8)
    assert whole.result.checkpoints["failed"] == 0
    assert bits(whole) == bits(train_locally(**options)), "saving changed the bits"
    resumed = train_locally(**options, resume=at(tmp_path / "whole", 8), save=tmp_path / "resumed")
    assert bits(resumed) == bits(whole)
    assert resumed.result.steps == STEPS
    final, refused = newest(FileStore(tmp_path / "resumed"))
    assert (final.manifest.step, refused) == (STEPS, [])
    assert whole.layout.sha256(final.state(1).parameters) == bits(whole)


@pytest.mark.parametrize("workers", slow_but([1, 3, [1], [2, 1], [1, 1, 2]], 1, 3))
def test_a_checkpoint_of_three_hosts_fits_any_number_of_workers_and_hosts(workers, tmp_path):
    """Saved from 3 shards, loaded into 1, 2 and 3, where workers meet and where servers do their part."""
    options = {"steps": STEPS, "microbatches": 4, **LARGE}
    whole = train_locally(**options, workers=[1, 1, 1], save=tmp_path, save_every=8)
    assert len(at(tmp_path, 16).manifest.files) == 3
    assert bits(train_locally(**options, workers=workers, resume=at(tmp_path, 16))) == bits(whole)


@pytest.mark.parametrize("workers", [2, [1, 1]])
def test_a_run_that_is_stopped_saves_what_it_has(workers, tmp_path):
    """And goes on to the same bits."""
    servers: list[Any] = []

    class Stops(Engine):
        def before(self, step, microbatch):
            if step == 40:
                servers[0].stop()

    options = {"workers": workers, **LARGE}
    run = train_locally(**options, steps=3000, save=tmp_path, made=servers.extend, engine=Stops)
    assert run.result.cancelled
    checkpoint, _ = newest(FileStore(tmp_path))
    assert run.result.checkpoints["step"] == checkpoint.manifest.step == run.result.steps
    options["steps"] = run.result.steps + 5
    assert bits(train_locally(**options, resume=checkpoint)) == bits(train_locally(**options))
