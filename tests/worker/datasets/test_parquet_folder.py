"""A folder of .parquet files as one table, decoded once to files that are mapped."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg_proto.errors import InputError
from thalweg_proto.job import DataSection
from thalweg_worker.datasets import Fetcher, Samples, TrainEval, load_dataset, ready
from thalweg_worker.datasets.cache import VARIABLE, cache_folder
from thalweg_worker.datasets.reading import read_source

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tables are decoded to, with nothing in it."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """Three files with 20, 0 and 13 rows, in row groups of 7, and others that are none of the table."""
    folder = tmp_path / "table"
    folder.mkdir()
    for name, begin, end in (("part-1", 20, 20), ("part-0", 0, 20), ("part-2", 20, 33)):
        write(folder / f"{name}.parquet", begin, end)
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").write_bytes(b"1234")
    return folder


def columns(begin: int, end: int) -> dict[str, Any]:
    rows = np.arange(begin, end)
    return {"a": pyarrow.array(rows, pyarrow.int16()), "label": [f"c{i % 3}" for i in rows], "b": rows * 0.5}


def write(file: Path, begin: int, end: int, **changes: Any) -> None:
    table = {name: column for name, column in {**columns(begin, end), **changes}.items() if column is not None}
    if begin == end:
        types = {"a": pyarrow.int16(), "label": pyarrow.string(), "b": pyarrow.float64()}
        table = {name: pyarrow.array([], types[name]) for name in table}
    parquet.write_table(pyarrow.table(table), file, row_group_size=7)


def load(folder: Path, seed: int = 0, **section: Any) -> TrainEval:
    """A folder that is right."""
    loaded = load_dataset(DataSection(train=str(folder), **section), seed)
    assert loaded.problems == ()
    assert loaded.data is not None
    return loaded.data


def problems(folder: Path, **section: Any) -> str:
    loaded = load_dataset(DataSection(train=str(folder), **section), 0)
    assert loaded.data is None
    return "\n".join(str(problem) for problem in loaded.problems)


def everything(samples: Samples | None) -> tuple[NDArray[Any], NDArray[Any]]:
    assert samples is not None
    x, y = np.empty((len(samples), *samples.spec.input_shape), np.float32), np.empty(len(samples), np.int64)
    samples.take(np.arange(len(samples)), x, y)
    return x, y


def decoded(cache: Path) -> dict[Path, int]:
    """What lies in the cache but for the lock: path and inode."""
    return {path: path.stat().st_ino for path in cache.iterdir() if path.suffix != ".lock"}


def test_the_rows_are_those_of_the_files_in_the_order_of_their_names(folder: Path) -> None:
    """Each once; labels are classes; what is no .parquet is left alone."""
    data = load(folder, eval=0.0, scale="none")
    x, y = everything(data.train)
    rows = np.arange(33)
    np.testing.assert_array_equal(x, np.stack([rows, rows * 0.5], 1))
    np.testing.assert_array_equal(y, rows % 3)
    assert data.class_names == ("c0", "c1", "c2")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("scale", ["none", "standard"])
def test_a_folder_is_the_same_as_one_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: Any, large: bool
) -> None:
    """To the bit, split, scaled, and whether the table is larger than what is converted once or not."""
    if large:
        monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
    write(tmp_path / "one.parquet", 0, 33)
    many, one = load(folder, 5, scale=scale), load(tmp_path / "one.parquet", 5, scale=scale)
    for part, other in ((many.train, one.train), (many.eval, one.eval)):
        for mine, theirs in zip(everything(part), everything(other), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_columns_may_stand_in_another_order(folder: Path) -> None:
    (folder / "part-1.parquet").unlink()
    table = pyarrow.table({name: columns(20, 33)[name] for name in ("b", "a", "label")})
    parquet.write_table(table, folder / "part-2.parquet")
    x, _ = everything(load(folder, eval=0.0, scale="none").train)
    np.testing.assert_array_equal(x, np.stack([np.arange(33), np.arange(33) * 0.5], 1))


def test_a_table_is_decoded_once_and_anew_where_it_has_changed(folder: Path, cache: Path) -> None:
    """The same files are used again; of an earlier state of the folder nothing is left."""
    load(folder)
    first = decoded(cache)
    assert sorted(path.name[-6:] for path in first) == [".x.npy", ".y.npy"]
    load(folder, scale="none")
    assert decoded(cache) == first
    os.utime(folder / "part-1.parquet", (1, 1))  # what has another time may be something else
    load(folder)
    assert not first.keys() & decoded(cache).keys()
    write(folder / "part-2.parquet", 100, 113)
    x, _ = everything(load(folder, eval=0.0, scale="none").train)
    assert x[-1, 0] == 112
    assert len(decoded(cache)) == 2
    assert not first.keys() & decoded(cache).keys()


def test_a_worker_maps_it_and_decodes_it_where_its_host_has_not(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels is small, and gives the same rows elsewhere; of several workers of a host one decodes."""
    monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
    data = load(folder, scale="none")
    sent = pickle.dumps((data.train.to_shipment(), data.eval and data.eval.to_shipment()))
    assert len(sent) < 3000
    expected = everything(data.train)[0].tobytes() + everything(data.train)[1].tobytes()
    code = (
        "import pickle, sys, numpy as np\n"
        "from thalweg_worker.datasets import Fetcher\n"
        "train, held_out = [part.open(Fetcher()) for part in pickle.load(sys.stdin.buffer)]\n"
        "x, y = np.empty((len(train), 2), np.float32), np.empty(len(train), np.int64)\n"
        "train.take(np.arange(len(train)), x, y)\n"
        "sys.stdout.buffer.write(x.tobytes() + y.tobytes())\n"
    )
    shutil.rmtree(cache)
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(sent)
        worker.stdin.close()
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.read() == expected
        assert worker.wait() == 0
        worker.stdout.close()
    assert len(decoded(cache)) == 2


def test_what_has_changed_since_the_job_was_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that comes later finds other files, or none."""
    monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
    shipment = load(folder, scale="none").train.to_shipment()
    write(folder / "part-2.parquet", 0, 500)
    with pytest.raises(
        InputError, match=r"part-2.parquet: expected \d+ bytes, as when the job was read; found \d+ bytes"
    ):
        shipment.open(Fetcher())
    (folder / "part-0.parquet").unlink()
    with pytest.raises(InputError, match=r"part-0.parquet: expected a file that every host of the cluster can read"):
        shipment.open(Fetcher())


def test_memory_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read a table of 16 MB takes some row groups of it at a time."""
    monkeypatch.setattr(ready, "CONVERTED_BYTES_MAX", 0)
    for file in folder.glob("*.parquet"):
        file.unlink()
    rows = np.arange(100_000)
    table = pyarrow.table({"label": rows % 2, **{f"f{i}": rows * 1.0 for i in range(20)}})
    parquet.write_table(table, folder / "big.parquet", row_group_size=4096)
    del table
    tracemalloc.start()
    data = load(folder, scale="standard")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data.train) == 80_000
    assert peak < 12 << 20, f"{peak:,} bytes"


def test_files_that_do_not_fit_together_are_named(folder: Path) -> None:
    """Other columns, other types, a null, a damaged file: which file, which row."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"c": np.arange(13)}, "part-2.parquet: expected the columns of part-0.parquet; found also c"),
        ({"a": None}, "part-2.parquet: expected the columns of part-0.parquet; found no a"),
        ({"label": None}, 'part-2.parquet: expected a label column "label"'),
        ({"label": np.arange(13)}, 'part-2.parquet, column "label": expected labels like those of part-0.parquet'),
        ({"a": [f"{i}" for i in range(13)]}, 'part-2.parquet, column "a": expected numbers; found type string'),
        ({"a": [1] * 8 + [None] * 5}, 'part-2.parquet, row 8, column "a": expected a value; found null'),
        ({"label": ["c0"] * 8 + [None] * 5}, 'part-2.parquet, row 8, column "label": expected a value; found null'),
        ({"a": [1.0] * 8 + [float("nan")] * 5}, 'finite numbers; found nan in row 28, column "a"'),
    ]
    for changes, said in cases:
        write(folder / "part-2.parquet", 20, 33, **changes)
        assert said in problems(folder), changes
    whole = (folder / "part-0.parquet").read_bytes()
    (folder / "part-2.parquet").write_bytes(whole[: len(whole) // 2])
    assert "part-2.parquet: expected a whole .parquet file; found a truncated or damaged one" in problems(folder)


def test_a_folder_without_a_table_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.csv").touch()
    found = problems(tmp_path / "empty")
    assert "expected a folder with .parquet files; found none among 1 files and folders" in found
    write(tmp_path / "empty" / "a.parquet", 0, 0)
    assert "at least one sample; found no rows" in problems(tmp_path / "empty")


def test_no_room_is_told_before_it_is_decoded(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much it takes, how much there is, and where else it may go."""
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    found = problems(folder)
    assert f"expected {33 * (2 * 8 + 2 * 4)} bytes free in {cache}; found 10 bytes" in found
    assert "THALWEG_CACHE names another folder" in found
    assert not decoded(cache)


def test_a_disk_that_fills_up_leaves_nothing(folder: Path, cache: Path) -> None:
    """Where the room that there was is gone, it is said to be the cache's, and what was written is removed."""
    code = (
        "import resource, signal, sys\n"
        "from thalweg_proto.job import DataSection\n"
        "from thalweg_worker.datasets import load_dataset\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        f"print(*load_dataset(DataSection(train={str(folder)!r}), 0).problems)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(cache) in done.stdout
    assert "File too large" in done.stdout
    assert "damaged" not in done.stdout
    assert not decoded(cache)


def test_a_cache_that_cannot_be_made_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
    assert f"{tmp_path / 'file' / 'cache'}: a folder for it; found Not a directory" in problems(folder)


def test_where_tables_are_decoded_to() -> None:
    """THALWEG_CACHE, else the user's cache."""
    assert cache_folder({"THALWEG_CACHE": "/a"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/thalweg")
    assert cache_folder({}) == Path.home() / ".cache" / "thalweg"


def test_a_folder_with_the_name_of_a_file_that_is_written_as_folders(folder: Path) -> None:
    """Spark writes folders whose names end in .parquet."""
    os.rename(folder, folder.with_suffix(".parquet"))
    source = read_source("data.train", str(folder.with_suffix(".parquet")), "label")
    assert source is not None
    assert len(source.x.array) == 33
