"""Gradient engines: what computes loss and gradient of one microbatch.

`protocol.py` says what an engine is; `torch_model.py` and `jax_model.py` are what a user's model in these is to a job;
`torch_buffers.py` is about the running statistics of a module, `foreign.py` what both frameworks have in common;
`*_engine.py` and `emulated.py` are engines; `exporting.py` and `torch_export.py` write weights as a framework reads
them. Another framework is imported when a job asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.engines.emulated import EmulatedEngine
from thalweg_worker.engines.exporting import shapes_beside, weights_file
from thalweg_worker.engines.numpy_engine import NumpyEngine
from thalweg_worker.engines.planned import with_faults
from thalweg_worker.engines.protocol import GradientEngine
from thalweg_worker.models import Model, ModelSource, Parameters, check_model

if TYPE_CHECKING:
    from thalweg_worker.engines.jax_model import JaxModel
    from thalweg_worker.engines.torch_model import TorchModel

__all__ = [
    "GradientEngine",
    "averaged_for",
    "check_compiler",
    "check_for",
    "make_engine",
    "model_for",
    "not_installed",
    "shapes_beside",
    "weights_file",
    "with_faults",
]

FRAMEWORKS = ("torch", "jax")
"""Engines that need the module, and so the extra, of their name."""


def not_installed(framework: str, field: str, what: str) -> list[Problem]:
    """The problem that a framework is one and is not installed; `field` asks for it as `what`, "an engine"."""
    if framework not in FRAMEWORKS or find_spec(framework) is not None:
        return []
    hint = f"pip install 'thalweg[{framework}]'"
    found = f'"{framework}", and no module {framework} in this Python'
    return [Problem(field, f"{what} that is installed", found, hint)]


def model_for(engine: str, source: ModelSource, spec: DataSpec, seed: int) -> Model | TorchModel | JaxModel:
    """The job's model as its engine takes it.

    engine: its name in the job file
    seed:   of the job

    InputError where the engine is not installed, or what the user's file builds is no model for it.
    """
    if problems := not_installed(engine, "cluster.engine", "an engine"):
        raise InputError(problems)
    if engine == "torch":
        from thalweg_worker.engines.torch_model import TorchModel

        return TorchModel.build(source, spec, seed)
    if engine == "jax":
        from thalweg_worker.engines.jax_model import JaxModel

        return JaxModel.build(source, spec, seed)
    return source.build(spec)


def check_for(engine: str, model: Any, spec: DataSpec, sample_batch: Batch, rng: np.random.Generator) -> list[Problem]:
    """Every mistake of a model from `model_for` that shows on one batch: see `check_model`. Raises nothing."""
    if engine in FRAMEWORKS:
        problems: list[Problem] = model.check(sample_batch)
        return problems
    return check_model(model, spec, sample_batch, rng)


def averaged_for(engine: str, model: Any, sample_batch: Batch) -> Parameters:
    """What of a model's state is averaged over the microbatches of a step, and not trained: running statistics.

    By name, before step 0. Of a model from `model_for` in which `check_for` found no mistake. Only "torch" knows
    any.
    """
    if engine != "torch":
        return {}
    averaged: Parameters = model.averaged(sample_batch)
    return averaged


def check_compiler(compiles: bool) -> list[Problem]:
    """Whether this machine has what torch.compile needs on the CPU, where a job asks for that; other hosts need it,
    too."""
    compiler = os.environ.get("CXX", "g++")  # as PyTorch looks for it
    if not compiles or which(compiler) is not None:
        return []
    hint = "install g++ on each host, or set the environment's CXX to the compiler that there is"
    return [Problem("cluster.compile", "false, or a C++ compiler, which torch.compile needs", f"no {compiler}", hint)]


def make_engine(
    name: str,
    model: Any,
    *,
    classify: bool,
    emulated_ms: float | None = None,
    autocast: str | None = None,
    compiled: Iterable[int] = (),
) -> GradientEngine:
    """The engine `name` of the job file, for `model`, from `model_for`.

    classify:    whether the model's predictions are scores of classes
    emulated_ms: how long a microbatch takes with the engine "emulated"
    autocast:    with "torch": "bfloat16", or else nothing
    compiled:    with "torch": the sizes of microbatches for which the module is compiled; none: it is not
    """
    if name == "emulated":
        return EmulatedEngine((emulated_ms or 0.0) / 1e3)
    if name == "numpy":
        return NumpyEngine(model, classify=classify)
    if name == "torch":
        from thalweg_worker.engines.torch_engine import TorchEngine

        return TorchEngine(model, autocast=autocast == "bfloat16", compiled=compiled)
    if name == "jax":
        from thalweg_worker.engines.jax_engine import JaxEngine

        return JaxEngine(model)
    raise ValueError(f'expected the engine "numpy", "torch", "jax" or "emulated"; found {name!r}')
