from __future__ import annotations

import os

import numpy as np
import pytest

from thalweg_proto import shared_memory


def test_two_mappings_of_a_segment_see_the_same_bytes():
    """What one side writes the other reads, without a copy; the read-only side cannot write."""
    fd = shared_memory.create_segment(2 * 1024 * 4)
    writer = shared_memory.map_segment(fd, 2, 1024, writable=True)
    reader = shared_memory.map_segment(fd, 2, 1024, writable=False)
    os.close(fd)
    writer[1, 7] = 3.5
    assert reader[1, 7] == 3.5
    with pytest.raises(ValueError, match="read-only"):
        reader[0, 0] = 1.0


def test_a_segment_has_no_name_and_ends_with_its_last_mapping():
    """Nothing appears in /dev/shm, and the memory comes back with the last mapping: a crash leaves nothing behind."""

    def free() -> int:
        stat = os.statvfs(shared_memory.FOLDER)
        return stat.f_bavail * stat.f_frsize

    before, names = free(), set(os.listdir(shared_memory.FOLDER))
    size = 64 * 2**20
    fd = shared_memory.create_segment(size)
    array = shared_memory.map_segment(fd, 1, size // 4, writable=True)
    os.close(fd)
    assert not {name for name in set(os.listdir(shared_memory.FOLDER)) - names if "thalweg" in name}
    assert free() <= before - size // 2
    del array
    assert free() > before - size // 2


def test_a_full_shared_memory_is_an_error_when_the_segment_is_made():
    """More than there can be: OSError at once, no SIGBUS later."""
    stat = os.statvfs(shared_memory.FOLDER)
    with pytest.raises(OSError, match="No space left on device"):
        shared_memory.create_segment((stat.f_blocks + 1) * stat.f_frsize)


def test_memory_that_the_machine_has_not_is_not_free():
    """However large /dev/shm may grow, what is free of it is no more than what is available at all."""
    assert shared_memory.memory_available("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    3 kB\n") == 3072
    with open("/proc/meminfo") as meminfo:
        assert shared_memory.bytes_free() <= 1.1 * shared_memory.memory_available(meminfo.read())


def test_a_model_that_does_not_fit_is_refused_with_the_bytes_needed_and_free():
    """1,000 elements, 4 microbatches and 1 array of state need 3 rows of versions, 2 of state, 2 of gradients that
    become neither, and a spare one, of 4,000 bytes each."""
    plan = shared_memory.MemoryPlan(size=1000, microbatches=4, slots=1)
    assert shared_memory.check_room(plan, 32_000) == []
    [problem] = shared_memory.check_room(plan, 31_999)
    assert "31,999 bytes are free" in problem.expected
    assert "32,000 bytes needed" in problem.found


def test_a_new_segment_is_zero():
    """Gaps of the layout start at zero."""
    fd = shared_memory.create_segment(4096)
    array = shared_memory.map_segment(fd, 1, 1024, writable=False)
    os.close(fd)
    assert not np.any(array)


def vectors(**changed):
    plan = shared_memory.MemoryPlan(**{"size": 4, "microbatches": 3, "slots": 2, **changed})
    fd = shared_memory.create_segment(plan.vector_bytes, plan.spare_bytes)
    mapped = shared_memory.Vectors(plan, fd)
    os.close(fd)
    return mapped


def test_microbatch_0_lies_where_the_next_version_will_be():
    """What is written as the gradient of microbatch 0 in step t is read as version t + 1."""
    rows = vectors()
    for t in range(5):
        rows.gradient(t, 0)[...] = t
        assert rows.version(t + 1).tolist() == [t] * 4


@pytest.mark.parametrize(("microbatches", "slots"), [(1, 0), (1, 2), (2, 1), (3, 2), (5, 1)])
def test_everything_that_is_in_use_at_one_time_lies_apart(microbatches, slots):
    """Versions t - 1 and t, all gradients of step t and the state: each is what was written to it. No row is idle."""
    rows, seen = vectors(microbatches=microbatches, slots=slots), set()
    for t in range(shared_memory.PERIOD + 1):
        places = [rows.gradient(t - 2, 0), rows.gradient(t - 1, 0), *rows.gradients(t), *rows.state(t)]
        for value, place in enumerate(places):
            place[...] = value
        assert [place[0] for place in places] == list(range(2 + microbatches + slots))
        assert (rows.version(t - 1)[0], rows.version(t)[0]) == (0, 1)
        seen |= {place.ctypes.data for place in (*places, *rows.state(t + 1))}
    assert len(seen) == shared_memory.MemoryPlan(size=4, microbatches=microbatches, slots=slots).rows


def test_the_next_state_lies_where_gradients_were():
    """What is written as the gradient of microbatch s + 1 is read as array s of the state, for as many as there are."""
    rows = vectors(microbatches=3, slots=2)
    for t in range(4):
        rows.gradient(t, 1)[...], rows.gradient(t, 2)[...] = t, -t
        assert [array[0] for array in rows.state(t + 1)] == [t, -t]


def test_a_version_cannot_be_written_through_what_engines_read():
    """The array is read-only."""
    with pytest.raises(ValueError, match="read-only"):
        vectors().version(0)[0] = 1.0


def served(size=4, versions=2, gradients=3):
    """The arrays as the server maps them, and as a worker does."""
    plan = shared_memory.ServedPlan(size=size, versions=versions, gradients=gradients)
    fd = shared_memory.create_segment(plan.vector_bytes)
    mapped = [shared_memory.ServedVectors(plan, fd, server=server) for server in (True, False)]
    os.close(fd)
    return mapped


def test_a_worker_reads_what_its_server_wrote_and_the_other_way_round():
    """Versions go to workers, gradients come from them; each row is what was written to it."""
    server, worker = served()
    for t in (0, 1):
        server.version(t)[...] = 10 + t
    for m, gradient in enumerate(worker.gradients):
        gradient[...] = m
    assert worker.versions.tolist() == [[10] * 4, [11] * 4]
    assert [gradient.tolist() for gradient in server.gradients] == [[0] * 4, [1] * 4, [2] * 4]


def test_versions_take_turns_in_their_rows():
    """Version t + R lies where version t did, for as many rows R as there are."""
    for versions in (1, 2, 3):
        server, worker = served(versions=versions)
        for t in range(7):
            server.version(t)[...] = t
            there = range(max(0, t - versions + 1), t + 1)
            assert [worker.version(v)[0] for v in there] == list(there)


def test_a_worker_cannot_write_versions():
    """All that engines read is read-only."""
    _, worker = served()
    for array in (worker.versions, worker.version(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1.0


def test_a_host_without_workers_has_no_gradients():
    """Its memory holds the versions alone."""
    server, worker = served(gradients=0)
    assert server.gradients == worker.gradients == []
    assert shared_memory.ServedPlan(size=4, versions=2, gradients=0).vector_bytes == 2 * 4 * 4
