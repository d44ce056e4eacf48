"""Which call is let in with which token."""

from __future__ import annotations

import grpc
import pytest

from thalweg_cluster.hosts.access import why_not_in
from thalweg_cluster.security.tokens import Tokens, bearer

TOKENS = Tokens.of(full="full", read="read")
READS = ["/thalweg.v1.ParameterServer/Pull", "/thalweg.v1.ParameterServer/Status", "/grpc.health.v1.Health/Watch"]
WRITES = ["/thalweg.v1.ParameterServer/Push", "/thalweg.v1.Coordination/Attend", "/thalweg.v1.ParameterServer/New", ""]
CHECK = "/grpc.health.v1.Health/Check"


def status(method: str, *given, tokens: Tokens | None = TOKENS) -> grpc.StatusCode | None:
    refusal = why_not_in(method, given, tokens)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize("method", [*READS, *WRITES])
def test_without_a_token_or_with_a_wrong_one_nothing_is_let_in(method):
    """Whatever it would do."""
    for given in ([], [bearer("other")], [bearer("full"), bearer("full")], [("authorization", "full")]):
        assert status(method, *given) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", READS)
def test_both_tokens_let_in_who_reads(method):
    """Pull, Status, and to watch the health."""
    assert [status(method, bearer(token)) for token in ("full", "read")] == [None, None]


@pytest.mark.parametrize("method", WRITES)
def test_who_changes_something_needs_the_full_token(method):
    """A method that comes to be later, too, until somebody says otherwise."""
    assert status(method, bearer("full")) is None
    assert status(method, bearer("read")) is grpc.StatusCode.PERMISSION_DENIED


def test_health_is_for_everybody():
    """A balancer has no token."""
    assert status(CHECK) is None


@pytest.mark.parametrize("method", [*READS, *WRITES, CHECK])
def test_a_door_that_asks_for_no_token_lets_all_in(method):
    """On loopback; but one that knows no token lets nobody in."""
    assert status(method, tokens=None) is None
    closed = [status(method, bearer(token), tokens=Tokens.of()) for token in ("full", "", "none")]
    assert closed == [None if method == CHECK else grpc.StatusCode.UNAUTHENTICATED] * 3


def test_the_answer_does_not_repeat_what_was_given():
    """It may be another door's token, and answers are logged."""
    for given in (bearer("hush"), ("authorization", "hush"), bearer("read")):
        assert given[1].split()[-1] not in why_not_in("/x/hash", [given], TOKENS).details.replace("read-only", "")
