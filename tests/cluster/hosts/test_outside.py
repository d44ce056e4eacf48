from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.checks import FORMAT_NUMBERS, Expected, check_push
from thalweg_cluster.hosts.outside import OutsidePushes
from thalweg_proto.blocks import Shards
from thalweg_proto.errors import ProtocolError
from thalweg_proto.formats import FORMATS, make_format
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1.parameter_server_pb2 import BlockHeader

BEGIN, END = CHUNK, CHUNK + 100  # what host 1 owns


def expected(wire: str = "float32", **options) -> Expected:
    return Expected(
        job_id="job",
        generation=1,
        host=1,
        hosts=2,
        shards=Shards.of(END, [True, True]),
        gradients=make_format(wire, **options),
        parameters=make_format("float32"),
    )


def send(
    pushes: OutsidePushes, gradient: np.ndarray, begin: int, *, step: int = 3, form=None, to: Expected | None = None
):
    """A block that was checked, as the door does it."""
    form = form or make_format("float32")
    header = BlockHeader(
        protocol_version=PROTOCOL_VERSION,
        job_id="job",
        generation=1,
        step=step,
        version=2,
        part_begin=9,
        part_end=10,
        begin=begin,
        end=begin + len(gradient),
        format=FORMAT_NUMBERS[form.name],
    )
    data = form.encode(gradient, None)
    assert check_push(header, data.nbytes, to or expected()) is None
    return pushes.add(header, data)


GRADIENT = np.random.default_rng(0).standard_normal(END - BEGIN, dtype=np.float32)


@given(st.sets(st.integers(1, END - BEGIN - 1), max_size=5).flatmap(lambda cuts: st.permutations([0, *cuts])))
def test_a_push_is_whole_with_its_last_block(begins):
    """Blocks of any length in any order; the next push on the stream begins anew."""
    pushes = OutsidePushes(expected())
    for step in (3, 4):
        gradient = step * GRADIENT
        found = []
        for begin in begins:
            end = min([other for other in begins if other > begin], default=END - BEGIN)
            found.append(send(pushes, gradient[begin:end], BEGIN + begin, step=step))
        assert found[:-1] == [None] * (len(begins) - 1)
        assert (found[-1].step, found[-1].version, found[-1].parts) == (step, 2, (9, 10))
        np.testing.assert_array_equal(found[-1].gradient, gradient)


def test_blocks_of_one_push_do_not_overlap():
    """An element that came twice is refused, and named."""
    pushes = OutsidePushes(expected())
    send(pushes, GRADIENT[10:20], BEGIN + 10)
    for begin, end in ((10, 20), (0, 11), (19, 30), (12, 13), (0, 100)):
        match = rf"begin, end: expected elements that were not sent yet; found \[{BEGIN + begin}, {BEGIN + end}\)"
        with pytest.raises(ProtocolError, match=match):
            send(pushes, GRADIENT[begin:end], BEGIN + begin)


def test_a_push_is_sent_to_its_end_before_the_next():
    """A block of another name in between is refused."""
    pushes = OutsidePushes(expected())
    send(pushes, GRADIENT[:10], BEGIN)
    with pytest.raises(
        ProtocolError, match=r"expected \(3, 9, 10, 2\), a push that is not whole; found \(4, 9, 10, 2\)"
    ):
        send(pushes, GRADIENT[10:], BEGIN + 10, step=4)


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("agreed", [("float32", {}), ("topk", {"fraction": 0.5})], ids=["float32", "topk"])
def test_a_push_may_come_in_any_format(wire, agreed):
    """What the check let in is decoded in the same way: topk with the job's fraction, where the job has one."""
    to = expected(agreed[0], **agreed[1])
    form = to.gradients if to.gradients.name == wire else make_format(wire)
    found = send(OutsidePushes(to), GRADIENT, BEGIN, form=form, to=to)
    decoded = np.empty_like(GRADIENT)
    form.decode(form.encode(GRADIENT, None), decoded)
    np.testing.assert_array_equal(found.gradient, decoded)
