"""The built-in set "digits": 1,797 images of handwritten digits, 8 x 8, with values from 0 to 16.

It is a file inside scikit-learn (UCI ML repository, Alpaydin and Kaynak 1998), read without importing scikit-learn,
which takes a second or two.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import StoredArray


def read_digits(field: str) -> Source:
    """x (1797, 8, 8) uint8, y (1797,) uint8. Raises InputError where scikit-learn is not installed."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        hint = "pip install 'thalweg[digits]'"
        raise InputError([Problem(field, 'scikit-learn, which holds "digits"', "it is not installed", hint)])
    file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if not file.is_file():
        hint = "a scikit-learn that keeps its data elsewhere; pip install 'scikit-learn>=1.3'"
        raise InputError([Problem(field, f"scikit-learn's {file.name}", f"no such file: {file}", hint)])
    with gzip.open(file) as stream:
        table = np.loadtxt(stream, np.uint8, delimiter=",")
    x = np.ascontiguousarray(table[:, :64]).reshape(-1, 8, 8)
    y = np.ascontiguousarray(table[:, 64])
    return Source(field=field, field_y=field, x=StoredArray(x), y=StoredArray(y))
