"""Who may ask the page's door for what. Pure.

Rules:
  - The token is asked for as at the gRPC door. Nothing but the page itself, which tells nothing, goes without.
  - Where there is none, on loopback, other pages in the same browser are to be kept out. A name that leads here by DNS
    rebinding is none of ours; an IP address leads nowhere else. What changes something is JSON, which a page of another
    origin may not send unasked, and comes from no other origin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple

from thalweg_cluster.security.tokens import KEY, Right, Tokens, given_token

JSON = "application/json"


class Refused(NamedTuple):
    status: HTTPStatus
    why: str


def why_not_here(hosts: Iterable[str], names: Collection[str]) -> Refused | None:
    """Whether a request is meant for this service.

    hosts: the values of its header Host
    names: of this service, beside all IP addresses and "localhost"
    """
    given = list(hosts)
    if len(given) == 1 and ((name := _bare(given[0])) in {"localhost", *names} or _is_address(name)):
        return None
    expected = "an IP address, localhost, or the name that --page gives"
    return Refused(HTTPStatus.MISDIRECTED_REQUEST, f"Host: expected {expected}; found {', '.join(given)[:200]!r}")


def why_not_in(authorization: Iterable[str], tokens: Tokens | None, needs: Right) -> Refused | None:
    """Whether somebody may come in, with these values of the header Authorization. `tokens`: None: none is asked for"""
    if tokens is None:
        return None
    token, found = given_token((KEY, value) for value in authorization)
    if token is None:
        return Refused(HTTPStatus.UNAUTHORIZED, f"Authorization: expected 'Bearer TOKEN'; found {found}")
    right = tokens.right_of(token)
    if right is None:
        why = "Authorization: expected a token that this service knows; found another one"
        return Refused(HTTPStatus.UNAUTHORIZED, why)
    if right < needs:
        why = "Authorization: expected the full token, to change something; found the read-only one"
        return Refused(HTTPStatus.FORBIDDEN, why)
    return None


def why_no_change(origins: Iterable[str], hosts: Iterable[str], kind: str) -> Refused | None:
    """Whether a request that changes something comes from where it may.

    origins: the values of its header Origin, which every browser sends with a POST
    hosts:   the values of its header Host
    kind:    its Content-Type
    """
    here = {f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")}
    if foreign := [origin for origin in origins if origin not in here]:
        return Refused(HTTPStatus.FORBIDDEN, f"Origin: expected this page's own; found {foreign[0][:200]!r}")
    if kind.partition(";")[0].strip().lower() != JSON:
        return Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: expected {JSON}; found {kind[:200]!r}")
    return None


def _bare(host: str) -> str:
    """Without the port: who comes through a tunnel has another one."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
