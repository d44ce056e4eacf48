"""Which right each method takes, and whether a caller has it: asked before anything else of a call is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from thalweg_cluster.hosts.checks import Refusal
from thalweg_cluster.security.tokens import KEY, Right, Tokens, given_token

OPEN = frozenset({"/grpc.health.v1.Health/Check"})
"""For everybody: it tells nothing but that a server is there, which a connection tells as well; and what asks it
(balancers, Kubernetes) has no token."""
RIGHTS: Mapping[str, Right] = {
    "/thalweg.v1.ParameterServer/Pull": Right.READ,
    "/thalweg.v1.ParameterServer/Status": Right.READ,
    **{f"/thalweg.v1.JobService/{method}": Right.READ for method in ("Get", "List", "Watch", "Logs")},
    "/grpc.health.v1.Health/Watch": Right.READ,
}
"""All others take the full token, also those that nobody has heard of."""


def why_not_in(method: str, metadata: Iterable[tuple[str, str | bytes]], tokens: Tokens | None) -> Refusal | None:
    """Why a call is not let in; None: it is. Pure."""
    if tokens is None or method in OPEN:
        return None
    token, found = given_token(metadata)
    if token is None:
        details = f"{KEY} (metadata): expected 'Bearer TOKEN'; found {found}"
        return Refusal(grpc.StatusCode.UNAUTHENTICATED, details)
    right = tokens.right_of(token)
    if right is None:
        details = f"{KEY} (metadata): expected a token that this door knows; found another one"
        return Refusal(grpc.StatusCode.UNAUTHENTICATED, details)
    if right < RIGHTS.get(method, Right.FULL):
        details = f"{KEY} (metadata): expected the full token for {method}; found the read-only one"
        return Refusal(grpc.StatusCode.PERMISSION_DENIED, details)
    return None


class Access(grpc.ServerInterceptor):
    """Asks each call of a server for a token."""

    def __init__(self, tokens: Tokens | None) -> None:
        """None: there is nothing to ask for."""
        self._tokens = tokens

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        metadata: Any = handler_call_details.invocation_metadata or ()
        refusal = why_not_in(handler_call_details.method, metadata, self._tokens)
        if refusal is None:
            handler: grpc.RpcMethodHandler[Any, Any] | None = continuation(handler_call_details)
            return handler

        def refuse(messages: Any, context: grpc.ServicerContext) -> Any:
            context.abort(*refusal)

        # A stream of requests, whatever the method is: a call without any message is answered, too.
        return grpc.stream_stream_rpc_method_handler(refuse)
