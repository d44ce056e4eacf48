from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.numbering import ASKED_MAX, KEPT_MAX, TELL_EVERY, Told
from thalweg_cluster.hosts.streams import Inbox, Outbox
from thalweg_proto.errors import ProtocolError
from thalweg_proto.v1.stream_pb2 import Envelope, Progress
from thalweg_proto.wire import SEAL_BYTES, seal, sealed_number

PATIENCE_S = 30.0


def put(outbox: Outbox, message: str, *urgency: int) -> None:
    outbox.put(urgency, lambda: [message.encode()])


def content(message: bytes) -> str:
    """Of a message with a number: what was put in."""
    assert sealed_number(message) > 0
    return message[:-SEAL_BYTES].decode()


def contents(messages: Iterable[bytes]) -> list[str]:
    return [content(message) for message in messages]


def test_the_most_urgent_goes_first_then_what_came_first():
    """By the first number, then by the next; nothing said is the most urgent of all."""
    outbox: Outbox = Outbox()
    put(outbox, "late", 2, 0)
    put(outbox, "first", 1, 5)
    put(outbox, "second", 1, 5)
    put(outbox, "before", 1, 4)
    put(outbox, "at once")
    outbox.close()
    assert contents(outbox) == ["at once", "before", "first", "second", "late"]


@given(st.lists(st.integers(0, 3) | st.none(), max_size=30))
def test_of_all_that_waits_the_least_goes_first(events):
    """Sorting what waits says the same, with messages taken (None) at any time in between."""
    outbox: Outbox = Outbox()
    waiting: list[tuple[int, int]] = []
    for order, urgency in enumerate(events):
        if urgency is not None:
            message = (urgency, order)
            waiting.append(message)
            put(outbox, str(message), urgency)
        elif waiting:
            waiting.sort()
            assert content(next(outbox)) == str(waiting.pop(0))
    outbox.close()
    assert contents(outbox) == list(map(str, sorted(waiting)))


def test_a_message_is_made_when_its_turn_comes():
    """Once, not before, and not at all where it is dropped."""
    outbox, made = Outbox(), []
    for number in (1, 2, 3):
        outbox.put((number,), lambda number=number: made.append(number) or [b"%d" % number])
    assert made == []
    assert content(next(outbox)) == "1"
    assert made == [1]
    outbox.drop()
    assert (list(outbox), made) == ([], [1])


def test_what_was_put_in_before_the_end_is_still_sent():
    """And nothing that is put in after it."""
    outbox: Outbox = Outbox()
    put(outbox, "before")
    outbox.close()
    put(outbox, "after")
    assert contents(outbox) == ["before"]
    put(outbox, "long after")
    assert list(outbox) == []


def test_what_is_dropped_is_not_sent():
    """Neither what waits nor what is put in after it."""
    outbox: Outbox = Outbox()
    put(outbox, "before")
    outbox.drop()
    put(outbox, "after")
    assert list(outbox) == []


def test_an_end_stays_an_end():
    """Closing or dropping once more changes nothing."""
    outbox: Outbox = Outbox()
    for end in (outbox.close, outbox.drop, outbox.close):
        end()
        assert list(outbox) == []


class Reader:
    """Reads an outbox in a thread of its own, to its end."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.read: list[str] = []
        self._heard = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for message in self._outbox:
            self.read.append(content(message))
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
    outbox: Outbox = Outbox()
    reader = Reader(outbox)
    for message in ("one", "two", "three"):
        put(outbox, message)
        assert reader.hear() == message
    outbox.close()
    assert reader.ended() == ["one", "two", "three"]


def test_a_reader_that_waits_is_woken_by_the_end():
    """Whichever end it is."""
    for end in (Outbox.close, Outbox.drop):
        outbox: Outbox = Outbox()
        reader = Reader(outbox)
        end(outbox)
        assert reader.ended() == []


def test_several_threads_may_put():
    """Every message is read, those of one thread in their order."""
    outbox: Outbox = Outbox()
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


# Both directions of one stream


def progress(message: bytes) -> Progress:
    """What a message says that has no number."""
    assert sealed_number(message) == 0
    return Envelope.FromString(message).progress


def test_nothing_is_said_of_a_stream_on_which_nothing_is_amiss():
    """But each so many messages what has come; and nothing at a beat, once all is known to have come."""
    there, back = Outbox(), Outbox()
    here = Inbox(back)
    for number in range(TELL_EVERY):
        put(there, str(number))
        assert here.takes(next(there))
    told = progress(next(back))
    assert told == Progress(taken=TELL_EVERY)
    assert not Inbox(there).takes(told_as_message(told))
    for outbox in (there, back):
        outbox.beat()
        outbox.close()
        assert list(outbox) == []


def told_as_message(told: Progress) -> bytes:
    outbox = Outbox()
    outbox.tell(Told(told.taken, told.again))
    return next(outbox)


def test_what_is_lost_is_sent_again_before_what_waits():
    """As soon as the next one comes; with the same bytes."""
    there, back = Outbox(), Outbox()
    here, home = Inbox(back), Inbox(there)
    for name in "abc":
        put(there, name)
    lost, early = next(there), next(there)
    assert not here.takes(early)
    assert not home.takes(next(back))
    again = [next(there), next(there), next(there)]
    assert again[:2] == [lost, early]
    assert [here.takes(message) for message in again] == [True, True, True]
    assert contents(again) == ["a", "b", "c"]


def test_the_last_message_is_missed_at_the_beat():
    """And one that says so may be lost, too: the next beat asks once more."""
    there, back = Outbox(), Outbox()
    here, home = Inbox(back), Inbox(there)
    put(there, "last")
    next(there)  # is lost
    for _ in range(2):
        there.beat()
        beat = next(there)
        assert progress(beat) == Progress(sent=1)
        assert not here.takes(beat)
        asked = next(back)
        assert progress(asked) == Progress(again=True)
    home.takes(asked)
    assert here.takes(next(there))


def test_what_is_amiss_is_counted():
    """A message that comes again, is spoilt, or missing; each once."""
    counts = dict.fromkeys(("messages_repeated", "messages_spoilt", "messages_missing"), 0)

    def count(name: str, by: int) -> None:
        counts[name] += by

    there = Outbox()
    here = Inbox(Outbox(), count)
    for name in "abcd":
        put(there, name)
    first, second, third, fourth = (next(there) for _ in "abcd")
    assert here.takes(first)
    assert not here.takes(first)
    assert not here.takes(third)
    assert not here.takes(fourth)
    assert counts == {"messages_repeated": 1, "messages_spoilt": 0, "messages_missing": 1}
    assert not here.takes(second[:-1] + bytes([second[-1] ^ 1]))
    assert counts["messages_spoilt"] == 1
    assert here.takes(second)


def test_a_message_that_never_comes_whole_is_named():
    """After so many times, with what was expected and found."""
    there = Outbox()
    here = Inbox(Outbox())
    put(there, "a")
    message = next(there)
    spoilt = b"b" + message[1:]
    for _ in range(ASKED_MAX):
        assert not here.takes(spoilt)
    expected = (
        rf"number: expected 1; asked for it {ASKED_MAX} times, and it did not come: checksum: expected \w+; found"
    )
    with pytest.raises(ProtocolError, match=expected):
        here.takes(spoilt)


def test_nothing_new_is_sent_where_too_much_is_not_known_to_have_come():
    """Until the other side says so; at the end what waits is sent."""
    there = Outbox()
    for number in range(KEPT_MAX + 2):
        put(there, str(number))
    for _ in range(KEPT_MAX):
        next(there)
    there.beat()
    assert progress(next(there)) == Progress(sent=KEPT_MAX)
    reader = Reader(there)
    there.heard(Told(1, False))
    assert reader.hear() == str(KEPT_MAX)
    there.close()
    assert reader.ended() == [str(KEPT_MAX), str(KEPT_MAX + 1)]


def test_a_host_cannot_have_what_was_never_sent():
    """It is told what was expected."""
    with pytest.raises(ProtocolError, match="taken: expected at most 0, the newest number; found 3"):
        Outbox().heard(Told(3, False))


def test_what_says_how_far_a_stream_is_may_be_nonsense():
    """With a checksum that fits: it is refused, and what was expected is named."""
    with pytest.raises(ProtocolError, match="expected a Envelope; found 19 bytes that are none"):
        Inbox(Outbox()).takes(seal([b"\x0a"], 0))
