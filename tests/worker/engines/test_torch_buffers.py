"""What a forward pass changes of a module, against PyTorch itself."""

from __future__ import annotations

import copy
import textwrap

import numpy as np
import pytest
from tests.worker.engines.laws import CLASSES, batch, hooks_are_called, source

from thalweg_proto.errors import WorkerError
from thalweg_worker.engines import averaged_for, check_for, make_engine, model_for
from thalweg_worker.models import initial_parameters

pytestmark = pytest.mark.compare

IMPORTS = "import torch\nfrom torch import nn\n"
NET = """
def build(spec, momentum=0.1):
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, momentum=momentum), nn.Tanh(), nn.Linear(8, 3))
"""
STATISTICS = ["1.running_mean", "1.running_var"]
CLASS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 3)
        {init}
    def forward(self, x):
        {forward}
        return self.last(x)
def build(spec):
    return Net()
"""


def with_buffer(init: str, forward: str) -> str:
    return CLASS.format(init=init, forward=textwrap.indent(forward, " " * 8).strip())


def modelled(text: str, **options):
    return model_for("torch", source(IMPORTS, text, **options), CLASSES, 0)


def trying(text: str = NET, **options):
    """Engine, parameters as a reader has them, and room for a gradient with something else in it."""
    model = modelled(text, **options)
    problems = check_for("torch", model, CLASSES, batch(), np.random.default_rng(0))
    assert problems == []
    parameters = initial_parameters(model, 0) | averaged_for("torch", model, batch())
    out = {name: np.full_like(array, np.nan) for name, array in parameters.items()}
    for array in parameters.values():
        array.flags.writeable = False
    return make_engine("torch", model, classify=True), parameters, out


def test_running_statistics_are_part_of_the_state_as_build_made_them():
    """With what is trained; also after the model was tried, which changed them. What counts batches is not."""
    model = modelled(NET)
    for _ in range(2):
        assert check_for("torch", model, CLASSES, batch(), np.random.default_rng(0)) == []
        found = averaged_for("torch", model, batch())
        assert sorted(found) == STATISTICS
        np.testing.assert_array_equal(found["1.running_mean"], 0)
        np.testing.assert_array_equal(found["1.running_var"], 1)


def test_statistics_after_some_steps_are_those_of_a_plain_loop():
    """In which each microbatch starts from the same ones, and what they make of them is averaged by their samples."""
    import torch

    engine, parameters, _ = trying(momentum=0.3)
    _, built, _ = trying(momentum=0.3)
    plain = modelled(NET, momentum=0.3).module
    sizes = (4, 6, 7)
    for step in range(5):
        sums = {name: np.zeros_like(array) for name, array in parameters.items()}
        changed = []
        for m, size in enumerate(sizes):
            samples = batch(size + 10 * step, key=(0, step, m))
            out = {name: np.empty_like(array) for name, array in parameters.items()}
            engine.gradient(parameters, samples, weight=size / sum(sizes), out=out)()
            for name, array in out.items():
                sums[name] += array
            replica = copy.deepcopy(plain)
            loss = torch.nn.functional.cross_entropy(replica(torch.tensor(samples.x)), torch.tensor(samples.y))
            (loss * (size / sum(sizes))).backward()
            changed.append(replica)
        rates = {name: np.float32(1.0 if name in STATISTICS else 0.1) for name in parameters}
        parameters = {name: array - rates[name] * sums[name] for name, array in parameters.items()}
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                for replica in changed:
                    parameter -= 0.1 * replica.get_parameter(name).grad
            for name in STATISTICS:
                weighted = [
                    replica.get_buffer(name) * (size / sum(sizes)) for replica, size in zip(changed, sizes, strict=True)
                ]
                plain.get_buffer(name).copy_(sum(weighted))
    for name, tensor in plain.state_dict().items():
        if name in parameters:
            np.testing.assert_allclose(parameters[name], tensor.numpy(), rtol=1e-5, atol=1e-6)
    assert all((parameters[name] != built[name]).all() for name in STATISTICS)


def test_the_same_old_statistics_give_the_same_bits_whatever_was_computed_between():
    """Nothing of one microbatch stays for the next one; what is read is left alone."""
    engine, parameters, out = trying()
    found = []
    for samples in (batch(6), batch(9), batch(6)):
        engine.gradient(parameters, samples, weight=0.5, out=out)()
        found.append({name: array.tobytes() for name, array in out.items()})
    assert found[0] == found[2]
    assert found[0]["1.running_mean"] != found[1]["1.running_mean"]


def test_hooks_are_called_of_statistics_too():
    assert sorted(hooks_are_called(trying())[:2]) == STATISTICS, "final when the forward pass is done"


def test_an_evaluation_uses_the_statistics_of_the_version_and_changes_nothing():
    """Not those of the batch, nor what training has left in the module."""
    engine, parameters, out = trying()
    engine.gradient(parameters, batch(9), weight=1.0, out=out)()
    parameters = parameters | {
        "1.running_mean": np.full(8, 0.25, np.float32), "1.running_var": np.full(8, 4.0, np.float32)
    }  # fmt: skip
    samples = batch(50, key=None)
    found = [engine.evaluate(parameters, samples) for _ in range(2)]
    assert found[0] == found[1]
    hidden = samples.x @ parameters["0.weight"].T + parameters["0.bias"]
    hidden = np.tanh((hidden - 0.25) / np.sqrt(4.0 + 1e-5) * parameters["1.weight"] + parameters["1.bias"])
    scores = hidden @ parameters["3.weight"].T + parameters["3.bias"]
    log_sum = np.log(np.exp(scores).sum(axis=1))
    assert found[0].loss_sum == pytest.approx(float((log_sum - scores[np.arange(50), samples.y]).sum()), rel=1e-5)


def test_statistics_that_one_batch_leaves_as_they_are_belong_to_the_state():
    """Of a layer whose inputs are zeros at first."""
    text = """
    def build(spec):
        first = nn.Linear(5, 8)
        nn.init.zeros_(first.weight), nn.init.zeros_(first.bias)
        return nn.Sequential(first, nn.BatchNorm1d(8), nn.Linear(8, 3))
    """
    assert sorted(averaged_for("torch", modelled(text), batch())) == STATISTICS


def test_a_buffer_of_ones_own_is_averaged_also_where_a_forward_pass_puts_another_in_its_place():
    """In place, and as a new tensor."""
    for change in (
        "with torch.no_grad():\n    self.mean.mul_(0.9).add_(0.1 * x.mean(0))",
        "self.mean = 0.9 * self.mean + 0.1 * x.mean(0)",
    ):
        text = with_buffer('self.register_buffer("mean", torch.ones(5))', change)
        engine, parameters, out = trying(text)
        assert set(parameters) == {"last.weight", "last.bias", "mean"}
        for _ in range(2):
            engine.gradient(parameters, batch(), weight=0.5, out=out)()
            np.testing.assert_allclose(out["mean"], 0.05 * (1 - batch().x.mean(0)), rtol=1e-4)


def test_each_trial_begins_with_what_build_made():
    """One that is back after two passes is seen by each."""
    model = modelled(with_buffer('self.register_buffer("flip", torch.zeros(5))', "self.flip = 1 - self.flip"))
    assert check_for("torch", model, CLASSES, batch(), np.random.default_rng(0)) == []
    found = [averaged_for("torch", model, batch()) for _ in range(2)]
    assert [list(each) for each in found] == [["flip"], ["flip"]]
    assert not found[1]["flip"].any()


def test_buffers_that_nothing_changes_are_not_part_of_the_state():
    """Tables and masks, with what is not finite in them; and BatchNorm without statistics."""
    kept = """
    def build(spec):
        net = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.GroupNorm(1, 3))
        net.register_buffer("mask", torch.tensor([float("nan"), float("-inf")]))
        return net
    """
    grows = with_buffer(
        'self.register_buffer("table", torch.arange(2.0))',
        "if len(x) > len(self.table): self.table = torch.arange(float(len(x)))",
    )
    for text in (kept, grows):
        model = modelled(text)
        assert averaged_for("torch", model, batch(2)) == {}
        assert check_for("torch", model, CLASSES, batch(2), np.random.default_rng(0)) == []
    engine = make_engine("torch", model, classify=True)
    parameters = initial_parameters(model, 0)
    out = {name: np.empty_like(array) for name, array in parameters.items()}
    for n in (6, 9):
        engine.gradient(parameters, batch(n), weight=1.0, out=out)()


def test_one_that_changes_later_than_at_the_trial_ends_the_run():
    """It would make the bits depend on who computes what."""
    for change in ("self.seen.add_(x.mean())", "self.seen = self.seen + x.mean()"):
        text = with_buffer('self.register_buffer("seen", torch.zeros(1))', f"if len(x) > 6: {change}")
        engine, parameters, out = trying(text)
        assert "seen" not in parameters
        engine.gradient(parameters, batch(6), weight=1.0, out=out)()
        with pytest.raises(WorkerError, match="the buffer seen of the module changed in a forward pass"):
            engine.gradient(parameters, batch(9), weight=1.0, out=out)()


REFUSED = {
    "no momentum": (
        "def build(spec):\n    return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, momentum=None))",
        ["expected a momentum for 1.running_mean; found momentum=None", "momentum=0.1 is PyTorch's default"],
    ),
    "a counter": (
        with_buffer('self.register_buffer("count", torch.zeros((), dtype=torch.int64))', "self.count += 1"),
        ["buffers of float32 on the CPU", "found count of int64 on cpu, changed by a forward pass"],
    ),
    "double": (
        with_buffer('self.register_buffer("mean", torch.zeros(5).double())', "self.mean += x.mean(0)"),
        ["found mean of float64 on cpu"],
    ),
    "another shape": (
        with_buffer('self.register_buffer("mean", torch.zeros(1))', "self.mean = x.mean(0)"),
        ["buffers that keep their shape, mean too", "found one that becomes (5,)"],
    ),
    "not finite": (
        with_buffer('self.register_buffer("mean", torch.full((5,), float("inf")))', "self.mean = x.mean(0)"),
        ["expected mean finite"],
    ),
}


@pytest.mark.parametrize(("text", "found"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_averaged_is_refused_before_the_start(text, found):
    model = modelled(text)
    problems = check_for("torch", model, CLASSES, batch(), np.random.default_rng(0))
    said = "\n".join(map(str, problems))
    assert [words for words in found if words not in said] == [], said
    assert all(problem.field.startswith("model.use (") for problem in problems)
