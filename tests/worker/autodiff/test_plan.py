"""The plan of memory: sharing it must never change a result.

The oracle is the same chain with sharing turned off: each result in memory of its own, nothing taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_worker import autodiff as ad
from thalweg_worker.autodiff import plan

Params = dict[str, Any]


def apart(fn: Callable[..., ad.Tensor], p: Params, *args: Any) -> tuple[float, Params]:
    """value_and_grad without any sharing of memory."""

    def own_homes(instructions: Any, last_read: Any) -> dict[int, int]:
        return {x.slot: x.slot for i in instructions for x in (i.out, *i.scratch)}

    def one_after_the_other(spans: dict[int, tuple[int, int, int]]) -> tuple[dict[int, int], int]:
        offsets, end = {}, 0
        for slot, (nbytes, _, _) in spans.items():
            offsets[slot], end = end, end + -(-nbytes // 64) * 64
        return offsets, end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "take_over", own_homes)
        patch.setattr(plan, "pack", one_after_the_other)
        return ad.value_and_grad(fn)(p, *args)


def square(seed: int = 0, size: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((size, size))


def used_later(p: Params) -> ad.Tensor:
    h = p["a"] * 2
    y = ad.relu(h)
    return (y + h).sum()  # relu must not overwrite h


def twice_itself(p: Params) -> ad.Tensor:
    h = p["a"] * 2
    return ((h + h) * (h * h)).sum()


def relu_times_itself(p: Params) -> ad.Tensor:
    h = p["a"] @ p["b"]
    return (ad.relu(h) * h).sum()


def view_of_an_intermediate(p: Params) -> ad.Tensor:
    h = p["a"] @ p["b"]
    top = h[:2]
    h = h * 3  # may not overwrite h while `top` still looks at it
    return (top * h[1:]).sum() + (top**2).sum()


def itself_turned(p: Params) -> ad.Tensor:
    h = p["a"] @ p["b"]
    return ((h + h.T) ** 3).sum()  # in place it would read what it has just written


def itself_reversed(p: Params) -> ad.Tensor:
    h = p["a"] @ p["b"]
    return ((h * h[::-1]) ** 2).sum()


def reshaped_then_overwritten(p: Params) -> ad.Tensor:
    h = p["a"] @ p["b"]
    flat = h.reshape(-1)
    return (ad.exp(flat * 0.1) * flat).sum() + (h.reshape(1, 3, 3) + 1.0).max()


def row_of_itself(p: Params) -> ad.Tensor:
    h = p["a"] @ p["b"]
    return ((h - h[0]) * h[:, :1]).sum()  # broadcast from its own memory


def parameter_used_twice(p: Params) -> ad.Tensor:
    return ((p["a"] @ p["b"]) * (p["b"] @ p["a"])).sum()


def parameter_used_four_times(p: Params) -> ad.Tensor:
    return (p["a"] @ p["a"] @ p["a"] + p["a"].T * p["a"]).sum() + p["b"].sum()


def parameters_that_share_a_gradient(p: Params) -> ad.Tensor:
    return ((p["a"] + p["b"]) ** 2).sum()


def views_of_parameters(p: Params) -> ad.Tensor:
    both = ad.concatenate([p["a"].T, p["b"].reshape(9)[:6].reshape(2, 3)])
    return (both * both).sum() + p["a"][1].sum()


def turned_parameters(p: Params) -> ad.Tensor:
    return ad.tanh(p["a"].T @ p["b"].T).sum()


def reshaped_turned_parameter(p: Params) -> ad.Tensor:
    return (p["a"].T.reshape(9) * ad.exp(p["b"].reshape(9))).sum()


def parameter_as_loss(p: Params) -> ad.Tensor:
    return p["a"][0, 0]


def loss_also_used(p: Params) -> ad.Tensor:
    partial = (p["a"] * p["b"]).sum()
    return partial * partial + partial


def gradient_written_early_and_read_late(p: Params) -> ad.Tensor:
    h = p["a"] * 1.0
    return (ad.tanh(h) + h * p["b"]).sum()


def many_small_steps(p: Params) -> ad.Tensor:
    h = p["a"]
    for i in range(6):
        h = ad.tanh(h @ p["b"]) + h * (i + 1) * 0.1
    return ad.log_softmax(h)[:, 0].mean() + ad.layer_norm(h, p["a"][0], p["b"][0]).max()


CHAINS = [
    used_later, twice_itself, relu_times_itself, view_of_an_intermediate, itself_turned, itself_reversed,
    reshaped_then_overwritten, row_of_itself, parameter_used_twice, parameter_used_four_times,
    parameters_that_share_a_gradient, views_of_parameters, turned_parameters, reshaped_turned_parameter,
    parameter_as_loss, loss_also_used, gradient_written_early_and_read_late, many_small_steps,
]  # fmt: skip


@pytest.mark.parametrize("fn", CHAINS, ids=lambda fn: fn.__name__)
def test_sharing_memory_changes_no_bit(fn: Callable[..., ad.Tensor], check_gradient: Callable[..., Any]) -> None:
    """Chains made to trip the planner: the same bits as without sharing, and the gradient of central differences."""
    p = {"a": square(0), "b": square(1)}
    value, gradient = ad.value_and_grad(fn)(p)
    expected_value, expected = apart(fn, p)
    assert value == expected_value
    for name in p:
        assert gradient[name].tobytes() == expected[name].tobytes(), name
    check_gradient(fn, p)


UNARY: list[Callable[[Any], ad.Tensor]] = [
    ad.relu, ad.tanh, ad.sigmoid, ad.negative, ad.log_softmax, lambda h: h.T, lambda h: h[::-1], lambda h: h * h,
    lambda h: h.reshape(9).reshape(3, 3), lambda h: h + h.T, lambda h: h - h.mean(0), lambda h: h[1] + h,
    lambda h: ad.concatenate([h[2:], h[:2]]), lambda h: ad.where(h > 0, h, h * 0.5), lambda h: h.max(1, True) - h,
]  # fmt: skip
BINARY: list[Callable[[Any, Any], ad.Tensor]] = [
    ad.add, ad.multiply, ad.subtract, lambda a, b: ad.tanh(a @ b), lambda a, b: a + b.T, lambda a, b: a[0] * b,
]  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(UNARY), st.integers(0, 99)),
        st.tuples(st.sampled_from(BINARY), st.integers(0, 99), st.integers(0, 99)),
    ),
    min_size=1,
    max_size=12,
)


ends = st.lists(st.integers(0, 99), min_size=1, max_size=4)


def random_chain(program: list[Any], ends: list[int]) -> Callable[..., ad.Tensor]:
    """A loss of the parameters a and b, (3, 3): the operations of `program` on earlier results, of which some count."""

    def fn(p: Params) -> ad.Tensor:
        pool = [p["a"], p["b"]]
        for operation, *places in program:
            pool.append(operation(*(pool[place % len(pool)] for place in places)))
        return sum((ad.tanh(pool[-1 - end % len(pool)]).sum() for end in ends), 0.0 * p["a"].sum())

    return fn


@given(steps, ends)
@settings(max_examples=60, deadline=None)
def test_sharing_memory_changes_no_bit_of_a_random_chain(program: list[Any], ends: list[int]) -> None:
    """Any chain of operations on earlier results gives the same bits as without sharing."""
    fn, p = random_chain(program, ends), {"a": square(0), "b": square(1)}
    value, gradient = ad.value_and_grad(fn)(p)
    expected_value, expected = apart(fn, p)
    assert value == expected_value
    assert all(gradient[name].tobytes() == expected[name].tobytes() for name in p)


spans = st.dictionaries(
    st.integers(0, 50),
    st.tuples(st.integers(0, 500), st.integers(0, 9), st.integers(0, 9)).map(lambda s: (s[0], min(s[1:]), max(s[1:]))),
)


@given(spans)
@settings(max_examples=200, deadline=None)
def test_buffers_in_use_at_the_same_time_do_not_overlap(spans: dict[int, tuple[int, int, int]]) -> None:
    """Packed buffers are aligned, inside the arena, and apart while both are in use."""
    offsets, size = plan.pack(spans)
    placed = [(offsets[slot], offsets[slot] + nbytes, first, last) for slot, (nbytes, first, last) in spans.items()]
    assert all(begin % plan.ALIGNMENT == 0 and end <= size for begin, end, _, _ in placed)
    for i, (begin, end, first, last) in enumerate(placed):
        for other_begin, other_end, other_first, other_last in placed[:i]:
            assert end <= other_begin or other_end <= begin or last < other_first or other_last < first


def test_a_buffer_is_used_again() -> None:
    """Two buffers in use one after the other share an address; a third that spans both does not."""
    offsets, size = plan.pack({0: (64, 0, 1), 1: (64, 2, 3), 2: (64, 1, 2)})
    assert offsets[0] == offsets[1] != offsets[2]
    assert size == 128


def arena_bytes(transformed: Any) -> int:
    (recording,) = transformed._recordings.values()
    return int(recording.program.arena.nbytes)


def test_memory_of_a_forward_chain_does_not_grow_with_its_length() -> None:
    """Forward, a chain of 50 products lives in two buffers; a gradient keeps the 50 results that it needs."""

    def deep(p: Params) -> ad.Tensor:
        h = p["a"]
        for _ in range(50):
            h = ad.tanh(h @ p["a"])
        return h.sum()

    p = {"a": square(size=64)}
    forward, backward = ad.forward(deep), ad.grad(deep)
    forward(p)
    backward(p)
    assert arena_bytes(forward) < 3 * p["a"].nbytes
    assert 50 * p["a"].nbytes <= arena_bytes(backward) < 56 * p["a"].nbytes


def test_a_layer_works_in_place() -> None:
    """relu(x @ w + b) needs one buffer for its result: the sum and the relu overwrite the product."""
    layer = ad.forward(lambda p, x: ad.relu(x @ p["w"] + p["b"]))
    layer({"w": square(size=64), "b": square(size=64)[0]}, square(1, size=64))
    assert arena_bytes(layer) == 64 * 64 * 8


def test_what_no_result_depends_on_is_not_computed() -> None:
    """Operations whose results are dropped cost nothing at replay."""
    calls: list[int] = []

    def fn(p: Params) -> ad.Tensor:
        chain = p["a"].chain
        chain.emit(lambda x, out: calls.append(1), (p["a"],), p["a"].shape)
        return p["a"].sum()

    ad.value_and_grad(fn)({"a": square()})
    assert calls == []
