"""What Status answers."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg_cluster.hosts.checks import FORMAT_NUMBERS, Expected
from thalweg_cluster.step import StepSpec
from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX
from thalweg_proto.layout import Layout
from thalweg_proto.messages import PROTOCOL_VERSION
from thalweg_proto.v1 import parameter_server_pb2 as pb


def status_of(
    expected: Expected, step: StepSpec, layout: Layout, addresses: Sequence[str], *, version: int
) -> pb.StatusReply:
    """The state of a run, as the host of `expected` sees it; `addresses` of the gRPC servers, by host."""
    bounds = expected.shards.bounds
    return pb.StatusReply(
        protocol_version=PROTOCOL_VERSION,
        job_id=expected.job_id,
        generation=expected.generation,
        host=expected.host,
        version=version,
        steps=step.steps,
        microbatches=step.microbatches,
        consistency=step.consistency,
        gradients=FORMAT_NUMBERS[expected.gradients.name],
        parameters=FORMAT_NUMBERS[expected.parameters.name],
        size=layout.size,
        block_elements_max=BLOCK_ELEMENTS_MAX,
        tensors=[pb.TensorStatus(name=t.name, shape=t.shape, begin=t.begin, end=t.end) for t in layout.tensors],
        shards=[
            pb.ShardStatus(address=address, begin=begin, end=end)
            for address, (begin, end) in zip(addresses, bounds, strict=False)
        ],
    )
