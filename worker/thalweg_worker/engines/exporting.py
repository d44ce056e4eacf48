"""Weights in files that a user's own framework reads, without Thalweg.

| form  | file                                      | names                                                      |
|-------|-------------------------------------------|------------------------------------------------------------|
| npz   | .npz of NumPy                             | the job's                                                  |
| jax   | .npz of NumPy                             | paths in the user's tree, as `jax.tree_util.keystr` writes |
| torch | what `torch.save` makes of a state dict   | those of `module.state_dict()`                             |

Rules:
  - The same weights give the same bytes.
  - .npz holds numbers and no Python: nothing in it is pickled.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.models import Parameters


def weights_file(form: str, parameters: Parameters, model: Any = None) -> bytes:
    """The contents of the file.

    form:       "npz", "jax" or "torch"
    parameters: float32 by name
    model:      from `model_for`, whose parameters these are; None where its engine is of another framework than `form`:
                then names are the job's

    "torch" needs PyTorch to be installed; with a model, the module of it then has these weights.
    """
    if form == "torch":
        from thalweg_worker.engines.torch_export import state_dict_file

        return state_dict_file(parameters, model)
    if form == "jax":
        paths = dict(zip(model.names, model.paths, strict=True)) if model is not None else {}
        # A dict by name is a tree, too; JAX writes the path to one of its arrays like this.
        return npz_file({paths.get(name, f"[{name!r}]"): array for name, array in parameters.items()})
    return npz_file(parameters)


def shapes_beside(engine: str, model: Any) -> dict[str, tuple[int, ...]]:
    """What weights may hold by name of a model from `model_for`, beside the parameters that it draws: a module's
    buffers."""
    if engine != "torch":
        return {}
    from thalweg_worker.engines.torch_export import shapes

    return shapes(model)


def npz_file(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """As `np.savez` writes them, in the order of their names, which may be any text: `np.load` reads them by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(arrays):
            # Without a date, so that the same arrays are the same bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(arrays[name]), allow_pickle=False)
    return stream.getvalue()
