"""What a model sees: the shape of the data once, then a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What `build(data_spec, **options)` may know about the data.

    input_shape:  shape of one sample, without the batch axis; (64,) for a table of 64 features, (28, 28) for an image
    input_dtype:  "float32" for features and images (already scaled), "int64" for tokens
    task:         "classification" (labels are class indices 0..classes-1) or "regression"
    classes:      how many classes; 0 for regression
    target_shape: shape of one target: () for one class index or one number; (context,) where a sample is a sequence
                  and has a class index at each of its positions
    """

    input_shape: tuple[int, ...]
    input_dtype: Literal["float32", "int64"] = "float32"
    task: Literal["classification", "regression"]
    classes: int = 0
    target_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Samples and targets, as `loss(params, batch)` gets them.

    x:   (n, *input_shape), float32 or int64
    y:   (n, *target_shape), int64 class indices or float32 targets
    key: (3,) uint64 = (seed, step, microbatch), what anything random in the model follows from (dropout);
         None when the model is evaluated, and nothing random happens

    While a chain is recorded the fields are tensors of `thalweg_worker.autodiff`, else NumPy arrays.
    """

    x: Any
    y: Any
    key: NDArray[np.uint64] | None = None
