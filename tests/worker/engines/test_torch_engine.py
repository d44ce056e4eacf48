"""The engine of PyTorch, against PyTorch itself."""

from __future__ import annotations

import numpy as np
import pytest
from tests.worker.engines.laws import CLASSES, NUMBERS, batch, draws_follow_from_the_key, hooks_are_called, source

from thalweg_proto.errors import InputError
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.engines import check_for, make_engine, model_for
from thalweg_worker.models import ModelSource, initial_parameters

pytestmark = pytest.mark.compare

IMPORTS = "import torch\nfrom torch import nn\n"
NET = """
def build(spec, dropout=0.0):
    layers = [nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)]
    return nn.Sequential(*layers)
"""


def trying(text: str, spec=CLASSES, seed=0, **options):
    """Engine, parameters as a reader has them, and room for a gradient with something else in it."""
    model = model_for("torch", source(IMPORTS, text, **options), spec, seed)
    parameters = initial_parameters(model, seed)
    out = {name: np.full_like(array, np.nan) for name, array in parameters.items()}
    for array in parameters.values():
        array.flags.writeable = False
    return make_engine("torch", model, classify=spec.task == "classification"), parameters, out


@pytest.mark.filterwarnings("error")
def test_the_gradient_is_that_of_pytorch_times_the_weight():
    """Of another version of the parameters, too, in the buffers that were bound once; nothing is written to them."""
    import torch

    engine, parameters, out = trying(NET)
    samples = batch()
    compute = engine.gradient(parameters, samples, weight=0.25, out=out)
    for shift in (0.0, 0.5):
        for array in parameters.values():
            array.flags.writeable = True
            array += np.float32(shift)
            array.flags.writeable = False
        loss = compute()
        plain = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        for parameter, name in zip(plain.parameters(), parameters, strict=True):
            parameter.data = torch.tensor(parameters[name])
        expected = torch.nn.functional.cross_entropy(plain(torch.tensor(samples.x)), torch.tensor(samples.y))
        expected.backward()
        assert loss == pytest.approx(expected.item(), rel=1e-6)
        for parameter, name in zip(plain.parameters(), parameters, strict=True):
            np.testing.assert_allclose(out[name], 0.25 * parameter.grad.numpy(), rtol=1e-5, atol=1e-8)


def test_hooks_are_called_before_reading_and_once_all_is_final():
    final = hooks_are_called(trying(NET))
    assert final[:2] == ["3.bias", "3.weight"] or final[:2] == ["3.weight", "3.bias"], "from the last layer on"


def test_what_is_random_follows_from_seed_step_and_microbatch():
    draws_follow_from_the_key(lambda: trying(NET, dropout=0.5), "3.weight")


def test_a_sequence_has_a_label_at_each_position():
    """The default loss is the mean over all positions, and an evaluation counts the hits at each."""
    import torch

    net = """
    def build(spec):
        return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, spec.classes))
    """
    spec = DataSpec(input_shape=(6,), input_dtype="int64", task="classification", classes=7, target_shape=(6,))
    engine, parameters, out = trying(net, spec)
    rng = np.random.default_rng(0)
    samples = Batch(rng.integers(0, 7, (5, 6)), rng.integers(0, 7, (5, 6)), np.zeros(3, np.uint64))
    loss = engine.gradient(parameters, samples, weight=1.0, out=out)()
    scores = torch.tensor(parameters["0.weight"][samples.x] @ parameters["1.weight"].T + parameters["1.bias"])
    expected = torch.nn.functional.cross_entropy(scores.reshape(30, 7), torch.tensor(samples.y.reshape(30)))
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    found = engine.evaluate(parameters, samples)
    assert found.correct == np.count_nonzero(scores.numpy().argmax(axis=-1) == samples.y)
    assert found.loss_sum == pytest.approx(30 * expected.item(), rel=1e-6)
    [problem] = check_for("torch", model_for("torch", source(IMPORTS, NET), spec, 0), spec, batch(), rng)
    assert "scores of shape (n, *target_shape, classes) = (6, 6, 7)" in str(problem)


def test_an_evaluation_drops_nothing_out_and_counts_hits():
    engine, parameters, out = trying(NET, dropout=0.9)
    samples = batch(50, key=None)
    found = engine.evaluate(parameters, samples)
    hidden = np.tanh(samples.x @ parameters["0.weight"].T + parameters["0.bias"])
    scores = hidden @ parameters["3.weight"].T + parameters["3.bias"]
    assert found.correct == np.count_nonzero(scores.argmax(axis=1) == samples.y)
    log_sum = np.log(np.exp(scores).sum(axis=1))
    assert found.loss_sum == pytest.approx(float((log_sum - scores[np.arange(50), samples.y]).sum()), rel=1e-5)
    engine.gradient(parameters, batch(key=(0, 0, 1)), weight=1.0, out=out)()
    first = out["3.weight"].copy()
    engine.gradient(parameters, batch(key=(0, 0, 2)), weight=1.0, out=out)()
    assert (first != out["3.weight"]).any(), "training goes on dropping out"


def test_the_seed_fixes_what_build_draws_and_other_draws_are_left_alone():
    import torch

    draws = [
        initial_parameters(model_for("torch", source(IMPORTS, NET), CLASSES, seed), seed)["0.weight"]
        for seed in (7, 7, 8)
    ]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    model_for("torch", source(IMPORTS, NET), CLASSES, 0)
    assert torch.rand(1) == expected


def test_frozen_parameters_are_not_trained_and_tied_ones_once():
    engine, parameters, out = trying(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
                self.second.weight = self.first.weight
                self.last = nn.Linear(5, 3).requires_grad_(False)
            def forward(self, x):
                return self.last(self.second(self.first(x)))
        def build(spec):
            return Net()
        """
    )
    assert set(parameters) == {"first.weight", "first.bias", "second.bias"}
    engine.gradient(parameters, batch(), weight=1.0, out=out)()
    assert all(np.isfinite(array).all() and array.any() for array in out.values())


def test_a_parameter_that_a_batch_does_not_come_through_has_a_gradient_of_zeros():
    engine, parameters, out = trying(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.few, self.many = nn.Linear(5, 3), nn.Linear(5, 3)
            def forward(self, x):
                return self.many(x) if len(x) > 4 else self.few(x)
        def build(spec):
            return Net()
        """
    )
    told = []
    engine.gradient(parameters, batch(), weight=1.0, out=out, on_ready=lambda name, first: told.append(name))()
    assert not out["few.weight"].any()
    assert out["many.weight"].any()
    assert sorted(told) == sorted(parameters)


def test_a_parameter_may_be_a_single_number():
    engine, parameters, out = trying(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear, self.scale = nn.Linear(5, 3), nn.Parameter(torch.tensor(2.0))
            def forward(self, x):
                return self.linear(x) * self.scale
        def build(spec):
            return Net(), lambda output, y: output.mean()
        """
    )
    assert parameters["scale"].shape == ()
    loss = engine.gradient(parameters, batch(), weight=1.0, out=out)()
    assert out["scale"] == pytest.approx(loss / 2.0, rel=1e-5)


def test_a_loss_of_ones_own_and_regression():
    engine, parameters, out = trying(
        """
        def build(spec):
            return nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), lambda output, y: (output - y).abs().mean()
        """,
        spec=NUMBERS,
    )
    samples = batch(spec=NUMBERS)
    loss = engine.gradient(parameters, samples, weight=1.0, out=out)()
    output = samples.x @ parameters["0.weight"][0] + parameters["0.bias"]
    assert loss == pytest.approx(float(np.abs(output - samples.y).mean()), rel=1e-5)
    assert engine.evaluate(parameters, samples) == (pytest.approx(6 * loss, rel=1e-5), -1)


NOTHING = "loss: expected one that depends on a parameter; found a loss that depends on none"
MISTAKES = {
    "no parameters": ("nn.Flatten()", ["a module with parameters to train", "no parameters"]),
    "all frozen": ("nn.Linear(5, 3).requires_grad_(False)", ["2 parameters, none of which requires a gradient"]),
    "only whole numbers": (
        "nn.ParameterDict({'n': nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)})",
        ["a module with parameters to train", "1 parameters, none of which requires a gradient"],
    ),
    "complex": ("nn.Linear(5, 3, dtype=torch.complex64)", ["weight of dtype float32", "complex64", "bias of dtype"]),
    "on another device": (
        "nn.Linear(5, 3, device='meta')",
        ["a module on the CPU, where the data is; found on meta: weight, bias", "return module.cpu()"],
    ),
    "in part on another device": (
        "nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, affine=False, device='meta'))",
        ["found on meta: 1.running_mean, 1.running_var, 1.num_batches_tracked"],
    ),
    "double": ("nn.Linear(5, 3).double()", ["weight of dtype float32", "float64", "bias of dtype", "module.float()"]),
    "not finite": (
        "nn.utils.parametrize and (m := nn.Linear(5, 3)) and (nn.init.constant_(m.bias, float('nan')), m)[1]",
        ["bias finite", "3 of 3 elements are NaN"],
    ),
    "another shape": ("nn.Linear(5, 4)", ["scores of shape (n, classes) = (6, 3)", "a tensor of shape (6, 4)"]),
    "raises": ("nn.Linear(4, 3)", ["no exception", "RuntimeError: mat1 and mat2 shapes"]),
    "a loss for each sample": ("nn.Linear(5, 3), nn.CrossEntropyLoss(reduction='none')", ["a scalar tensor", "(6,)"]),
    "a loss of nothing": ("nn.Linear(5, 3), lambda o, y: torch.ones(())", [NOTHING]),
    "a loss of something else": (
        "nn.Linear(5, 3), lambda o, y: torch.ones((), requires_grad=True) * 2",
        [NOTHING],
    ),
    "a loss that is a number": ("nn.Linear(5, 3), lambda o, y: 1.0", ["a scalar tensor", "a float"]),
    "an unused one": (
        "nn.ModuleDict({'a': nn.Linear(5, 3), 'b': nn.Linear(5, 3)}), lambda o, y: o",
        ["no exception", "NotImplementedError"],
    ),
}


@pytest.mark.parametrize(("built", "found"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_of_a_module_is_one_clear_message(built, found):
    model = model_for("torch", source(IMPORTS, f"def build(spec):\n    return {built}"), CLASSES, 0)
    problems = check_for("torch", model, CLASSES, batch(), np.random.default_rng(0))
    said = "\n".join(map(str, problems))
    assert [words for words in found if words not in said] == [], said
    assert all(problem.field.startswith("model.use (") for problem in problems)
    assert len(problems) == (2 if "bias of dtype" in found else 1), said


def test_each_parameter_that_the_loss_does_not_use_is_named():
    text = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(5, 3), nn.Linear(5, 3)
        def forward(self, x):
            return self.used(x)
    def build(spec):
        return Net()
    """
    model = model_for("torch", source(IMPORTS, text), CLASSES, 0)
    problems = check_for("torch", model, CLASSES, batch(), np.random.default_rng(0))
    assert [problem.expected for problem in problems] == [
        "every parameter used, idle.weight too",
        "every parameter used, idle.bias too",
    ]


@pytest.mark.parametrize("built", ["5", "None", "(nn.Linear(5, 3), 1)", "nn.Linear"])
def test_what_is_no_module_is_refused(built):
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module, or a pair of it and a loss"):
        model_for("torch", source(IMPORTS, f"def build(spec):\n    return {built}"), CLASSES, 0)


def test_a_pytorch_that_is_too_old_is_named(monkeypatch):
    import torch

    monkeypatch.delattr(torch.Tensor, "register_post_accumulate_grad_hook")
    with pytest.raises(InputError, match=r"cluster\.engine: expected PyTorch 2\.1 or newer; found 2\."):
        model_for("torch", source(IMPORTS, NET), CLASSES, 0)


def test_a_built_in_model_is_refused():
    with pytest.raises(InputError, match=r'expected "FILE.py:FUNCTION", .* found "mlp"'):
        model_for("torch", ModelSource(use="mlp"), CLASSES, 0)


def test_a_good_module_has_no_mistake():
    model = model_for("torch", source(IMPORTS, NET, dropout=0.5), CLASSES, 0)
    assert check_for("torch", model, CLASSES, batch(), np.random.default_rng(0)) == []
