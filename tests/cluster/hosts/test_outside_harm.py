"""Pushes of somebody who is no host of the job."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg_cluster.hosts.checks import Expected
from thalweg_cluster.hosts.outside import OutsidePushes
from thalweg_proto.blocks import Shards
from thalweg_proto.formats import make_format
from thalweg_proto.v1 import parameter_server_pb2 as pb

SIZE = 1 << 17
FLOAT32 = make_format("float32")


@pytest.fixture
def pushes() -> OutsidePushes:
    """Of one stream, at the only server of a job."""
    return OutsidePushes(
        Expected(
            job_id="job",
            generation=1,
            host=0,
            hosts=1,
            shards=Shards.of(SIZE, [True]),
            gradients=FLOAT32,
            parameters=FLOAT32,
        )
    )


def add(pushes: OutsidePushes, begin: int, end: int):
    return pushes.add(pb.BlockHeader(begin=begin, end=end, format=pb.FLOAT32), memoryview(bytes(4 * (end - begin))))


def test_a_push_is_whole_with_its_last_element(pushes):
    """In whatever pieces it comes; the next one begins after it."""
    for _ in range(2):
        assert add(pushes, 5, SIZE) is None
        assert add(pushes, 0, 3) is None
        whole = add(pushes, 3, 5)
        assert len(whole.gradient) == SIZE


def test_one_element_at_a_time_costs_no_more_than_each_its_own(pushes):
    """2**17 blocks of one element: not a look at all blocks before with each (that takes minutes)."""
    assert [add(pushes, i, i + 1) for i in range(SIZE - 1)] == [None] * (SIZE - 1)
    assert add(pushes, SIZE - 1, SIZE) is not None


@pytest.mark.parametrize("gone_before_it_is_whole", [True, False])
def test_nothing_is_done_for_a_client_that_is_gone(pushes, gone_before_it_is_whole):
    """Its push is cancelled where it was not begun."""
    if gone_before_it_is_whole:
        pushes.drop()
    whole = add(pushes, 0, SIZE)
    if not gone_before_it_is_whole:
        pushes.drop()
    assert not whole.begin()


def test_what_was_begun_is_answered(pushes):
    """Even where the client goes away meanwhile."""
    whole = add(pushes, 0, SIZE)
    assert whole.begin()
    pushes.drop()
    whole.answer("verdict")
    assert whole.verdict.result(0) == "verdict"
    assert np.array_equal(whole.gradient, np.zeros(SIZE))


def test_numbers_whose_squares_overflow_come_in_without_a_warning(pushes):
    """They are finite; whoever listens for warnings as errors must not lose the push."""
    data = memoryview(np.full(SIZE, 1e30, dtype="<f4").tobytes())
    whole = pushes.add(pb.BlockHeader(begin=0, end=SIZE, format=pb.FLOAT32), data)
    assert np.array_equal(whole.gradient, np.full(SIZE, 1e30, dtype=np.float32))
