"""What the gRPC doors do with bytes, under a fuzzer that looks which way they take through the code.

    python -m tests.fuzz.door [-max_total_time=60] [any option of libFuzzer]

Exit status 0: nothing but a ProtocolError was raised. It needs atheris (`pip install atheris`), which has wheels for
CPython 3.11 to 3.13.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["thalweg_proto", "thalweg_cluster.hosts"]):
    from thalweg_cluster.hosts.answering import let_in, parsed
    from thalweg_cluster.hosts.checks import Expected
    from thalweg_cluster.hosts.streams import Inbox, Outbox
    from thalweg_proto.blocks import Shards
    from thalweg_proto.errors import ProtocolError
    from thalweg_proto.formats import make_format
    from thalweg_proto.shared_memory import CHUNK
    from thalweg_proto.v1 import parameter_server_pb2 as pb
    from thalweg_proto.v1.coordination_pb2 import HostMessage
    from thalweg_proto.wire import seal

EXACT = make_format("float32")
EXPECTED = Expected(
    job_id="test",
    generation=1,
    host=0,
    hosts=2,
    shards=Shards.of(4 * CHUNK, [True, True]),
    gradients=EXACT,
    parameters=EXACT,
)


def hear(data: bytes) -> None:
    """As the message of a client, and of a host: as it is, and with a number and a checksum that fit."""
    inbox = Inbox(Outbox())
    for read in (
        lambda: let_in(data, 0, EXPECTED),
        lambda: let_in(data, 2, EXPECTED, checked=True),
        lambda: parsed(HostMessage, data),
        lambda: parsed(pb.PullRequest, data),
        lambda: inbox.takes(data),
        lambda: inbox.takes(seal([data], 1)),
        lambda: inbox.takes(seal([data], 0)),
    ):
        with suppress(ProtocolError):
            read()


if __name__ == "__main__":
    atheris.Setup(sys.argv, hear)
    atheris.Fuzz()
