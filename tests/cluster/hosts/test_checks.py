from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.checks import (
    FORMAT_NAMES,
    FORMAT_NUMBERS,
    Expected,
    Refusal,
    RefusedError,
    check_names,
    check_parameters,
    check_push,
    refusal_of,
)
from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX, Shards
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import FORMATS, make_format
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1 import parameter_server_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE

# Host 0 owns 80 chunks in blocks of 10, host 1 nothing, host 2 the other 80.
HOST_2 = Expected(
    job_id="mnist-1a2b",
    generation=3,
    host=2,
    hosts=3,
    shards=Shards.of(160 * CHUNK, [True, False, True], block=10 * CHUNK),
    gradients=make_format("float32"),
    parameters=make_format("float32"),
)
GRADIENT = {
    "protocol_version": PROTOCOL_VERSION,
    "job_id": "mnist-1a2b",
    "generation": 3,
    "step": 7,
    "version": 7,
    "part_begin": 2,
    "part_end": 4,
    "begin": 80 * CHUNK,
    "end": 90 * CHUNK,
    "format": pb.FLOAT32,
    "sender": 1,
}
PARAMETERS = {**GRADIENT, "part_begin": 0, "part_end": 0, "begin": 70 * CHUNK, "end": 80 * CHUNK}
BYTES = 4 * 10 * CHUNK


def push(nbytes: int = BYTES, expected: Expected = HOST_2, **changed) -> Refusal | None:
    """What host 2 says of a good block of a gradient with changes."""
    return check_push(pb.BlockHeader(**(GRADIENT | changed)), nbytes, expected)


def parameters(nbytes: int = BYTES, expected: Expected = HOST_2, **changed) -> Refusal | None:
    """What host 2 says of a good block of parameters from host 0 with changes."""
    return check_parameters(pb.BlockHeader(**(PARAMETERS | changed)), nbytes, 0, expected)


def test_a_good_block_is_let_in():
    """A host's gradient, anybody's, which may have any ends, and an owner's parameters."""
    assert push() is None
    assert push(sender=3) is None
    assert push(sender=0) is None
    assert push(sender=0, begin=80 * CHUNK + 5, end=80 * CHUNK + 8, nbytes=12) is None
    assert parameters() is None


NAMES = [
    (
        {"protocol_version": PROTOCOL_VERSION + 1},
        PRECONDITION,
        f"protocol_version: expected {PROTOCOL_VERSION}; found {PROTOCOL_VERSION + 1}: both sides need the same",
    ),
    ({"protocol_version": 0}, PRECONDITION, f"protocol_version: expected {PROTOCOL_VERSION}; found 0"),
    ({"job_id": "other"}, grpc.StatusCode.NOT_FOUND, "job_id: expected 'mnist-1a2b'; found 'other'"),
    ({"generation": 2}, PRECONDITION, "generation: expected 3; found 2: Status gives the present one"),
]


@pytest.mark.parametrize(("changed", "status", "text"), NAMES)
def test_names_are_of_this_release_this_job_and_its_present_membership(changed, status, text):
    """Whatever message it is; the status tells a caller what to do."""
    names = {name: (GRADIENT | changed)[name] for name in ("protocol_version", "job_id", "generation")}
    for refusal in (check_names(**names, expected=HOST_2), push(**changed), parameters(**changed)):
        assert refusal.status is status
        assert text in refusal.details


@pytest.mark.parametrize(
    ("changed", "status", "text"),
    [
        ({"sender": 4}, INVALID, "sender: expected at most 3, the number of hosts; found 4"),
        ({"part_end": 2}, INVALID, "part_begin, part_end: expected a range of parts that is not empty; found [2, 2)"),
        ({"part_end": 0}, INVALID, "part_begin, part_end: expected a range of parts that is not empty; found [2, 0)"),
        ({"format": pb.FORMAT_UNSPECIFIED}, INVALID, "format: expected float32; found format 0"),
        ({"format": 99}, INVALID, "format: expected float32; found format 99"),
        ({"format": pb.INT8}, INVALID, "format: expected float32; found int8"),
        ({"format": 99, "sender": 0}, INVALID, "format: expected float32, bfloat16, int8, topk; found format 99"),
        ({"nbytes": BYTES - 1}, INVALID, f"data: expected {BYTES} bytes, which 81920 elements take in float32; found"),
        ({"nbytes": 0}, INVALID, "found 0 bytes"),
        ({"nbytes": BYTES, "format": pb.BFLOAT16, "sender": 0}, INVALID, f"data: expected {BYTES // 2} bytes"),
        ({"end": 91 * CHUNK}, INVALID, "begin, end: expected one of the job's blocks; found [655360, 745472)"),
        ({"begin": 81 * CHUNK}, INVALID, "begin, end: expected one of the job's blocks; found [663552, 737280)"),
        (
            {"sender": 0, "end": 80 * CHUNK + BLOCK_ELEMENTS_MAX + 1},
            INVALID,
            f"begin, end: expected at most {BLOCK_ELEMENTS_MAX} elements; found {BLOCK_ELEMENTS_MAX + 1}",
        ),
    ],
)
def test_a_gradient_is_refused_by_the_field_that_is_wrong(changed, status, text):
    """With what was expected there, and what was found."""
    refusal = push(**changed)
    assert refusal.status is status
    assert text in refusal.details


@pytest.mark.parametrize("sender", [0, 1])
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (70 * CHUNK, 80 * CHUNK),
        (0, 10 * CHUNK),
        (79 * CHUNK, 81 * CHUNK),
        (150 * CHUNK, 160 * CHUNK + 1),
        (2**63, 2**64 - 1),
        (90 * CHUNK, 80 * CHUNK),
        (80 * CHUNK, 80 * CHUNK),
    ],
)
def test_a_gradient_belongs_to_the_shard_of_this_host(begin, end, sender):
    """No element of another shard, none at all, none beyond the vector."""
    refusal = push(begin=begin, end=end, sender=sender)
    assert refusal.status is OUT_OF_RANGE
    expected = f"begin, end: expected elements of the shard [{80 * CHUNK}, {160 * CHUNK}); found [{begin}, {end})"
    assert refusal.details == expected


def test_a_host_that_owns_nothing_takes_no_gradient():
    """Its shard is empty."""
    refusal = push(expected=replace(HOST_2, host=1))
    assert refusal.status is OUT_OF_RANGE
    assert "the shard [0, 0)" in refusal.details


@pytest.mark.parametrize(
    ("changed", "status", "text"),
    [
        ({"format": pb.BFLOAT16}, INVALID, "format: expected float32; found bfloat16"),
        ({"format": 99}, INVALID, "format: expected float32; found format 99"),
        ({"begin": 80 * CHUNK, "end": 90 * CHUNK}, OUT_OF_RANGE, f"expected elements of the shard [0, {80 * CHUNK})"),
        ({"begin": 71 * CHUNK}, INVALID, "begin, end: expected one of the job's blocks"),
        ({"nbytes": BYTES + 1}, INVALID, f"data: expected {BYTES} bytes"),
        ({"sender": 3}, INVALID, "sender: expected 1, host 0's; found 3"),
        ({"sender": 0}, INVALID, "sender: expected 1, host 0's; found 0"),
    ],
)
def test_parameters_are_refused_by_the_field_that_is_wrong(changed, status, text):
    """They come from the owner of the shard, block by block, in the format of the job."""
    refusal = parameters(**changed)
    assert refusal.status is status
    assert text in refusal.details


def test_the_last_version_is_exact_in_any_job():
    """Parameters come in the agreed format, or in float32."""
    lossy = replace(HOST_2, parameters=make_format("bfloat16"))
    assert parameters(expected=lossy) is None
    assert parameters(expected=lossy, format=pb.BFLOAT16, nbytes=BYTES // 2) is None
    refusal = parameters(expected=lossy, format=pb.INT8)
    assert refusal.details == "format: expected bfloat16 or float32; found int8"


@pytest.mark.parametrize("name", FORMATS)
def test_hosts_send_gradients_in_the_agreed_format_and_others_in_any(name):
    """With its own length; a fraction of topk that was agreed upon holds for everybody."""
    form = make_format(name)
    block = {"format": FORMAT_NUMBERS[name], "nbytes": form.encoded_bytes(10 * CHUNK)}
    assert push(expected=replace(HOST_2, gradients=form), **block) is None
    assert push(sender=0, **block) is None
    if name == "topk":
        half = make_format("topk", fraction=0.5)
        agreed = replace(HOST_2, gradients=half)
        for sender in (0, 1):
            assert "data: expected" in push(sender=sender, expected=agreed, **block).details
            whole = {**block, "nbytes": half.encoded_bytes(10 * CHUNK)}
            assert push(sender=sender, expected=agreed, **whole) is None


def test_every_format_has_a_number():
    """The names are those of the job file, and the numbers those of the protocol."""
    assert set(FORMAT_NAMES.values()) == set(FORMATS)
    assert set(FORMAT_NAMES) == set(pb.Format.values()) - {pb.FORMAT_UNSPECIFIED}
    assert {FORMAT_NAMES[number]: number for number in FORMAT_NAMES} == dict(FORMAT_NUMBERS)


def test_a_refusal_keeps_its_status_on_its_way():
    """A message that cannot be read at all is an invalid argument."""
    refusal = Refusal(OUT_OF_RANGE, "begin: no")
    assert refusal_of(RefusedError(refusal)) is refusal
    assert refusal_of(ProtocolError("data: expected 3 bytes")) == Refusal(INVALID, "data: expected 3 bytes")
    assert str(RefusedError(refusal)) == "begin: no"


U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ENDS = st.integers(70, 170).map(lambda chunks: chunks * CHUNK) | U64


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "part_begin": U32,
            "part_end": U32,
            "begin": ENDS,
            "end": ENDS,
            "format": st.integers(0, 9),
            "sender": st.integers(0, 5),
            "nbytes": st.integers(0, 2 * BYTES),
        },
    )
)
def test_what_is_let_in_fits_where_it_goes(changed):
    """Whatever a header says: elements of the shard, no more than a block may have, and as many bytes as they take."""
    if push(**changed) is None:
        header = GRADIENT | changed
        assert 80 * CHUNK <= header["begin"] < header["end"] <= 160 * CHUNK
        assert header["end"] - header["begin"] <= BLOCK_ELEMENTS_MAX
        assert header["part_begin"] < header["part_end"]
        form = make_format(FORMAT_NAMES[header["format"]])
        assert changed.get("nbytes", BYTES) == form.encoded_bytes(header["end"] - header["begin"])
