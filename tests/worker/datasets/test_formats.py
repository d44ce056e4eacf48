"""Each form of data is read as it was written, and a file of no use is refused with its path and the reason."""

from __future__ import annotations

import gzip
import importlib.util
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg_proto.errors import InputError
from thalweg_proto.job import ArrayPair
from thalweg_worker.datasets.idx import DTYPES
from thalweg_worker.datasets.reading import read_source

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])

Write = Callable[[Path], str | ArrayPair]


def problems(data: str | ArrayPair, label: str = "label") -> str:
    with pytest.raises(InputError) as caught:
        read_source("data.train", data, label)
    return str(caught.value)


def idx_bytes(array: NDArray[Any]) -> bytes:
    """The idx format, from its description."""
    code = next(code for code, dtype in DTYPES.items() if np.dtype(dtype) == array.dtype.newbyteorder(">"))
    header = bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">i", length) for length in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(folder: Path, x: NDArray[Any], y: NDArray[Any], ending: str = "") -> ArrayPair:
    opener = gzip.open if ending else open
    pair = ArrayPair(x=str(folder / f"images-idx3-ubyte{ending}"), y=str(folder / f"labels-idx1-ubyte{ending}"))
    for path, array in ((pair.x, x), (pair.y, y)):
        with opener(path, "wb") as stream:
            stream.write(idx_bytes(array))
    return pair


def write_npy(folder: Path, x: NDArray[Any] = X, y: NDArray[Any] = Y) -> ArrayPair:
    pair = ArrayPair(x=str(folder / "x.npy"), y=str(folder / "y.npy"))
    np.save(pair.x, x)
    np.save(pair.y, y)
    return pair


def write_npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "set.npz", **arrays)
    return str(folder / "set.npz")


def write_csv(folder: Path, text: str) -> str:
    (folder / "set.csv").write_text(text, encoding="utf-8")
    return str(folder / "set.csv")


def test_digits_are_those_of_scikit_learn() -> None:
    """1,797 images of 8 x 8 with values 0 to 16, in the package's order."""
    datasets = pytest.importorskip("sklearn.datasets")
    source = read_source("data.train", "digits", "label")
    images, labels = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(source.x.array, images.reshape(-1, 8, 8))
    np.testing.assert_array_equal(source.y.array, labels)


def test_reading_digits_imports_no_large_package() -> None:
    """Neither scikit-learn nor pandas nor pyarrow is imported where they are not needed."""
    code = (
        "import sys; from thalweg_worker.datasets.reading import read_source; read_source('a', 'digits', 'label');"
        "assert not {'sklearn', 'scipy', 'pandas', 'pyarrow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("data", "package", "extra"),
    [("digits", "sklearn", "thalweg[digits]"), ("/a.parquet", "pyarrow", "thalweg[parquet]")],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: str, package: str, extra: str
) -> None:
    """Where an extra is not installed, the message says how to install it."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    if data != "digits":
        data = str(tmp_path / "a.parquet")
        Path(data).touch()
    assert f"pip install '{extra}'" in problems(data)


def test_npz_gives_its_arrays(tmp_path: Path) -> None:
    """x and y come back, compressed or not, in C order."""
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "set.npz", x=np.asfortranarray(X), y=Y)
        source = read_source("data.train", str(tmp_path / "set.npz"), "label")
        np.testing.assert_array_equal(source.x.array, X)
        np.testing.assert_array_equal(source.y.array, Y)
        assert source.x.array.flags.c_contiguous


def test_npy_is_mapped_and_read_only(tmp_path: Path) -> None:
    """The pair stays in its files."""
    source = read_source("data.train", write_npy(tmp_path), "label")
    np.testing.assert_array_equal(source.x.array, X)
    assert source.x.file is not None
    assert source.x.file.path == str(tmp_path / "x.npy")
    assert not source.x.array.flags.writeable


@pytest.mark.parametrize("dtype", sorted(DTYPES.values()))
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_of_each_type_comes_back(tmp_path: Path, dtype: str, ending: str) -> None:
    """Plain files are mapped, gzipped ones decoded; the numbers are those written."""
    x = np.arange(24).reshape(2, 3, 4).astype(np.dtype(dtype).newbyteorder("="))
    source = read_source("data.train", write_idx(tmp_path, x, np.array([1, 0], np.uint8), ending), "label")
    np.testing.assert_array_equal(source.x.array, x)
    assert (source.x.file is None) == (ending == ".gz")


def test_csv_gives_features_by_name_and_the_label(tmp_path: Path) -> None:
    """Quotes, blank lines, a byte order mark and a label between the features do no harm."""
    text = '\ufeffa,label,"b, c"\n1,cat,2.5\n\n"-3","dog, ""old""",4e3\r\n'
    source = read_source("data.train", write_csv(tmp_path, text), "label")
    np.testing.assert_array_equal(source.x.array, [[1, 2.5], [-3, 4000]])
    assert source.y.array.tolist() == ["cat", 'dog, "old"']
    assert source.columns == ("a", "b, c")


@pytest.mark.parametrize(
    ("cells", "kind"), [("1 2", "i"), ("1 2.5", "f"), ("1 x", "U"), ("1e3 2", "f"), (f"1 {10**30}", "f")]
)
def test_csv_labels_have_the_narrowest_type_that_holds_all(tmp_path: Path, cells: str, kind: str) -> None:
    """Whole numbers, else numbers, else text."""
    path = write_csv(tmp_path, "a,label\n" + "".join(f"0,{cell}\n" for cell in cells.split()))
    assert read_source("data.train", path, "label").y.array.dtype.kind == kind


def test_parquet_gives_features_by_name_and_the_label(tmp_path: Path) -> None:
    """Numbers of all types become one float array; categories become text."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {
            "a": pyarrow.array([1, 2, 3], pyarrow.int8()),
            "label": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
            "b": [0.5, 1.5, 2.5],
            "c": [True, False, True],
        }
    )
    parquet.write_table(table, tmp_path / "set.parquet", row_group_size=2)
    source = read_source("data.train", str(tmp_path / "set.parquet"), "label")
    np.testing.assert_array_equal(source.x.array, [[1, 0.5, 1], [2, 1.5, 0], [3, 2.5, 1]])
    assert (source.y.array.tolist(), source.columns) == (["x", "y", "x"], ("a", "b", "c"))

    assert 'a label column "lable"; found the columns a, label, b, c' in problems(
        str(tmp_path / "set.parquet"), "lable"
    )
    assert 'column "label": expected numbers; found type' in problems(str(tmp_path / "set.parquet"), "a")
    parquet.write_table(pyarrow.table({"a": [1, None], "label": [0, 1]}), tmp_path / "set.parquet")
    assert 'row 1, column "a": expected a value; found null' in problems(str(tmp_path / "set.parquet"))
    whole = (tmp_path / "set.parquet").read_bytes()
    (tmp_path / "set.parquet").write_bytes(whole[: len(whole) // 2])
    assert "a whole .parquet file; found a truncated or damaged one" in problems(str(tmp_path / "set.parquet"))


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_the_folder_looked_in(tmp_path: Path) -> None:
    """The message has the path tried, where a relative path starts, and a file of nearly that name."""
    write_npz(tmp_path, x=X, y=Y)
    found = problems(str(tmp_path / "sets.npz"))
    assert f"no such file: {tmp_path / 'sets.npz'}" in found
    assert f'did you mean "set.npz"? looked in {tmp_path}' in found
    assert f"there is no folder {tmp_path / 'no'}" in problems(str(tmp_path / "no" / "set.npz"))


def test_both_files_of_a_pair_are_reported(tmp_path: Path) -> None:
    """A missing x does not hide a missing y."""
    found = problems(ArrayPair(x=str(tmp_path / "x.npy"), y=str(tmp_path / "y.npy")))
    assert "data.train.x" in found
    assert "data.train.y" in found


def test_a_folder_is_no_data_set(tmp_path: Path) -> None:
    """A folder with a data set's ending is refused as a folder."""
    (tmp_path / "set.csv").mkdir()
    assert "expected a file; found a folder" in problems(str(tmp_path / "set.csv"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.doc", 'found the ending ".doc"'),
        ("my_data.py", 'name its function, too: "FILE.py:FUNCTION"'),
        ("digit", 'did you mean "digits"?'),
        ("x.npy", "samples and labels are two such files"),
        ("images-idx3-ubyte.gz", "samples and labels are two such files"),
    ],
)
def test_an_unknown_ending_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """The known forms are listed."""
    found = problems(str(tmp_path / name))
    assert ".npz, .csv or .parquet" in found
    assert text in found


def test_an_array_file_of_another_format_is_refused(tmp_path: Path) -> None:
    """A pair takes .npy and idx only."""
    (tmp_path / "x.bin").touch()
    found = problems(ArrayPair(x=str(tmp_path / "x.bin"), y=str(tmp_path / "x.bin")))
    assert "a .npy file, or an idx file with idx in its name" in found


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_object_arrays_are_never_unpickled(tmp_path: Path) -> None:
    """A pickle inside .npy or .npz is refused, and not run."""
    trap = tmp_path / "trap"
    objects = np.array([Bomb(trap)] * 4, dtype=object)
    assert "an object array" in problems(write_npy(tmp_path, y=objects))
    assert "an object array" in problems(write_npz(tmp_path, x=X, y=objects))
    assert "never loaded" in problems(write_npy(tmp_path, x=objects))
    (tmp_path / "set.npz").write_bytes(pickle.dumps(Bomb(trap)))
    assert "a truncated or other file" in problems(str(tmp_path / "set.npz"))
    assert not trap.exists()


@pytest.mark.parametrize(
    "x", [X.astype(complex), np.array(["a", "b", "c", "d"]), np.zeros(4, "M8[s]"), np.zeros(4, [("a", "f4")])]
)
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, x: NDArray[Any]) -> None:
    """Complex numbers, text, dates and records are no features."""
    assert "an array of numbers; found dtype" in problems(write_npy(tmp_path, x=x))


def test_every_truncation_of_a_file_is_refused(tmp_path: Path) -> None:
    """Wherever .npy, .npz, idx or idx.gz breaks off, it is not taken for a whole one."""
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    labels = np.array([0, 1], np.uint8)
    pairs = [
        write_npy(tmp_path, x=images, y=labels),
        write_idx(tmp_path, images, labels),
        write_idx(tmp_path, images, labels, ".gz"),
    ]
    cases: list[tuple[str, str | ArrayPair]] = [(pair.x, pair) for pair in pairs]
    npz = write_npz(tmp_path, x=images, y=labels)
    for path, data in [*cases, (npz, npz)]:
        whole = Path(path).read_bytes()
        for length in range(0, len(whole), 1 if len(whole) < 100 else 13):
            Path(path).write_bytes(whole[:length])
            assert path in problems(data), (path, length)
        Path(path).write_bytes(whole)
        assert read_source("data.train", data, "label").x.array.tolist() == images.tolist()


def test_truncated_files_say_how_many_bytes_they_have(tmp_path: Path) -> None:
    """Found and promised lengths are shown."""
    pair = write_idx(tmp_path, np.zeros((2, 3, 4), np.uint8), np.zeros(2, np.uint8))
    Path(pair.x).write_bytes(Path(pair.x).read_bytes()[:-4])
    assert "found 36 bytes, where its header promises 40\n    the file is truncated" in problems(pair)
    npy = write_npy(tmp_path)
    Path(npy.y).write_bytes(Path(npy.y).read_bytes()[:-1])
    assert "found 159 bytes, where its header promises 160\n    the file is truncated" in problems(npy)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_file_with_more_than_its_header_promises_is_refused(tmp_path: Path, ending: str) -> None:
    """Bytes after the last element mean that the header is wrong."""
    pair = write_idx(tmp_path, np.zeros((2, 3, 4), np.uint8), np.zeros(2, np.uint8), ending)
    longer = idx_bytes(np.zeros((2, 3, 4), np.uint8)) + b"\0"
    Path(pair.x).write_bytes(gzip.compress(longer) if ending else longer)
    assert "bytes, where its header promises 40" in problems(pair)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_header_cannot_make_us_take_memory(tmp_path: Path, ending: str) -> None:
    """A header that promises 2**62 bytes is refused by the length of the file, before memory is taken."""
    pair = write_idx(tmp_path, np.zeros((2, 3, 4), np.uint8), np.zeros(2, np.uint8), ending)
    huge = bytes([0, 0, 8, 2]) + struct.pack(">ii", 2**31 - 1, 2**31 - 1)
    Path(pair.x).write_bytes(gzip.compress(huge) if ending else huge)
    assert f"where its header promises {12 + (2**31 - 1) ** 2}" in problems(pair)


def test_an_npz_header_cannot_make_us_take_memory(tmp_path: Path) -> None:
    """The same for a member of .npz whose header promises more than the archive holds."""
    np.save(tmp_path / "x.npy", X)
    header = (tmp_path / "x.npy").read_bytes().replace(b"(4, 3), }             ", b"(4000000000000, 300), }")
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", header)
        archive.write(write_npy(tmp_path).y, "y.npy")
    assert "where its header promises 4800000000000128" in problems(str(tmp_path / "set.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    """One flipped bit in the data breaks the checksum."""
    path = tmp_path / "set.npz"
    save(path, x=np.random.default_rng(0).integers(0, 256, (10_000, 1), np.uint8), y=np.zeros(10_000))
    damaged = bytearray(path.read_bytes())
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    assert "a whole array; found a damaged one" in problems(str(path))


def test_a_file_with_another_magic_number_is_refused(tmp_path: Path) -> None:
    """What is called idx or npy and is not is told by its first bytes."""
    pair = write_idx(tmp_path, np.zeros((2, 3, 4), np.uint8), np.zeros(2, np.uint8))
    Path(pair.x).write_bytes(gzip.compress(Path(pair.x).read_bytes()))
    assert "1f 8b 08" in problems(pair)
    assert "a name that ends in .gz" in problems(pair)
    npy = write_npy(tmp_path)
    Path(npy.y).write_bytes(b"0\n1\n1\n0\n" * 4)
    assert "NumPy's .npy format; found a truncated or other file" in problems(npy)


def test_npz_without_x_or_y_names_what_it_has(tmp_path: Path) -> None:
    """The arrays that there are stand in the message."""
    assert "found no x and no y in it, but images, labels" in problems(write_npz(tmp_path, images=X, labels=Y))


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    """No samples, or samples of no numbers, are nothing to train on."""
    assert "at least one sample" in problems(write_npy(tmp_path, x=X[:0], y=Y[:0]))
    assert "at least one sample" in problems(write_npz(tmp_path, x=X[:, :0], y=Y))
    assert "nothing below the header" in problems(write_csv(tmp_path, "a,label\n\n"))
    assert "a header" in problems(write_csv(tmp_path, ""))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a,b\n1,2\n", 'a label column "label"; found the columns a, b'),
        ("a,lable\n1,2\n", 'did you mean "lable"?'),
        ("label\n1\n", "at least one feature column"),
        ("a;b;label\n1;2;3\n", "the columns a;b;label\n    columns are separated by commas"),
        ("a,a,label\n1,2,3\n", 'each column once; found "a" more than once'),
        ("a,label\n1,x\n\nfour,x\n", 'line 4, column "a": expected a number; found "four"'),
        ("a,label\n1,x\n,x\n", 'line 3, column "a": expected a number; found an empty cell'),
        ("a,label\n1_0,x\n", 'column "a": expected a finite number; found "1_0"'),
        ("a,label\n1,x\nnan,x\n", 'line 3, column "a": expected a finite number; found "nan"'),
        ("a,label\n1,x\n-inf,x\n", 'line 3, column "a": expected a finite number; found "-inf"'),
        ("a,label\n1,x\n1,\n", 'line 3, column "label": expected a label; found an empty cell'),
        ("a,label\n1,0.5\n1,nan\n", 'line 3, column "label": expected a finite number; found "nan"'),
        ("a,label\n1,x\n1,x,y\n", "line 3: expected 2 cells; found 3 cells"),
        ("a,label\n1,x\n1\n", "line 3: expected 2 cells; found 1 cells"),
        ('a,label\n"1\n2",x\n3,x\n', 'line 3, column "a"'),
        ("a,label\n1," + "x" * 300 + "\n", "at most 256 characters; found 300 characters"),
    ],
)
def test_csv_mistakes_are_named_by_line_and_column(tmp_path: Path, text: str, found: str) -> None:
    """Lines count from 1 with the header and blank lines, as editors count them."""
    assert found in problems(write_csv(tmp_path, text))


def test_several_wrong_cells_are_named_at_once(tmp_path: Path) -> None:
    """Up to five cells come in one message, and no more."""
    found = problems(write_csv(tmp_path, "a,b,label\n" + "x,nan,1\n" * 10))
    assert found.count("expected a") == 5
    assert 'line 2, column "b"' in found


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Latin-1 is not taken for UTF-8, wherever it stands."""
    for head, cell in ((b"caf\xe9", b"x"), (b"a", b"caf\xe9")):
        (tmp_path / "set.csv").write_bytes(head + b",label\n1,y\n1," + cell + b"\n")
        assert "comma-separated text in UTF-8" in problems(str(tmp_path / "set.csv"))
