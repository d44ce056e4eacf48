"""What PyTorch can do with a module beside running it as it is: autocast, and torch.compile."""

from __future__ import annotations

import numpy as np
import pytest
from tests.worker.engines.laws import CLASSES, batch, source

from thalweg_worker.engines import averaged_for, check_compiler, make_engine, model_for
from thalweg_worker.models import initial_parameters

IMPORTS = "import torch\nfrom torch import nn\n"
NET = """
def build(spec, dropout=0.0):
    return nn.Sequential(
        nn.Linear(5, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Dropout(dropout), nn.Linear(64, 3)
    )
"""


def trying(net=NET, **options):
    """Engine, parameters, and room for a gradient with something else in it."""
    model = model_for("torch", source(IMPORTS, net, dropout=options.pop("dropout", 0.0)), CLASSES, 0)
    parameters = initial_parameters(model, 0) | averaged_for("torch", model, batch())
    out = {name: np.full_like(array, np.nan) for name, array in parameters.items()}
    return make_engine("torch", model, classify=True, **options), parameters, out


def gradient(engine, parameters, out, n: int = 6) -> tuple[float, dict[str, np.ndarray]]:
    loss = engine.gradient(parameters, batch(n), weight=0.5, out=out)()
    return loss, {name: array.copy() for name, array in out.items()}


@pytest.mark.compare
def test_autocast_is_that_of_pytorch_with_the_loss_and_gradients_in_float32():
    """To the bit those of the module under torch.autocast, its output made float32 again."""
    import torch

    loss, found = gradient(*trying(autocast="bfloat16"))
    plain = model_for("torch", source(IMPORTS, NET), CLASSES, 0).module
    samples = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = plain(torch.tensor(samples.x))
    assert output.dtype == torch.bfloat16
    expected = torch.nn.functional.cross_entropy(output.float(), torch.tensor(samples.y))
    expected.backward(torch.tensor(0.5))
    assert loss == expected.item()
    for name, parameter in plain.named_parameters():
        np.testing.assert_array_equal(found[name], parameter.grad.numpy())
    exact_loss, exact = gradient(*trying())
    assert 0 < abs(loss - exact_loss) < 0.02
    for name, array in exact.items():
        np.testing.assert_allclose(found[name], array, atol=0.02)


@pytest.mark.compare
def test_autocast_holds_in_an_evaluation_too():
    """Near to that in float32, and not the same."""
    (cast, parameters, _), (exact, _, _) = trying(autocast="bfloat16"), trying()
    found, expected = (engine.evaluate(parameters, batch(50, key=None)).loss_sum for engine in (cast, exact))
    assert found != expected
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.compare
def test_a_compiled_module_has_the_gradient_of_the_plain_one_to_the_same_bits_in_each_process():
    """Whichever size it computed first; with running statistics, and evaluated as it is."""
    one, other = (trying(compiled=sizes) for sizes in ((6, 7), (7, 6)))
    plain = trying()
    for n in (7, 6):
        loss, found = gradient(*one, n)
        again, same = gradient(*other, n)
        expected_loss, expected = gradient(*plain, n)
        assert loss == again == pytest.approx(expected_loss, rel=1e-5)
        for name, array in found.items():
            assert array.tobytes() == same[name].tobytes()
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6)
    samples = batch(50, key=None)
    assert one[0].evaluate(one[1], samples) == plain[0].evaluate(plain[1], samples)


@pytest.mark.compare
def test_what_a_compiled_module_draws_follows_from_seed_step_and_microbatch():
    """Whatever was drawn between."""
    engine, parameters, out = trying(compiled=(6,), dropout=0.5)
    losses = [
        engine.gradient(parameters, batch(key=key), weight=1.0, out=out)() for key in ((0, 1, 2), (0, 1, 3), (0, 1, 2))
    ]
    assert losses[0] == losses[2] != losses[1]


def test_without_a_compiler_the_job_is_refused(monkeypatch, tmp_path):
    """Where it asks for one; the one that the environment names counts."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert check_compiler(False) == []
    [problem] = check_compiler(True)
    assert str(problem).startswith(
        "cluster.compile: expected false, or a C++ compiler, which torch.compile needs; found"
    )
    compiler = tmp_path / "mine"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", "mine")
    assert check_compiler(True) == []
