"""The curve of a run in a bounded number of points."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.service.page.curve import Curve, point_of


def line(step: int, evaluated: bool = False) -> bytes:
    evaluation = {"loss": 0.5, "accuracy": None} if evaluated else None
    row = {"step": step, "time_s": 1.0, "train_loss": 2.0, "samples_per_s": 3.0, "evaluation": evaluation}
    return json.dumps(row).encode() + b"\n"


def steps(update: dict) -> list[int]:
    return [point["step"] for point in update["points"]]


def test_what_is_not_known_is_left_out():
    """Of a row without evaluation, and of one with all that there can be."""
    assert point_of({"step": 1, "train_loss": None, "evaluation": None, "so_far": None}) == {"step": 1}
    whole = {
        "step": 2, "time_s": 1.5, "train_loss": 0.5, "learning_rate": 0.1, "gradient_norm": 9.0, "samples_per_s": 7.0,
        "evaluation": {"loss": 0.25, "accuracy": 0.75}, "so_far": {"staleness": {"mean": 0.5, "max": 2}},
    }  # fmt: skip
    assert point_of(whole) == {
        "step": 2, "time_s": 1.5, "train_loss": 0.5, "learning_rate": 0.1, "samples_per_s": 7.0, "eval_loss": 0.25,
        "eval_accuracy": 0.75, "staleness": 0.5,
    }  # fmt: skip


def test_a_short_curve_is_whole_and_told_once():
    """The first time it is all there is."""
    curve = Curve(4)
    curve.add(map(line, (1, 2)))
    first = curve.update()
    assert (first["anew"], steps(first)) == (True, [1, 2])
    curve.add([line(3)])
    more = curve.update()
    assert (more["anew"], steps(more)) == (False, [3])
    assert steps(curve.update()) == []


def test_a_long_one_keeps_every_nth_and_is_told_anew():
    """By hand: the fifth of four drops two of these, and those that are even have gone."""
    curve = Curve(4)
    curve.add(map(line, range(1, 5)))
    curve.update()
    curve.add([line(5)])
    shorter = curve.update()
    assert (shorter["anew"], steps(shorter)) == (True, [1, 3, 5])
    curve.add(map(line, range(6, 9)))
    assert steps(curve.update()) == [7]


def test_evaluations_stay_however_many_lines_are_between_them():
    """Each sort is thinned by itself."""
    curve = Curve(4)
    curve.add(line(step, evaluated=step % 100 == 0) for step in range(1, 401))
    update = curve.update()
    assert [point["step"] for point in update["points"] if "eval_loss" in point] == [100, 200, 300, 400]


def test_lines_that_are_none_are_left_out():
    """As a crash may leave them."""
    curve = Curve(4)
    curve.add([b"nonsense\n", b"[]\n", line(1)])
    assert steps(curve.update()) == [1]


@given(st.lists(st.lists(st.booleans(), max_size=40), max_size=8), st.integers(1, 9))
def test_who_puts_the_updates_together_has_a_bounded_curve_of_all_of_the_run(looks, points):
    """Whenever one looks: the steps ascend, they are some of those there were, at most 2 * points and the first among
    them; and of each sort, where there were any, at least half of `points` or all."""
    curve, shown, seen = Curve(points), [], []
    for look in looks:
        begin = len(seen)
        seen += look
        curve.add(line(begin + i + 1, evaluated) for i, evaluated in enumerate(look))
        update = curve.update()
        shown = steps(update) if update["anew"] else shown + steps(update)
        assert shown == sorted(set(shown))
        assert len(shown) <= 2 * points
        assert shown[:1] == ([1] if seen else [])
        for sort in (True, False):
            there = [i + 1 for i, evaluated in enumerate(seen) if evaluated is sort]
            kept = [step for step in shown if seen[step - 1] is sort]
            assert len(kept) >= min(len(there), points / 2)
            assert set(kept) <= set(there)
