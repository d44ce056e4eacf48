"""What is fetched ahead: in which order, in how much memory, and what becomes of a mistake."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_worker.datasets.fetcher import Fetcher

PATIENCE_S = 60.0


class Gate:
    """Lets one piece through after the other; `pieces` are those that were done."""

    def __init__(self, opened: int = 0) -> None:
        self.pieces: list[Any] = []
        self.threads: set[int] = set()
        self._open = threading.Semaphore(opened)
        self._changed = threading.Condition()

    def let(self, count: int) -> None:
        """Lets so many more through, and waits until they are."""
        with self._changed:
            wanted = len(self.pieces) + count
            self._open.release(count)
            assert self._changed.wait_for(lambda: len(self.pieces) >= wanted, PATIENCE_S)

    def through(self, piece: Any) -> None:
        assert self._open.acquire(timeout=PATIENCE_S)
        with self._changed:
            self.pieces.append(piece)
            self.threads.add(threading.get_ident())
            self._changed.notify_all()


class Pieces:
    """Work of some pieces, each of which has to get through a gate."""

    def __init__(
        self, key: str, gate: Gate, count: int = 2, nbytes: int = 1, wrong: BaseException | None = None
    ) -> None:
        self.key, self.nbytes, self._gate, self._left, self._wrong = key, nbytes, gate, count, wrong

    @property
    def done(self) -> bool:
        return self._left == 0

    def go_on(self) -> None:
        self._gate.through(self.key)
        if self._wrong is not None:
            raise self._wrong
        self._left -= 1


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    made = Fetcher(bytes_max=2)
    yield made
    made._changed.acquire()
    made._closed = True  # without waiting for a thread that may stand at a gate
    made._changed.notify_all()
    made._changed.release()


def asking(fetcher: Fetcher, work: Pieces) -> tuple[threading.Thread, list[Any]]:
    """A thread that asks for `work`, and what it gets."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(fetcher.result(work)), daemon=True)
    thread.start()
    return thread, got


def test_what_is_expected_is_fetched_in_order_before_anybody_asks(fetcher, gate):
    """And then it is there: no piece more is done."""
    a, b = Pieces("a", gate), Pieces("b", gate)
    fetcher.expect([a, b])
    gate.let(4)
    assert gate.pieces == ["a", "a", "b", "b"]
    assert fetcher.result(Pieces("b", gate)) is b
    assert fetcher.result(Pieces("a", gate)) is a


def test_what_is_asked_for_goes_first_and_what_was_begun_is_kept(fetcher, gate):
    """The thread leaves a batch between two pieces; all pieces are done once."""
    fetcher.expect([Pieces("a", gate, 3)])
    gate.let(1)
    thread, got = asking(fetcher, Pieces("other", gate))
    # The piece that the thread stands at may be of either.
    with fetcher._changed:
        assert fetcher._changed.wait_for(lambda: fetcher._asked, PATIENCE_S)
    gate.let(3)
    thread.join(PATIENCE_S)
    assert got[0].key == "other"
    assert gate.pieces == ["a", "a", "other", "other"]
    gate.let(1)
    assert gate.pieces[4:] == ["a"]


def test_what_is_not_expected_any_more_is_dropped(fetcher, gate):
    """What is expected still keeps the pieces that it has."""
    fetcher.expect([Pieces("a", gate), Pieces("b", gate)])
    gate.let(3)
    fetcher.expect([Pieces("b", gate), Pieces("c", gate)])
    gate.let(3)
    assert gate.pieces == ["a", "a", "b", "b", "c", "c"]
    thread, _ = asking(fetcher, Pieces("a", gate))
    gate.let(2)
    thread.join(PATIENCE_S)
    assert gate.pieces[6:] == ["a", "a"]


def test_more_than_the_memory_allows_waits_until_something_is_taken(gate):
    """Two of one byte fit here; the third is fetched when one of them is gone."""
    fetcher = Fetcher(bytes_max=2)
    fetcher.expect([Pieces(key, gate, 1) for key in "abc"])
    gate.let(2)
    assert fetcher._first_expected() is None
    fetcher.result(Pieces("a", gate, 1))
    gate.let(1)
    assert gate.pieces == ["a", "b", "c"]
    fetcher.close()


def test_what_is_too_large_for_the_memory_is_fetched_when_it_is_asked_for(fetcher, gate):
    """It is needed whatever it takes."""
    fetcher.expect([Pieces("large", gate, nbytes=3)])
    thread, got = asking(fetcher, Pieces("large", gate, nbytes=3))
    gate.let(2)
    thread.join(PATIENCE_S)
    assert got[0].key == "large"


def test_a_mistake_is_heard_by_who_asks_for_that_batch_and_nobody_else(fetcher):
    """Not when it is made; what comes after it is fetched all the same."""
    gate = Gate(opened=100)
    fetcher.expect([Pieces("a", gate, wrong=ValueError("sample 3")), Pieces("b", gate)])
    assert fetcher.result(Pieces("b", gate)).done
    with pytest.raises(ValueError, match="sample 3"):
        fetcher.result(Pieces("a", gate))
    assert gate.pieces.count("a") == 1
    with pytest.raises(SystemExit):
        fetcher.result(Pieces("c", gate, wrong=SystemExit()))


def test_calls_are_made_in_the_same_thread_as_all_else(fetcher):
    """What a user's code has opened there may be used there only."""
    gate = Gate(opened=100)
    threads = {fetcher.call(threading.get_ident)}
    fetcher.expect([Pieces("a", gate)])
    fetcher.result(Pieces("b", gate))
    fetcher.result(Pieces("a", gate))
    assert threads == gate.threads
    assert threads != {threading.get_ident()}
    with pytest.raises(ZeroDivisionError):
        fetcher.call(lambda: 1 // 0)


@given(
    st.lists(st.one_of(st.lists(st.integers(0, 5), max_size=4, unique=True), st.integers(0, 5)), max_size=12),
    st.integers(0, 3),
)
def test_whatever_is_expected_and_asked_for_each_gets_its_own(steps, bytes_max):
    """Lists are expected, numbers asked for: it ends, and what comes is whole."""
    fetcher, gate = Fetcher(bytes_max), Gate(opened=1000)
    try:
        for step in steps:
            if isinstance(step, list):
                fetcher.expect([Pieces(str(key), gate) for key in step])
            else:
                got = fetcher.result(Pieces(str(step), gate))
                assert (got.key, got.done) == (str(step), True)
    finally:
        fetcher.close()
    assert fetcher._thread is None or not fetcher._thread.is_alive()
