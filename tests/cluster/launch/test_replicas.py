from __future__ import annotations

import pytest

from thalweg_cluster.launch.replicas import bytes_needed, too_little


@pytest.mark.parametrize(
    ("size", "owners", "slots", "needed"),
    [(100, 2, 1, 2 * 2 * 50 * 2 * 4), (100, 3, 0, 2 * 2 * 34 * 4), (100, 1, 1, 2 * 100 * 2 * 4)],
)
def test_two_replicas_of_two_shards_are_counted(size, owners, slots, needed):
    """Parameters and state of each shard; where there is one owner, of that one."""
    assert bytes_needed(size, owners, slots) == needed


def test_a_host_with_too_little_memory_is_named_with_what_to_do():
    """Each of them, and none that has enough."""
    [problem] = too_little({"10.0.0.1": 4000, "10.0.0.2": 3999}, 4000)
    assert problem.field == "checkpoint.replicate_every_s"
    assert (problem.expected, problem.found) == (
        "4,000 bytes of memory on each host for replicas of the state",
        "3,999 bytes available on 10.0.0.2",
    )
