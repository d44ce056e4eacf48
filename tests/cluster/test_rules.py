from __future__ import annotations

import math

import numpy as np
import pytest

from thalweg_cluster.rules import RULES, make_rule

CASES = [
    ("sgd", {}),
    ("sgd", {"weight_decay": 0.1}),
    ("momentum", {"momentum": 0.9}),
    ("momentum", {"momentum": 0.8, "weight_decay": 0.1}),
    ("nesterov", {"momentum": 0.9}),
    ("nesterov", {"momentum": 0.9, "weight_decay": 0.1}),
    ("adagrad", {}),
    ("adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-6}),
    ("rmsprop", {}),
    ("rmsprop", {"alpha": 0.9, "weight_decay": 0.1, "eps": 1e-6}),
    ("rmsprop", {"momentum": 0.9}),
    ("rmsprop", {"centered": True}),
    ("rmsprop", {"centered": True, "momentum": 0.9}),
    ("adam", {}),
    ("adam", {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.2, "betas": (0.8, 0.99)}),
]
IDS = [f"{name}-{'-'.join(options) or 'defaults'}" for name, options in CASES]


def trained(name, options, parameters, gradients, learning_rate=0.1) -> tuple[np.ndarray, list[np.ndarray]]:
    """Parameters and state after one step for each row of `gradients`."""
    rule = make_rule(name, options)
    parameters = parameters.astype(np.float32)
    state = [np.full_like(parameters, slot.initial_value) for slot in rule.slots]
    for step, gradient in enumerate(gradients.astype(np.float32)):
        out = gradient.copy()
        scratch = [np.full_like(parameters, np.nan) for _ in range(rule.scratch)]
        new_state = [np.full_like(parameters, np.nan) for _ in state]
        before = [array.copy() for array in state]
        with np.errstate(all="ignore"):
            rule.block_update(step, learning_rate)(parameters, out, state, new_state, scratch)
        np.testing.assert_array_equal(state, before)  # it is only read
        parameters, state = out, new_state
    return parameters, state


def test_two_steps_by_hand():
    """p = 1, gradients 2 and 1, learning rate 0.1; worked out from the formulas of the docstrings."""
    one, gradients = np.array([1.0]), np.array([[2.0], [1.0]])

    def end(name, **options):
        return trained(name, options, one, gradients)[0][0]

    assert end("sgd") == pytest.approx(1 - 0.2 - 0.1)
    assert end("momentum", momentum=0.5) == pytest.approx(1 - 0.2 - 0.1 * (0.5 * 2 + 1))
    assert end("nesterov", momentum=0.5) == pytest.approx(1 - 0.1 * (2 + 0.5 * 2) - 0.1 * (1 + 0.5 * 2))
    assert end("adagrad") == pytest.approx(1 - 0.1 - 0.1 * 1 / math.sqrt(5))
    assert end("rmsprop", alpha=0.5) == pytest.approx(1 - 0.1 * 2 / math.sqrt(2) - 0.1 / math.sqrt(1.5))
    m, v = (0.9 * 0.2 + 0.1) / (1 - 0.81), (0.999 * 0.004 + 0.001) / (1 - 0.999**2)
    assert end("adam") == pytest.approx(1 - 0.1 - 0.1 * m / math.sqrt(v))
    decayed = (1 * (1 - 0.01) - 0.1) * (1 - 0.01) - 0.1 * m / math.sqrt(v)
    assert end("adamw", weight_decay=0.1) == pytest.approx(decayed)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_the_result_does_not_depend_on_the_blocks(name, options):
    """Element by element: two halves give the bits of the whole."""
    rng = np.random.default_rng(0)
    parameters, gradients = rng.standard_normal(30), rng.standard_normal((5, 30))
    whole, _ = trained(name, options, parameters, gradients)
    halves = [trained(name, options, parameters[cut], gradients[:, cut])[0] for cut in (slice(0, 13), slice(13, 30))]
    assert whole.tolist() == np.concatenate(halves).tolist()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_what_is_not_finite_shows_in_the_parameters_or_in_a_slot_that_is_marked(name, options, bad):
    """NaN, infinity and overflow of a square: the update pass sees them where it looks."""
    gradients = np.full((1, 3), 0.5)
    gradients[0, 1] = bad
    parameters, state = trained(name, options, np.ones(3), gradients)
    marked = [array for slot, array in zip(make_rule(name, options).slots, state, strict=True) if slot.hides]
    overflows = bad == 1e30 and name in ("sgd", "momentum", "nesterov")
    seen = not np.isfinite(parameters).all() or any(not np.isfinite(array).all() for array in marked)
    assert seen != overflows  # without squares, 1e30 is a number like any other
    assert np.isfinite(parameters[[0, 2]]).all()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_gap_of_the_layout_stays_zero(name, options):
    """Parameter 0 and gradient 0 give 0, whatever the rule."""
    parameters, _ = trained(name, options, np.zeros(4), np.zeros((3, 4)))
    assert not parameters.any()


def test_every_rule_of_the_job_file_is_there():
    """The schema and the rules name the same ones, with the same options."""
    from thalweg_proto.job import OptimizerSection

    for name in RULES:
        make_rule(name, OptimizerSection(rule=name).options_for("rule"))


@pytest.mark.compare
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_hundred_steps_equal_those_of_torch(name, options):
    """float32, random gradients: 1e-5 relative to the largest parameter."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    start, gradients = rng.standard_normal(200), rng.standard_normal((100, 200))
    makers = {
        "sgd": lambda p, **o: torch.optim.SGD(p, lr=0.01, **o),
        "momentum": lambda p, **o: torch.optim.SGD(p, lr=0.01, **o),
        "nesterov": lambda p, **o: torch.optim.SGD(p, lr=0.01, nesterov=True, **o),
        "adagrad": lambda p, **o: torch.optim.Adagrad(p, lr=0.01, **o),
        "rmsprop": lambda p, **o: torch.optim.RMSprop(p, lr=0.01, **o),
        "adam": lambda p, **o: torch.optim.Adam(p, lr=0.01, **o),
        "adamw": lambda p, **o: torch.optim.AdamW(p, lr=0.01, **o),
    }
    tensor = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    optimizer = makers[name]([tensor], **options)
    for gradient in gradients:
        tensor.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    ours, _ = trained(name, options, start, gradients, learning_rate=0.01)
    np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-5, atol=1e-5)
