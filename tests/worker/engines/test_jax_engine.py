"""The engine of JAX, against JAX itself."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from tests.worker.engines.laws import CLASSES, NUMBERS, batch, draws_follow_from_the_key, hooks_are_called, source

from thalweg_proto.errors import InputError
from thalweg_proto.layout import Layout
from thalweg_worker.batch import Batch
from thalweg_worker.engines import check_for, make_engine, model_for
from thalweg_worker.models import ModelSource, initial_parameters

pytestmark = pytest.mark.compare

IMPORTS = "import jax\nfrom jax import numpy as jnp\n"
NET = """
class Net:
    def __init__(self, rate):
        self.rate = rate

    def init(self, key):
        first, second = jax.random.split(key)
        return {"layers": [{"kernel": jax.random.normal(first, (5, 8)), "bias": jnp.zeros(8)},
                           {"kernel": jax.random.normal(second, (8, 3)), "bias": jnp.zeros(3)}]}

    def predict(self, params, x, key=None):
        first, second = params["layers"]
        h = jnp.tanh(x @ first["kernel"] + first["bias"])
        if key is not None and self.rate:
            h = h * jax.random.bernoulli(key, 1 - self.rate, h.shape) / (1 - self.rate)
        return h @ second["kernel"] + second["bias"]

    def loss(self, params, batch):
        scores = jax.nn.log_softmax(self.predict(params, batch.x, batch.key))
        return -jnp.take_along_axis(scores, batch.y[:, None], axis=1).mean()

def build(spec, rate=0.0):
    return Net(rate)
"""
NAMES = ["layers.0.bias", "layers.0.kernel", "layers.1.bias", "layers.1.kernel"]


def trying(text: str, spec=CLASSES, seed=0, skew=0, **options):
    """Engine, parameters in a vector (as a reader has them), the vector, and room for a gradient; `skew`: by how many
    elements the vector is off its alignment."""
    model = model_for("jax", source(IMPORTS, text, **options), spec, seed)
    drawn = initial_parameters(model, seed)
    layout = Layout.of({name: array.shape for name, array in drawn.items()})
    memory = np.frombuffer(mmap.mmap(-1, 4 * (layout.size + skew)), dtype=np.float32)[skew:]
    for name, view in layout.views(memory).items():
        view[...] = drawn[name]
    seen = memory.view()
    seen.flags.writeable = False
    out = layout.views(np.full(layout.size, np.nan, dtype=np.float32))
    return make_engine("jax", model, classify=spec.task == "classification"), layout.views(seen), memory, out


@pytest.mark.parametrize("skew", [0, 1])
def test_the_gradient_is_that_of_jax_times_the_weight(skew):
    """Of another version of the parameters, too, in the memory that was bound once, whatever its alignment."""
    import jax

    engine, parameters, memory, out = trying(NET, skew=skew)
    samples = batch()
    compute = engine.gradient(parameters, samples, weight=0.25, out=out)
    space: dict = {}
    exec(source(IMPORTS, NET).file.source, space)
    plain = space["build"](CLASSES)
    for shift in (0.0, 0.5):
        memory += np.float32(shift)
        first, second = ({key: np.array(parameters[f"layers.{i}.{key}"]) for key in ("bias", "kernel")} for i in (0, 1))
        loss = compute()
        expected, gradient = jax.value_and_grad(plain.loss)({"layers": [first, second]}, Batch(samples.x, samples.y))
        assert loss == pytest.approx(float(expected), rel=1e-6)
        for i, of_layer in enumerate(gradient["layers"]):
            for key, array in of_layer.items():
                np.testing.assert_allclose(out[f"layers.{i}.{key}"], 0.25 * array, rtol=2e-5, atol=1e-7)


def test_parameters_are_read_in_place_and_named_by_their_paths():
    engine, parameters, memory, out = trying(NET)
    assert list(parameters) == NAMES
    assert all(
        leaf.unsafe_buffer_pointer() == parameters[name].ctypes.data
        for name, leaf in engine._memory.reader(parameters)(None, None).items()
    )
    before = memory.copy()
    engine.gradient(parameters, batch(), weight=1.0, out=out)()
    assert (memory == before).all()


def test_hooks_are_called_before_reading_and_once_all_is_final():
    engine, parameters, _, out = trying(NET)
    assert sorted(hooks_are_called((engine, parameters, out))) == NAMES


def test_what_is_random_follows_from_seed_step_and_microbatch():
    def new():
        engine, parameters, _, out = trying(NET, rate=0.5)
        return engine, parameters, out

    draws_follow_from_the_key(new, "layers.1.kernel")


def test_an_evaluation_drops_nothing_out_and_counts_hits():
    engine, parameters, _, _ = trying(NET, rate=0.9)
    samples = batch(50, key=None)
    found = engine.evaluate(parameters, samples)
    hidden = np.tanh(samples.x @ parameters["layers.0.kernel"] + parameters["layers.0.bias"])
    scores = hidden @ parameters["layers.1.kernel"] + parameters["layers.1.bias"]
    assert found.correct == np.count_nonzero(scores.argmax(axis=1) == samples.y)
    log_sum = np.log(np.exp(scores).sum(axis=1))
    assert found.loss_sum == pytest.approx(float((log_sum - scores[np.arange(50), samples.y]).sum()), rel=1e-5)


def test_a_pair_of_functions_and_regression():
    engine, parameters, _, out = trying(
        """
        def build(spec):
            return (
                lambda key: (jax.random.normal(key, (5,)), jnp.ones(())),
                lambda params, batch: jnp.abs(batch.x @ params[0] + params[1] - batch.y).mean(),
            )
        """,
        spec=NUMBERS,
    )
    assert [(name, array.shape) for name, array in parameters.items()] == [("0", (5,)), ("1", ())]
    samples = batch(spec=NUMBERS)
    loss = engine.gradient(parameters, samples, weight=1.0, out=out)()
    expected = np.abs(samples.x @ parameters["0"] + parameters["1"] - samples.y).mean()
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert engine.evaluate(parameters, samples) == (pytest.approx(6 * loss, rel=1e-5), -1)


def test_the_seed_fixes_what_init_draws():
    draws = [
        initial_parameters(model_for("jax", source(IMPORTS, NET), CLASSES, seed), seed)["layers.0.kernel"]
        for seed in (7, 7, 8)
    ]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


W = 'lambda key: {"w": jnp.ones((5, 3))}'
TWO = 'lambda key: {"w": jnp.ones((5, 3)), "v": jnp.ones(2)}'
NOTHING = "loss: expected one that depends on a parameter; found a loss that depends on none"
MISTAKES = {
    "init raises": ("lambda key: 1 / 0, lambda p, b: 0", ["init: expected no exception", "ZeroDivisionError"]),
    "no parameters": ("lambda key: {}, lambda p, b: 0", ["at least one parameter", "a tree without leaves"]),
    "integers": (
        'lambda key: {"w": jnp.ones(3, jnp.int32), "n": 3}, lambda p, b: 0',
        ["w: an array of dtype float32; found int32", "n: an array of dtype float32; found a int", "eqx.partition"],
    ),
    "not finite": ('lambda key: {"w": jnp.full(3, jnp.nan)}, lambda p, b: 0', ["w finite", "3 of 3 elements"]),
    "two of one name": (
        'lambda key: {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, lambda p, b: 0',
        ["one path with dots", "several to a.b"],
    ),
    "loss raises": (f"{W}, lambda p, b: b.x @ p['v']", ["loss: expected no exception", "KeyError: 'v'"]),
    "a loss for each sample": (f"{W}, lambda p, b: (b.x @ p['w']).sum(1)", ["expected a scalar", "shape (6,)"]),
    "a loss of two": (f"{W}, lambda p, b: ((b.x @ p['w']).sum(), 1.0)", ["expected a scalar", "2 arrays"]),
    "a loss of nothing": (f"{TWO}, lambda p, b: b.x.sum()", [NOTHING]),
    "a loss of whole numbers": (f"{TWO}, lambda p, b: jnp.ones(()) * 3", [NOTHING]),
    "a loss of one": (f"{TWO}, lambda p, b: (b.x @ p['w']).sum()", ["every parameter used, v too"]),
    "complex": ('lambda key: {"w": jnp.ones(3, jnp.complex64)}, lambda p, b: 0', ["dtype float32; found complex64"]),
    "half": ('lambda key: {"w": jnp.ones(3, jnp.bfloat16)}, lambda p, b: 0', ["dtype float32; found bfloat16"]),
    "predictions of another shape": (
        f"{W}, lambda p, b: (b.x @ p['w']).sum(), lambda p, x: x",
        ["predict: expected scores of shape (n, classes) = (6, 3)", "shape (6, 5)"],
    ),
    "predict raises": (
        f"{W}, lambda p, b: (b.x @ p['w']).sum(), lambda p, x: x @ p['w'].T",
        ["predict: expected no exception", "TypeError"],
    ),
}


@pytest.mark.parametrize(("built", "found"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_clear_message(built, found):
    try:
        model = model_for("jax", source(IMPORTS, f"def build(spec):\n    return {built}"), CLASSES, 0)
        problems = check_for("jax", model, CLASSES, batch(), np.random.default_rng(0))
    except InputError as error:
        problems = error.problems
    said = "\n".join(map(str, problems))
    assert [words for words in found if words not in said] == [], said
    assert all(problem.field.startswith("model.use (net.py:build): ") for problem in problems)
    assert len(problems) == (2 if "n: an array" in said else 1), said


@pytest.mark.parametrize("built", ["5", "None", "(lambda key: {},)", "(lambda key: {}, 1)"])
def test_what_has_no_functions_is_refused(built):
    with pytest.raises(InputError, match=r"expected init\(key\) and loss\(params, batch\)"):
        model_for("jax", source(IMPORTS, f"def build(spec):\n    return {built}"), CLASSES, 0)


def test_a_built_in_model_is_refused():
    with pytest.raises(InputError, match=r'expected "FILE.py:FUNCTION", .* found "mlp"'):
        model_for("jax", ModelSource(use="mlp"), CLASSES, 0)


def test_a_jax_that_is_too_old_is_named(monkeypatch):
    import jax

    monkeypatch.delattr(jax.random, "wrap_key_data")
    with pytest.raises(InputError, match=r"cluster\.engine: expected JAX 0\.4\.30 or newer; found 0\."):
        model_for("jax", source(IMPORTS, NET), CLASSES, 0)


def test_a_good_model_has_no_mistake():
    model = model_for("jax", source(IMPORTS, NET, rate=0.5), CLASSES, 0)
    assert check_for("jax", model, CLASSES, batch(), np.random.default_rng(0)) == []
