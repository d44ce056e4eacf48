"""How fast a shard travels between two servers over loopback: our streams, and one naive message for all of it.

    python -m tests.benchmarks.grpc_bandwidth [--mb 64] [--rounds 7]

The other end is a process of its own with a server's door (hosts/hosts_door.py); this one has its
peers (hosts/peers.py).
Each figure is the median over the rounds, in GB/s, from the first byte that is wanted to the last one in its place.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from queue import SimpleQueue
from statistics import median
from time import perf_counter
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.hosts.checks import FORMAT_NUMBERS, Expected
from thalweg_cluster.hosts.hosts_door import HostsDoor
from thalweg_cluster.hosts.peers import Peers
from thalweg_cluster.security.run import RunSecurity
from thalweg_proto.blocks import Shards
from thalweg_proto.formats import make_format
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.wire import Bytes

EXACT = make_format("float32")
SECURITY = RunSecurity(token="bandwidth")  # without TLS, as what it is compared with
NAIVE = "/naive/Push"
MESSAGE_BYTES_MAX = 1 << 30


class End:
    """What stands behind a door, and before it: memory for all elements, and a queue of what came."""

    def __init__(self, host: int, elements: int) -> None:
        """Two hosts; `elements` for each of them."""
        self.expected = Expected(
            job_id="bandwidth",
            generation=1,
            host=host,
            hosts=2,
            shards=Shards.of(2 * elements, [True, True]),
            gradients=EXACT,
            parameters=EXACT,
        )
        self.memory: NDArray[np.float32] = np.zeros(2 * elements, dtype=np.float32)
        self.events: SimpleQueue[Any] = SimpleQueue()

    def post(self, event: Any) -> None:
        self.events.put(event)

    def room_for_part(self, host: int, step: int, parts: tuple[int, int], index: int) -> NDArray[np.float32]:
        begin, end, _ = self.expected.shards.blocks[index]
        return self.memory[begin:end]

    def room_for_parameters(self, version: int, index: int) -> NDArray[np.float32]:
        return self.room_for_part(0, version, (0, 1), index)

    def snapshot(self) -> tuple[int, NDArray[np.float32]]:
        begin, end = self.expected.shards.bounds[self.expected.host]
        return 0, self.memory[begin:end]

    def status(self) -> pb.StatusReply:
        return pb.StatusReply(protocol_version=PROTOCOL_VERSION, job_id=self.expected.job_id)

    def pack(self, index: int) -> list[Bytes]:
        begin, end, _ = self.expected.shards.blocks[index]
        data = EXACT.encode(self.memory[begin:end], None)
        return self.expected.pack(index, data, part_end=1, format=FORMAT_NUMBERS["float32"])


def serve(elements: int) -> None:
    """The other end: prints two ports, answers each whole push with a publish of its own shard, until it is killed."""
    end = End(0, elements)
    door = HostsDoor("127.0.0.1", end.expected, end, guard=SECURITY.hosts)
    naive = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)])

    def push(message: bytes, context: grpc.ServicerContext) -> bytes:
        np.copyto(end.memory[: len(message) // 4], np.frombuffer(message, dtype=np.float32))
        return b""

    class Naive(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(push) if details.method == NAIVE else None

    naive.add_generic_rpc_handlers((Naive(),))
    naive_port = naive.add_insecure_port("127.0.0.1:0")
    naive.start()
    door.open()
    print(door.port, naive_port, flush=True)
    own = end.expected.shards.owned_by(0)
    while True:
        for _ in own:
            end.events.get()  # a block of a push
        for index in own:
            door.parameters[1].put((index,), lambda index=index: end.pack(index))


@contextmanager
def other_end(elements: int) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "tests.benchmarks.grpc_bandwidth", "--serve", str(elements)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            door, naive = child.stdout.readline().split()
            yield int(door), int(naive)
        finally:
            child.kill()


def measure(megabytes: int, rounds: int) -> dict[str, float]:
    """GB/s of "push", "pull" and "naive"."""
    elements = megabytes * 1_000_000 // 4 // CHUNK * CHUNK
    nbytes = 4 * elements
    times: dict[str, list[float]] = {"push": [], "pull": [], "naive": []}
    with other_end(elements) as (door_port, naive_port):
        end = End(1, elements)
        peers = Peers(end.expected, end, connect_s=10.0, patience_s=30.0, security=SECURITY)
        peers.connect([f"127.0.0.1:{door_port}", "127.0.0.1:1"])
        channel = grpc.insecure_channel(
            f"127.0.0.1:{naive_port}", options=[("grpc.max_send_message_length", MESSAGE_BYTES_MAX)]
        )
        naive = channel.unary_unary(NAIVE)
        blocks = end.expected.shards.owned_by(0)
        for _ in range(rounds):
            # Push: until the first block of the answer, which is made when the last one of the push is in its place.
            begin = perf_counter()
            for index in blocks:
                peers.gradients[0].put((index,), lambda index=index: end.pack(index))
            end.events.get()
            pushed = perf_counter()
            for _ in blocks[1:]:
                end.events.get()
            times["push"].append(pushed - begin)
            # Without the first block, which ended the push.
            times["pull"].append((perf_counter() - pushed) * len(blocks) / (len(blocks) - 1))
            begin = perf_counter()
            naive(end.memory[:elements].tobytes(), timeout=60)
            times["naive"].append(perf_counter() - begin)
        peers.close()
        channel.close()
    return {name: nbytes / median(taken) / 1e9 for name, taken in times.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Bandwidth between two servers over loopback.")
    parser.add_argument("--mb", type=int, default=64, help="of the shard (64)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", type=int, metavar="ELEMENTS", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        serve(options.serve)
    for name, figure in measure(options.mb, options.rounds).items():
        print(f"{name:6} {figure:.2f} GB/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
