"""The calls of the package: what they take, when they record anew, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from thalweg_worker import autodiff as ad

ONE = {"x": np.ones(3)}


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Checked:
    """A dataclass that insists on arrays."""

    array: Any
    power: int = 2

    def __post_init__(self) -> None:
        assert isinstance(self.array, np.ndarray)


def test_arguments_may_be_nested() -> None:
    """Arrays in dicts, tuples, lists, named tuples and dataclasses are bound; plain values come through as they are."""
    seen: list[Any] = []

    def fn(p: Any, nested: Any, checked: Checked, mode: str | None) -> ad.Tensor:
        seen.append((type(nested["pair"]), type(nested["list"]), type(checked), checked.power, mode))
        left, right = nested["pair"]
        return (p["x"] * left + right * nested["list"][0] + checked.array**checked.power).sum()

    vg = ad.value_and_grad(fn)
    for scale in (1.0, 2.0):
        nested = {"pair": Pair(np.full(3, scale), np.full(3, 10.0)), "list": [np.full(3, scale), "unused"]}
        value, gradient = vg(ONE, nested, Checked(np.full(3, scale)), None)
        assert value == 3 * (scale + 10 * scale + scale**2)
        assert gradient["x"].tolist() == [scale] * 3
    assert seen == [(Pair, list, Checked, 2, None)]


def test_python_runs_at_recording_only() -> None:
    """The function is called once for each structure: shapes, dtypes and plain values."""
    calls: list[Any] = []

    def fn(p: Any, x: Any, scale: Any) -> ad.Tensor:
        calls.append(scale)
        return (p["x"] * x * scale).sum()

    vg = ad.value_and_grad(fn)
    assert [vg(ONE, np.full(3, i), 2.0)[0] for i in range(3)] == [0, 6, 12]
    assert calls == [2.0]
    vg(ONE, np.full(3, 1.0), 3.0)
    vg(ONE, np.full(3, 1.0), 3)  # equal, and of another type
    vg(ONE, np.full((2, 3), 1.0), 3)
    vg({"x": np.ones(3, np.float32)}, np.full((2, 3), 1.0), 3)
    assert calls == [2.0, 3.0, 3, 3, 3]
    assert vg(ONE, np.full(3, 1.0), np.array(5.0))[0] == vg(ONE, np.full(3, 1.0), np.array(5.0))[0] == 15
    assert len(calls) == 6


def test_the_number_of_recordings_is_bounded() -> None:
    """Plain values that change at each call push out old recordings, not memory; the last used ones stay."""
    vg = ad.value_and_grad(lambda p, scale: (p["x"] * scale).sum())
    for scale in range(30):
        assert vg(ONE, 0)[0] == 0
        assert vg(ONE, scale)[0] == 3 * scale
    assert len(vg._recordings) == 8
    first = next(iter(vg._recordings.values()))
    vg(ONE, 0)
    assert next(iter(vg._recordings.values())) is first


def test_captured_arrays_are_constants_of_the_chains_dtype() -> None:
    """A float64 array captured by a float32 function does not make it compute in float64."""
    captured = np.array([1.0, 2.0, 3.0])
    result = ad.forward(lambda p: captured * p["x"] + np.float64(1) + 2)({"x": np.ones(3, np.float32)})
    assert (result.dtype, result.tolist()) == (np.float32, [4, 5, 6])


def test_arguments_of_another_floating_dtype_are_converted() -> None:
    """The chain computes in the dtype of the parameters; float64 if any of them is."""
    x = np.ones(3)
    single = {"x": np.ones(3, np.float32)}
    assert ad.forward(lambda p, x: p["x"] * x)(single, x).dtype == np.float32
    mixed = {**single, "y": np.ones(3)}
    fn = ad.value_and_grad(lambda p, x: (p["x"] * p["y"] * x).sum())
    assert {name: g.dtype for name, g in fn(mixed, x)[1].items()} == {"x": np.float32, "y": np.float64}


def test_a_parameter_without_influence_has_a_zero_gradient_and_is_named() -> None:
    """Zeros, and `unused` says which; a comparison is no influence, since nothing flows back through it."""
    p = {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2), "d": np.ones(2)}
    vg = ad.value_and_grad(lambda p: (ad.where(p["b"] > 0, p["a"], 0.0) + 0 * p["d"]).sum())
    assert vg.unused(p) == ("b", "c")
    assert {name: g.tolist() for name, g in vg(p)[1].items()} == {"a": [1, 1], "b": [0, 0], "c": [0, 0], "d": [0, 0]}


def test_a_loss_without_parameters_has_its_value() -> None:
    """A loss that depends on no parameter has zero gradients."""
    value, gradient = ad.value_and_grad(lambda p, x: x.sum())(ONE, np.ones(3))
    assert (value, gradient["x"].tolist()) == (3, [0, 0, 0])


def test_the_value_is_a_python_float() -> None:
    """Also in float32."""
    assert type(ad.value_and_grad(lambda p: p["x"].sum())({"x": np.ones(3, np.float32)})[0]) is float


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        (lambda p: p["x"] * 2, ValueError, r"scalar tensor, of shape \(\), found shape \(3,\); take its .mean"),
        (lambda p: 3.0, TypeError, "scalar tensor, found float"),
        (lambda p: None, TypeError, "scalar tensor, found NoneType"),
        (lambda p: (p["x"], p["x"]), TypeError, "scalar tensor, found tuple"),
        (lambda p: (p["x"] > 0)[0], TypeError, "tensor of float64, found bool"),
        (lambda p: p["x"] @ np.ones(4), ValueError, r"matmul: .*found \(3,\) and \(4,\)"),
        (lambda p: p["x"] + np.ones(4), ValueError, r"add: .*broadcast together, found \(3,\) and \(4,\)"),
        (lambda p: np.ones(4) - p["x"], ValueError, r"subtract: .*found \(4,\) and \(3,\)"),
        (lambda p: p["x"].reshape(2, -1), ValueError, r"reshape: .* 3 elements, as \(3,\) has, found \(2, "),
        (lambda p: p["x"].reshape(-1, -1), ValueError, r"reshape: .*found \(-1, -1\)"),
        (lambda p: p["x"].transpose(1, 0), ValueError, r"transpose: .*shape \(3,\), found \(1, 0\)"),
        (lambda p: p["x"].sum(1), ValueError, r"sum: expected axes of a tensor of shape \(3,\), found 1"),
        (lambda p: p["x"][:0].mean(), ValueError, r"mean: .*at least one element, found shape \(0,\)"),
        (lambda p: p["x"][:0].max(), ValueError, r"max: .*at least one element, found shape \(0,\)"),
        (lambda p: p["x"][3], IndexError, r"index: .*shape \(3,\)"),
        (lambda p: p["x"][[0, 3]].sum(), IndexError, r"index: expected indices in \[-3, 3\), found 3"),
        (lambda p: p["x"][np.array([True, False, True])], TypeError, "index: expected integer.* found bool; .*where"),
        (lambda p: p["x"][True], TypeError, "index: .*found bool; .*where"),
        (lambda p: p["x"][0.5], IndexError, "index: "),
        (lambda p: ad.embedding(p["x"], np.array([0, -1])).sum(), IndexError, r"embedding: .*\[0, 3\), found -1"),
        (lambda p: ad.embedding(p["x"], np.ones(1)), TypeError, "embedding: expected integer indices, found float64"),
        (lambda p: ad.where(p["x"], 1.0, 0.0), TypeError, "where: expected a mask of bool, found float64"),
        (lambda p: ad.concatenate([p["x"], np.ones((1, 3))]), ValueError, r"concatenate: .*found \(3,\), \(1, 3\)"),
        (lambda p: ad.layer_norm(p["x"], np.ones(3), np.ones(2)), ValueError, r"layer_norm: .*\(3,\), \(3,\), \(2,\)"),
        (lambda p: ad.exp(np.ones(3)), TypeError, "exp: expected at least one tensor, found ndarray; use NumPy"),
        (lambda p: p["x"] + "1", TypeError, "add: expected a tensor, an array of numbers or a number, found str"),
        (lambda p: p["x"] + np.array(["1"]), TypeError, "add: .*found ndarray"),
        (lambda p: np.exp(p["x"]), TypeError, "Tensor"),
        (lambda p: np.asarray(p["x"]), TypeError, "same name in thalweg_worker.autodiff"),
        (lambda p: p["x"] if p["x"].sum() > 0 else 0, TypeError, r"cannot steer `if`.*where\(mask, a, b\)"),
        (lambda p: float(p["x"].sum()), TypeError, "return it from the function"),
        (lambda p: range(p["x"].sum()), TypeError, "not known while the chain is recorded"),
        (lambda p: p["x"].__setitem__(0, 1.0), TypeError, "not changed in place; use autodiff.where"),
        (lambda p: len(p["x"].sum()), TypeError, "without axes"),
        (lambda p: ad.grad(lambda q: q["x"].sum())({"x": p["x"]}), TypeError, "derivatives of derivatives"),
        (lambda p: ad.forward(lambda q, x: q["x"] * x)(ONE, p["x"]), TypeError, "derivatives of derivatives"),
    ],
)  # fmt: skip
def test_a_wrong_function_is_told_what_is_wrong(fn: Any, error: Any, message: str) -> None:
    """Each mistake raises an error that names the operation, what it expects and what it found."""
    with pytest.raises(error, match=message):
        ad.value_and_grad(fn)(ONE)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([np.ones(3)], TypeError, "a dict of arrays, found list"),
        ({}, ValueError, "at least one parameter"),
        ({"w": np.ones(3, int)}, TypeError, "parameter 'w': expected float32 or float64, found int64"),
        ({"w": np.ones(3, np.float16)}, TypeError, "parameter 'w': .*found float16"),
        ({"w": 1.0}, TypeError, "parameter 'w': expected an array, found float"),
        ({"w": [1.0]}, TypeError, "parameter 'w': expected an array, found list"),
    ],
)
def test_wrong_parameters_are_named(params: Any, error: Any, message: str) -> None:
    """Parameters are a dict of float32 or float64 arrays."""
    with pytest.raises(error, match=message):
        ad.value_and_grad(lambda p: p["w"].sum())(params)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ({}, "none for 'x'"),
        ({"x": np.ones(4)}, r"float64 and shape \(3,\), found float64 and \(4,\)"),
        ({"x": np.ones(3, np.float32)}, r"found float32 and \(3,\)"),
        ({"x": np.ones(6)[::2]}, "not C-contiguous"),
    ],
)
def test_a_wrong_out_is_named(out: Any, message: str) -> None:
    """`out` has a C-contiguous array of the right shape and dtype for each parameter."""
    with pytest.raises(ValueError, match=message):
        ad.grad(lambda p: p["x"].sum())(ONE, out=out)


def test_a_tensor_kept_from_an_earlier_recording_is_refused() -> None:
    """Tensors live as long as the call that made them."""
    kept: list[ad.Tensor] = []
    ad.grad(lambda p: kept.append(p["x"]) or p["x"].sum())(ONE)
    with pytest.raises(ValueError, match="add: a tensor of another recording was kept"):
        ad.grad(lambda p: (p["x"] + kept[0]).sum())(ONE)
    with pytest.raises(ValueError, match="found one of another"):
        ad.grad(lambda p: kept[0].sum())(ONE)


def test_an_argument_that_is_neither_array_nor_plain_is_named() -> None:
    """An object that cannot be a part of the key of a recording is refused."""
    with pytest.raises(TypeError, match="found set"):
        ad.grad(lambda p, s: p["x"].sum())(ONE, {1, 2})
    with pytest.raises(TypeError, match="array 0 of the arguments: expected numbers, found complex128"):
        ad.grad(lambda p, s: p["x"].sum())(ONE, np.ones(3, complex))


def test_what_is_not_a_function_is_refused() -> None:
    """The transforms take functions; forward ones return at least one tensor."""
    with pytest.raises(TypeError, match=r"expected a function of .*found int"):
        ad.grad(3)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(TypeError, match="returns a tensor, found tuple"):
        ad.forward(lambda p: (1, 2))(ONE)


def test_a_bound_call_is_the_call_on_what_the_arrays_hold_then() -> None:
    """Bound once, called after the arrays changed: value and gradient of a call with these arrays, bit by bit."""
    rng = np.random.default_rng(0)
    vg = ad.value_and_grad(lambda p, x, scale: (ad.tanh(x @ p["W"]) * scale + p["b"]).mean())
    params = {"W": np.zeros((4, 3), np.float32), "b": np.zeros(3, np.float32), "unused": np.ones(2, np.float32)}
    x, out = np.zeros((5, 4), np.float32), {name: np.full_like(p, np.nan) for name, p in params.items()}
    bound = vg.bind(params, x, 2.0, out=out, seed=0.5)
    for _ in range(3):
        for array in (*params.values(), x):
            array[...] = rng.standard_normal(array.shape)
        value, gradient = vg(params, x, 2.0, seed=0.5)
        assert bound() == value
        assert {name: g.tobytes() for name, g in out.items()} == {name: g.tobytes() for name, g in gradient.items()}


@pytest.mark.parametrize("key", [(0, 1), (-1, np.int64(0)), (..., 0, 1), (0, ..., 1), 1, (slice(1), None, 0)])
def test_a_bound_call_reads_an_indexed_parameter_where_it_lies(key: Any) -> None:
    """Also a single element, which NumPy copies when it is indexed in the plain way."""
    vg = ad.value_and_grad(lambda p: (p["w"][key] ** 2).sum())
    params, out = {"w": np.zeros((2, 3))}, {"w": np.full((2, 3), np.nan)}
    bound = vg.bind(params, out=out)
    params["w"][...] = np.arange(1.0, 7.0).reshape(2, 3)
    assert bound() == (params["w"][key] ** 2).sum() != 0
    expected = np.zeros((2, 3))
    expected[key] = 2 * params["w"][key]
    np.testing.assert_array_equal(out["w"], expected)


def test_two_bindings_of_one_function_do_not_disturb_each_other() -> None:
    """As the loop has them: one for each buffer of the parameters."""
    vg = ad.value_and_grad(lambda p: (p["w"] * p["w"]).sum())
    pairs = [({"w": np.full(3, v, np.float32)}, {"w": np.empty(3, np.float32)}) for v in (1, 2)]
    bound = [vg.bind(params, out=out) for params, out in pairs]
    assert [call() for call in (*bound, *bound)] == [3.0, 12.0, 3.0, 12.0]
    assert [out["w"].tolist() for _, out in pairs] == [[2.0] * 3, [4.0] * 3]


def test_a_binding_needs_buffers_that_fit() -> None:
    """What a call would refuse is refused when it is bound."""
    vg = ad.value_and_grad(lambda p: p["w"].sum())
    with pytest.raises(ValueError, match="expected a C-contiguous array"):
        vg.bind({"w": np.zeros(3, np.float32)}, out={"w": np.zeros(4, np.float32)})


def test_a_binding_needs_arrays_that_can_be_seen_in_any_shape() -> None:
    """A reshaped view of an array that is not C-contiguous would be a copy of what it held when it was bound."""
    vg = ad.value_and_grad(lambda p, x: (p["w"].reshape(6) * x.reshape(6)).sum())
    straight, turned = np.ones((2, 3)), np.ones((3, 2)).T
    assert vg({"w": turned}, straight)[0] == 6
    for w, x in ((turned, straight), (straight, turned)):
        with pytest.raises(ValueError, match="expected C-contiguous arrays"):
            vg.bind({"w": w}, x, out={"w": np.empty((2, 3))})
