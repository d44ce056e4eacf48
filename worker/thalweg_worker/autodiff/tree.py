"""Arguments as a flat list of arrays and a structure.

The structure is what a recording depends on: containers, shapes and dtypes, and the values of all that is no array. It
is hashable, so it is the key under which the recording is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from thalweg_worker.autodiff.namespace import is_array_type
from thalweg_worker.autodiff.tensor import Tensor

Structure = tuple[Any, ...]
_LEAF, _DICT, _SEQUENCE, _PLAIN = "leaf", "dict", "sequence", "plain"


def flatten(value: Any, leaves: list[Any]) -> Structure:
    """Append the leaves of `value`, arrays and tensors, to `leaves` and return its structure.

    Containers are dicts, tuples, lists and dataclasses. TypeError for anything else that cannot be hashed.
    """
    kind: Any = type(value)
    how = _how(kind)
    if how is _LEAF:
        leaves.append(value)
        return how, kind, value.shape, value.dtype
    if how is _PLAIN:
        return how, kind, value
    if how is _DICT:
        return how, kind, (*value,), *[flatten(part, leaves) for part in value.values()]
    if how is _SEQUENCE:
        return how, kind, None, *[flatten(part, leaves) for part in value]
    return "fields", kind, how, *[flatten(getattr(value, name), leaves) for name in how]


def rebuild(structure: Structure, leaves: Iterator[Any]) -> Any:
    """The value of this structure, with other leaves."""
    how, kind, names, *rest = structure
    if how is _LEAF:
        return next(leaves)
    if how is _PLAIN:
        return names
    parts = [rebuild(part, leaves) for part in rest]
    if how is _DICT:
        return dict(zip(names, parts, strict=True))
    if how is _SEQUENCE:
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)  # a named tuple, or not
    instance = object.__new__(kind)  # __init__ may check its arguments, and these are not arrays
    for name, part in zip(names, parts, strict=True):
        object.__setattr__(instance, name, part)  # the class may be frozen
    return instance


@lru_cache(maxsize=256)
def _how(kind: Any) -> Any:
    """How to take a value of this type apart; for a dataclass the names of its fields."""
    if issubclass(kind, Tensor) or is_array_type(kind):
        return _LEAF
    if issubclass(kind, dict):
        return _DICT
    if issubclass(kind, (tuple, list)):
        return _SEQUENCE
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if kind.__hash__ is None:
        raise TypeError(f"expected arrays, containers of arrays or plain values as arguments, found {kind.__name__}")
    return _PLAIN
