"""What the service and its clients agree on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.jobs import State, is_file_name, is_request_id, plain
from thalweg_proto.v1 import job_service_pb2 as pb


def test_a_job_ends_once_and_only_resume_lets_it_go_on():
    """What has succeeded stays; what was cancelled or has failed may wait again."""
    for state in State:
        after = [other for other in State if state.may_become(other)]
        if state is State.SUCCEEDED:
            assert after == []
        elif state.ended:
            assert after == [State.QUEUED]
        else:
            assert any(other.ended for other in after)
        assert not state.may_become(state)


def test_states_have_the_names_of_the_protocol():
    """And no others."""
    assert {state.name for state in State} == set(pb.JobState.keys()) - {"JOB_STATE_UNSPECIFIED"}


@given(st.text(max_size=200))
def test_law_of_plain_names(name):
    """Whatever a file is called, its plain name is a part that the service takes, and is plain already."""
    assert is_file_name(f"files/0/{plain(name)}")
    assert plain(plain(name)) == plain(name)


@pytest.mark.parametrize("name", ["data.csv", "images-idx3-ubyte.gz", "my_model.py", "a+b.npz"])
def test_a_name_that_is_plain_stays(name):
    """Its suffix says how it is read."""
    assert plain(name) == name


def test_what_may_name_a_request():
    """Letters, digits and dashes."""
    assert is_request_id("run-2026-11-26")
    for text in ("short", "a" * 65, "with space", "new\nline", ""):
        assert not is_request_id(text)
