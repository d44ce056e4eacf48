"""What the doors of one run ask for.

Each server of a run on several hosts has two doors, and each door its own limits:

    the hosts' door    only for the other servers of the run, who have its token and a certificate of its authority
    the clients' door  for everybody else: with a token that a person has given, under that person's certificate or the
                       run's

So a client never has what makes a host of it, and cannot take the hosts' room.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from thalweg_cluster.security.given import Given
from thalweg_cluster.security.guard import Guard, Tls
from thalweg_cluster.security.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class RunSecurity:
    """One run's.

    clients:  what the clients' door asks for
    token:    what the servers of the run have in common, and nobody else; "": there is one server
    tls:      between them, mutual; None: plaintext
    insecure: as in `Guard`
    """

    clients: Guard = field(default_factory=Guard)
    token: str = field(default="", repr=False)
    tls: Tls | None = None
    insecure: bool = False

    @property
    def hosts(self) -> Guard:
        """What the hosts' door asks for."""
        return Guard(tokens=Tokens.of(full=self.token or None), tls=self.tls, insecure=self.insecure)

    @property
    def ca(self) -> bytes | None:
        """The authority that a client has to trust, where it is the run's own; None: there is none."""
        shown = self.clients.tls
        return self.tls.ca if self.tls is not None and shown is not None and shown.key == self.tls.key else None


def on_loopback(given: Given) -> RunSecurity:
    """Of a run with one server: it asks for what was given, and for nothing else."""
    any_token = given.token is not None or given.read_token is not None
    return RunSecurity(clients=Guard(tokens=_tokens(given) if any_token else None, tls=given.tls))


def between_hosts(given: Given, addresses: Sequence[str]) -> RunSecurity:
    """Of a run with servers at `addresses`: with a token of its own and, unless it is to be insecure, certificates."""
    tls = shown = None
    if not given.insecure:
        from thalweg_cluster.security.certificates import make_certificates  # slow to import

        tls = make_certificates(addresses)
        shown = given.tls or replace(tls, ca=None)
    return RunSecurity(
        clients=Guard(tokens=_tokens(given), tls=shown, insecure=given.insecure),
        token=secrets.token_urlsafe(32),
        tls=tls,
        insecure=given.insecure,
    )


def _tokens(given: Given) -> Tokens:
    return Tokens.of(full=given.token, read=given.read_token)
