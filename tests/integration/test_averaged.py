"""Running statistics, which are averaged and not trained: one result on any hosts, in each mode that takes them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tests.integration.local_run import Engine, Killed, dataset, three_clouds, train_locally
from tests.tiers import slow_but

from thalweg_cluster.checkpoints import FileStore
from thalweg_cluster.checkpoints.reading import read
from thalweg_proto.shared_memory import CHUNK
from thalweg_worker.batch import DataSpec
from thalweg_worker.batches import BatchSource
from thalweg_worker.sampler import Sampler

# The statistics lie between two layers' weights, side by side: of 120 elements, and of 36,000, more than a block.
WIDE = {"use": "mlp", "options": {"hidden": [300, 120]}}
NAMES = ("hidden2.bias", "hidden2.weight")
STEPS, SAMPLES, BATCH, V = 20, 200, 16, 4
KEPT = np.float32(0.9)


class Running(Engine):
    """Of the model's parameters these two are statistics: they become 0.9 * old + 0.1 * the mean of the microbatch."""

    def gradient(self, parameters, batch, *, weight, out, before_read=None, on_ready=None):
        compute = super().gradient(parameters, batch, weight=weight, out=out, before_read=before_read)

        def gradient() -> float:
            loss = compute()
            for name in NAMES:
                old = parameters[name]
                new = old * KEPT + (1 - KEPT) * batch.x.mean(dtype=np.float32)
                np.multiply(old - new, np.float32(weight), out=out[name])
            if on_ready is not None:
                for name in reversed(out):
                    on_ready(name, 0)
            return loss

        return gradient


def train(**options):
    own = {"model": WIDE, "averaged": NAMES, "engine": Running, "steps": STEPS, "samples": SAMPLES}
    run = train_locally(**own | {"batch_size": BATCH, "microbatches": V} | options)
    assert (run.result.error, run.worker_errors) == (None, [])
    return run


def expected(*, pushes: bool = False) -> float:
    """What the statistics come to, in float64: averaged over each step's microbatches, or moved by each of them."""
    x, y = three_clouds(SAMPLES + 50, seed=0)
    training = dataset(x[:SAMPLES], y[:SAMPLES], DataSpec(input_shape=(6,), task="classification", classes=3))
    batches = BatchSource(training, Sampler(0, samples=SAMPLES, batch_size=BATCH, microbatches=V), range(V))
    value = 0.0
    for step in range(STEPS):
        start = value
        for m in range(V):
            batches.draw(step, m)
            mean = float(batches.batch(m).x.mean(dtype=float))
            value += 0.1 / V * (mean - (value if pushes else start))
    return value


@pytest.mark.parametrize(
    "mode",
    slow_but([{}, {"clip_norm": 0.5, "rule_options": {"momentum": 0.9, "weight_decay": 0.1}}, {"skip": True}], 1),
    ids=["sync", "clipped and decayed", "measured"],
)
def test_statistics_are_the_mean_of_the_microbatches_to_the_same_bits_on_any_hosts(mode):
    """1 to 3 workers on one host, and servers on up to three."""
    layouts = [{"workers": 1}, {"workers": 3}, {"workers": [1]}, {"workers": [1, 2]}]
    layouts.append({"workers": [1, 1, 0], "owns": [False, True, True]})
    runs = [train(of_server={"block": CHUNK}, **layout, **mode) for layout in layouts]
    assert len({run.result.weights_sha256 for run in runs}) == 1
    assert len({run.rows[-1].gradient_norm for run in runs}) == 1
    for run in runs:
        np.testing.assert_allclose(run.weights["hidden2.bias"], expected(), rtol=1e-4)


def test_statistics_are_in_no_norm():
    """With a momentum of 0 and a rate of 0 nothing else moves, so what a statistic moves by shows nowhere."""
    still = {"name": "constant", "learning_rate": 0.0, "warmup_steps": 0}
    moved = train(workers=1, schedule=still)

    class Still(Running):
        def gradient(self, parameters, batch, **of):
            compute = super().gradient(parameters, batch, **of)

            def gradient() -> float:
                loss = compute()
                for name in NAMES:
                    of["out"][name].fill(0.0)
                return loss

            return gradient

    unmoved = train(workers=1, schedule=still, engine=Still, steps=1)
    assert moved.rows[0].gradient_norm == unmoved.rows[0].gradient_norm > 0


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_a_worker_that_dies_changes_no_bit(clip_norm):
    """Its microbatch is computed again from the old statistics."""
    once = threading.Event()

    class Dying(Running):
        def before(self, step, microbatch):
            if (step, microbatch) == (7, 2) and not once.is_set():
                once.set()
                raise Killed

    whole = train(workers=3, clip_norm=clip_norm)
    assert train(workers=3, clip_norm=clip_norm, engine=Dying).result.weights_sha256 == whole.result.weights_sha256
    assert once.is_set()


@pytest.mark.parametrize("workers", slow_but([2, [1, 1]], 0))
def test_a_run_that_goes_on_from_a_checkpoint_has_them(workers, tmp_path):
    """They are in it as parameters are, and what the rule keeps for them is zero."""
    whole = train(workers=workers, save=tmp_path, save_every=8)
    checkpoint = read(FileStore(tmp_path), 8)
    state = checkpoint.state(1)
    assert not any(whole.layout.views(array)[name].any() for array in state.slots.values() for name in NAMES)
    assert train(workers=3, resume=checkpoint).result.weights_sha256 == whole.result.weights_sha256


def test_with_backup_workers_the_mean_is_that_of_those_that_are_in_the_step():
    """Whoever that is: statistics that are the same of all microbatches are the same of some."""

    class Same(Running):
        def gradient(self, parameters, batch, **of):
            compute = super().gradient(parameters, batch, **of)

            def gradient() -> float:
                loss = compute()
                for name in NAMES:
                    np.multiply(parameters[name] * (1 - KEPT) - np.float32(0.1), of["weight"], out=of["out"][name])
                return loss

            return gradient

    run = train(workers=[2, 2], backup=1, engine=Same)
    np.testing.assert_allclose(run.weights["hidden2.bias"], 1 - 0.9**STEPS, rtol=1e-4)


@pytest.mark.parametrize("mode", [{"consistency": "ssp", "staleness": 1}, {"consistency": "async"}], ids=repr)
@pytest.mark.parametrize("workers", slow_but([[1], [2, 1]], 0))
def test_where_nobody_waits_each_push_moves_them_by_its_share_of_the_batch(mode, workers):
    """With one worker each microbatch of 1 / V of the batch moves them by 0.1 / V; and many stay near to that."""
    run = train(workers=workers, schedule={"name": "constant", "learning_rate": 0.005, "warmup_steps": 0}, **mode)
    found = run.weights["hidden2.bias"]
    assert np.ptp(found) == 0
    one = workers == [1]
    assert found[0] == pytest.approx(expected(pushes=True), rel=1e-4 if one else 0.3)
