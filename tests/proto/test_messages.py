from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto import messages
from thalweg_proto.errors import ProtocolError
from thalweg_proto.messages import Begin, Evaluated, Left, StepRecord, Stop

WHOLE = st.integers(0, 2**63 - 1)
SMALL = st.integers(0, 2**32 - 1)
NUMBER = st.floats(allow_nan=False)


RECORDS = st.builds(StepRecord, st.integers(0, 2**16 - 1), SMALL, WHOLE, *[NUMBER] * 8)


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_step_records_read_as_they_were_written(records):
    """unpack(pack(x)) == x, for several in one datagram."""
    read = messages.unpack_from_worker(b"".join(map(messages.pack_step, records)))
    assert [tuple(row.tolist())[1:] for row in read] == [tuple(record) for record in records]


def test_as_many_records_as_are_allowed_fit_into_a_datagram():
    """RECORDS_MAX of them are no longer than what is received at once."""
    record = messages.pack_step(StepRecord(*[0] * 11))
    assert messages.RECORDS_MAX * len(record) <= messages.MESSAGE_BYTES_MAX


@given(st.builds(Evaluated, WHOLE, SMALL, WHOLE, st.integers(-1, 2**62), NUMBER))
def test_an_evaluation_reads_as_it_was_written(message):
    """unpack(pack(x)) == x."""
    assert messages.unpack_from_worker(messages.pack_evaluated(message)) == message


def test_bare_messages_read_as_they_were_written():
    """unpack(pack(x)) == x."""
    assert messages.unpack_from_worker(messages.pack_left()) == Left()
    assert isinstance(messages.unpack_from_server(messages.pack_begin()), Begin)
    assert isinstance(messages.unpack_from_server(messages.pack_stop()), Stop)


@given(st.binary(max_size=100))
def test_malformed_records_raise_only_protocol_errors(record):
    """Whatever bytes come in, the reader answers with a message or a ProtocolError."""
    for unpack in (messages.unpack_from_worker, messages.unpack_from_server):
        with contextlib.suppress(ProtocolError):
            unpack(record)


def test_a_cut_record_is_named():
    """The error says what was expected and what was there."""
    record = messages.pack_step(StepRecord(*[0] * 11))
    with pytest.raises(
        ProtocolError, match=r"expected a StepRecord, Evaluated, PartFinal or Left message; found kind 1 of 10 bytes"
    ):
        messages.unpack_from_worker(record[:10])
