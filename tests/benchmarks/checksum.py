"""What a checksum of a block costs: the one of wire.py beside zlib's, GB/s on one core.

python -m tests.benchmarks.checksum
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX
from thalweg_proto.wire import checksum

ROUNDS = 200


def gigabytes_s(compute: Callable[[], object], nbytes: int) -> tuple[float, float]:
    """The median and the best of so many rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = perf_counter()
        compute()
        seconds.append(perf_counter() - began)
    return nbytes / median(seconds) / 1e9, nbytes / min(seconds) / 1e9


def main() -> None:
    elements = np.random.default_rng(0).standard_normal(BLOCK_ELEMENTS_MAX, dtype=np.float32)
    head, data = bytes(75), elements.data.cast("B")
    for name, compute in {
        "checksum": lambda: checksum([head, data]),
        "zlib.crc32": lambda: zlib.crc32(data),
        "zlib.adler32": lambda: zlib.adler32(data),
    }.items():
        print("{:12s} {:5.1f} GB/s, best {:5.1f}".format(name, *gigabytes_s(compute, data.nbytes)))


if __name__ == "__main__":
    main()
