"""A tensor stands for an array that the replay of a chain will compute.

While a chain is recorded there are shapes and dtypes but no values, so a tensor can be combined, indexed and
reshaped, and cannot be printed as numbers, branched on or converted to float. Every operator is a function of the
package; the operators here only say which.

A tensor either has memory of its own (`base is None`: a leaf, a constant or the result of an instruction) or is a view
of its base. Two facts decide what the planner may do with it:

    dense   its memory is C-contiguous and is all of its root's memory
    undo    for a view that loses nothing: the function that turns an array laid out like the view into one laid out
            like its base; None for indices and broadcasts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import thalweg_worker.autodiff as ad  # looked into when an operator is used, by then it is complete

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from thalweg_worker.autodiff.chain import Chain

Operand: TypeAlias = "Tensor | NDArray[Any] | float"  # arrays are of the chain's namespace, which may be CuPy
Layout = Callable[[Any], Any]  # an array to a view of it
VJP = Callable[["Tensor"], "Tensor"]  # vector-Jacobian product: cotangent of the output to cotangent of one input


class Tensor:
    """An array of known shape and dtype, and of a value that only the replay knows.

    shape, dtype, ndim, size, T: as of a NumPy array. Made by `value_and_grad` and its like, and by operations; never by
    the user.
    """

    __slots__ = ("base", "chain", "computed", "dense", "dtype", "layout", "shape", "slot", "tracked", "undo", "vjps")
    __array_ufunc__ = None  # so that `array + tensor` asks Tensor.__radd__ first

    def __init__(
        self,
        chain: Chain,
        slot: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        base: Tensor | None = None,
        layout: Layout | None = None,
        undo: Layout | None = None,
        dense: bool = True,
        tracked: bool = False,
        computed: bool = False,
    ) -> None:
        self.chain = chain
        self.slot = slot  # the place of its array in the replay's list of arrays
        self.shape = shape
        self.dtype = dtype
        self.base = base
        self.layout = layout
        self.undo = undo
        self.dense = dense
        self.computed = computed  # an instruction writes it
        self.tracked = tracked  # a parameter, or differentiably made of one
        self.vjps: tuple[tuple[Tensor, VJP], ...] = ()

    def linked(self, *vjps: tuple[Tensor, VJP]) -> Tensor:
        """This tensor, with how its cotangent flows on to each of its inputs that is tracked."""
        self.vjps = tuple((x, vjp) for x, vjp in vjps if x.tracked)
        self.tracked = bool(self.vjps)
        return self

    @property
    def root(self) -> Tensor:
        """The tensor that owns the memory."""
        return self if self.base is None else self.base.root

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, dtype={self.dtype})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # What needs a value fails here, with what to use instead.

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "the truth of a tensor is not known while the chain is recorded, so it cannot steer `if`, `while`, `and` "
            "or `assert`; use autodiff.where(mask, a, b)"
        )

    def __float__(self) -> NoReturn:
        raise TypeError("the value of a tensor is not known while the chain is recorded; return it from the function")

    __int__ = __index__ = __complex__ = __float__

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("NumPy cannot take a tensor; use the function of the same name in thalweg_worker.autodiff")

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise TypeError("tensors are not changed in place; use autodiff.where or autodiff.concatenate")

    # Operators. The other operand is an `Operand`; it is typed Any because NumPy's arrays claim these operators too.

    def __add__(self, other: Any) -> Tensor:
        return ad.add(self, other)

    def __sub__(self, other: Any) -> Tensor:
        return ad.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ad.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ad.multiply(self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return ad.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ad.divide(other, self)

    def __pow__(self, exponent: Any) -> Tensor:
        return ad.power(self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return ad.power(base, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ad.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ad.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ad.negative(self)

    __radd__ = __add__
    __rmul__ = __mul__

    # Comparisons give masks (dtype bool) for `where`; nothing flows back through them.

    def __gt__(self, other: Any) -> Tensor:
        return ad.compare("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ad.compare("greater_equal", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return ad.compare("less", self, other)

    def __le__(self, other: Any) -> Tensor:
        return ad.compare("less_equal", self, other)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]  # elementwise, as NumPy's
        return ad.compare("equal", self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]  # elementwise, as NumPy's
        return ad.compare("not_equal", self, other)

    __hash__ = object.__hash__

    # Shapes and reductions.

    def __getitem__(self, index: Any) -> Tensor:
        return ad.index(self, index)

    @property
    def T(self) -> Tensor:  # noqa: N802  # NumPy's name
        return ad.transpose(self)

    def reshape(self, *shape: Any) -> Tensor:
        return ad.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        return ad.transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return ad.sum(self, axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return ad.mean(self, axis, keepdims)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return ad.max(self, axis, keepdims)
