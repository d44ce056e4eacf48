"""Gradient engines: what computes loss and gradient of one microbatch.

`protocol.py` says what an engine is; each other file is one.
"""

from __future__ import annotations

from typing import Any

from thalweg_worker.engines.emulated import EmulatedEngine
from thalweg_worker.engines.numpy_engine import NumpyEngine
from thalweg_worker.engines.planned import with_faults
from thalweg_worker.engines.protocol import GradientEngine

__all__ = ["GradientEngine", "make_engine", "with_faults"]


def make_engine(name: str, model: Any, *, classify: bool, emulated_ms: float | None = None) -> GradientEngine:
    """The engine `name` of the job file, for `model`.

    classify:    whether the model's predictions are scores of classes
    emulated_ms: how long a microbatch takes with the engine "emulated"
    """
    if name == "emulated":
        return EmulatedEngine((emulated_ms or 0.0) / 1e3)
    if name == "numpy":
        return NumpyEngine(model, classify=classify)
    raise ValueError(f'expected the engine "numpy" or "emulated"; found {name!r}')
