"""Real servers that replicate their state in memories, and others that go on from there."""

from __future__ import annotations

import pytest
from tests.integration.local_run import train_locally
from tests.integration.test_checkpoints import LARGE, SMALL_BLOCKS, bits

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


@pytest.mark.parametrize("mode", MODES)
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
