"""Gradient engines: what computes loss and gradient of one microbatch.

`protocol.py` says what an engine is; `torch_model.py` and `jax_model.py` are what a user's model in these is to a job;
`torch_buffers.py` is about the running statistics of a module, `foreign.py` what both frameworks have in common;
`*_engine.py` and `emulated.py` are engines; `staging.py` brings what they compute with to a GPU and back, beneath which
lie `*_cuda.py` of each framework, and `gpu.py` of none; `exporting.py` and `torch_export.py` write weights as a
framework reads them. Another framework is imported when a job asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.engines.emulated import EmulatedEngine
from thalweg_worker.engines.exporting import shapes_beside, weights_file
from thalweg_worker.engines.gpu import Card
from thalweg_worker.engines.numpy_engine import NumpyEngine
from thalweg_worker.engines.planned import with_faults
from thalweg_worker.engines.protocol import GradientEngine
from thalweg_worker.engines.staging import Staging
from thalweg_worker.models import Model, ModelSource, Parameters, check_model

if TYPE_CHECKING:
    from thalweg_worker.engines.jax_model import JaxModel
    from thalweg_worker.engines.torch_model import TorchModel

__all__ = [
    "Card",
    "GradientEngine",
    "averaged_for",
    "card_of",
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
"""Engines with models of their own."""
EXTRAS = (*FRAMEWORKS, "cupy")
"""Engines that need the module, and so the extra, of their name."""


def not_installed(framework: str, field: str, what: str) -> list[Problem]:
    """The problem that a framework is one and is not installed; `field` asks for it as `what`, "an engine"."""
    if framework not in EXTRAS or find_spec(framework) is not None:
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
    gpu: bool = False,
    stays: bool = False,
) -> GradientEngine:
    """The engine `name` of the job file, for `model`, from `model_for`; without a GPU "cupy" is "numpy".

    classify:    whether the model's predictions are scores of classes
    emulated_ms: how long a microbatch takes with the engine "emulated"
    autocast:    with "torch": "bfloat16", or else nothing
    compiled:    with "torch": the sizes of microbatches for which the module is compiled; none: it is not
    gpu:         whether it computes on this process's GPU; WorkerError where there is none
    stays:       with a GPU: whether all microbatches of a step have the same parameters (Staging)
    """
    if name == "emulated":
        return EmulatedEngine((emulated_ms or 0.0) / 1e3)
    if name == "numpy" or (name == "cupy" and not gpu):
        return NumpyEngine(model, classify=classify)
    if name == "cupy":
        from thalweg_worker.engines.cupy_cuda import CudaDevice as CupyDevice
        from thalweg_worker.engines.cupy_engine import CupyEngine

        return CupyEngine(model, Staging(CupyDevice(), stays=stays), classify=classify)
    if name == "torch":
        from thalweg_worker.engines.torch_engine import TorchEngine

        new = partial(TorchEngine, model, autocast=autocast == "bfloat16", compiled=compiled)
        if not gpu:
            return new()
        from thalweg_worker.engines.torch_cuda import CudaDevice

        device = CudaDevice()
        return new(memory=Staging(device, stays=stays), device=str(device.device))
    if name == "jax":
        from thalweg_worker.engines.jax_engine import JaxEngine

        if not gpu:
            return JaxEngine(model)
        from thalweg_worker.engines.jax_cuda import JaxDevice

        return JaxEngine(model, Staging(JaxDevice(), stays=stays))
    raise ValueError(f'expected the engine "numpy", "cupy", "torch", "jax" or "emulated"; found {name!r}')


def card_of(engine: str) -> Card:
    """The GPU of this process, as the framework of the engine finds it; WorkerError where it finds none."""
    cards = import_module(f"thalweg_worker.engines.{engine}_cuda")
    found: Card = cards.card()
    return found
