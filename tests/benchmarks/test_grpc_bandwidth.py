from __future__ import annotations

import pytest
from tests.benchmarks.grpc_bandwidth import measure


@pytest.mark.bench
def test_streams_of_blocks_are_quicker_than_one_large_message():
    """64 MB over loopback: at least 0.9 / 0.4 of what a naive unary call takes in, in both directions."""
    found = measure(megabytes=64, rounds=7)
    print("  ".join(f"{name} {figure:.2f} GB/s" for name, figure in found.items()))
    assert min(found["push"], found["pull"]) >= 0.9 / 0.4 * found["naive"]
