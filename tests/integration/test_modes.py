"""Every consistency mode and wire format, on one host and on several, in one process with real gRPC."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tests.integration.local_run import Engine, start_locally, train_locally
from tests.tiers import slow_but

from thalweg_proto.shared_memory import CHUNK

WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
LUCK = 0.6
"""Nearly twice the accuracy of guessing: in ssp and async, and with backup workers, the order of pushes decides how far
40 steps get."""
TOPOLOGIES = [
    {"workers": [1]},
    {"workers": [3]},
    {"workers": [1, 1]},
    {"workers": [2, 1, 1]},
    {"workers": [1, 1, 0], "owns": [False, False, True]},
]
IDS = ["one worker", "three on one host", "two hosts", "three hosts", "server alone"]


def rate(learning_rate: float) -> dict[str, object]:
    return {"name": "constant", "learning_rate": learning_rate, "warmup_steps": 0}


def check(run, *, steps: int = 40, accuracy: float = 0.9) -> None:
    """It ended well, and learnt; each version that should be was evaluated."""
    assert (run.result.error, run.worker_errors, run.result.steps) == (None, [], steps)
    assert run.result.evaluation["accuracy"] > accuracy
    assert [row.step for row in run.rows if row.evaluation][-1] == steps
    assert all(np.isfinite(array).all() for array in run.weights.values())


def train(topology, **options):
    options = {"steps": 40, "eval_every": 10, "schedule": rate(0.02), **options}
    return train_locally(model=WIDE, of_server={"block": CHUNK, **options.pop("of_server", {})}, **topology, **options)


@pytest.mark.parametrize("topology", slow_but(TOPOLOGIES, 2), ids=IDS)
def test_async_applies_every_push(topology):
    """40 steps of 4 microbatches: each pushed once, whoever computed it."""
    run = train(topology, consistency="async", schedule=rate(0.005), staleness_scaling=True)
    check(run, accuracy=LUCK)
    assert run.servers[0].account.telemetry.staleness.count == 160
    assert [row.step for row in run.rows if row.evaluation] == [10, 20, 30, 40]


@pytest.mark.parametrize("bound", [0, 2])
@pytest.mark.parametrize("topology", slow_but(TOPOLOGIES, 2), ids=IDS)
def test_ssp_keeps_its_bound(topology, bound):
    """No push is staler than the bound."""
    run = train(topology, consistency="ssp", staleness=bound, schedule=rate(0.005))
    check(run, accuracy=LUCK)
    assert run.result.staleness["max"] <= bound


@pytest.mark.parametrize("topology", slow_but(TOPOLOGIES[1:], 1), ids=IDS[1:])
def test_backup_workers_drop_the_slowest_microbatch(topology):
    """Each step goes without one of its four microbatches."""
    run = train(topology, backup=1)
    check(run, accuracy=LUCK)
    assert run.servers[0].account.telemetry.staleness.count == 3 * 40
    assert run.result.dropped <= 40


@pytest.mark.parametrize("topology", slow_but(TOPOLOGIES, 2), ids=IDS)
def test_local_steps_end_with_the_last_step(topology):
    """Rounds of 6 steps, the last one of 4; evaluated where a multiple of 10 was passed."""
    run = train(topology, local_steps=6)
    check(run)
    assert [row.step for row in run.rows if row.evaluation] == [12, 24, 30, 40]


def test_one_worker_with_plain_averaging_is_plain_training():
    """Local steps of a single worker, averaged without an outer rule, end where the same steps end without rounds."""
    options = {"workers": [1], "rule": "sgd", "rule_options": {}}
    local = train_locally(local_steps=5, outer_learning_rate=1.0, outer_momentum=0.0, **options).weights
    for name, array in train_locally(**options).weights.items():
        np.testing.assert_allclose(local[name], array, rtol=1e-4, atol=1e-5)


def test_async_with_one_worker_is_sgd_over_microbatches():
    """Nobody else pushes: it is plain SGD with batches of one microbatch."""
    one = train_locally(
        workers=[1], consistency="async", batch_size=16, microbatches=4, steps=10, rule="sgd", rule_options={}
    )
    plain = train_locally(workers=1, batch_size=4, microbatches=1, steps=40, rule="sgd", rule_options={})
    for name, array in plain.weights.items():
        np.testing.assert_allclose(one.weights[name], array, rtol=1e-5, atol=1e-6)
    assert one.result.staleness == {"mean": 0.0, "max": 0}


def test_the_slow_hold_nobody_up_in_async():
    """One worker stands still with its unit: the others do all the rest."""
    waiting, rest_done = threading.Event(), threading.Event()
    computed = []

    class Slow(Engine):
        def before(self, step, microbatch):
            if not waiting.is_set():
                waiting.set()
                assert rest_done.wait(30)

    class Quick(Engine):
        def before(self, step, microbatch):
            assert waiting.wait(30)
            computed.append((step, microbatch))
            if len(computed) == 4 * 40 - 1:
                rest_done.set()

    run = train({"workers": [3]}, consistency="async", engine=Quick, engines={1: Slow}, schedule=rate(0.005))
    check(run, accuracy=LUCK)
    assert len(computed) == 159
    assert run.result.staleness["max"] >= 39  # the last pushes were made while step 0 was not whole


def test_the_bound_of_ssp_holds_the_quick_up():
    """One worker stands still in step 0: with a bound of 2 the others stop before step 3, and go on with it."""
    waiting = threading.Event()
    stopped = threading.Event()
    steps = []

    class Slow(Engine):
        def before(self, step, microbatch):
            if not waiting.is_set():
                waiting.set()
                assert stopped.wait(30)

    class Quick(Engine):
        def before(self, step, microbatch):
            assert waiting.wait(30)
            steps.append(step)
            if len(steps) == 3 * 4 - 1:  # all of steps 0 to 2 but the one unit that stands still
                stopped.set()

    run = train({"workers": [3]}, consistency="ssp", staleness=2, engine=Quick, engines={1: Slow}, schedule=rate(0.005))
    check(run, accuracy=LUCK)
    assert max(steps[:11]) == 2
    assert run.result.staleness["max"] == 2


@pytest.mark.parametrize("wire", slow_but(["bfloat16", "int8", "topk"], 1))
@pytest.mark.parametrize("consistency", ["sync", "async"])
def test_lossy_wires_learn_too(wire, consistency):
    """Gradients in each format, parameters in bfloat16."""
    of_server = {"wire": wire, "wire_parameters": "bfloat16", "wire_fraction": 0.1 if wire == "topk" else None}
    learning_rate = 0.02 if consistency == "sync" else 0.005
    run = train(TOPOLOGIES[2], consistency=consistency, of_server=of_server, schedule=rate(learning_rate))
    check(run, accuracy=LUCK)


@pytest.mark.parametrize("wire", slow_but(["bfloat16", "int8", "topk"], 1))
def test_lossy_wires_repeat_their_bits(wire):
    """With the same hosts the bits repeat; they are not those of float32."""
    of_server = {"wire": wire, "wire_parameters": "bfloat16"}
    shas = {train(TOPOLOGIES[3], of_server=of_server).result.weights_sha256 for _ in range(2)}
    assert len(shas) == 1
    assert train(TOPOLOGIES[3]).result.weights_sha256 not in shas


def test_local_steps_repeat_their_bits_on_any_hosts():
    """Three workers: on one host or on three."""
    runs = [train({"workers": workers}, local_steps=4) for workers in ([3], [1, 1, 1], [2, 1])]
    assert len({run.result.weights_sha256 for run in runs}) == 1


@pytest.mark.parametrize("options", [{}, {"consistency": "async"}, {"backup": 1}, {"local_steps": 3}])
@pytest.mark.parametrize("topology", slow_but(TOPOLOGIES[1:4], 1), ids=IDS[1:4])
def test_a_stop_ends_the_run_on_all_hosts(topology, options):
    """Cancelled, with a whole version, and no error anywhere."""
    servers = []

    class Stopping(Engine):
        def before(self, step, microbatch):
            if (step, microbatch) == (6, 0):
                servers[0].stop()

    run = start_locally(
        model=WIDE, engine=Stopping, made=servers.extend, steps=2000, schedule=rate(0.001), **topology, **options
    ).join()
    assert (run.result.error, run.result.cancelled, run.worker_errors) == (None, True, [])
    assert 6 <= run.result.steps < 2000
    assert all(np.isfinite(array).all() for array in run.weights.values())


@pytest.mark.parametrize("options", [{}, {"consistency": "async"}, {"local_steps": 3}])
@pytest.mark.parametrize("topology", slow_but(TOPOLOGIES[1:4], 1), ids=IDS[1:4])
def test_what_is_not_finite_ends_the_run_on_all_hosts(topology, options):
    """The error names the step, what it was, and what to do."""

    class Bad(Engine):
        def before(self, step, microbatch):
            if (step, microbatch) == (5, 1):
                self.batch.x.flat[1] = np.nan

    run = train(topology, engine=Bad, **options)
    assert "learning rate was" in run.result.error
    assert "Lower optimizer.learning_rate" in run.result.error
    assert run.result.steps <= 9


@pytest.mark.parametrize(("options", "step"), [({}, 5), ({"local_steps": 3}, 3)])
def test_an_update_that_is_not_finite_is_named_by_its_step(options, step):
    """With local steps by the first one of its round; the loss was finite still."""

    class Bad(Engine):
        def after(self, step, microbatch, loss, out):
            if (step, microbatch) == (5, 1):
                next(iter(out.values())).flat[0] = np.nan
            return loss

    run = train({"workers": [2, 1]}, engine=Bad, **options)
    assert run.result.error.startswith(f"step {step}: the update of ")
