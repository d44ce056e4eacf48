from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.streams import Outbox

PATIENCE_S = 30.0


def put(outbox: Outbox[str], message: str, *urgency: int) -> None:
    outbox.put(urgency, lambda: message)


def test_the_most_urgent_goes_first_then_what_came_first():
    """By the first number, then by the next; nothing said is the most urgent of all."""
    outbox: Outbox[str] = Outbox()
    put(outbox, "late", 2, 0)
    put(outbox, "first", 1, 5)
    put(outbox, "second", 1, 5)
    put(outbox, "before", 1, 4)
    put(outbox, "at once")
    outbox.close()
    assert list(outbox) == ["at once", "before", "first", "second", "late"]


@given(st.lists(st.integers(0, 3) | st.none(), max_size=30))
def test_of_all_that_waits_the_least_goes_first(events):
    """Sorting what waits says the same, with messages taken (None) at any time in between."""
    outbox: Outbox[tuple[int, int]] = Outbox()
    waiting: list[tuple[int, int]] = []
    for order, urgency in enumerate(events):
        if urgency is not None:
            message = (urgency, order)
            waiting.append(message)
            outbox.put((urgency,), lambda message=message: message)
        elif waiting:
            waiting.sort()
            assert next(outbox) == waiting.pop(0)
    outbox.close()
    assert list(outbox) == sorted(waiting)


def test_a_message_is_made_when_its_turn_comes():
    """Once, not before, and not at all where it is dropped."""
    outbox, made = Outbox(), []
    for number in (1, 2, 3):
        outbox.put((number,), lambda number=number: made.append(number) or number)
    assert made == []
    assert next(outbox) == 1
    assert made == [1]
    outbox.drop()
    assert (list(outbox), made) == ([], [1])


def test_what_was_put_in_before_the_end_is_still_sent():
    """And nothing that is put in after it."""
    outbox: Outbox[str] = Outbox()
    put(outbox, "before")
    outbox.close()
    put(outbox, "after")
    assert list(outbox) == ["before"]
    put(outbox, "long after")
    assert list(outbox) == []


def test_what_is_dropped_is_not_sent():
    """Neither what waits nor what is put in after it."""
    outbox: Outbox[str] = Outbox()
    put(outbox, "before")
    outbox.drop()
    put(outbox, "after")
    assert list(outbox) == []


def test_an_end_stays_an_end():
    """Closing or dropping once more changes nothing."""
    outbox: Outbox[str] = Outbox()
    for end in (outbox.close, outbox.drop, outbox.close):
        end()
        assert list(outbox) == []


class Reader:
    """Reads an outbox in a thread of its own, to its end."""

    def __init__(self, outbox: Outbox[str]) -> None:
        self._outbox = outbox
        self.read: list[str] = []
        self._heard = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for message in self._outbox:
            self.read.append(message)
            self._heard.release()

    def hear(self) -> str:
        """Waits for a message."""
        assert self._heard.acquire(timeout=PATIENCE_S), "nothing was heard"
        return self.read[-1]

    def ended(self) -> list[str]:
        """Waits for the end; all that was read."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the reader still waits"
        return self.read


def test_a_reader_that_waits_is_woken_by_a_message():
    """Each time that one is put in, from another thread."""
    outbox: Outbox[str] = Outbox()
    reader = Reader(outbox)
    for message in ("one", "two", "three"):
        put(outbox, message)
        assert reader.hear() == message
    outbox.close()
    assert reader.ended() == ["one", "two", "three"]


def test_a_reader_that_waits_is_woken_by_the_end():
    """Whichever end it is."""
    for end in (Outbox.close, Outbox.drop):
        outbox: Outbox[str] = Outbox()
        reader = Reader(outbox)
        end(outbox)
        assert reader.ended() == []


def test_several_threads_may_put():
    """Every message is read, those of one thread in their order."""
    outbox: Outbox[str] = Outbox()
    reader = Reader(outbox)
    count = 200

    def say(name: str) -> None:
        for number in range(count):
            put(outbox, f"{name}{number}", 0)

    threads = [threading.Thread(target=say, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    outbox.close()
    read = reader.ended()
    for name in "abc":
        assert [message for message in read if message[0] == name] == [f"{name}{number}" for number in range(count)]
