"""`value_and_grad`, `grad` and `forward`: a function on tensors becomes a function on arrays.

The first call with arguments of a new structure (tree.py) records and plans; every call replays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg_worker.autodiff.chain import Chain
from thalweg_worker.autodiff.gradient import backpropagate
from thalweg_worker.autodiff.namespace import is_array, namespace_of, to_device
from thalweg_worker.autodiff.operands import cast, zeros_like
from thalweg_worker.autodiff.replay import Destination, Hook, Program, destination
from thalweg_worker.autodiff.tensor import Tensor
from thalweg_worker.autodiff.tree import Structure, flatten, rebuild

Arrays = dict[str, Any]
RECORDINGS_MAX = 8  # kept for each function, each with its memory; the one not used for longest goes


@dataclass(frozen=True, kw_only=True)
class _Recording:
    chain: Chain
    program: Program
    seed: Any  # array (): the cotangent of the loss; None in a forward recording
    unused: tuple[str, ...]  # parameters on which the loss does not depend
    result: Structure  # of what the function returned


class _Transformed:
    """A function, and its recordings by the structure of the arguments."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise TypeError(f"expected a function of (params, *args), found {type(fn).__name__}")
        self._fn = fn
        self._recordings: OrderedDict[Structure, _Recording] = OrderedDict()  # the last one used is at the end

    def _recording(self, params: Mapping[str, Any], args: tuple[Any, ...]) -> tuple[_Recording, list[Any]]:
        """The recording for these arguments, and their arrays in the order in which it takes them."""
        arrays: list[Any] = []
        structure = flatten((params, args), arrays)
        recording = self._recordings.get(structure)
        if recording is None:
            recording = self._recordings[structure] = self._record(params, structure, arrays)
            if len(self._recordings) > RECORDINGS_MAX:
                self._recordings.popitem(last=False)
        else:
            self._recordings.move_to_end(structure)
        return recording, [to_device(recording.chain.xp, array) for array in arrays]

    def _record(self, params: Mapping[str, Any], structure: Structure, arrays: list[Any]) -> _Recording:
        if any(isinstance(array, Tensor) for array in arrays):
            raise TypeError("expected arrays, found a tensor; derivatives of derivatives are not supported")
        _check_parameters(params)
        chain = Chain(namespace_of(arrays[0]), np.result_type(*(p.dtype for p in params.values())))
        leaves = [chain.leaf(a.shape, a.dtype, tracked=i < len(params)) for i, a in enumerate(arrays)]
        for i, leaf in enumerate(leaves):
            if leaf.dtype.kind not in "fiub":
                raise TypeError(f"array {i - len(params)} of the arguments: expected numbers, found {leaf.dtype}")
        inputs = [cast(leaf, chain.dtype) if leaf.dtype.kind == "f" else leaf for leaf in leaves]
        tensors, args = rebuild(structure, iter(inputs))
        return self._finish(chain, dict(zip(params, leaves, strict=False)), leaves, self._fn(tensors, *args))

    def _finish(self, chain: Chain, params: dict[str, Tensor], leaves: list[Tensor], result: Any) -> _Recording:
        raise NotImplementedError


class _Differentiated(_Transformed):
    _with_value: bool

    def unused(self, params: Mapping[str, Any], *args: Any) -> tuple[str, ...]:
        """The parameters on which the loss does not depend; their gradient is zero. Nothing is computed."""
        return self._recording(params, args)[0].unused

    def _finish(self, chain: Chain, params: dict[str, Tensor], leaves: list[Tensor], result: Any) -> _Recording:
        loss = _scalar(chain, result)
        seed = chain.constant(np.ones((), chain.dtype))
        # Zeros come before all gradients, so that nothing has to wait for them; plan.py drops those that nobody needs.
        zeros = {name: zeros_like(p) for name, p in params.items()}
        gradients = dict(zip(params, backpropagate(loss, seed, list(params.values())), strict=True))
        destinations: dict[str, Destination] = {}
        for name, gradient in gradients.items():
            taken = [place.tensor for place in destinations.values()]
            destinations[name] = destination(zeros[name] if gradient is None else gradient, taken)
        return _Recording(
            chain=chain,
            program=Program(chain, leaves, [loss] if self._with_value else [], destinations, params),
            seed=chain.constants[seed.slot],
            unused=tuple(name for name, gradient in gradients.items() if gradient is None),
            result=(),
        )

    def _run(
        self,
        params: Mapping[str, Any],
        args: tuple[Any, ...],
        out: Mapping[str, Any] | None,
        seed: float,
        on_ready: Hook | None,
    ) -> tuple[list[Any], Arrays]:
        recording, arrays = self._recording(params, args)
        if out is None:
            xp = recording.chain.xp
            out = {name: xp.empty(p.shape, p.dtype) for name, p in params.items()}
        else:
            _check_out(params, out)
        recording.seed.fill(seed)
        values = recording.program.bind(arrays, out, on_ready).run()
        return values, {name: out[name] for name in params}


class ValueAndGrad(_Differentiated):
    """What `value_and_grad` returns."""

    _with_value = True

    def __call__(
        self,
        params: Mapping[str, Any],
        *args: Any,
        out: Mapping[str, Any] | None = None,
        seed: float = 1.0,
        on_ready: Hook | None = None,
    ) -> tuple[float, Arrays]:
        """The value of fn(params, *args), and its gradient with respect to each parameter, times `seed`.

        params:   name to array, float32 or float64; read in place and never written, so read-only memory will do
        args:     arrays, dicts, tuples, lists and dataclasses of them, None and plain values. Arrays may be others at
                  each call; plain values are part of what is recorded
        out:      name to C-contiguous array of the parameter's shape and dtype, into which the gradients are computed;
                  without it they are new arrays
        seed:     the cotangent of the loss. A microbatch of n samples in a batch of B has seed n / B, so that the
                  gradients of mean losses add up to that of the whole batch
        on_ready: called with (name, first) when elements [first, size) of the gradient `name`, counted in the flat
                  array, are final in `out`: in the order of the backward pass, while the rest is yet to be computed.
                  The last call for each name says 0. A large gradient that is one product of matrices is told of in
                  tiles of rows (tiles.py), any other at once. Hooks change no bit of what is computed

        TypeError or ValueError for parameters, arguments or `out` that do not fit this, and where fn does not return
        a scalar tensor; IndexError for an index or a label out of range. What a hook raises ends the run.
        """
        values, gradients = self._run(params, args, out, seed, on_ready)
        return float(values[0]), gradients

    def bind(
        self,
        params: Mapping[str, Any],
        *args: Any,
        out: Mapping[str, Any],
        seed: float = 1.0,
        on_ready: Hook | None = None,
        before_read: Hook | None = None,
    ) -> Callable[[], float]:
        """A function without arguments that does what a call with these would: on what the arrays hold by then.

        For a loop over buffers that stay: what a call does before it computes is done once. NumPy arrays only, else
        TypeError, and C-contiguous ones, else ValueError; the other errors are those of a call, and what fn captures
        from outside is constant here, too.

        before_read: called with (name, end) before a run reads elements of parameter `name` before `end`, counted in
                     the flat array, unless it was for these; there the run may wait until they have come. `end` grows
                     from call to call: it is where the view that is read ends, or one block of the rows of a large
                     matrix that is the right factor of a product (tiles.py). Before anything is written to `out`, and
                     so before the first call of `on_ready`, it was called with end = size for each parameter
        """
        recording, arrays = self._recording(params, args)
        if recording.chain.xp is not np:
            raise TypeError("expected NumPy arrays, found those of a device: their values are moved at each call")
        if not all(array.flags.c_contiguous for array in arrays):
            raise ValueError("expected C-contiguous arrays: a reshaped view of another one is a copy, made now")
        _check_out(params, out)
        run, fill = recording.program.bind(arrays, out, on_ready, before_read).run, recording.seed.fill

        def bound() -> float:
            fill(seed)
            return float(run()[0])

        return bound


class Grad(_Differentiated):
    """What `grad` returns."""

    _with_value = False

    def __call__(
        self,
        params: Mapping[str, Any],
        *args: Any,
        out: Mapping[str, Any] | None = None,
        seed: float = 1.0,
        on_ready: Hook | None = None,
    ) -> Arrays:
        """The gradient alone; arguments as of `ValueAndGrad`. What only the value needs is not computed."""
        return self._run(params, args, out, seed, on_ready)[1]


class Forward(_Transformed):
    """What `forward` returns."""

    def __call__(self, params: Mapping[str, Any], *args: Any) -> Any:
        """What fn(params, *args) returns, arrays in place of tensors, without any gradient.

        The arrays are memory of this object, to be read until its next call; copy what must last.
        """
        recording, arrays = self._recording(params, args)
        return rebuild(recording.result, iter(recording.program.bind(arrays, {}).run()))

    def _finish(self, chain: Chain, params: dict[str, Tensor], leaves: list[Tensor], result: Any) -> _Recording:
        outputs: list[Any] = []
        structure = flatten(result, outputs)
        if not any(isinstance(output, Tensor) for output in outputs):
            raise TypeError(f"expected a function that returns a tensor, found {type(result).__name__}")
        tensors = [output if isinstance(output, Tensor) else chain.constant(output) for output in outputs]
        program = Program(chain, leaves, tensors, {}, {})
        return _Recording(chain=chain, program=program, seed=None, unused=(), result=structure)


def value_and_grad(fn: Callable[..., Tensor]) -> ValueAndGrad:
    """The function that computes fn(params, *args) and its gradient with respect to `params`.

    vg = value_and_grad(lambda params, x: ((x @ params["w"]) ** 2).mean())
    value, gradient = vg({"w": w}, x)
    """
    return ValueAndGrad(fn)


def grad(fn: Callable[..., Tensor]) -> Grad:
    """The function that computes the gradient of fn(params, *args) with respect to `params`."""
    return Grad(fn)


def forward(fn: Callable[..., Any]) -> Forward:
    """The function that computes fn(params, *args) and no gradient, in as little memory: for evaluation, prediction."""
    return Forward(fn)


def _scalar(chain: Chain, result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise TypeError(f"expected a function that returns a scalar tensor, found {type(result).__name__}")
    if result.chain is not chain:
        raise ValueError("expected a tensor of this recording, found one of another; tensors live as long as one call")
    if result.shape != ():
        raise ValueError(
            f"expected a function that returns a scalar tensor, of shape (), found shape {result.shape}; "
            "take its .mean() or .sum()"
        )
    if result.dtype != chain.dtype:
        raise TypeError(f"expected a function that returns a tensor of {chain.dtype}, found {result.dtype}")
    return result


def _check_parameters(params: Mapping[str, Any]) -> None:
    if not isinstance(params, dict):
        raise TypeError(f"expected the parameters as a dict of arrays, found {type(params).__name__}")
    if not params:
        raise ValueError("expected at least one parameter, found an empty dict")
    for name, p in params.items():
        if not is_array(p):
            raise TypeError(f"parameter {name!r}: expected an array, found {type(p).__name__}")
        if p.dtype not in (np.float32, np.float64):
            raise TypeError(f"parameter {name!r}: expected float32 or float64, found {p.dtype}")


def _check_out(params: Mapping[str, Any], out: Mapping[str, Any]) -> None:
    for name, p in params.items():
        array = out.get(name)
        if array is None:
            raise ValueError(f"out: expected an array for each parameter, found none for {name!r}")
        if array.shape != p.shape or array.dtype != p.dtype or not array.flags.c_contiguous:
            contiguous = "C-contiguous" if array.flags.c_contiguous else "not C-contiguous"
            raise ValueError(
                f"out[{name!r}]: expected a C-contiguous array of {p.dtype} and shape {p.shape}, "
                f"found {array.dtype} and {array.shape}, {contiguous}"
            )
