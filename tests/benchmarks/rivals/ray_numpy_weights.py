"""The rival of `ray_parameter_server.py` with one change: the weights travel as NumPy arrays.

Ray pickles tensors and copies them; NumPy arrays of 100 kB and more stay in its object store, and are read there.
"""

from __future__ import annotations

from tests.benchmarks.rivals.common import parse_task
from tests.benchmarks.rivals.ray_parameter_server import run

if __name__ == "__main__":
    run(parse_task(), numpy_weights=True)
