"""Where a door refuses to listen."""

from __future__ import annotations

import pytest

from thalweg_cluster.security.guard import Guard, Tls, is_loopback, why_not_listen
from thalweg_cluster.security.tokens import Tokens

TLS = Tls(certificate=b"", key=b"")
TOKENS = Tokens.of(full="full")


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("[::]", False),
        ("", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_loopback_is_what_only_this_host_reaches(bind, loopback):
    """All addresses and names that may be another host's are not."""
    assert is_loopback(bind) is loopback


@pytest.mark.parametrize(
    ("guard", "missing"),
    [
        (Guard(), "no token and no TLS"),
        (Guard(tokens=TOKENS), "no TLS"),
        (Guard(tls=TLS), "no token"),
        (Guard(insecure=True), "no token"),
        (Guard(tls=TLS, insecure=True), "no token"),
        (Guard(tokens=TOKENS, tls=TLS), None),
        (Guard(tokens=Tokens.of(), tls=TLS), None),  # nobody is let in
        (Guard(tokens=TOKENS, insecure=True), None),
    ],
)
def test_beyond_loopback_a_door_asks_for_a_token_and_speaks_tls(guard, missing):
    """Insecure leaves TLS off, never the token; on loopback anything goes."""
    assert why_not_listen("127.0.0.1", guard) is None
    for bind in ("10.0.0.1", "0.0.0.0"):
        why = why_not_listen(bind, guard)
        if missing is None:
            assert why is None
        else:
            assert why == (
                f"refused to listen on {bind}: expected a token and TLS, since it is beyond loopback; found {missing}. "
                "Give both, or say --insecure, which leaves TLS off and the token on."
            )


def test_a_key_is_not_printed():
    """Nor where what holds it is."""
    assert "secret" not in repr(Guard(tls=Tls(certificate=b"", key=b"secret")))
