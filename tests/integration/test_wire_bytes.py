"""What goes between hosts is counted, byte by byte."""

from __future__ import annotations

import pytest
from tests.integration.local_run import train_locally

from thalweg_proto.shared_memory import CHUNK, FLOAT_BYTES

WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
STEPS, MICROBATCHES = 20, 4
SLOWLY = {"name": "constant", "learning_rate": 0.005, "warmup_steps": 0}  # in async each microbatch is an update
HEADER_BYTES = 80
"""More than a block's header, number and checksum take, and far less than its data."""


def wire_of(run) -> list[dict[str, int]]:
    """The counts of each host."""
    return [server.account.telemetry.wire[host].counts for host, server in enumerate(run.servers)]


def check(count: int, elements: float, blocks: int) -> None:
    """`count` bytes are so many float32 in so many blocks."""
    assert elements * FLOAT_BYTES < count < elements * FLOAT_BYTES + HEADER_BYTES * blocks


@pytest.mark.parametrize(("consistency", "pushes"), [("sync", STEPS), ("async", STEPS * MICROBATCHES)])
def test_float32_takes_what_the_arithmetic_says(consistency, pushes):
    """In sync each host sends the sum of its gradients of the other's shard in each step, and its own new parameters;
    in async each push, and what the other pulls before it, and the last version."""
    options = {"consistency": consistency, "model": WIDE, "of_server": {"block": CHUNK}, "schedule": SLOWLY}
    run = train_locally(workers=[1, 1], steps=STEPS, microbatches=MICROBATCHES, **options)
    assert run.result.error is None
    wire, shards = wire_of(run), run.servers[0].shards
    for host, other in ((0, 1), (1, 0)):
        for content in ("gradients", "parameters"):
            assert wire[host][f"{content}_sent"] == wire[other][f"{content}_received"]
    elements, blocks = [end - begin for begin, end in shards.bounds], [len(shards.owned_by(host)) for host in (0, 1)]
    if consistency == "sync":
        for host, other in ((0, 1), (1, 0)):
            check(wire[host]["gradients_sent"], pushes * elements[other], pushes * blocks[other])
            check(wire[host]["parameters_sent"], STEPS * elements[host], STEPS * blocks[host])
    else:
        # Who computed how many of the pushes is the luck of the run.
        done = [round(wire[host]["gradients_sent"] / elements[1 - host] / FLOAT_BYTES) for host in (0, 1)]
        assert sum(done) == pushes
        for host, other in ((0, 1), (1, 0)):
            check(wire[host]["gradients_sent"], done[host] * elements[other], done[host] * blocks[other])
            pulled = done[other] + 1
            check(wire[host]["parameters_sent"], pulled * elements[host], pulled * blocks[host])


def test_half_the_bytes_in_bfloat16():
    """In sync: all gradients, and all parameters but the last version, which is exact."""
    of_server = {"block": CHUNK, "wire": "bfloat16", "wire_parameters": "bfloat16"}
    run = train_locally(workers=[1, 1], steps=STEPS, model=WIDE, of_server=of_server)
    [first, _], (begin, end) = wire_of(run), run.servers[0].shards.bounds[1]
    assert first["gradients_sent"] / ((end - begin) * FLOAT_BYTES * STEPS) == pytest.approx(0.5, rel=0.01)
    assert first["parameters_received"] / ((end - begin) * FLOAT_BYTES * (STEPS + 1)) == pytest.approx(0.5, rel=0.01)


def test_half_the_bytes_in_bfloat16_where_nobody_waits_too():
    """In async: all that is pulled, but not the last version, which is exact and the same on both hosts."""
    of_server = {"block": CHUNK, "wire_parameters": "bfloat16"}
    options = {"model": WIDE, "consistency": "async", "of_server": of_server, "schedule": SLOWLY}
    run = train_locally(workers=[1, 1], steps=STEPS, **options)
    assert run.result.error is None
    assert run.result.weights_sha256 == run.results[1].weights_sha256
    wire, shards = wire_of(run), run.servers[0].shards
    for host, other in ((0, 1), (1, 0)):
        begin, end = shards.bounds[host]
        elements = end - begin
        pulled = round(wire[other]["gradients_sent"] / (elements * FLOAT_BYTES))
        blocks = (pulled + 1) * len(shards.owned_by(host))
        check(wire[host]["parameters_sent"], pulled * elements / 2 + elements, blocks)


def test_one_host_has_no_wire():
    """No series, rather than zeros."""
    assert train_locally(workers=[2]).servers[0].account.telemetry.wire == {}
