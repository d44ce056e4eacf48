"""What a bearer token allows."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.security import tokens
from thalweg_cluster.security.tokens import Right, Tokens, bearer, given_token

BOTH = Tokens.of(full="full", read="read")


@pytest.mark.parametrize(
    ("known", "token", "right"),
    [
        (BOTH, "full", Right.FULL),
        (BOTH, "read", Right.READ),
        (BOTH, "other", None),
        (BOTH, "", None),
        (BOTH, "ful", None),
        (BOTH, "full ", None),
        (BOTH, "Full", None),
        (Tokens.of(full="full"), "read", None),
        (Tokens.of(read="read"), "read", Right.READ),
        (Tokens.of(), "full", None),
        (Tokens.of(), "", None),
    ],
)
def test_a_token_allows_what_it_was_given_for(known, token, right):
    """And what is none, is not whole or has a slip allows nothing."""
    assert known.right_of(token) is right


@given(full=st.text(min_size=1), read=st.text(min_size=1), token=st.text())
def test_only_an_equal_token_is_let_in(full, read, token):
    """Whatever characters they have."""
    expected = Right.FULL if token == full else Right.READ if token == read else None
    assert Tokens.of(full=full, read=read).right_of(token) is expected


def test_tokens_are_compared_in_constant_time_and_all_of_them(monkeypatch):
    """By hmac.compare_digest, of digests of one length, also where the first one fits."""
    compared = []

    def compare(given, known):
        compared.append((len(given), len(known)))
        return given == known

    monkeypatch.setattr(tokens.hmac, "compare_digest", compare)
    assert BOTH.right_of("full") is Right.FULL
    assert compared == [(32, 32)] * 2


def test_what_a_server_is_told_gives_no_token_away():
    """Neither to who prints it nor to who reads its memory."""
    assert "full" not in repr(BOTH).replace("full=", "")
    assert BOTH.full == hashlib.sha256(b"full").digest()
    assert hashlib.sha256(b"full").hexdigest() not in repr(BOTH)
    assert repr(BOTH) == "Tokens()"


@pytest.mark.parametrize(
    ("metadata", "token", "found"),
    [
        ([bearer("abc")], "abc", ""),
        ([("authorization", "bearer  abc ")], "abc", ""),  # RFC 7235: the scheme in any case
        ([("x", "y"), ("authorization", b"Bearer abc")], "abc", ""),
        ([], None, "nothing"),
        ([("x", "Bearer abc")], None, "nothing"),
        ([bearer("abc"), bearer("abc")], None, "2 of them"),
        ([("authorization", "abc")], None, "something else"),
        ([("authorization", "Basic abc")], None, "something else"),
        ([("authorization", "Bearer ")], None, "something else"),
    ],
)
def test_a_call_gives_one_token_as_a_bearer(metadata, token, found):
    """What was found instead is told without its text, which may be a token with a slip."""
    assert given_token(metadata) == (token, found)
