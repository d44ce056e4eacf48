"""Real servers that replicate their state in memories, and others that go on from there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.local_run import train_locally
from tests.integration.test_checkpoints import LARGE, SMALL_BLOCKS, bits
from tests.tiers import slow_but

from thalweg_cluster.checkpoints import ReplicaMemory, ReplicaStore, newest

STEPS = 120
SCHEDULE = {"name": "cosine", "learning_rate": 0.005, "warmup_steps": 4, "min_learning_rate": 0.0}
MODES = {
    "two hosts": {"workers": [1, 2], **LARGE},
    "three hosts, adam": {"workers": [1, 1, 1], **LARGE, "rule": "adam", "rule_options": {}},
    "clipped": {"workers": [1, 1], **LARGE, "clip_norm": 0.5},
    "a server apart": {"workers": [2, 0], "owns": [False, True], **LARGE},
    "int8": {"workers": [1, 1], **LARGE, "of_server": SMALL_BLOCKS | {"wire": "int8", "wire_parameters": "bfloat16"}},
    "local steps": {"workers": [1, 1], "local_steps": 4},
    "async": {"workers": [1, 0], **LARGE, "consistency": "async"},
}


def replicating(memories, every_s=1e-4, of_server=None, **options):
    """A run of which the lead has a replica made whenever it looks at the clock."""
    of_server = {**(of_server or {}), "memories": memories, "replicate_every_s": every_s}
    return train_locally(steps=STEPS, schedule=SCHEDULE, of_server=of_server, **options)


@pytest.mark.parametrize("mode", slow_but(MODES, 1))
def test_a_run_that_goes_on_from_a_replica_ends_in_the_same_bits(mode, tmp_path):
    """From the newest one, of which half of the memories are lost; nothing else is left of it."""
    options = dict(MODES[mode])
    memories = [ReplicaMemory() for _ in options["workers"]]
    run = replicating(memories, save=tmp_path / "whole", **options)
    assert run.result.replicas["failed"] == 0
    assert run.result.replicas["saved"] > 0
    assert bits(run) == bits(train_locally(steps=STEPS, schedule=SCHEDULE, **options)), "replicating changed the bits"
    replica, refused = newest(ReplicaStore(memories[1:]))
    assert (replica.manifest.step, refused) == (run.result.replicas["step"], [])
    resumed = train_locally(steps=STEPS, schedule=SCHEDULE, resume=replica, **options)
    assert bits(resumed) == bits(run)


class Gone(ReplicaMemory):
    """A memory that cannot be reached."""

    def put(self, name, begin, size, piece):
        raise OSError("the memory on 10.0.0.1 is lost")


def test_a_memory_that_is_lost_fails_replicas_and_not_the_run(tmp_path):
    """It is told, and nothing of what came to nothing stays in the others."""
    options = {"workers": [1, 1, 1], **LARGE}
    memories = [ReplicaMemory(), Gone(), ReplicaMemory()]
    run = replicating(memories, save=tmp_path, **options)
    assert bits(run) == bits(train_locally(steps=STEPS, schedule=SCHEDULE, **options))
    assert run.result.replicas["saved"] == 0
    assert run.result.replicas["failed"] >= 1
    [warning] = run.servers[0].watch(0, 0.0).warnings
    assert warning.startswith("no replica could be made, a lost server costs the steps since the newest checkpoint: ")
    assert "the memory on 10.0.0.1 is lost" in warning
    assert len({name.partition("/")[0] for memory in memories for name in memory.names()}) <= 1, "the last one's"


def test_a_replica_is_no_checkpoint_and_changes_none(tmp_path):
    """Checkpoints are those of a run without replicas, byte for byte; where both fall due there is one, on storage."""
    options = {"workers": [1, 1], **LARGE, "save_every": 8}
    memories = [ReplicaMemory(), ReplicaMemory()]
    run = replicating(memories, save=tmp_path / "with", **options)
    assert run.result.replicas["saved"] > 0
    train_locally(steps=STEPS, schedule=SCHEDULE, **options, save=tmp_path / "without")
    saved = [
        {path.relative_to(tmp_path / each) for path in (tmp_path / each).rglob("*.*")} for each in ("with", "without")
    ]
    both = saved[0] & saved[1]
    assert Path("checkpoint_000120/manifest.json") in both
    for name in both:
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes(), name
    assert run.result.replicas["step"] % 8


def test_who_hears_too_late_leaves_the_replica_out(tmp_path, monkeypatch):
    """Told of a version that is there already: counted, and the run goes on as if nobody had been told."""
    monkeypatch.setattr("thalweg_cluster.hosts.lead.NOTICE", 0)
    options = {"workers": [1, 1], **LARGE}
    memories = [ReplicaMemory(), ReplicaMemory()]
    run = replicating(memories, save=tmp_path, **options)
    assert bits(run) == bits(train_locally(steps=STEPS, schedule=SCHEDULE, **options))
    assert run.result.replicas["saved"] == 0
    assert run.result.replicas["skipped"] >= 1
