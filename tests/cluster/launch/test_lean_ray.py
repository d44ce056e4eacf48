"""What a Ray node of our own is started without."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
from ray._private.node import Node

from thalweg_cluster.launch.lean_ray import UNUSED, lean_node

NODE = """
import psutil, ray
from thalweg_cluster.launch.ray_cluster import start

start(1)
commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
assert ray.get(ray.remote(lambda: 7).remote()) == 7
ray.shutdown()
print(*commands, sep="\\n")
"""


def test_methods_are_themselves_again_after_the_block() -> None:
    """Also where the block raises."""
    before = [getattr(Node, name) for name in UNUSED]
    with contextlib.suppress(ZeroDivisionError), lean_node():
        assert all(getattr(Node, name) not in before for name in UNUSED)
        raise ZeroDivisionError
    assert [getattr(Node, name) for name in UNUSED] == before


def test_what_another_ray_does_not_have_is_not_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release without one of the methods starts as it does."""
    monkeypatch.delattr(Node, UNUSED[0])
    with lean_node():
        assert not hasattr(Node, UNUSED[0])
    assert not hasattr(Node, UNUSED[0])


def test_a_real_node_works_without_them() -> None:
    """It runs a task, and none of its processes is a monitor or the dashboard's server."""
    out = subprocess.run([sys.executable, "-c", NODE], capture_output=True, text=True, check=True, timeout=120).stdout
    assert "raylet" in out
    assert [line for line in out.splitlines() if "monitor.py" in line or "dashboard/dashboard.py" in line] == []
