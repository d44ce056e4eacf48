"""What a door asks of those who knock, and where it refuses to listen. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from thalweg_cluster.security.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Tls:
    """What one end of a connection shows, and what it asks of the other; all in PEM.

    ca: of the other end's certificate; None: a server asks for none. With it TLS is mutual
    """

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What a door asks for.

    tokens:   one of these; None: none is asked for
    tls:      None: plaintext
    insecure: somebody has said that it may be plaintext beyond loopback, too
    """

    tokens: Tokens | None = None
    tls: Tls | None = None
    insecure: bool = False


def is_loopback(bind: str) -> bool:
    """Whether what listens on `bind`, an IP address or a name, is reached from its own host only."""
    try:
        return ip_address(bind.strip("[]")).is_loopback
    except ValueError:
        return bind == "localhost"


def why_not_listen(bind: str, guard: Guard) -> str | None:
    """Why a door that asks for so little refuses to listen on `bind`; None: it does."""
    if is_loopback(bind):
        return None
    missing = ["no token"] if guard.tokens is None else []
    if guard.tls is None and not guard.insecure:
        missing.append("no TLS")
    if not missing:
        return None
    return (
        f"refused to listen on {bind}: expected a token and TLS, since it is beyond loopback; found "
        f"{' and '.join(missing)}. Give both, or say --insecure, which leaves TLS off and the token on."
    )
