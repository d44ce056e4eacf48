"""`init = "weights.safetensors"`: what fits is loaded, what does not is named."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from thalweg_worker.models import load_init


def start() -> dict[str, np.ndarray]:
    return {"W": np.zeros((2, 3), dtype=np.float32), "b": np.zeros(3, dtype=np.float32)}


def saved(folder: Path, **changed: Any) -> Path:
    """A file that fits, with some parameters replaced; None takes one away."""
    arrays = {"W": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, dtype=np.float32), **changed}
    path = folder / "weights.safetensors"
    save_file({name: array for name, array in arrays.items() if array is not None}, path)
    return path


def test_weights_that_fit_are_filled_in_place(tmp_path: Path) -> None:
    """The arrays stay the same objects and hold the file's numbers; a view into shared memory would too."""
    params = start()
    before = dict(params)
    assert load_init(saved(tmp_path), params) == []
    assert params["W"] is before["W"]
    assert params["W"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert params["b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("changed", "expected", "found"),
    [
        ({"W": np.zeros((2, 4), np.float32)}, "W of shape (2, 3)", "shape (2, 4)"),
        ({"W": np.zeros(6, np.float32)}, "W of shape (2, 3)", "shape (6,)"),
        ({"W": np.zeros((2, 3))}, "W in float32 (F32)", "F64"),
        ({"W": np.full((2, 3), np.nan, np.float32)}, "W finite", "6 of 6 elements"),
        ({"b": None}, "b of shape (3,)", "no parameter of this name"),
        ({"c": np.zeros(5, np.float32)}, "parameters of the model (W, b)", "c of shape (5,)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changed: dict[str, Any], expected: str, found: str) -> None:
    """One problem with what the model has and what the file has; and nothing is loaded."""
    params = start()
    (problem,) = load_init(saved(tmp_path, **changed), params)
    assert problem.field == "model.init (weights.safetensors)"
    assert problem.expected == expected
    assert found in problem.found
    assert not any(array.any() for array in params.values())


def test_all_that_does_not_fit_is_named_together(tmp_path: Path) -> None:
    """A renamed parameter is missing and unexpected, with a hint; a wrong shape is reported beside."""
    path = saved(tmp_path, hidden_weight=np.zeros((2, 3), np.float32), b=np.zeros(4, np.float32))
    params = start() | {"hidden.weight": np.zeros((2, 3), dtype=np.float32)}
    problems = load_init(path, params)
    assert [(p.expected.split()[0], p.found, p.hint) for p in problems] == [
        ("hidden.weight", "no parameter of this name", 'did you mean "hidden_weight"?'),
        ("parameters", "hidden_weight of shape (2, 3)", ""),
        ("b", "shape (4,)", ""),
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The absolute path that was tried stands in the problem."""
    (problem,) = load_init(tmp_path / "none.safetensors", start())
    assert str(tmp_path / "none.safetensors") in problem.expected
    assert "No such file" in problem.found


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip file",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60) + b'{"W":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}   ' + bytes(8),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, foreign, with a header that lies, or cut short: one problem, no exception."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    (problem,) = load_init(path, start())
    assert problem.expected == "a safetensors file"
    assert problem.found


def test_a_folder_is_no_weights(tmp_path: Path) -> None:
    """A folder in place of the file gives a problem."""
    (problem,) = load_init(tmp_path, start())
    assert problem.found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"W": np.zeros((9, 9), np.float32), "c": np.zeros(5, np.float32)}, []),
        ({"W": np.zeros((2, 3)), "b": None}, ["W in float32 (F32)"]),
        ({"W": np.full((2, 3), np.nan, np.float32)}, ["W finite"]),
    ],
)
def test_a_file_is_looked_at_without_the_model(tmp_path: Path, changed: dict[str, Any], said: list[str]) -> None:
    """What is wrong for any model is found; names and shapes have nothing to be compared with."""
    assert [problem.expected for problem in load_init(saved(tmp_path, **changed), None)] == said


def test_a_missing_file_is_named_without_the_model(tmp_path: Path) -> None:
    """It is missing whatever the model is."""
    (problem,) = load_init(tmp_path / "none.safetensors", None)
    assert "No such file" in problem.found
