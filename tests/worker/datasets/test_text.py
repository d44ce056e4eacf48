"""A text: characters as tokens, in windows, each with the characters that come next."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.errors import InputError
from thalweg_proto.job import DataSection
from thalweg_worker.datasets import Fetcher, Loaded, Samples, TrainEval, load_dataset, text


def load(folder: Path, train: str, seed: int = 0, **section: Any) -> TrainEval:
    """A text that is right."""
    (folder / "train.txt").write_text(train, encoding="utf-8", newline="")
    loaded = load_dataset(DataSection(train=str(folder / "train.txt"), **section), seed)
    assert loaded.problems == ()
    assert loaded.data is not None
    return loaded.data


def problems(folder: Path, train: bytes, second: bytes | None = None, **section: Any) -> str:
    (folder / "train.txt").write_bytes(train)
    if second is not None:
        (folder / "second.txt").write_bytes(second)
        section["eval"] = str(folder / "second.txt")
    loaded: Loaded = load_dataset(DataSection(train=str(folder / "train.txt"), **section), 0)
    assert loaded.data is None
    return "\n".join(str(problem) for problem in loaded.problems)


def windows(samples: Samples | None, data: TrainEval) -> list[tuple[str, str]]:
    """Each sample and its target as text."""
    assert samples is not None
    shape = (len(samples), *samples.spec.input_shape)
    x, y = np.full(shape, 77), np.full(shape, 77)
    samples.take(np.arange(len(samples)), x, y)
    names = data.class_names
    return [("".join(names[i] for i in a), "".join(names[i] for i in b)) for a, b in zip(x, y, strict=True)]


def test_windows_by_hand(tmp_path: Path) -> None:
    """abcdefgh in threes: two windows that do not overlap, their targets one character on; the rest is not used."""
    data = load(tmp_path, "abcdefgh", context=3, eval=0.0)
    assert windows(data.train, data) == [("abc", "bcd"), ("def", "efg")]
    assert data.class_names == tuple("abcdefgh")
    spec = data.spec
    assert (spec.input_shape, spec.input_dtype, spec.target_shape) == ((3,), "int64", (3,))
    assert (spec.task, spec.classes, data.scaling) == ("classification", 8, None)


@given(
    text_=st.text("abcäß中\U0001f600\r\n\0 ", min_size=40, max_size=400).filter(lambda text_: len(set(text_)) > 1),
    context=st.integers(1, 8),
    fraction=st.sampled_from([0.0, 0.3]),
    chunk=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_each_character_is_predicted_once(
    tmp_path_factory: pytest.TempPathFactory, text_: str, context: int, fraction: float, chunk: int, seed: int
) -> None:
    """Whatever the characters, and wherever a chunk of the file ends: training and held-out windows together are those
    of the text cut by Python, each once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "CHUNK_BYTES", chunk)
        data = load(tmp_path_factory.mktemp("text"), text_, seed, context=context, eval=fraction)
    assert data.class_names == tuple(sorted(set(text_)))
    begins = range(0, len(text_) - context, context)
    expected = [(text_[b : b + context], text_[b + 1 : b + 1 + context]) for b in begins]
    held_out = windows(data.eval, data) if fraction else []
    assert sorted(windows(data.train, data) + held_out) == sorted(expected)
    assert len(held_out) == round(fraction * len(expected))


def test_a_second_text_has_the_first_ones_vocabulary(tmp_path: Path) -> None:
    """It may lack characters; its tokens are places in the training text's vocabulary."""
    (tmp_path / "second.txt").write_text("hbdbh")
    data = load(tmp_path, "abcdefgh", context=2, eval=str(tmp_path / "second.txt"))
    assert windows(data.eval, data) == [("hb", "bd"), ("db", "bh")]


def test_another_text_to_evaluate_on(tmp_path: Path) -> None:
    """In place of what the job holds out, in the training text's vocabulary; the windows to train on stay the same."""
    usual = load(tmp_path, "abcdefgh" * 9, context=2)
    (tmp_path / "other.txt").write_text("hbdbh")
    section = DataSection(train=str(tmp_path / "train.txt"), context=2)
    found = load_dataset(section, 0, instead=str(tmp_path / "other.txt")).data
    assert found is not None
    assert windows(found.eval, found) == [("hb", "bd"), ("db", "bh")]
    assert windows(found.train, found) == windows(usual.train, usual)
    (tmp_path / "other.txt").write_text("hxh")
    [problem] = load_dataset(section, 0, instead=str(tmp_path / "other.txt")).problems
    assert problem.field == f"--data ({tmp_path / 'other.txt'})"


def test_the_context_is_64_where_the_job_does_not_say(tmp_path: Path) -> None:
    assert load(tmp_path, "ab" * 300).spec.input_shape == (64,)


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffababa", context=2, eval=0.0).class_names == ("a", "b")


@pytest.mark.parametrize(("characters", "bytes_"), [(200, 1), (1000, 2)])
def test_a_text_is_kept_and_shipped_once(tmp_path: Path, characters: int, bytes_: int) -> None:
    """One byte a character, or two; samples and targets, of training and evaluation, are views of it. What a worker has
    gives the same windows."""
    text_ = "".join(map(chr, range(0x100, 0x100 + characters))) * 100
    data = load(tmp_path, text_, context=16)
    assert data.eval is not None
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append)
    pickler.dump((data.train.to_shipment(), data.eval.to_shipment()))
    sizes = sorted(buffer.raw().nbytes for buffer in buffers)
    assert sizes == [len(text_) * bytes_]
    train, held_out = pickle.loads(stream.getvalue(), buffers=[buffer.raw().toreadonly() for buffer in buffers])
    assert windows(train.open(Fetcher()), data) == windows(data.train, data)
    assert windows(held_out.open(Fetcher()), data) == windows(data.eval, data)


def test_a_text_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Beside a byte a character it takes what a chunk takes, and tables of all characters of Unicode."""
    (tmp_path / "train.txt").write_bytes(b"all work and no play\n" * (1 << 20))
    tracemalloc.start()
    loaded = load_dataset(DataSection(train=str(tmp_path / "train.txt")), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert loaded.samples is not None
    assert peak < (21 << 20) + (24 << 20)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, where any text counts as a large one."""
    monkeypatch.setattr(text, "IN_MEMORY_BYTES_MAX", 0)
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("characters", [200, 1000])
def test_a_large_text_is_mapped_and_gives_the_same_windows(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch, characters: int
) -> None:
    """In training and evaluation, here and where it was sent to; it is made once, and what is sent is small."""
    text_ = "".join(map(chr, range(0x100, 0x100 + characters))) * 100
    data = load(tmp_path, text_, context=16)
    [tokens] = large.glob("*.npy")
    made = tokens.stat().st_mtime_ns
    sent = pickle.dumps((data.train.to_shipment(), data.eval and data.eval.to_shipment()))
    assert len(sent) < 4 * characters + 5000
    train, held_out = (part.open(Fetcher()) for part in pickle.loads(sent))
    assert [path.stat().st_mtime_ns for path in large.glob("*.npy")] == [made]
    monkeypatch.setattr(text, "IN_MEMORY_BYTES_MAX", 1 << 20)
    usual = load(tmp_path, text_, context=16)
    for found, expected in ((data.train, usual.train), (train, usual.train), (held_out, usual.eval)):
        assert windows(found, data) == windows(expected, usual)


def test_a_large_second_text_is_mapped_in_the_vocabulary_of_the_first(tmp_path: Path, large: Path) -> None:
    """It is another file of the cache than that in its own."""
    (tmp_path / "second.txt").write_text("hbdbh")
    data = load(tmp_path, "abcdefgh" * 9, context=2, eval=str(tmp_path / "second.txt"))
    assert windows(data.eval, data) == [("hb", "bd"), ("db", "bh")]
    assert len(list(large.glob("*.npy"))) == 3


def test_a_large_text_that_has_changed_is_made_anew_or_refused(tmp_path: Path, large: Path) -> None:
    """Anew by whoever reads it; a worker, whose job was checked with the old one, refuses it."""
    data = load(tmp_path, "abcd" * 9, context=3, eval=0.0)
    shipment = data.train.to_shipment()
    assert windows(load(tmp_path, "dcba" * 9, context=3, eval=0.0).train, data)[0] == ("dcb", "cba")
    assert len(list(large.glob("*.npy"))) == 1
    for changed, said in (
        ("abcde" * 9, "36 bytes, as when the job was read; found 45 bytes"),
        ("abce" * 9, "the 36 characters that it had; found other characters"),
        ("ä" * 18, "the 36 characters that it had; found other characters"),
    ):
        (tmp_path / "train.txt").write_text(changed, encoding="utf-8")
        with pytest.raises(InputError, match=said):
            shipment.open(Fetcher())
    (tmp_path / "train.txt").unlink()
    with pytest.raises(InputError, match="every host of the cluster can read; found No such file"):
        shipment.open(Fetcher())


def test_no_room_for_a_large_text_is_told(tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do, and nothing half made."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=35))
    found = problems(tmp_path, b"abcd" * 9, context=3)
    assert f"36 bytes free in {large}; found 35 bytes" in found
    assert "its characters are numbered there; THALWEG_CACHE names another folder" in found
    assert list(large.glob("*.part")) == list(large.glob("*.npy")) == []


def test_a_text_larger_than_memory_takes_what_a_chunk_takes(tmp_path: Path, large: Path) -> None:
    """Nothing of it stays in memory."""
    (tmp_path / "train.txt").write_bytes(b"all work and no play\n" * (1 << 20))
    tracemalloc.start()
    loaded = load_dataset(DataSection(train=str(tmp_path / "train.txt")), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert loaded.samples is not None
    assert peak < 28 << 20


@pytest.mark.parametrize(
    ("train", "section", "said"),
    [
        (b"", {}, "at least 65 characters (data.context and one more); found an empty file"),
        (b"abc", {"context": 3}, "at least 4 characters (data.context and one more); found 3 characters"),
        (b"aaaaaaaa", {"context": 3}, "from 2 to 65536 distinct characters; found 1"),
        (b"abc\xff" + b"a" * 99, {}, "text in UTF-8; found byte 0xff at offset 3 (invalid start byte)"),
        (b"ab" * 99 + b"\xc3", {}, "text in UTF-8; found byte 0xc3 at offset 198 (unexpected end of data)"),
        (b"ab" * 99, {"eval": 0.1}, "a fraction that leaves rows on both sides"),
    ],
)
def test_texts_of_no_use_are_refused(tmp_path: Path, train: bytes, section: dict[str, Any], said: str) -> None:
    """With what was found, and where."""
    assert said in problems(tmp_path, train, **section)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1 << 20])
def test_a_wrong_byte_is_named_by_its_offset_wherever_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """After characters of several bytes, cut anywhere."""
    monkeypatch.setattr(text, "CHUNK_BYTES", chunk)
    assert "byte 0x80 at offset 9" in problems(tmp_path, "ä中😀".encode() + b"\x80" + b"a" * 99)


def test_characters_unknown_to_training_are_named(tmp_path: Path) -> None:
    """Which, where the first one is, and how many more there are than are shown."""
    found = problems(tmp_path, b"ab" * 99, "abé中a".encode(), context=2)
    assert (
        "only characters that data.train has, too; found 'é' (U+00E9), '中' (U+4E2D); the first at character 2" in found
    )
    found = problems(tmp_path, b"ab" * 99, b"abcdefghijklmnop", context=2)
    assert "'l' (U+006C) and 4 others; the first at character 2" in found


def test_both_texts_are_looked_at(tmp_path: Path) -> None:
    """A mistake in one hides none in the other."""
    found = problems(tmp_path, b"", b"\xff")
    assert "an empty file" in found
    assert "byte 0xff at offset 0" in found


def test_a_text_goes_with_a_text(tmp_path: Path) -> None:
    """A table as a second set of a text is one mistake, and a text as a second set of a table another."""
    (tmp_path / "table.csv").write_text("a,label\n1,x\n2,y\n3,x\n4,y\n")
    (tmp_path / "a.txt").write_text("ab" * 99)
    csv, txt = str(tmp_path / "table.csv"), str(tmp_path / "a.txt")
    for train, second, said in ((txt, csv, "found a table or arrays"), (csv, txt, "found a text")):
        [problem] = load_dataset(DataSection(train=train, eval=second), 0).problems
        assert f"data.eval ({second}): expected a held-out fraction, or data of the kind of data.train" in str(problem)
        assert said in str(problem)


def test_a_context_that_is_wrong_leaves_nothing_to_say(tmp_path: Path) -> None:
    """Without it there are no windows; that is no second mistake."""
    (tmp_path / "a.txt").write_text("ab" * 99)
    section = DataSection(train=str(tmp_path / "a.txt"), eval=str(tmp_path / "a.txt"))
    assert load_dataset(section, 0, frozenset({"context"})) == Loaded(problems=())
