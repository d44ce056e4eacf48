"""What is copied to a device and back, in which order, and when it is announced; on a device that is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worker.engines.late import LateDevice

from thalweg_worker.batch import Batch
from thalweg_worker.engines.staging import Staging

NAMES = ("a", "b", "c")


def arrays(value: float) -> dict[str, Any]:
    return {name: np.full(2, value + i, np.float32) for i, name in enumerate(NAMES)}


def key(step: int, microbatch: int = 0) -> Any:
    return np.array([7, step, microbatch], np.uint64)


def bring(staging: Staging, parameters: dict[str, Any], batch_key: Any = None, before_read: Any = None) -> Any:
    """What is on the device, after it was brought there."""
    values = staging.reader(parameters)(batch_key, before_read)
    return {name: value.tolist() for name, value in values.items()}


def test_each_parameter_is_copied_as_soon_as_it_is_there():
    """What comes later is not read before: while `b` is waited for, `a` is on the device already."""
    device = LateDevice()
    staging, parameters = Staging(device), arrays(0.0)
    seen = []

    def before_read(name: str, end: int) -> None:
        seen.append((name, end, device.copies))
        parameters[name][:] = 5.0  # here, and no earlier

    assert bring(staging, parameters, None, before_read) == {name: [5.0, 5.0] for name in NAMES}
    assert seen == [("a", 2, 0), ("b", 2, 1), ("c", 2, 2)]


def test_a_gradient_is_announced_when_its_bytes_are_there_and_not_before():
    """In the order of arrival, here the newest first; nothing is announced when it is sent."""
    device = LateDevice(arriving=1)
    staging, out = Staging(device), arrays(9.0)
    bring(staging, arrays(0.0))
    told = []
    gradients = staging.gradients(out, lambda name, first: told.append((name, first, out[name].tolist())))
    gradients.begin()
    for i, name in enumerate(NAMES):
        gradients.send(name, np.full(2, 10.0 + i, np.float32))
    assert told == []
    assert out["a"].tolist() == [9.0, 9.0]
    gradients.finish()
    assert told == [("c", 0, [12.0, 12.0]), ("b", 0, [11.0, 11.0]), ("a", 0, [10.0, 10.0])]


def test_what_was_not_sent_is_zero_and_announced_last():
    """The loss did not come through there."""
    staging, out, told = Staging(LateDevice(arriving=None)), arrays(9.0), []
    bring(staging, arrays(0.0))
    gradients = staging.gradients(out, lambda name, first: told.append(name))
    gradients.begin()
    gradients.send("b", np.full(2, 3.0, np.float32))
    gradients.finish()
    assert told == ["b", "a", "c"]
    assert [out[name].tolist() for name in NAMES] == [[0.0, 0.0], [3.0, 3.0], [0.0, 0.0]]


@pytest.mark.parametrize("stays", [True, False])
def test_parameters_stay_on_the_device_for_a_step_where_they_are_said_to(stays):
    """Another step, other memory, or an evaluation between: they are copied again. They are asked for in any case."""
    device = LateDevice()
    staging = Staging(device, stays=stays)
    even, odd = arrays(0.0), arrays(3.0)
    asked = []
    for parameters, batch_key, again in (
        (even, key(4, 0), True),
        (even, key(4, 1), not stays),
        (odd, key(5, 0), True),
        (odd, key(5, 1), not stays),
        (odd, key(6, 0), True),
        (odd, None, True),
        (odd, key(6, 1), True),
        (odd, key(6, 2), not stays),
        (even, key(6, 2), True),
    ):
        copies = device.copies
        there = bring(staging, parameters, batch_key, lambda name, end: asked.append(name))
        assert there == {name: array.tolist() for name, array in parameters.items()}
        assert device.copies - copies == (3 if again else 0), batch_key
    assert len(asked) == 3 * 9


def test_parameters_that_were_not_brought_whole_are_brought_again():
    """The worker was told to stop while it waited, and then has to compute what it had before once more."""
    device = LateDevice()
    staging, parameters = Staging(device, stays=True), arrays(0.0)

    def stop(name: str, end: int) -> None:
        if name == "b":
            raise KeyboardInterrupt

    before = bring(staging, parameters, key(3))
    for array in parameters.values():
        array += 1.0
    with pytest.raises(KeyboardInterrupt):
        bring(staging, parameters, key(4), stop)
    for array in parameters.values():
        array -= 1.0
    assert bring(staging, parameters, key(3)) == before


def test_what_a_pass_that_was_broken_off_left_on_its_way_is_waited_for():
    """Before the same memory is used again; and it is announced to nobody."""
    device = LateDevice(arriving=None)
    staging, out, told = Staging(device), arrays(9.0), []
    bring(staging, arrays(0.0))
    gradients = staging.gradients(out, lambda name, first: told.append(name))
    gradients.begin()
    gradients.send("a", np.zeros(2, np.float32))  # then the backward pass raises
    bring(staging, arrays(1.0))
    assert device.waits == 1
    gradients.begin()
    gradients.finish()
    assert told == ["a", "b", "c"]
    assert out["a"].tolist() == [0.0, 0.0]


def test_batches_of_the_same_shape_share_their_room():
    """The last microbatch may be smaller."""
    device = LateDevice()
    staging = Staging(device)
    for samples in (4, 3, 4):
        batch = Batch(np.full((samples, 2), samples, np.float32), np.arange(samples))
        x, y = staging.batch(batch)()
        assert np.array_equal(x, batch.x)
        assert np.array_equal(y, batch.y)
    assert x is staging.batch(Batch(np.zeros((4, 2), np.float32), np.arange(4)))()[0]


@given(st.permutations(NAMES), st.sets(st.sampled_from(NAMES)), st.sampled_from([None, 1, 2, 3]))
def test_law_of_announcing(order, sent, arriving):
    """Each name once, whatever was sent and in whatever order it arrives, with its own bytes at that moment."""
    staging, out, told = Staging(LateDevice(arriving=arriving)), arrays(9.0), []
    bring(staging, arrays(0.0))
    gradients = staging.gradients(out, lambda name, first: told.append((name, out[name].tolist())))
    expected = {name: [float(i), float(i)] if name in sent else [0.0, 0.0] for i, name in enumerate(NAMES)}
    for _ in range(2):
        told.clear()
        gradients.begin()
        for name in order:
            if name in sent:
                gradients.send(name, np.full(2, NAMES.index(name), np.float32))
        gradients.finish()
        assert dict(told) == expected
        assert len(told) == 3
