from __future__ import annotations

import hashlib
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from thalweg_proto.layout import ALIGNMENT_ELEMENTS, Layout

SHAPES = st.dictionaries(
    st.text("abcdef.0123456789", min_size=1, max_size=6),
    st.lists(st.integers(1, 5), max_size=3).map(tuple),
    min_size=1,
    max_size=6,
)


def filled(layout: Layout) -> np.ndarray:
    """A vector whose parameters count up and whose gaps are zero."""
    flat = np.zeros(layout.size, dtype=np.float32)
    for tensor in layout.tensors:
        flat[tensor.begin : tensor.end] = np.arange(tensor.begin, tensor.end)
    return flat


def test_tensors_lie_in_the_order_of_their_names_at_multiples_of_16():
    """Two tensors of 3 and 20 elements: "a" at 0, "b" at 16, and 48 elements in all."""
    layout = Layout.of({"b": (4, 5), "a": (3,)})
    assert [(t.name, t.begin, t.end) for t in layout.tensors] == [("a", 0, 3), ("b", 16, 36)]
    assert layout.size == 48
    assert layout.parameters == 23


@given(SHAPES)
def test_views_are_disjoint_and_cover_every_parameter(shapes):
    """Writing each view once touches each parameter once, and no gap."""
    layout = Layout.of(shapes)
    flat = np.zeros(layout.size, dtype=np.float32)
    for view in layout.views(flat).values():
        view += 1
    assert flat.max() <= 1
    assert int(flat.sum()) == layout.parameters
    assert all(t.begin % ALIGNMENT_ELEMENTS == 0 for t in layout.tensors)


@given(SHAPES)
def test_sha256_is_that_of_the_data_of_a_safetensors_file(shapes):
    """Anyone can check the hash of the weights: it is that of the file behind its header."""
    layout = Layout.of(shapes)
    flat = filled(layout)
    file = save({name: np.ascontiguousarray(view) for name, view in layout.views(flat).items()})
    header_bytes = int.from_bytes(file[:8], "little")
    assert layout.sha256(flat) == hashlib.sha256(file[8 + header_bytes :]).hexdigest()


@given(SHAPES)
def test_locate_inverts_the_views(shapes):
    """The element found at the place that `locate` names is the one that was asked for."""
    layout = Layout.of(shapes)
    flat = filled(layout)
    for tensor in layout.tensors:
        name, position = layout.locate(tensor.end - 1)
        assert layout.views(flat)[name][position] == tensor.end - 1


def test_locate_refuses_a_gap():
    """An element between two tensors belongs to none."""
    with pytest.raises(IndexError, match="element 5 belongs to no tensor"):
        Layout.of({"a": (3,)}).locate(5)


def test_names_sha256_tells_models_apart():
    """Equal names and shapes, whatever their order, give equal hashes; another shape another one."""
    one = Layout.of({"a": (2, 3), "b": (1,)}).names_sha256
    assert one == Layout.of({"b": (1,), "a": (2, 3)}).names_sha256
    assert one != Layout.of({"a": (3, 2), "b": (1,)}).names_sha256


def test_averaged_tensors_that_lie_side_by_side_are_one_range_with_the_gap():
    """Two statistics between two weights, and one at the end; where there is none nothing changes."""
    shapes = {"a.weight": (3,), "b.mean": (3,), "b.var": (3,), "c.weight": (3,), "d.mean": (20,)}
    layout = Layout.of(shapes, {"b.mean", "b.var", "d.mean"})
    assert layout.averaged == ((16, 35), (64, 84))
    assert Layout.of(shapes).averaged == ()
    assert Layout.of(shapes).names_sha256 != layout.names_sha256
    assert [t[:4] for t in map(astuple, layout.tensors)] == [t[:4] for t in map(astuple, Layout.of(shapes).tensors)]
