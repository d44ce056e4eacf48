from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto import messages
from thalweg_proto.errors import ProtocolError
from thalweg_proto.messages import Evaluated, Publish, Push, Stop

WHOLE = st.integers(0, 2**63 - 1)
SMALL = st.integers(0, 2**32 - 1)
NUMBER = st.floats(allow_nan=False)


PUSHES = st.builds(Push, st.integers(0, 2**16 - 1), WHOLE, WHOLE, SMALL, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)


@given(st.lists(PUSHES, min_size=1, max_size=5))
def test_pushes_read_as_they_were_written(pushes):
    """unpack(pack(x)) == x, for several in one datagram."""
    assert messages.unpack_from_worker(b"".join(map(messages.pack_push, pushes))) == pushes


@given(st.builds(Evaluated, WHOLE, SMALL, WHOLE, st.integers(-1, 2**62), NUMBER))
def test_an_evaluation_reads_as_it_was_written(message):
    """unpack(pack(x)) == x."""
    assert messages.unpack_from_worker(messages.pack_evaluated(message)) == message


@given(st.builds(Publish, WHOLE, WHOLE, st.booleans(), st.booleans()))
def test_a_publish_reads_as_it_was_written(message):
    """unpack(pack(x)) == x."""
    assert messages.unpack_from_server(messages.pack_publish(message)) == message


def test_a_stop_reads_as_it_was_written():
    """unpack(pack(x)) == x."""
    assert messages.unpack_from_server(messages.pack_stop()) == Stop()


@given(st.binary(max_size=100))
def test_malformed_records_raise_only_protocol_errors(record):
    """Whatever bytes come in, the reader answers with a message or a ProtocolError."""
    for unpack in (messages.unpack_from_worker, messages.unpack_from_server):
        with contextlib.suppress(ProtocolError):
            unpack(record)


def test_a_cut_record_is_named():
    """The error says what was expected and what was there."""
    record = messages.pack_push(Push(0, 1, 2, 3, 0.0, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ProtocolError, match=r"expected a Push or Evaluated message; found kind 1 of 10 bytes"):
        messages.unpack_from_worker(record[:10])
