"""`use = "convnet"`: convolutions, then a perceptron.

    for each of `channels`:   h := max_pool(relu(conv(h, W) + b))
    for each of `hidden`:     h := relu(h W + b)                      h flattened before the first
    outputs = h W + b

Kernels are square, with padding "same"; pooling is 2 x 2.

Samples are images (h, w) or (h, w, c), channels last; or flat, and `image` says their shape. Pooling drops
an odd last row or column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.kinds import Whole
from thalweg_proto.job.options import Section, option
from thalweg_worker import autodiff as ad
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models import heads
from thalweg_worker.models.dense import dense, flat, init_layer
from thalweg_worker.models.options import Wholes, read_options
from thalweg_worker.models.protocol import Parameters

POOL = 2


@dataclass(frozen=True, kw_only=True)
class ConvnetOptions(Section):
    """The keys of [model] beside `use` and `init`."""

    channels: tuple[int, ...] = option(
        Wholes(count_min=1, example="[16, 32]"), "channels of each convolution", default=(16, 32)
    )
    kernel: int = option(Whole(minimum=1, maximum=63), "height and width of each kernel", default=3)
    hidden: tuple[int, ...] = option(Wholes(example="[64]"), "units of each dense layer", default=(64,))
    image: tuple[int, ...] | None = option(
        Wholes(count_min=2, count_max=3, example="[28, 28] or [32, 32, 3]"),
        "shape of a sample, where the samples are flat",
        default=None,
    )


@dataclass(frozen=True)
class Convnet:
    """Parameters: "conv1.weight" (kernel, kernel, channels in, channels out), "conv1.bias" (channels out,),
    ..., "hidden1.weight" (inputs, units), "hidden1.bias" (units,), ..., "output.weight", "output.bias".

    image: (h, w, c) of a sample
    """

    data_spec: DataSpec
    options: ConvnetOptions
    image: tuple[int, int, int]

    def init(self, rng: np.random.Generator) -> Parameters:
        """He's weights, Glorot's for the last layer; zero biases."""
        params, kernel, inputs = Parameters(), self.options.kernel, self.image[2]
        for i, channels in enumerate(self.options.channels):
            params |= init_layer(rng, f"conv{i + 1}", (kernel, kernel, inputs, channels), activation="relu")
            inputs = channels
        inputs *= math.prod(axis // POOL ** len(self.options.channels) for axis in self.image[:2])
        for i, units in enumerate(self.options.hidden):
            params |= init_layer(rng, f"hidden{i + 1}", (inputs, units), activation="relu")
            inputs = units
        return params | init_layer(rng, "output", (inputs, heads.output_count(self.data_spec)), activation=None)

    def loss(self, params: Mapping[str, Any], batch: Batch) -> Any:
        """See `heads.loss`."""
        return heads.loss(self._outputs(params, batch.x), batch.y, self.data_spec)

    def predict(self, params: Mapping[str, Any], x: Any) -> Any:
        """Logits (n, *target_shape, classes), or predictions (n, *target_shape)."""
        return heads.prediction(self._outputs(params, x), self.data_spec)

    def _outputs(self, params: Mapping[str, Any], x: Any) -> Any:
        h = x if tuple(x.shape[1:]) == self.image else x.reshape((x.shape[0], *self.image))
        for i in range(len(self.options.channels)):
            # max(relu(h + b)) = relu(max(h) + b), and what comes after the pooling costs a quarter.
            h = ad.max_pool2d(ad.conv2d(h, params[f"conv{i + 1}.weight"]), POOL)
            h = ad.relu(h + params[f"conv{i + 1}.bias"])
        h = flat(h)
        for i in range(len(self.options.hidden)):
            h = ad.relu(dense(params, f"hidden{i + 1}", h))
        return dense(params, "output", h)


def build(data_spec: DataSpec, **options: Any) -> Convnet:
    """Raises InputError with every wrong option, and where the samples cannot be images."""
    read, problems, wrong = read_options(ConvnetOptions, options)
    problems += heads.unfit_samples(data_spec)
    image = image_shape(data_spec.input_shape, read.image)
    if "image" in wrong:
        pass  # whether the right one would fit is not known
    elif isinstance(image, Problem):
        problems.append(image)
    elif "channels" not in wrong and min(image[:2]) < POOL ** len(read.channels):
        problems.append(_too_small(image, len(read.channels)))
    if problems or isinstance(image, Problem):
        raise InputError(problems)
    return Convnet(data_spec, read, image)


def image_shape(sample: tuple[int, ...], image: tuple[int, ...] | None) -> tuple[int, int, int] | Problem:
    """(h, w, c) of a sample of shape `sample`, where the option `image` may say so."""
    shape = sample if image is None else image
    if len(shape) not in (2, 3):
        return Problem(
            "model.image",
            "the shape of an image, since samples are not (h, w) or (h, w, c)",
            f"samples of shape {sample}",
            _square(math.prod(sample)),
        )
    if math.prod(shape) != math.prod(sample):
        return Problem(
            "model.image",
            f"a shape of {math.prod(sample)} numbers, as a sample of shape {sample} has",
            f"{list(shape)}, which has {math.prod(shape)}",
            _square(math.prod(sample)),
        )
    height, width, channels = (*shape, 1)[:3]
    return height, width, channels


def _square(numbers: int) -> str:
    side = math.isqrt(numbers)
    return f"a square image would be image = [{side}, {side}]" if side * side == numbers and side > 1 else ""


def _too_small(image: tuple[int, int, int], poolings: int) -> Problem:
    fit = int(math.log2(min(image[:2])))
    return Problem(
        "model.channels",
        f"at most {fit} convolutions for an image of {image[0]} x {image[1]}" if fit else "a larger image",
        f"{poolings}, each of which halves it",
    )
