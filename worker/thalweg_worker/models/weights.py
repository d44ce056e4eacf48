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


def load_init(path: str | Path, params: Parameters) -> list[Problem]:
    """Fills `params` from a safetensors file that has the same names and shapes, in float32.

    params: the model's initial parameters, writable. They are overwritten where nothing is wrong, else left
            alone: all names, dtypes and shapes are compared before the first number is read.
    """
    field = f"model.init ({Path(path).name})"
    try:
        with safe_open(path, framework="numpy") as file:
            problems = _mismatches(field, file, params)
            if not problems:
                loaded = {name: file.get_tensor(name) for name in params}
                problems = _non_finite(field, loaded)
    except OSError as error:
        return [Problem(field, f"a file at {Path(path).absolute()}", error.strerror or str(error))]
    except SafetensorError as error:
        return [Problem(field, "a safetensors file", str(error))]
    if not problems:
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
        part = file.get_slice(name)
        shape, dtype = tuple(part.get_shape()), part.get_dtype()
        if shape != params[name].shape:
            problems.append(Problem(field, f"{name} of shape {params[name].shape}", f"shape {shape}"))
        if dtype != "F32":
            problems.append(Problem(field, f"{name} in float32 (F32)", dtype))
    return problems


def _non_finite(field: str, loaded: Parameters) -> list[Problem]:
    counts = {name: int(np.count_nonzero(~np.isfinite(array))) for name, array in loaded.items()}
    return [
        Problem(field, f"{name} finite", f"{count} of {loaded[name].size} elements are NaN or infinite")
        for name, count in counts.items()
        if count
    ]
