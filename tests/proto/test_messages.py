from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto import messages
from thalweg_proto.errors import ProtocolError
from thalweg_proto.messages import (
    Begin,
    Broke,
    CopyAsked,
    Evaluate,
    Evaluated,
    Finish,
    Left,
    PartFinal,
    Ready,
    Regroup,
    Regrouped,
    StepRecord,
    Stop,
    Work,
)

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


@pytest.mark.parametrize("kind", [Left, Regrouped, Broke, Begin, Finish, Stop, Regroup])
def test_bare_messages_read_as_they_were_written(kind):
    """Each as its own kind: empty tuples are equal in Python."""
    record = {**FROM_WORKER, **FROM_SERVER}[kind.__name__]
    unpack = messages.unpack_from_worker if kind.__name__ in FROM_WORKER else messages.unpack_from_server
    assert type(unpack(record)) is kind


def test_a_copy_that_is_asked_for_reads_as_it_was_written():
    """unpack(pack(x)) == x."""
    assert messages.unpack_from_worker(messages.pack_copy_asked(CopyAsked(7))) == CopyAsked(7)


@given(st.builds(PartFinal, WHOLE, SMALL, WHOLE, NUMBER))
def test_what_is_final_reads_as_it_was_written(message):
    """unpack(pack(x)) == x."""
    read = messages.unpack_from_worker(messages.pack_final(message))
    assert (type(read), read) == (PartFinal, message)


def test_a_loss_that_is_not_known_yet_is_nan_on_both_sides():
    """It comes with the part's last message."""
    assert math.isnan(messages.unpack_from_worker(messages.pack_final(PartFinal(1, 2, 3, math.nan))).loss)


@given(
    st.builds(Work, WHOLE, WHOLE, SMALL, SMALL, SMALL, WHOLE).map(lambda work: (work, messages.pack_work(work)))
    | st.builds(Ready, WHOLE, WHOLE).map(lambda ready: (ready, messages.pack_ready(ready)))
    | st.builds(Evaluate, WHOLE, SMALL, SMALL).map(lambda evaluate: (evaluate, messages.pack_evaluate(evaluate)))
)
def test_what_a_server_asks_for_reads_as_it_was_written(case):
    """unpack(pack(x)) == x, and of the same kind: tuples of the same numbers are equal in Python."""
    message, record = case
    read = messages.unpack_from_server(record)
    assert (type(read), read) == (type(message), message)


FROM_WORKER = {
    "StepRecord": messages.pack_step(StepRecord(*[0] * 11)),
    "Evaluated": messages.pack_evaluated(Evaluated(*[0] * 5)),
    "PartFinal": messages.pack_final(PartFinal(*[0] * 4)),
    "CopyAsked": messages.pack_copy_asked(CopyAsked(0)),
    "Left": messages.pack_left(),
    "Regrouped": messages.pack_regrouped(),
    "Broke": messages.pack_broke(),
}
FROM_SERVER = {
    "Begin": messages.pack_begin(),
    "Work": messages.pack_work(Work(*[0] * 6)),
    "Ready": messages.pack_ready(Ready(0, 0)),
    "Evaluate": messages.pack_evaluate(Evaluate(0, 0, 0)),
    "Finish": messages.pack_finish(),
    "Stop": messages.pack_stop(),
    "Regroup": messages.pack_regroup(),
}


@pytest.mark.parametrize("name", [*FROM_WORKER, *FROM_SERVER])
def test_a_record_of_another_length_or_direction_is_refused(name):
    """A byte missing, a byte too many, or what the other side says."""
    record = {**FROM_WORKER, **FROM_SERVER}[name]
    here, there = messages.unpack_from_worker, messages.unpack_from_server
    if name in FROM_SERVER:
        here, there = there, here
    here(record)
    for unpack, wrong in ((here, record[:-1]), (here, record + b"\0"), (there, record)):
        with pytest.raises(ProtocolError, match=r"expected a .* message; found (kind|an empty)"):
            unpack(wrong)


def test_each_kind_of_record_has_a_number_of_its_own():
    """Its first byte, whichever side says it."""
    kinds = [record[0] for record in (*FROM_WORKER.values(), *FROM_SERVER.values())]
    assert len(set(kinds)) == len(kinds)


@given(st.sampled_from([*FROM_WORKER.values(), *FROM_SERVER.values()]), st.binary(max_size=100))
def test_a_known_kind_with_any_bytes_raises_only_protocol_errors(record, rest):
    """Whatever stands behind the first byte, of the right length too."""
    for malformed in (record[:1] + rest, record[:1] + (rest * len(record))[: len(record) - 1]):
        for unpack in (messages.unpack_from_worker, messages.unpack_from_server):
            with contextlib.suppress(ProtocolError):
                unpack(malformed)


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
        ProtocolError,
        match=r"expected a StepRecord, .*, Left, Regrouped or Broke message; found kind 1 of 10 bytes",
    ):
        messages.unpack_from_worker(record[:10])
