"""The parts of the memory measurement: what is read from /proc, which processes count, the bound."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.memory import bound_bytes, model_bytes
from tests.benchmarks.pss import descendants, is_rays_own, measure, measure_tree, parent_of, parse_rollup

ROLLUP = """55ea-7ffd ---p 00000000 00:00 0                [rollup]
Rss:               10000 kB
Pss:                4000 kB
Pss_Anon:           1000 kB
Pss_Shmem:          2500 kB
"""


def test_rollup_by_hand() -> None:
    """The sizes are those of the lines Pss and Pss_Shmem, in bytes."""
    memory = parse_rollup(ROLLUP)
    assert (memory.total_bytes, memory.shared_memory_bytes) == (4000 * 1024, 2500 * 1024)


def test_shared_page_of_two_processes_counts_half_in_each() -> None:
    """A page that a child maps too is halved in the parent, so that a tree's sum has it once."""
    size = 32 << 20
    with mmap.mmap(-1, size) as shared:
        shared.write(b"x" * size)
        alone = measure(os.getpid())
        gone, told = os.pipe()
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:  # only reads, and ends when the parent closes its pipe
            os.close(told)
            seen = sum(shared[at] for at in range(0, size, mmap.PAGESIZE))
            os.write(tell, b"." if seen else b"!")
            os.read(gone, 1)
            os._exit(0)
        os.read(ready, 1)
        both = measure(os.getpid())
        os.close(told)
        os.waitpid(child, 0)
        for end in (gone, ready, tell):
            os.close(end)
    assert alone is not None
    assert both is not None
    assert alone.shared_memory_bytes - both.shared_memory_bytes == pytest.approx(size / 2, rel=0.02)


def test_tree_of_this_process_holds_this_process() -> None:
    """The measured tree has the root in it, with memory."""
    (name,) = [name for name in measure_tree(os.getpid()) if name.startswith(f"{os.getpid()} ")]
    assert measure_tree(os.getpid())[name].total_bytes > 0


def test_ended_process_has_no_memory() -> None:
    """A process that is gone gives None and raises nothing."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert measure(child) is None


def test_parent_is_read_past_any_name() -> None:
    """The parent's PID is found although the process's name holds spaces and parentheses."""
    assert parent_of("7 (a) (b 9) S 3 7 7 0 -1") == 3


@given(st.dictionaries(st.integers(1, 30), st.integers(0, 30)), st.integers(1, 30))
def test_descendants_are_those_whose_ancestors_hold_the_root(parents: dict[int, int], root: int) -> None:
    """A process belongs to the tree exactly where following its parents comes to the root."""

    def ancestors(pid: int) -> set[int]:
        seen: set[int] = set()
        while pid not in seen:
            seen.add(pid)
            pid = parents.get(pid, pid)
        return seen

    assert descendants(root, parents) == {pid for pid in {*parents, root} if root in ancestors(pid)}


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("/venv/lib/python3.11/site-packages/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp", True),
        ("ray::IDLE", True),
        ("ray::RuntimeEnvAgent", True),
        ("ray::Worker.run", False),
        ("ray::Server", False),
        ("/venv/bin/python -m thalweg_cluster.cli train job.toml", False),
    ],
)
def test_rays_own_processes_are_told_from_the_jobs(command: str, own: bool) -> None:
    """Ray's daemons and idle workers are left out, the command and its actors are not."""
    assert is_rays_own(command) is own


def test_bound_by_hand() -> None:
    """Two buffers, V gradients and one slot in float32, and 250 MB and an idle worker for each process."""
    assert model_bytes(1000, microbatches=2) == 20_000
    assert bound_bytes(1000, 2, processes=4, idle_bytes=70) == 20_000 + 4 * 250_000_070
