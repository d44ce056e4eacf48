"""What a user's model can get wrong, found on one batch before anything starts.

Rules:

- A check never raises: what the model raises becomes a problem, with the user's part of the traceback.
- What cannot be asked because of an earlier mistake is not asked, so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from thalweg_proto.errors import Problem
from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models.protocol import Model, Predictor
from thalweg_worker.models.tracebacks import indented, summary, user_traceback

_NEEDED = {
    "init": "a method init(rng) that returns the parameters by name",
    "loss": "a method loss(params, batch) that returns a scalar",
}
# The commonest slip, np.exp(tensor): NumPy refuses it before a tensor could say anything.
_NUMPY_SAYS = "does not support ufuncs"
_FOR_NUMPY = "\nNumPy cannot take a tensor: use the function of the same name in thalweg_worker.autodiff"


def check_model(model: Model, data_spec: DataSpec, sample_batch: Batch, rng: np.random.Generator) -> list[Problem]:
    """Every mistake that shows on one batch; an empty list where the model can be trained.

    sample_batch: a few samples as in training, the key not None, so that what is random runs too
    rng:          for `init`

    It finds a missing method; parameters that are not there, not float32, not finite or badly named; a loss
    that raises, is no scalar or does not use a parameter; predictions that raise or have another shape than
    expected.
    """
    if missing := _missing_methods(model):
        return missing
    params, problems = _call(model, "init", lambda: model.init(rng))
    problems = problems or parameter_problems(params, field=_field(model, "init"))
    if problems:
        return problems
    problems = _loss_problems(model, params, sample_batch)
    if isinstance(model, Predictor):
        problems += _predict_problems(model, params, sample_batch, data_spec)
    return problems


def parameter_problems(params: object, *, field: str) -> list[Problem]:
    """What is wrong with what `init` returned; all parameters are looked at."""
    if not isinstance(params, dict):
        return [Problem(field, "a dict of float32 arrays by name", f"a {type(params).__name__}")]
    if not params:
        return [Problem(field, "at least one parameter", "an empty dict")]
    return [problem for name, value in params.items() for problem in _parameter_problems(name, value, field)]


def _parameter_problems(name: object, value: object, field: str) -> list[Problem]:
    if not isinstance(name, str):
        return [Problem(field, "names that are text", f"{name!r}, a {type(name).__name__}")]
    if name in ("", "__metadata__"):
        return [Problem(field, "names that a safetensors file can hold", repr(name))]
    if not isinstance(value, np.ndarray):
        return [Problem(field, f"{name} as a NumPy array of float32", f"a {type(value).__name__}")]
    if value.dtype != np.float32:
        hint = f"{name}.astype(np.float32), or draw it with dtype=np.float32"
        return [Problem(field, f"{name} of dtype float32", str(value.dtype), hint)]
    if bad := int(np.count_nonzero(~np.isfinite(value))):
        found = f"{bad} of {value.size} elements are NaN or infinite"
        return [Problem(field, f"{name} finite", found)]
    return []


def _missing_methods(model: object) -> list[Problem]:
    missing = [name for name in _NEEDED if not callable(getattr(model, name, None))]
    methods = [name for name in dir(model) if name[0] != "_" and callable(getattr(model, name, None))]
    found = f"methods {', '.join(methods)}" if methods else "no methods"
    return [Problem(_field(model, name), _NEEDED[name], found) for name in missing]


def _loss_problems(model: Model, params: Mapping[str, Any], batch: Batch) -> list[Problem]:
    loss, problems = _call(model, "loss", lambda: ad.forward(model.loss)(params, batch))
    if problems:
        return problems
    field = _field(model, "loss")
    if not isinstance(loss, np.ndarray | np.generic):
        return [Problem(field, "a scalar tensor", f"a {type(loss).__name__}")]
    if loss.shape != ():
        hint = "return its mean over the batch: .mean()"
        return [Problem(field, "a scalar", f"an array of shape {loss.shape}", hint)]
    unused, problems = _call(model, "loss", lambda: ad.value_and_grad(model.loss).unused(params, batch))
    return problems or unused_problems(field, params, unused)


def unused_problems(field: str, names: Collection[str], unused: Collection[str]) -> list[Problem]:
    """Of each of the `unused` parameters, on which the loss does not depend; one problem where these are all."""
    if len(unused) == len(names):
        return [Problem(field, "one that depends on a parameter", "a loss that depends on none")]
    return [
        Problem(field, f"every parameter used, {name} too", f"a loss that does not depend on {name}") for name in unused
    ]


def expected_output(data_spec: DataSpec, samples: int) -> tuple[str, tuple[int, ...]]:
    """What a model is to give for so many samples, in words and as a shape."""
    if data_spec.task == "classification":
        what = (
            "scores of shape (n, *target_shape, classes)" if data_spec.target_shape else "scores of shape (n, classes)"
        )
        return what, (samples, *data_spec.target_shape, data_spec.classes)
    return "predictions of shape (n, *target_shape)", (samples, *data_spec.target_shape)


def _predict_problems(model: Predictor, params: Mapping[str, Any], batch: Batch, data_spec: DataSpec) -> list[Problem]:
    scores, problems = _call(model, "predict", lambda: ad.forward(model.predict)(params, batch.x))
    if problems:
        return problems
    return prediction_problems(_field(model, "predict"), scores, data_spec, len(batch.x))


def prediction_problems(field: str, output: object, data_spec: DataSpec, samples: int) -> list[Problem]:
    """What is wrong with what `predict` returned for so many samples."""
    what, expected = expected_output(data_spec, samples)
    shape = getattr(output, "shape", None)
    if shape == expected:
        return []
    found = f"a {type(output).__name__}" if shape is None else f"shape {shape}"
    return [Problem(field, f"{what} = {expected}", found)]


def _call(model: object, method: str, call: Callable[[], Any]) -> tuple[Any, list[Problem]]:
    """What `call` returns, or the problem where it raises."""
    try:
        return call(), []
    except (Exception, SystemExit) as error:
        advice = _FOR_NUMPY if _NUMPY_SAYS in str(error) else ""
        return None, [raised(_field(model, method), error, advice)]


def raised(field: str, error: BaseException, advice: str = "") -> Problem:
    """What the user's code raised, with the user's part of the traceback."""
    return Problem(field, "no exception", summary(error), indented(user_traceback(error) + advice))


def _field(model: object, method: str) -> str:
    return f"model.use ({type(model).__name__}.{method})"
