"""What a server says of what ended the run."""

from __future__ import annotations

import numpy as np

from thalweg_cluster.hosts.wording import broke, lost, not_finite
from thalweg_cluster.step import StepSpec
from thalweg_proto.layout import Layout

BOUNDS = [(0, 64), (64, 128)]


def test_a_host_that_is_gone_is_told_with_its_shard_and_who_noticed() -> None:
    """Its address, too, where it was known by then."""
    addresses = ["10.0.0.1:7", "10.0.0.2:8"]
    said = lost(1, "it said nothing for 5 s", step=9, bounds=BOUNDS, addresses=addresses, by=0)
    assert str(said) == (
        "host 1 at 10.0.0.2:8 is gone at step 9, with shard [64, 128): it said nothing for 5 s (noticed by host 0 at "
        "10.0.0.1:7)"
    )
    assert "host 1 at unknown address" in str(lost(1, "x", step=0, bounds=BOUNDS, addresses=addresses[:1], by=0))


def test_a_mistake_of_ours_is_told_as_such() -> None:
    """With the file and the line that raised."""
    try:
        np.zeros(1)[1]
    except IndexError as error:
        said = str(broke(error, host=1, address="a:1", step=3, shard=(64, 128)))
    assert said.startswith("the server of host 1 at a:1 broke at step 3, with shard [64, 128): IndexError: ")
    assert "(test_wording.py, line " in said
    assert "a mistake in Thalweg, not in the job" in said


def test_a_number_that_is_not_finite_is_told_with_its_place() -> None:
    """Tensor, position, step and learning rate; or that it is the rule's state, where the parameters are finite."""
    layout = Layout.of({"W": (4, 8), "b": (8,)})
    job = StepSpec(
        microbatches=1, batch_size=1, steps=10, rule="sgd",
        schedule={"name": "constant", "learning_rate": 0.5, "warmup_steps": 0},
    )  # fmt: skip
    parameters = np.zeros(16, np.float32)
    parameters[3] = np.inf
    said = str(not_finite(2, 16, parameters, layout=layout, job=job, host=1))
    assert said.startswith("step 2: the update of 'W' is inf at (2, 3) (shard of host 1); the learning rate was 0.5.")
    parameters[3] = 0
    assert "of 'b' is an infinite state of the rule" in str(
        not_finite(2, 32, parameters, layout=layout, job=job, host=1)
    )
