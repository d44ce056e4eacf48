"""Memory, as the engines of other frameworks need it."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from thalweg_worker.engines.memory import unguarded

FAULTS = """
import resource, sys
import numpy as np
from thalweg_worker.engines.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(1 << 24, np.float32)
before = faults()
for _ in range(10):
    np.ones(1 << 24, np.float32)
print(faults() - before)
"""


def faults(how: str) -> int:
    """Pages that a process gets from the system for ten arrays of 64 MB, one after another."""
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told how to keep memory")
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    """Unlike by default, where each array is of new pages (large ones, where the system gives such)."""
    assert faults("keep") < 20 < faults("leave")


def test_unguarded_is_the_same_memory_and_may_be_written_to() -> None:
    """What was read-only is so still, seen as before."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    array.flags.writeable = False
    seen = unguarded(array)
    assert seen.flags.writeable
    assert np.shares_memory(seen, array)
    assert seen.tolist() == array.tolist()
    assert unguarded(seen) is seen
