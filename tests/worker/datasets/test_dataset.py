"""take: the rows asked for, converted into the caller's buffers, wherever and in whatever form they are stored."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from thalweg_proto.errors import InputError
from thalweg_proto.job import ArrayPair, DataSection
from thalweg_worker.datasets import Dataset, MappedArray, TrainEval, load_dataset, ready
from thalweg_worker.datasets import dataset as module


def load(section: DataSection, seed: int = 0) -> TrainEval:
    """Data that is right."""
    loaded = load_dataset(section, seed)
    assert loaded.problems == ()
    assert loaded.data is not None
    return loaded.data


def taken(data: Dataset, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What take writes, into buffers that hold rubbish before."""
    x = np.full((len(indices), *data.spec.input_shape), 77, data.spec.input_dtype)
    y = np.full((len(indices), *data.spec.target_shape), 77, module.target_dtype(data.spec))
    data.take(indices, x, y)
    return x, y


def save(folder: Path, x: NDArray[Any], y: NDArray[Any]) -> ArrayPair:
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return ArrayPair(x=str(folder / "x.npy"), y=str(folder / "y.npy"))


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["|u1", "<i2", ">i4", "<f2", "<f4", ">f4", "<f8", ">f8", "|b1"]),
    label_dtype=st.sampled_from(["|u1", ">i4", "<i8", "<U2", "<f4"]),
    shape=st.sampled_from([(3,), (2, 3), (2, 2, 3)]),
    scale=st.sampled_from(["none", "standard", "0-1"]),
    fraction=st.sampled_from([0.0, 0.3]),
    large=st.booleans(),
    fortran=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_take_is_the_files_rows_scaled(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    label_dtype: str,
    shape: tuple[int, ...],
    scale: Any,
    fraction: float,
    large: bool,
    fortran: bool,
    seed: int,
) -> None:
    """For each dtype, shape, scale, split and kind of storage: row by row what NumPy makes of the whole file."""
    random = np.random.default_rng(seed)
    x = (random.normal(size=(30, *shape)) * 20 + 50).astype(dtype)
    labels = random.integers(0, 4, 30) * 2
    labels[:4] = [0, 2, 4, 6]
    y = labels.astype(label_dtype)
    fortran = fortran and not large  # refused, as another test shows
    pair = save(tmp_path_factory.mktemp("set"), np.asfortranarray(x) if fortran else x, y)
    with pytest.MonkeyPatch.context() as patch:
        if large:
            patch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
            patch.setattr(module, "ROW_TABLE_MAX", 0)
        data = load(DataSection(train=pair, eval=fraction, scale=scale), seed)

    for part in (data.train, data.eval):
        if part is None:
            continue
        indices = random.integers(0, len(part), 11)
        rows = part.rows.at(indices)
        got_x, got_y = taken(part, indices)
        expected = x[rows].astype(np.float64)
        if data.scaling is not None:
            expected = (expected - data.scaling.offset) * data.scaling.factor
        if data.spec.input_dtype == "int64":
            assert scale == "none"
            np.testing.assert_array_equal(got_x, x[rows])
        else:
            np.testing.assert_allclose(got_x, expected, rtol=1e-5, atol=1e-5)
        expected_y = labels[rows] if data.spec.task == "regression" else labels[rows] // 2
        np.testing.assert_array_equal(got_y, expected_y)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i4"])
def test_converting_once_or_each_time_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """The size of a file decides when it is converted, and not what comes out."""
    random = np.random.default_rng(0)
    pair = save(tmp_path, (random.normal(size=(50, 7)) * 1000).astype(dtype), random.integers(0, 3, 50))
    section, indices = DataSection(train=pair), np.arange(40)
    once = load(section).train
    monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
    each = load(section).train
    assert once.x.file is None
    assert each.x.file is not None
    np.testing.assert_array_equal(taken(once, indices)[0], taken(each, indices)[0])


def test_large_files_in_fortran_order_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie scattered over a file larger than memory cannot be gathered."""
    pair = save(tmp_path, np.asfortranarray(np.ones((4, 3), np.float32)), np.array([0, 1, 0, 1]))
    monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
    [problem] = load_dataset(DataSection(train=pair, eval=0.0), 0).problems
    assert "rows that lie together (C order); found Fortran order" in str(problem)


def test_indices_beyond_the_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the table of rows and without it, an index outside raises and does not wrap or clip."""
    pair = save(tmp_path, np.ones((10, 2), np.float32), np.arange(10) % 2)
    for _ in range(2):
        train = load(DataSection(train=pair)).train
        with pytest.raises(IndexError):
            taken(train, np.array([0, 8]))
        monkeypatch.setattr(module, "ROW_TABLE_MAX", 0)


@pytest.mark.parametrize(
    ("dtype", "scale", "bytes_max"),
    [("<f4", "none", 4096), ("|u1", "none", 4096), ("<f4", "standard", 40_000), ("<f8", "standard", 140_000)],
)
def test_taking_allocates_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, scale: Any, bytes_max: int
) -> None:
    """128 rows of 784 (401 kB) take the rows' numbers only, and to scale them NumPy's buffers of 8192 elements."""
    random = np.random.default_rng(0)
    monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
    pair = save(tmp_path, (random.random((300, 784)) * 100).astype(dtype), random.integers(0, 10, 300))
    train = load(DataSection(train=pair, scale=scale)).train
    indices = random.integers(0, 200, 128)
    x_out, y_out = np.empty((128, 784), np.float32), np.empty(128, np.int64)
    train.take(indices, x_out, y_out)
    tracemalloc.start()
    train.take(indices, x_out, y_out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < bytes_max


def test_a_mapped_set_travels_as_its_place(tmp_path: Path) -> None:
    """A pickled set that is mapped holds no data, and gives the same rows elsewhere."""
    random = np.random.default_rng(0)
    pair = save(tmp_path, random.normal(size=(1000, 50)).astype(np.float32), random.integers(0, 3, 1000))
    data = load(DataSection(train=pair, scale="none"))
    shipment = data.train.to_shipment()
    assert shipment.x == MappedArray(path=pair.x, dtype="<f4", shape=(1000, 50), offset=128)
    sent = pickle.dumps(data)
    assert len(sent) < 4000
    arrived = pickle.loads(sent)
    assert data.eval is not None
    for part, other in ((data.train, arrived.train), (data.eval, arrived.eval)):
        for mine, theirs in zip(taken(part, np.arange(20)), taken(other, np.arange(20)), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_decoded_arrays_travel_once_and_out_of_band(tmp_path: Path) -> None:
    """Training and held-out sets pickled together share their arrays, which need no copy (protocol 5)."""
    np.savez(tmp_path / "set.npz", x=np.ones((1000, 50), np.float32), y=np.arange(1000) % 2)
    data = load(DataSection(train=str(tmp_path / "set.npz"), scale="none"))
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(data)
    assert sorted(buffer.raw().nbytes for buffer in buffers) == [8000, 200_000]
    arrived = pickle.loads(stream.getvalue(), buffers=[buffer.raw().toreadonly() for buffer in buffers])
    assert not arrived.train.x.array.flags.writeable
    np.testing.assert_array_equal(taken(arrived.eval, np.arange(5))[0], np.ones((5, 50)))


def test_a_file_that_a_worker_cannot_map_is_named(tmp_path: Path) -> None:
    """A shipment whose file is missing or has shrunk says so."""
    pair = save(tmp_path, np.ones((10, 2), np.float32), np.arange(10) % 2)
    shipment = load(DataSection(train=pair, scale="none")).train.to_shipment()
    Path(pair.x).write_bytes(Path(pair.x).read_bytes()[:-1])
    with pytest.raises(InputError, match="at least 208 bytes; found 207 bytes"):
        Dataset.from_shipment(shipment)
    Path(pair.x).unlink()
    with pytest.raises(InputError, match="every host of the cluster can read; found No such file"):
        Dataset.from_shipment(shipment)


@pytest.mark.bench
def test_take_costs_little_more_than_numpys_take(tmp_path: Path) -> None:
    """128 rows of 784 floats and their labels cost at most 1.3 times np.take of the rows alone."""
    import time

    random = np.random.default_rng(0)
    pair = save(tmp_path, random.random((60_000, 784), np.float32), random.integers(0, 10, 60_000))
    train = load(DataSection(train=pair, scale="none")).train
    table = np.load(pair.x)
    x_out, y_out = np.empty((128, 784), np.float32), np.empty(128, np.int64)
    ours, plain = [], []
    for _ in range(500):
        indices, rows = random.integers(0, len(train), (2, 128))
        begin = time.perf_counter()
        train.take(indices, x_out, y_out)
        middle = time.perf_counter()
        np.take(table, rows, axis=0, out=x_out, mode="clip")
        ours.append(middle - begin)
        plain.append(time.perf_counter() - middle)
    assert np.median(ours) < 1.3 * np.median(plain)
