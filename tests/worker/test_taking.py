from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_worker.exchange.taking import OUT_MAX, OUT_S, Pace, SittingOut, at_once, helps, sits_out

SECONDS = st.floats(1e-6, 1e3)


@pytest.mark.parametrize(
    ("left", "piece_s", "own_s", "expected"),
    [
        (0, 10.0, 1.0, False),  # nothing is left
        (0, OUT_S, 1.0, False),
        (2, 1.0, 1.0, False),  # it is as quick
        (3, 1.0, 1.0, True),  # but far behind
        (1, 10.0, 1.0, True),  # it is slow
        (3, 1.0, 10.0, False),  # the helper is slow
        (1, OUT_S, 10.0, True),  # it will not compute it itself
        (3, 0.0, 1.0, False),  # nothing is known of it yet
        (3, 1.0, 0.0, False),
        (1, 3e-5, 1e-5, False),  # not worth it
    ],
)
def test_who_is_done_helps_who_is_behind(left, piece_s, own_s, expected):
    """By hand, in seconds."""
    assert helps(left, piece_s, own_s) == expected


def test_short_microbatches_are_taken_several_at_once():
    """About a millisecond of them; one where that is longer, or not known."""
    assert [at_once(own_s) for own_s in (0.0, 2e-4, 3e-4, 1e-3, 0.5)] == [1, 5, 3, 1, 1]


def test_a_pace_is_that_of_the_best_of_the_newest_few():
    """One disturbance does not count; being slow all the time does, soon."""
    pace = Pace()
    assert [pace.took(seconds) for seconds in (1.0, 9.0, 1.1, 1.2, 8.0, 8.0, 8.0, 8.0)] == [
        1.0, 1.0, 1.0, 1.0, 1.1, 1.1, 1.2, 8.0,
    ]  # fmt: skip


def test_a_worker_ten_times_slower_sits_out_where_three_others_are_quick():
    """Eight microbatches: the others need (8 + 3) / 3 times 20 ms for all of it, it needs 200 ms for one."""
    assert sits_out(0.2, [0.02] * 3, 8)
    assert not sits_out(0.02, [0.02, 0.02, 0.2], 8)
    assert not sits_out(0.2, [0.2] * 3, 8)


def test_who_is_alone_or_knows_nothing_sits_nothing_out():
    """Nobody else is there, or how quick somebody is is not known."""
    assert not sits_out(1.0, [], 4)
    assert not sits_out(1.0, [0.001, 0.0], 4)
    assert not sits_out(1.0, [OUT_S], 4)


@given(st.lists(SECONDS, min_size=2, max_size=8), st.integers(1, 64))
def test_never_do_all_sit_out(piece_s, left):
    """The quickest never does."""
    out = [sits_out(own_s, piece_s[:i] + piece_s[i + 1 :], left) for i, own_s in enumerate(piece_s)]
    assert not out[piece_s.index(min(piece_s))]


@given(SECONDS, st.integers(1, 8), st.integers(1, 64))
def test_equally_quick_workers_all_take_part(piece_s, others, left):
    """Whatever is left, and even where they differ by half."""
    assert not sits_out(1.5 * piece_s, [piece_s] * others, left)


def test_it_tries_again_ever_more_rarely_and_at_once_where_it_has_recovered():
    """Out for 1, 2, 4 ... 64 steps, with a try in between."""
    sitting = SittingOut()
    steps = [sitting.this_step(slow=True) for _ in range(300)]
    tries = [i for i, out in enumerate(steps) if not out]
    assert [b - a - 1 for a, b in zip([-1, *tries], tries, strict=False)][:8] == [1, 2, 4, 8, 16, 32, OUT_MAX, OUT_MAX]
    while sitting.this_step(slow=False):
        pass
    assert not sitting.this_step(slow=False)
    assert sitting.this_step(slow=True)
    assert not sitting.this_step(slow=True)  # the first try comes after one step again
