"""Weights in files that a user's framework reads."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from tests.worker.engines.laws import CLASSES, batch, source

from thalweg_worker.engines import model_for, weights_file
from thalweg_worker.engines.exporting import npz_file
from thalweg_worker.models import initial_parameters

SHAPES = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=30)
@given(st.dictionaries(NAMES, arrays(np.float32, SHAPES, elements=st.floats(width=32)), min_size=1, max_size=4))
def test_numpy_reads_what_was_written(written):
    """By any name, with the same bits; and the same again, in another order, is the same file."""
    data = npz_file(written)
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        assert set(found) == set(written)
        for name, array in written.items():
            assert found[name].tobytes() == array.tobytes()
            assert found[name].shape == array.shape
    assert npz_file(dict(reversed(written.items()))) == data


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b", "../w", "w.npy", "['x']", 'a "b"'])
def test_names_that_mean_something_elsewhere_are_names(name):
    """Keywords of NumPy, paths, an ending."""
    with np.load(io.BytesIO(npz_file({name: np.ones(2, np.float32)}))) as found:
        assert list(found) == [name]
        assert (found[name] == 1).all()


def test_it_is_a_plain_zip_of_npy():
    """Not compressed, so that it can be mapped and read by others; without the time at which it was made."""
    with zipfile.ZipFile(io.BytesIO(npz_file({"w": np.ones(2, np.float32)}))) as archive:
        [member] = archive.infolist()
    assert (member.filename, member.compress_type) == ("w.npy", zipfile.ZIP_STORED)
    assert member.date_time == (1980, 1, 1, 0, 0, 0)


NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight
        self.last.requires_grad_(False)
        self.register_buffer("shift", torch.randn(5))
        self.register_buffer("hits", torch.tensor(0), persistent=True)
    def forward(self, x):
        return self.last(self.second(self.first(x + self.shift)))
def build(spec):
    return Net()
"""


def a_torch_model(seed: int = 3):
    return model_for("torch", source("import torch\nfrom torch import nn\n", NET), CLASSES, seed)


@pytest.mark.compare
def test_a_state_dict_is_all_that_the_module_has():
    """It loads strictly into a module of another seed, which then gives the same output: tied parameters under both
    names, frozen ones and buffers as `build` made them with the job's seed."""
    import torch

    model = a_torch_model()
    weights = {name: array + np.float32(1) for name, array in initial_parameters(model, 3).items()}
    assert set(weights) == {"first.weight", "first.bias", "second.bias"}
    data = weights_file("torch", weights, a_torch_model())
    state = torch.load(io.BytesIO(data), weights_only=True)
    other, plain = a_torch_model(seed=4).module, a_torch_model().module
    other.load_state_dict(state)
    assert set(state) == set(plain.state_dict()) > set(weights)
    for name in ("last.weight", "last.bias", "shift", "hits"):
        assert torch.equal(state[name], plain.state_dict()[name])
    assert torch.equal(state["first.weight"], state["second.weight"])
    for name, array in weights.items():
        np.testing.assert_array_equal(state[name].numpy(), array)
        plain.get_parameter(name).data = torch.from_numpy(array)
    plain.second.weight = plain.first.weight
    x = torch.from_numpy(batch().x)
    assert torch.equal(other(x), plain(x))
    assert data == weights_file("torch", weights, a_torch_model()), "the same weights are the same bytes"


@pytest.mark.compare
def test_a_buffer_that_the_weights_name_has_their_value():
    """In its own dtype."""
    import torch

    weights = initial_parameters(a_torch_model(), 3) | {"shift": np.arange(5, dtype=np.float32), "hits": np.float32(7)}
    weights = {name: np.asarray(array) for name, array in weights.items()}
    state = torch.load(io.BytesIO(weights_file("torch", weights, a_torch_model())), weights_only=True)
    assert state["shift"].tolist() == [0, 1, 2, 3, 4]
    assert (state["hits"].dtype, int(state["hits"])) == (torch.int64, 7)


@pytest.mark.compare
def test_without_a_module_there_is_a_tensor_by_name():
    """Of a job of another engine; the weights may be read-only."""
    import torch

    weights = {"W": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([1])}
    weights["W"].flags.writeable = False
    state = torch.load(io.BytesIO(weights_file("torch", weights)), weights_only=True)
    assert list(state) == ["W", "b"]
    np.testing.assert_array_equal(state["W"].numpy(), weights["W"])


TREE = """
import collections
Layer = collections.namedtuple("Layer", "kernel bias")

class Net:
    def init(self, key):
        return {"layers": [Layer(jax.random.normal(key, (5, 3)), None)], "a.b": (jnp.zeros(()), {"a/b": jnp.ones(3)})}
    def loss(self, params, batch):
        return jnp.sum(params["layers"][0].kernel) + params["a.b"][0] + params["a.b"][1]["a/b"].sum()
def build(spec):
    return Net()
"""


@pytest.mark.compare
def test_a_tree_of_jax_is_restored_by_the_users_own_init():
    """Whatever it is made of: dicts, lists, tuples with names, None; with the one line that is told."""
    import jax

    users = source("import jax\nfrom jax import numpy as jnp\n", TREE)
    weights = {n: a + np.float32(2) for n, a in initial_parameters(model_for("jax", users, CLASSES, 0), 0).items()}
    data = weights_file("jax", weights, model_for("jax", users, CLASSES, 0))
    net = users.build(CLASSES)
    saved = np.load(io.BytesIO(data))
    assert set(saved) == {"['layers'][0].kernel", "['a.b'][0]", "['a.b'][1]['a/b']"}
    params = jax.tree_util.tree_map_with_path(
        lambda path, _: saved[jax.tree_util.keystr(path)], net.init(jax.random.key(1))
    )
    assert jax.tree_util.tree_structure(params) == jax.tree_util.tree_structure(net.init(jax.random.key(1)))
    np.testing.assert_array_equal(params["layers"][0].kernel, weights["layers.0.kernel"])
    np.testing.assert_array_equal(params["a.b"][1]["a/b"], weights["a.b.1.a/b"])
    assert float(params["a.b"][0]) == 2.0


@pytest.mark.compare
def test_paths_of_a_dict_by_name_are_those_of_jax():
    """Which are written without it."""
    import jax

    weights = {name: np.ones(1, np.float32) for name in ("W1", "hidden.0.weight", "it's", 'a "b"')}
    paths, _ = jax.tree_util.tree_flatten_with_path(weights)
    with np.load(io.BytesIO(weights_file("jax", weights))) as found:
        assert set(found) == {jax.tree_util.keystr(path) for path, _ in paths}
