from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.shares import share


@given(st.integers(0, 100), st.integers(1, 20))
def test_shares_are_contiguous_disjoint_and_even(of, workers):
    """All pieces are dealt out once, in order, and sizes differ by at most one."""
    shares = [share(of, rank, workers) for rank in range(workers)]
    assert [piece for part in shares for piece in part] == list(range(of))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
