"""Start from given weights: `init = "weights.safetensors"`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from thalweg_proto.errors import Problem
from thalweg_proto.job.kinds import nearest
from thalweg_worker.models.protocol import Parameters


def load_init(path: str | Path, params: Parameters | None) -> list[Problem]:
    """Fills `params` from a safetensors file that has the same names and shapes, in float32.

    params: the model's initial parameters, writable. They are overwritten where nothing is wrong, else left
            alone: all names, dtypes and shapes are compared before the first number is read. None where the
            model is not known: what is wrong for any is found

    Raises nothing.
    """
    field = f"model.init ({Path(path).name})"
    try:
        with safe_open(path, framework="numpy") as file:
            names = sorted(file.keys() if params is None else params.keys() & set(file.keys()))
            problems = [] if params is None else _mismatches(field, file, params)
            problems += _wrong_dtypes(field, file, names)
            if not problems:
                loaded = {name: file.get_tensor(name) for name in names}
                problems = _non_finite(field, loaded)
    except OSError as error:
        return [Problem(field, f"a file at {Path(path).absolute()}", error.strerror or str(error))]
    except SafetensorError as error:
        return [Problem(field, "a safetensors file", str(error))]
    if params is not None and not problems:
        for name, array in loaded.items():
            params[name][...] = array
    return problems


def _mismatches(field: str, file: Any, params: Mapping[str, Any]) -> list[Problem]:
    names = set(file.keys())
    missing, unexpected = sorted(params.keys() - names), sorted(names - params.keys())
    problems = [
        Problem(
            field,
            f"{name} of shape {params[name].shape}",
            "no parameter of this name",
            nearest(name, unexpected),
        )
        for name in missing
    ]
    for name in unexpected:
        shape = tuple(file.get_slice(name).get_shape())
        problems.append(Problem(field, f"parameters of the model ({', '.join(params)})", f"{name} of shape {shape}"))
    for name in sorted(params.keys() & names):
        shape = tuple(file.get_slice(name).get_shape())
        if shape != params[name].shape:
            problems.append(Problem(field, f"{name} of shape {params[name].shape}", f"shape {shape}"))
    return problems


def _wrong_dtypes(field: str, file: Any, names: list[str]) -> list[Problem]:
    dtypes = {name: file.get_slice(name).get_dtype() for name in names}
    return [Problem(field, f"{name} in float32 (F32)", dtype) for name, dtype in dtypes.items() if dtype != "F32"]


def _non_finite(field: str, loaded: Parameters) -> list[Problem]:
    counts = {name: int(np.count_nonzero(~np.isfinite(array))) for name, array in loaded.items()}
    return [
        Problem(field, f"{name} finite", f"{count} of {loaded[name].size} elements are NaN or infinite")
        for name, count in counts.items()
        if count
    ]
