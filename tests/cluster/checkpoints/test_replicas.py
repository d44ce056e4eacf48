from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.checkpoints import Manifest, ReplicaMemory, ReplicaStore, ShardState, clear, commit, newest
from thalweg_cluster.checkpoints.replicas import PIECE_BYTES, REPLICAS_MAX
from thalweg_cluster.checkpoints.writing import discard, write_shard
from thalweg_proto.layout import Layout

HOSTS = 3
LAYOUT = Layout.of({"w": (3 * 16,)})
ABOUT = Manifest.about(job="", layout=LAYOUT, rule="sgd", slots=(), hosts=HOSTS, generation=1)
SHARD = LAYOUT.size // HOSTS


class Losable(ReplicaMemory):
    """A memory whose process may die, or that spoils what it is given."""

    lost = False
    spoils = False

    def put(self, name, begin, size, piece):
        self._reached()
        super().put(name, begin, size, piece[::-1] if self.spoils else piece)

    def get(self, name, begin):
        self._reached()
        return super().get(name, begin)

    def names(self):
        self._reached()
        return super().names()

    def remove(self, name):
        self._reached()
        super().remove(name)

    def _reached(self):
        if self.lost:
            raise OSError("lost")


def replicate(memories, step: int, *, hosts=range(HOSTS), whole: bool = True) -> None:
    """What `hosts` have after `step` steps: parameters that are all `step`."""
    files = []
    for host in hosts:
        part = np.full(SHARD, step, np.float32)
        state = ShardState(begin=host * SHARD, end=(host + 1) * SHARD, parameters=part, slots={}, updates=step)
        files.append(write_shard(ReplicaStore(memories, host), step, state, host=host, hosts=HOSTS))
    if whole:
        commit(ReplicaStore(memories), replace(ABOUT, step=step, version=step, files=tuple(files)), keep=1)


def newest_step(memories) -> int | None:
    checkpoint, _ = newest(ReplicaStore(memories))
    if checkpoint is None:
        return None
    np.testing.assert_array_equal(checkpoint.state(HOSTS).parameters, np.float32(checkpoint.manifest.step))
    return checkpoint.manifest.step


@pytest.mark.parametrize("host", range(HOSTS))
def test_any_one_host_may_be_lost(host):
    """The next one has its shard, and one of the others the manifest."""
    memories = [Losable() for _ in range(HOSTS)]
    replicate(memories, 5)
    memories[host].lost = True
    assert newest_step(memories) == 5


def test_where_two_neighbours_are_lost_so_is_the_replica_and_it_is_told():
    """The shard of host 1 was with hosts 1 and 2."""
    memories = [Losable() for _ in range(HOSTS)]
    replicate(memories, 5)
    memories[1].lost = memories[2].lost = True
    checkpoint, [refused] = newest(ReplicaStore(memories))
    assert checkpoint is None
    assert refused.startswith("checkpoint_000005: shard_00001_of_00003.safetensors: expected a file that can be read")


def test_a_replica_that_is_spoilt_is_refused_by_name():
    """Wherever it lies: its SHA-256 is that of what the server had."""
    memories = [Losable() for _ in range(HOSTS)]
    memories[1].spoils = memories[2].spoils = True
    replicate(memories, 5)
    checkpoint, [refused] = newest(ReplicaStore(memories))
    assert checkpoint is None
    assert refused.startswith("checkpoint_000005: shard_00001_of_00003.safetensors: expected SHA-256")


def test_there_is_one_whole_replica_while_the_next_is_written_and_one_after():
    """Nothing of the one before stays behind."""
    memories = [ReplicaMemory() for _ in range(HOSTS)]
    replicate(memories, 5)
    replicate(memories, 9, whole=False)
    assert newest_step(memories) == 5
    replicate(memories, 9)
    assert newest_step(memories) == 9
    assert {name.partition("/")[0] for memory in memories for name in memory.names()} == {"checkpoint_000009"}


def test_what_came_to_nothing_is_removed_and_the_whole_one_stays():
    """By who writes the manifests, or by the next run before it writes anything."""
    memories = [ReplicaMemory() for _ in range(HOSTS)]
    replicate(memories, 5)
    before = [memory.names() for memory in memories]
    replicate(memories, 9, hosts=[0, 2], whole=False)
    discard(ReplicaStore(memories), 9)
    discard(ReplicaStore(memories), 5)
    assert [memory.names() for memory in memories] == before
    replicate(memories, 9, hosts=[0, 2], whole=False)
    memories[0].put("checkpoint_000011/x", 0, 10, b"12345")
    clear(ReplicaStore(memories), after=5)
    assert [memory.names() for memory in memories] == before


def test_a_file_is_there_with_its_last_piece():
    """Of any size; one that its writer left, or begins anew, is not."""
    memories = [ReplicaMemory(), ReplicaMemory()]
    data = np.random.default_rng(0).bytes(2 * PIECE_BYTES + 1)
    ReplicaStore(memories).write("checkpoint_000001/x", data)
    read = ReplicaStore(memories[1:]).read("checkpoint_000001/x")
    assert hashlib.sha256(read).digest() == hashlib.sha256(data).digest()
    memories[0].put("checkpoint_000002/y", 0, 4, b"ab")
    with pytest.raises(FileNotFoundError):
        ReplicaStore(memories).read("checkpoint_000002/y")
    memories[0].put("checkpoint_000002/y", 0, 4, b"cd")
    memories[0].put("checkpoint_000002/y", 2, 4, b"ef")
    assert ReplicaStore(memories).read("checkpoint_000002/y") == b"cdef"


@pytest.mark.parametrize(("begin", "piece"), [(1, b"a"), (2, b"abc"), (3, b"a")])
def test_pieces_come_in_order_and_are_no_more_than_the_file(begin, piece):
    memory = ReplicaMemory()
    memory.put("checkpoint_000001/x", 0, 4, b"ab")
    with pytest.raises(OSError, match="checkpoint_000001/x: expected bytes from 2 to at most 4; found"):
        memory.put("checkpoint_000001/x", begin, 4, piece)


def test_memory_is_bounded():
    """A memory takes no more replicas than there can be."""
    memory = ReplicaMemory()
    for step in range(REPLICAS_MAX):
        memory.put(f"checkpoint_{step:06d}/x", 0, 1, b"a")
    with pytest.raises(OSError, match=f"expected at most {REPLICAS_MAX} replicas at a time"):
        memory.put("checkpoint_000009/x", 0, 1, b"a")
    memory.put("checkpoint_000000/y", 0, 1, b"a")


@given(data=st.data())
def test_the_newest_whole_set_is_found_whatever_happens(data):
    """Oracle: the last one that all hosts wrote. Replicas are made and broken off; in the end any host is lost."""
    memories = [Losable() for _ in range(HOSTS)]
    whole = None
    for step in range(1, 1 + data.draw(st.integers(1, 6))):
        hosts = sorted(data.draw(st.sets(st.integers(0, HOSTS - 1)), label="hosts that write"))
        if len(hosts) == HOSTS:
            replicate(memories, step)
            whole = step
        else:
            replicate(memories, step, hosts=hosts, whole=False)
            discard(ReplicaStore(memories), step)
        assert newest_step(memories) == whole
    memories[data.draw(st.integers(0, HOSTS - 1), label="host that is lost")].lost = True
    assert newest_step(memories) == whole
