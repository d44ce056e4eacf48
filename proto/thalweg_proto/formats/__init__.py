"""Wire formats: how a block of float32 travels between two servers. `wire_format.py` says what a format is.

    format = make_format("int8")
    data = format.encode(gradient, residual)    # and the residual holds what `data` does not say
    format.decode(data, out)

Bytes for n elements, and what of them arrives:

    float32     4 n               every bit
    bfloat16    2 n               2 to 3 digits of each element
    int8        n + 4 n / 256     each element to 1/254 of the largest among 256 neighbours
    topk        8 n * fraction    the fraction that is largest, each bit of it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thalweg_proto.formats.bfloat16 import BFloat16
from thalweg_proto.formats.float32 import Float32
from thalweg_proto.formats.int8 import Int8
from thalweg_proto.formats.topk import TopK
from thalweg_proto.formats.wire_format import WireFormat

__all__ = ["FORMATS", "WireFormat", "make_format"]

_MAKERS: Mapping[str, Callable[..., WireFormat]] = {maker.name: maker for maker in (Float32, BFloat16, Int8, TopK)}
FORMATS: tuple[str, ...] = tuple(_MAKERS)
"""The names that `make_format` knows."""


def make_format(name: str, **options: Any) -> WireFormat:
    """The format `name`; topk takes `fraction`, the others take no options.

    ValueError for a name that is none, with those there are, and for a value out of range; TypeError for an option that
    the format does not take.
    """
    if name not in _MAKERS:
        raise ValueError(f"expected one of the wire formats {', '.join(FORMATS)}; found {name!r}")
    return _MAKERS[name](**options)
