from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.server.places import Places

ROWS, SPARES, RANKS = 5, 4, 3


def test_who_is_left_out_keeps_its_place_until_it_is_back():
    """Microbatch 2 goes into row 3, where a slow worker writes: the row is at the first spare place, 5, from now on."""
    places = Places(ROWS, SPARES, lambda place: True)
    assert places.keep(1, {2: 3})
    assert places.of_rows == [0, 1, 2, 5, 4]
    places.back(1)
    assert places.keep(0, {0: 0})
    assert places.of_rows == [3, 1, 2, 5, 4]  # what it left is spare, and used first: it has its memory


def test_what_is_offered_is_used_where_nobody_else_has_computed_it():
    """The slow worker's result is there while the copy is not: its row is where it was."""
    places = Places(ROWS, SPARES, lambda place: True)
    places.keep(1, {2: 3})
    places.offer(1, 2, 3, 0.5)
    places.back(1)
    assert places.settle({2: 3}) == {2: 0.5}
    assert places.of_rows == [0, 1, 2, 3, 4]


def test_what_is_offered_too_late_is_dropped():
    places = Places(ROWS, SPARES, lambda place: True)
    places.keep(1, {2: 3})
    places.offer(1, 2, 3, 0.5)
    places.back(1)
    assert places.settle({}) == {}
    assert places.of_rows == [0, 1, 2, 5, 4]


def test_without_room_nobody_is_left_out():
    """Neither where there is no memory, nor where no place is spare."""
    assert not Places(ROWS, SPARES, lambda place: False).keep(1, {2: 3})
    assert not Places(ROWS, 1, lambda place: True).keep(1, {2: 3, 1: 2})


ACTS = st.tuples(
    st.sampled_from(["keep", "offer", "back", "settle"]),
    st.integers(0, RANKS - 1),
    st.sets(st.integers(0, ROWS - 1), min_size=1),
)


@given(st.lists(ACTS, max_size=40))
def test_nobody_reads_or_takes_a_place_to_which_one_that_is_left_out_may_write(acts):
    """Whatever happens, against a record of who writes where: microbatch m goes into row m."""
    places = Places(ROWS, SPARES, lambda place: True)
    writing: dict[int, dict[int, int]] = {}  # by rank and microbatch
    for act, rank, some in acts:
        before = list(places.of_rows)
        if act == "keep" and rank not in writing:
            if places.keep(rank, {m: m for m in some}):
                writing[rank] = {m: before[m] for m in some}
        elif act == "offer" and rank in writing:
            for m in some & writing[rank].keys():
                if not places.offered(m):
                    places.offer(rank, m, m, 0.5)
                    del writing[rank][m]
        elif act == "back":
            places.back(rank)
            writing.pop(rank, None)
        elif act == "settle":
            places.settle({m: m for m in some})
        assert len(set(places.of_rows)) == ROWS
        theirs = {place for kept in writing.values() for place in kept.values()}
        assert not theirs.intersection(places.of_rows)
