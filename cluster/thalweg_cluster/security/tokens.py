"""What a bearer token allows. Pure.

Rules:
  - A door knows the SHA-256 of a token, not the token: what a server is told gives nothing away.
  - Digests are compared in constant time, and always with all of them: how long it takes tells nothing about any.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

KEY = "authorization"
"""Under this key of the metadata a caller gives its token: "Bearer TOKEN" (RFC 6750)."""


class Right(IntEnum):
    """What a token allows; a higher one allows what a lower one does."""

    READ = 1
    FULL = 2


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The digests of the tokens that a door knows; None: there is none of that right. With neither nobody is let in."""

    full: bytes | None = field(default=None, repr=False)
    read: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, *, full: str | None = None, read: str | None = None) -> Tokens:
        return cls(
            full=None if full is None else _digest(full),
            read=None if read is None else _digest(read),
        )

    def right_of(self, token: str) -> Right | None:
        """What a token allows; None: it is none of ours."""
        digest = _digest(token)
        full, read = (hmac.compare_digest(digest, known or b"") for known in (self.full, self.read))
        return Right.FULL if full else Right.READ if read else None


def bearer(token: str) -> tuple[str, str]:
    """The metadata of a call that gives `token`."""
    return KEY, f"Bearer {token}"


def given_token(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str | None, str]:
    """The token that the metadata of a call give; None, and what was found instead, where they give none, or two.

    What was found never holds what may be a token with a slip.
    """
    values = [value for key, value in metadata if key == KEY]
    if len(values) != 1:
        return None, f"{len(values)} of them" if values else "nothing"
    [value] = values
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    scheme, _, token = text.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None, "something else"
    return token.strip(), ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
