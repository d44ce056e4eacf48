"""The engine of PyTorch on a device that is none: what is copied, and when, against the engine that copies nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.worker.engines.late import LateDevice
from tests.worker.engines.laws import CLASSES, batch, draws_follow_from_the_key, hooks_are_called, source

from thalweg_worker.engines import averaged_for, make_engine, model_for
from thalweg_worker.engines.staging import Staging
from thalweg_worker.models import initial_parameters

pytestmark = pytest.mark.compare

NET = """
class Net(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.frozen, self.seldom = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 3)
        self.dropout = nn.Dropout(dropout)
    def forward(self, x):
        hidden = self.frozen(self.dropout(self.norm(self.first(x)).relu()))
        return self.last(hidden) + (self.seldom(hidden) if len(x) == 6 else 0.0)
def build(spec, dropout=0.0):
    return Net(dropout)
"""
IMPORTS = "import torch\nfrom torch import nn\n"


def trying(staged: bool, stays: bool = False, arriving: int | None = 1, **options: Any) -> Any:
    """Engine, parameters, room for a gradient, and the device."""
    import torch

    from thalweg_worker.engines.torch_engine import TorchEngine

    model = model_for("torch", source(IMPORTS, NET, **options), CLASSES, 0)
    parameters = initial_parameters(model, 0) | averaged_for("torch", model, batch())
    for array in parameters.values():
        array.flags.writeable = False
    out = {name: np.full_like(array, np.nan) for name, array in parameters.items()}
    device = LateDevice(
        new=lambda shape, dtype: torch.from_numpy(np.full(shape, -1, dtype)),
        write=lambda value, array: value.copy_(torch.tensor(array)),
        read=lambda value: value.detach().numpy(),
        arriving=arriving,
    )
    engine = (
        TorchEngine(model, memory=Staging(device, stays=stays))
        if staged
        else make_engine("torch", model, classify=True)
    )
    return engine, parameters, out, device


@pytest.mark.parametrize("arriving", [None, 1, 100])
def test_it_computes_the_same_bits_as_in_place(arriving):
    """Gradients, running statistics, the zero gradient of a layer that a batch does not come through, and evaluations;
    parameters that change between, too."""
    staged, parameters, out, device = trying(True, arriving=arriving)
    plain, _, expected, _ = trying(False)
    for step, samples in enumerate([batch(6), batch(9), batch(6)]):
        for array in parameters.values():
            array.flags.writeable = True
            array *= np.float32(0.9)
            array.flags.writeable = False
        found = staged.gradient(parameters, samples, weight=0.25, out=out)()
        assert found == plain.gradient(parameters, samples, weight=0.25, out=expected)(), step
        for name, array in expected.items():
            assert np.array_equal(out[name], array), (step, name)
        assert (out["seldom.weight"].any(), out["norm.running_mean"].any()) == (len(samples.x) == 6, True)
        assert staged.evaluate(parameters, samples) == plain.evaluate(parameters, samples)
    assert device.fetched == []


def test_hooks_are_called_before_reading_and_once_the_bytes_are_there():
    """Whatever the order of arrival."""
    for arriving in (None, 1, 100):
        assert len(hooks_are_called(trying(True, arriving=arriving)[:3])) == 10


def test_what_is_random_follows_from_seed_step_and_microbatch():
    draws_follow_from_the_key(lambda: trying(True, dropout=0.5)[:3], "last.weight")


def test_parameters_are_copied_once_a_step_where_they_stay():
    """Those of the second microbatch are there; an evaluation in between, or a new step, copies them again."""
    engine, parameters, out, device = trying(True, stays=True)
    batches = [batch(key=(0, step, m)) for step, m in ((0, 0), (0, 1), (1, 0), (1, 1))]
    copies = []
    for each in batches:
        before = device.copies
        engine.gradient(parameters, each, weight=0.5, out=out)()
        copies.append(device.copies - before - 2)  # x and y
    assert copies == [10, 0, 10, 0]
    engine.evaluate(parameters, batches[0])
    before = device.copies
    engine.gradient(parameters, batches[3], weight=0.5, out=out)()
    assert device.copies - before - 2 == 10


def test_a_gradient_that_was_broken_off_does_not_spoil_the_next():
    """What a hook raises comes out, while other gradients are still on their way."""
    engine, parameters, out, device = trying(True, arriving=None)
    expected = trying(False)
    samples = batch()
    loss = expected[0].gradient(parameters, samples, weight=1.0, out=expected[2])()

    def stop(name: str, first: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.gradient(parameters, samples, weight=1.0, out=out, on_ready=stop)()
    assert device.fetched
    assert engine.gradient(parameters, samples, weight=1.0, out=out)() == loss
    assert all(np.array_equal(out[name], array) for name, array in expected[2].items())
    assert device.waits
