"""The same final bits, whatever the number of hosts: real servers, gRPC and shared memory in one process."""

from __future__ import annotations

import pytest
from tests.integration.local_run import train_locally
from tests.tiers import slow_but

from thalweg_proto.shared_memory import CHUNK

# Long enough for several chunks, so that each host owns some blocks: 6 x 300 + 300 x 120 + 120 x 3 parameters.
WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}


@pytest.mark.parametrize("microbatches", slow_but([4, 7], 1))
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_any_number_of_hosts_gives_the_same_bits(microbatches, clip_norm):
    """1 to 4 workers on 1 to 3 hosts, with servers alone on hosts or without a shard: one sha, one evaluation."""
    layouts = [
        {"workers": 2},
        {"workers": [1]},
        {"workers": [1, 1]},
        {"workers": [1, 2]},
        {"workers": [2, 1, 1]},
        {"workers": [1, 1, 0, 0], "owns": [False, False, True, True]},
    ]
    runs = [
        train_locally(model=WIDE, microbatches=microbatches, clip_norm=clip_norm, of_server={"block": CHUNK}, **layout)
        for layout in layouts
    ]
    assert [run.result.error for run in runs] == [None] * len(runs)
    assert {run.result.steps for run in runs} == {20}
    assert len({run.result.weights_sha256 for run in runs}) == 1
    assert len({run.result.evaluation["loss"] for run in runs}) == 1
    assert len({run.result.train_loss for run in runs}) == 1
