"""A Ray node of our own on this machine, without the processes that nothing here uses.

Each of them imports Ray anew, while the start of a run waits for the same cores; together they take about two of eight
seconds on two cores. Ray has switches for them on the command line of `ray start`, and none in `ray.init`. Without the
methods replaced here, in another release of Ray, it starts what it always starts, and a run begins a little later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ray._private import node as ray_node

UNUSED = (
    "start_monitor",  # adds machines to a cluster and takes them away: this one has one
    "start_log_monitor",  # brings what actors print to the driver, which is off; the files are written all the same
    "start_api_server",  # the dashboard, which is off; what is left of it reports to Ray's makers, which is off
)


def _start_nothing(node: Any, *args: Any, **options: Any) -> None:
    """In the place of a method that starts a process."""


@contextlib.contextmanager
def lean_node() -> Iterator[None]:
    """Within the block, nodes that this process starts come without what is UNUSED."""
    kind: Any = ray_node.Node
    kept = {name: getattr(kind, name) for name in UNUSED if callable(getattr(kind, name, None))}
    for name in kept:
        setattr(kind, name, _start_nothing)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(kind, name, method)
