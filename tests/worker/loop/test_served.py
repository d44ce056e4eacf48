"""From which tensors are final to how much of the flat gradient is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.layout import Layout
from thalweg_worker.loop.served import _Suffix


def test_the_suffix_grows_over_tensors_by_hand():
    """a is [0, 20), b [32, 36), c [48, 60): what is final behind a gap counts as soon as all behind it is."""
    told: list[int] = []
    suffix = _Suffix(Layout.of({"a": (20,), "b": (2, 2), "c": (12,)}), told.append)
    for name, first, expected in (
        ("c", 8, [56]),
        ("a", 10, []),
        ("c", 0, [36]),
        ("b", 1, [33]),
        ("b", 0, [10]),
        ("a", 4, [4]),
        ("a", 0, [0]),
    ):
        told.clear()
        suffix.ready(name, first)
        assert told == expected


def test_the_first_layer_last_is_told_of_layer_by_layer():
    """As the backward pass goes, where each tensor is told of once; the next step begins anew."""
    told: list[int] = []
    suffix = _Suffix(Layout.of({"w1": (16,), "w2": (32,), "w3": (16,)}), told.append)
    for _ in range(2):
        for name in ("w3", "w2", "w1"):
            suffix.ready(name, 0)
    assert told == [48, 16, 0] * 2


SHAPES = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(1, 7), max_size=2).map(tuple), min_size=1, max_size=6
)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Layout, list[list[tuple[str, int]]]]:
    """A layout, and for some steps: in which order its tensors become final, each from its end down to 0."""
    layout = Layout.of(draw(SHAPES))
    return layout, [draw(order(layout)) for _ in range(draw(st.integers(1, 3)))]


@st.composite
def order(draw: st.DrawFn, layout: Layout) -> list[tuple[str, int]]:
    left = {}
    for tensor in layout.tensors:
        size = tensor.end - tensor.begin
        firsts = draw(st.sets(st.integers(1, size - 1), max_size=3)) if size > 1 else set()
        left[tensor.name] = [0, *sorted(firsts)]
    words = []
    while left:
        name = draw(st.sampled_from(sorted(left)))
        words.append((name, left[name].pop()))
        if not left[name]:
            del left[name]
    return words


@given(steps())
def test_what_is_told_is_the_whole_suffix_that_is_final(case):
    """Marking every element says the same: each time that the suffix grows it is told, and in the end it is all.

    Gaps count as final. The next step begins with nothing final.
    """
    layout, orders = case
    told: list[int] = []
    suffix = _Suffix(layout, told.append)
    places = {tensor.name: tensor for tensor in layout.tensors}
    for words in orders:
        final = np.ones(layout.size, dtype=bool)
        for tensor in layout.tensors:
            final[tensor.begin : tensor.end] = False
        end = layout.tensors[-1].end
        told.clear()
        for name, first in words:
            final[places[name].begin + first : places[name].end] = True
            missing = np.flatnonzero(~final)
            begin = int(missing[-1]) + 1 if len(missing) else 0
            before = len(told)
            suffix.ready(name, first)
            assert told[before:] == ([begin] if begin < end else [])
            end = begin
        assert told[-1] == 0
        assert told == sorted(set(told), reverse=True)
