"""A user's pure functions of JAX as a model of a job.

    def build(data_spec: DataSpec, **options) -> an object with init, loss and perhaps predict, or a tuple of these

    init(key)            the parameters before step 0: any pytree of float32 arrays
    loss(params, batch)  the mean loss over the batch, a scalar. batch.x and batch.y are JAX arrays; batch.key is a key
                         of jax.random, from seed, step and microbatch, and None when the model is evaluated
    predict(params, x)   scores (n, *target_shape, classes) or predictions, for the accuracy

Rules:
  - A parameter is called by the path to it in the tree, with dots: "layers.0.kernel".
  - JAX is imported where this file is, and nowhere else, and told before that the CPUs are dealt out to workers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.engines.foreign import file_of, too_old
from thalweg_worker.models import ModelSource, Parameters
from thalweg_worker.models.checks import parameter_problems, prediction_problems, raised, unused_problems

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
import jax  # it reads the environment when it is imported

FUNCTIONS = ("init", "loss", "predict")


class JaxModel:
    """What `build` returned.

    names: of the parameters, in the order of the tree's leaves
    paths: of each, as `jax.tree_util.keystr` writes it: "['layers'][0]['kernel']"
    """

    def __init__(self, functions: dict[str, Callable[..., Any]], spec: DataSpec, seed: int, name: str) -> None:
        """`name`: what the user's function is called. InputError where `init` raises, or gives no parameters."""
        self.spec = spec
        self.loss = functions["loss"]
        self.predict = functions.get("predict")
        self._field = f"model.use ({name})"
        try:
            with jax.default_device(jax.devices("cpu")[0]):  # the same numbers in a worker with a GPU
                tree = functions["init"](jax.random.key(seed % 2**63))
            paths, self._tree = jax.tree_util.tree_flatten_with_path(tree)
        except (Exception, SystemExit) as error:
            raise InputError([raised(f"{self._field}: init", error)]) from None
        self.names = [".".join(map(_step, path)) for path, _ in paths]
        self.paths = [jax.tree_util.keystr(path) for path, _ in paths]
        self._leaves = [leaf for _, leaf in paths]
        if problems := self._leaf_problems():
            raise InputError(problems)

    @classmethod
    def build(cls, source: ModelSource, spec: DataSpec, seed: int) -> JaxModel:
        """Calls the user's function. InputError where there is none, it raises, or returns something else; or where JAX
        is too old."""
        if not hasattr(jax.random, "wrap_key_data"):
            raise too_old("jax", "JAX 0.4.30", str(jax.__version__))
        file = file_of(source, "jax", "functions of JAX")
        built: Any = source.build(spec)
        given = built if isinstance(built, tuple) else [getattr(built, name, None) for name in FUNCTIONS]
        functions = {name: each for name, each in zip(FUNCTIONS, given, strict=False) if each is not None}
        name = f"{file.name}:{source.use}"
        if not {"init", "loss"} <= functions.keys() or not all(map(callable, functions.values())):
            expected = "init(key) and loss(params, batch), with the engine jax: an object that has them, or a pair"
            raise InputError([Problem(f"model.use ({name})", expected, f"a {type(built).__name__}")])
        return cls(functions, spec, seed, name)

    def init(self, rng: np.random.Generator) -> Parameters:
        """As the user's `init` gave them for the job's seed, and not from `rng`: copies."""
        return {name: np.array(leaf) for name, leaf in zip(self.names, self._leaves, strict=True)}

    def tree(self, leaves: list[Any]) -> Any:
        """The user's tree, of arrays in the order of `names`."""
        return jax.tree_util.tree_unflatten(self._tree, leaves)

    def check(self, batch: Batch) -> list[Problem]:
        """Every mistake that shows on one batch; an empty list where the model can be trained. Raises nothing."""
        leaves = list(self.init(np.random.default_rng(0)).values())
        given = Batch(jax.numpy.asarray(batch.x), jax.numpy.asarray(batch.y), jax.random.key(0))
        try:
            traced = jax.make_jaxpr(lambda leaves: self.loss(self.tree(leaves), given))(leaves)
        except (Exception, SystemExit) as error:
            return [raised(f"{self._field}: loss", error)]
        return [*self._loss_problems(traced), *self._predict_problems(leaves, given)]

    def _leaf_problems(self) -> list[Problem]:
        field = f"{self._field}: init"
        if not self.names:
            return [Problem(field, "at least one parameter", "a tree without leaves")]
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            return [Problem(field, "one path with dots to each parameter", f"several to {', '.join(twice)}")]
        problems = []
        for name, leaf in zip(self.names, self._leaves, strict=True):
            dtype = getattr(leaf, "dtype", None)
            if dtype != np.float32:
                found = f"a {type(leaf).__name__}" if dtype is None else str(dtype)
                hint = "what is not trained belongs into the functions: a closure, or eqx.partition"
                problems.append(Problem(field, f"{name}: an array of dtype float32", found, hint))
        return problems or parameter_problems(self.init(np.random.default_rng(0)), field=field)

    def _loss_problems(self, traced: Any) -> list[Problem]:
        field = f"{self._field}: loss"
        outputs = traced.jaxpr.outvars
        if len(outputs) != 1 or traced.out_avals[0].shape != ():
            found = f"shape {traced.out_avals[0].shape}" if len(outputs) == 1 else f"{len(outputs)} arrays"
            return [Problem(field, "a scalar", found, "return its mean over the batch: .mean()")]
        unused = [name for name, used in zip(self.names, _used(traced.jaxpr), strict=True) if not used]
        return unused_problems(field, self.names, unused)

    def _predict_problems(self, leaves: list[Any], batch: Batch) -> list[Problem]:
        if self.predict is None:
            return []
        predict, field = self.predict, f"{self._field}: predict"
        try:
            output = jax.eval_shape(lambda leaves: predict(self.tree(leaves), batch.x), leaves)
        except (Exception, SystemExit) as error:
            return [raised(field, error)]
        return prediction_problems(field, output, self.spec, len(batch.x))


def _step(part: Any) -> str:
    """One step of a path in a tree: a key, an index or the name of a field."""
    for kind in ("key", "idx", "name"):
        if hasattr(part, kind):
            return str(getattr(part, kind))
    return str(part)


def _used(jaxpr: Any) -> list[bool]:
    """Whether the outputs depend on each input."""
    needed = {id(var) for var in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(var) in needed for var in equation.outvars):
            needed.update(map(id, equation.invars))
    return [id(var) in needed for var in jaxpr.invars]
