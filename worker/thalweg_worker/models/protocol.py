"""What a model is: `init`, `loss` and, where it can, `predict`.

    def build(data_spec: DataSpec, **options) -> Model

makes one; `options` are the keys of the job file's [model] table other than `use` and `init`. A model holds
no parameters: it gets them with each call, so that they can lie in shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from thalweg_worker.batch import Batch

Parameters: TypeAlias = dict[str, NDArray[np.float32]]
"""The parameters of a model, or their gradient, by name."""


class Model(Protocol):
    """What `build` returns."""

    def init(self, rng: np.random.Generator) -> Parameters:
        """The parameters before step 0: float32 arrays of any shape, by name; the caller may write to them.

        Everything random comes from `rng`, so that a seed fixes the run.
        """
        ...

    def loss(self, params: Mapping[str, Any], batch: Batch) -> Any:
        """The mean loss of a batch, a scalar, composed of operations of `thalweg_worker.autodiff`.

        `params` and the arrays of `batch` are tensors here. The mean goes over the samples of the batch:
        what is summed up to the gradient of a step is each microbatch's mean, weighted by its size.
        """
        ...


@runtime_checkable
class Predictor(Protocol):
    """A model that also answers for new samples; without it an evaluation reports the loss only."""

    def predict(self, params: Mapping[str, Any], x: Any) -> Any:
        """Scores (n, *target_shape, classes), the highest for the likeliest class, or predictions (n, *target_shape).

        x: (n, *input_shape), as in `Batch`. Nothing random happens here.
        """
        ...
