"""Each mistake of a user's model gets one clear problem."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thalweg_proto.errors import Problem
from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models import check_model

CLASSES = DataSpec(input_shape=(4,), task="classification", classes=3)
TARGETS = DataSpec(input_shape=(4,), task="regression", target_shape=(2,))
X = np.ones((5, 4), dtype=np.float32)
KEY = np.array([0, 0, 0], dtype=np.uint64)
LABELLED = Batch(X, np.array([0, 1, 2, 0, 1]), KEY)
MEASURED = Batch(X, np.ones((5, 2), dtype=np.float32), KEY)


def good_init(rng: np.random.Generator) -> dict[str, Any]:
    return {"W": np.ones((4, 3), dtype=np.float32), "b": np.zeros(3, dtype=np.float32)}


def good_loss(params: Any, batch: Batch) -> Any:
    return ad.softmax_cross_entropy(batch.x @ params["W"] + params["b"], batch.y)


def good_predict(params: Any, x: Any) -> Any:
    return x @ params["W"] + params["b"]


def problems_of(**methods: Any) -> list[Problem]:
    """What the check finds in the good model with some methods replaced; None takes one away."""
    methods = {"init": good_init, "loss": good_loss, "predict": good_predict, **methods}
    model: Any = SimpleNamespace(**{name: method for name, method in methods.items() if method is not None})
    return check_model(model, CLASSES, LABELLED, np.random.default_rng(0))


def with_init(**changed: Any) -> list[Problem]:
    return problems_of(init=lambda rng: {**good_init(rng), **changed})


def test_a_good_model_has_no_problem() -> None:
    """With and without `predict`."""
    assert problems_of() == []
    assert problems_of(predict=None) == []


@pytest.mark.parametrize("missing", ["init", "loss"])
def test_a_missing_method_is_named(missing: str) -> None:
    """The problem says which method is missing and which there are."""
    (problem,) = problems_of(**{missing: None})
    assert problem.field == f"model.use (SimpleNamespace.{missing})"
    assert f"a method {missing}(" in problem.expected
    assert "predict" in problem.found


def test_both_missing_methods_are_named_together() -> None:
    """A thing that is no model at all, such as None from a forgotten return, lacks both."""
    found: Any = None
    problems = check_model(found, CLASSES, LABELLED, np.random.default_rng(0))
    assert [problem.field for problem in problems] == ["model.use (NoneType.init)", "model.use (NoneType.loss)"]
    assert all(problem.found == "no methods" for problem in problems)


@pytest.mark.parametrize(
    ("returned", "expected", "found"),
    [
        ([np.ones(3, dtype=np.float32)], "a dict of float32 arrays", "a list"),
        (None, "a dict of float32 arrays", "a NoneType"),
        ({}, "at least one parameter", "an empty dict"),
        ({3: np.ones(3, dtype=np.float32)}, "names that are text", "3, a int"),
        ({"": np.ones(3, dtype=np.float32)}, "a safetensors file can hold", "''"),
        ({"W": [1.0, 2.0]}, "W as a NumPy array of float32", "a list"),
        ({"W": np.ones((4, 3))}, "W of dtype float32", "float64"),
        ({"W": np.ones((4, 3), dtype=np.int64)}, "W of dtype float32", "int64"),
        ({"W": np.ones((4, 3), dtype=">f4")}, "W of dtype float32", ">f4"),
        ({"W": np.array([1, np.nan, np.inf], dtype=np.float32)}, "W finite", "2 of 3 elements"),
    ],
)
def test_what_init_returns_is_checked(returned: Any, expected: str, found: str) -> None:
    """Parameters come as a dict of finite float32 arrays by name."""
    (problem,) = problems_of(init=lambda rng: returned)
    assert problem.field == "model.use (SimpleNamespace.init)"
    assert expected in problem.expected
    assert found in problem.found


def test_all_wrong_parameters_are_named_together() -> None:
    """Two parameters that are not float32 give two problems."""
    problems = with_init(W=np.ones((4, 3)), b=np.zeros(3, dtype=np.float16))
    assert [(problem.expected, problem.found) for problem in problems] == [
        ("W of dtype float32", "float64"),
        ("b of dtype float32", "float16"),
    ]


def mean_is_missing(params: Any, batch: Batch) -> Any:
    return (batch.x @ params["W"] + params["b"]).sum(axis=1)


@pytest.mark.parametrize(
    ("loss", "expected", "found"),
    [
        (mean_is_missing, "a scalar", "an array of shape (5,)"),
        (lambda params, batch: mean_is_missing(params, batch).mean(keepdims=True), "a scalar", "shape (1,)"),
        (lambda params, batch: (good_loss(params, batch), 1.0), "a scalar tensor", "a tuple"),
        (lambda params, batch: {"loss": good_loss(params, batch)}, "a scalar tensor", "a dict"),
        (lambda params, batch: 1.0, "no exception", "TypeError: expected a function that returns a tensor"),
        (lambda params: None, "no exception", "TypeError"),
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(loss: Callable[..., Any], expected: str, found: str) -> None:
    """The problem names the shape, or the type, that the loss has."""
    (problem,) = problems_of(loss=loss)
    assert problem.field == "model.use (SimpleNamespace.loss)"
    assert expected in problem.expected
    assert found in problem.found


def test_a_loss_that_raises_shows_the_users_frames() -> None:
    """The hint is the traceback, in which no frame is Thalweg's own."""

    def loss(params: Any, batch: Batch) -> Any:
        return batch.x @ params["b"] @ params["W"]

    (problem,) = problems_of(loss=loss)
    assert problem.found.startswith("ValueError: matmul")
    assert 'batch.x @ params["b"] @ params["W"]' in problem.hint
    assert "thalweg_worker" not in problem.hint
    assert problem.hint.count("  File ") == 1


def test_branching_on_a_tensor_is_explained() -> None:
    """An `if` on a value that is not known yet leads to the advice to use autodiff.where."""

    def loss(params: Any, batch: Batch) -> Any:
        value = good_loss(params, batch)
        return value if value < 10 else value / 2

    (problem,) = problems_of(loss=loss)
    assert "autodiff.where" in problem.found


def test_a_function_of_numpy_on_a_tensor_is_explained() -> None:
    """np.exp(tensor) raises, and the hint leads to autodiff's exp."""
    (problem,) = problems_of(loss=lambda params, batch: np.exp(good_loss(params, batch)))
    assert "NumPy cannot take a tensor" in problem.hint


def test_unused_parameters_are_named() -> None:
    """Each parameter that the loss does not depend on gives a problem."""
    zero = np.zeros(3, dtype=np.float32)
    problems = with_init(spare=zero, gate=zero)
    assert [problem.found for problem in problems] == [
        "a loss that does not depend on spare",
        "a loss that does not depend on gate",
    ]


def test_a_loss_of_nothing_is_one_mistake() -> None:
    """And not one for each parameter."""
    (problem,) = problems_of(loss=lambda params, batch: (batch.x * 2.0).mean())
    assert problem.field == "model.use (SimpleNamespace.loss)"
    assert (problem.expected, problem.found) == ("one that depends on a parameter", "a loss that depends on none")


@pytest.mark.parametrize(
    ("predict", "found"),
    [
        (lambda params, x: (x @ params["W"]).sum(axis=1), "shape (5,)"),
        (lambda params, x: (x @ params["W"])[:, :2], "shape (5, 2)"),
        (lambda params, x: [x @ params["W"]], "a list"),
        (lambda params, x: x @ params["missing"], "KeyError: 'missing'"),
    ],
)
def test_wrong_predictions_are_refused(predict: Callable[..., Any], found: str) -> None:
    """Scores have the shape (n, classes); a `predict` that raises is a problem too."""
    (problem,) = problems_of(predict=predict)
    assert problem.field == "model.use (SimpleNamespace.predict)"
    assert found in problem.found


def test_predictions_have_the_shape_of_the_targets() -> None:
    """For regression (n, *target_shape) is expected."""
    model: Any = SimpleNamespace(
        init=lambda rng: {"W": np.ones((4, 2), dtype=np.float32)},
        loss=lambda params, batch: ad.mean_squared_error(batch.x @ params["W"], batch.y),
        predict=lambda params, x: x @ params["W"],
    )
    assert check_model(model, TARGETS, MEASURED, np.random.default_rng(0)) == []
    model.predict = lambda params, x: (x @ params["W"])[:, 0]
    (problem,) = check_model(model, TARGETS, MEASURED, np.random.default_rng(0))
    assert "(n, *target_shape) = (5, 2)" in problem.expected
    assert problem.found == "shape (5,)"


def test_scores_of_a_sequence_are_wanted_at_each_position() -> None:
    """(n, positions, classes), and no other shape."""
    spec = DataSpec(input_shape=(4,), task="classification", classes=3, target_shape=(2,))
    batch = Batch(X, np.zeros((5, 2), np.int64), KEY)

    def model(predict: Any) -> Any:
        return SimpleNamespace(
            init=lambda rng: {"W": np.ones((4, 6), np.float32)},
            loss=lambda params, batch: ad.softmax_cross_entropy((batch.x @ params["W"]).reshape((5, 2, 3)), batch.y),
            predict=predict,
        )

    def check(predict: Any) -> list[Problem]:
        return check_model(model(predict), spec, batch, np.random.default_rng(0))

    assert check(lambda params, x: (x @ params["W"]).reshape((5, 2, 3))) == []
    [problem] = check(lambda params, x: x @ params["W"])
    assert "scores of shape (n, *target_shape, classes) = (5, 2, 3)" in problem.expected
    assert problem.found == "shape (5, 6)"


def test_a_mistake_in_the_loss_and_one_in_predict_are_reported_together() -> None:
    """One does not hide the other."""
    fields = [p.field for p in problems_of(loss=mean_is_missing, predict=lambda params, x: x)]
    assert fields == ["model.use (SimpleNamespace.loss)", "model.use (SimpleNamespace.predict)"]


def test_the_check_never_raises() -> None:
    """Even a model that tries to end the process gives a problem."""

    def stop(rng: np.random.Generator) -> Any:
        raise SystemExit(3)

    (problem,) = problems_of(init=stop)
    assert problem.found == "SystemExit: 3"
