from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.compare,
    pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install atheris"),
]
SECONDS = 60


@pytest.mark.faults("any bytes at a gRPC door", how=f"atheris, {SECONDS} s", expected="refused, nothing else is raised")
def test_a_minute_of_any_bytes_raises_nothing_unexpected(tmp_path):
    """A fuzzer that looks which way they take through the code; opt-in, `pytest -m compare tests/fuzz`."""
    command = [sys.executable, "-m", "tests.fuzz.door", f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
