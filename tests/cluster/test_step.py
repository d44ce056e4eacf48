from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.step import HostStep, StepSpec
from thalweg_proto.board import Board, Outcome, board_bytes
from thalweg_proto.shared_memory import CHUNK, MemoryPlan, Vectors, create_segment

SIZE = 5 * CHUNK


class Copies:
    """Notes what is asked of the server, which answers at once, or is gone."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.server_lives = True

    def ask(self, version: int) -> None:
        self.heard.append(f"ask {version}")

    def wait(self, version: int) -> bool:
        self.heard.append(f"wait {version}")
        return self.server_lives


class Host:
    """The workers of one host, whose steps a test does by hand, one after the other."""

    def __init__(self, workers: int = 2, **changed) -> None:
        given = {
            "microbatches": 2,
            "batch_size": 4,
            "steps": 3,
            "rule": "sgd",
            "schedule": {"name": "constant", "learning_rate": 0.5, "warmup_steps": 0},
        }
        spec = StepSpec(**given | changed)
        plan = MemoryPlan(size=SIZE, microbatches=spec.microbatches, slots=len(spec.server_rule().slots))
        fds = create_segment(plan.vector_bytes, plan.spare_bytes), create_segment(board_bytes(plan, workers))
        self.vectors, self.board = Vectors(plan, fds[0]), Board(plan, workers, fds[1])
        for fd in fds:
            os.close(fd)
        self.copies = Copies()
        self.steps = [
            HostStep(spec, plan, self.vectors, self.board, rank=r, copies=self.copies) for r in range(workers)
        ]
        self.board.seat(range(workers), at_s=0.0)
        for place, step in enumerate(self.steps):
            step.join(place, workers)

    def step(self, *gradients: float, losses: tuple[float, ...] = (1.0, 3.0)) -> None:
        """All workers push gradients that are the same number everywhere, and do their shares."""
        for gradient, value in zip(self.vectors.gradients(self.board.version), gradients, strict=True):
            gradient[...] = value
        for m, loss in enumerate(losses):
            self.board.losses[m] = loss
        self.steps[-1].pushed()
        for i in range(len(self.steps[0].shares)):
            if self.board.outcome is not Outcome.TRAIN:
                return
            for step in self.steps:
                step.shares[i][0]()
            self.steps[0].shares[i][1]()

    def newest(self) -> set[float]:
        return set(self.vectors.version(self.board.version).tolist())


def test_a_step_by_hand():
    """0 - 0.5 * (1 + 2) = -1.5 everywhere; the loss is the mean over the batch; the norm that of 40,960 threes."""
    host = Host()
    host.step(1.0, 2.0)
    assert host.newest() == {-1.5}
    assert (host.board.version, host.board.loss, host.board.outcome) == (1, 2.0, Outcome.TRAIN)
    assert host.board.gradient_norm == pytest.approx(3 * math.sqrt(SIZE))


def test_clipping_by_hand():
    """A norm of 3 sqrt(n), shortened to sqrt(n), moves by 0.5 * 1; one below the bound is left alone."""
    host = Host(clip_norm=math.sqrt(SIZE))
    host.step(1.0, 2.0)
    assert sorted(host.newest()) == pytest.approx([-0.5], rel=1e-6)
    host.step(0.25, 0.25)
    assert sorted(host.newest()) == pytest.approx([-0.75], rel=1e-6)


def test_the_last_step_is_done_even_where_a_stop_was_asked_for():
    """There is nothing left to stop."""
    host = Host(steps=1)
    host.board.ask_to_stop()
    host.step(1.0, 2.0)
    assert (host.board.version, host.board.outcome) == (1, Outcome.DONE)


def test_a_run_that_is_asked_to_stop_ends_with_the_next_version_unevaluated():
    """The version is whole; nobody waits for an evaluation."""
    host = Host(eval_every=1, chunks=1)
    host.board.ask_to_stop()
    host.step(1.0, 2.0)
    assert (host.board.version, host.board.outcome, host.board.evaluate) == (1, Outcome.STOPPED, False)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("bad", [{"gradients": (1.0, math.nan)}, {"losses": (1.0, math.inf)}])
def test_nothing_that_is_not_finite_is_published(clip_norm, bad):
    """The version before stays the newest, and whole."""
    host = Host(clip_norm=clip_norm)
    host.step(1.0, 2.0)
    before = host.newest()
    with np.errstate(all="ignore"):
        host.step(*bad.get("gradients", (1.0, 2.0)), losses=bad.get("losses", (1.0, 3.0)))
    assert (host.board.version, host.board.outcome) == (1, Outcome.NOT_FINITE)
    assert host.newest() == before


@pytest.mark.parametrize("clip_norm", [0.0, 1000.0])
@pytest.mark.parametrize(
    "bad",
    [{"gradients": (1.0, math.nan)}, {"gradients": (3e38, 3e38)}, {"losses": (1.0, math.inf)}],
    ids=["gradient", "sum", "loss"],
)
def test_a_step_that_is_not_finite_is_skipped_by_hand(clip_norm, bad):
    """Momentum 0.5: the gradients 3 and 3 come to buffers 3 and 4.5, as if the bad step between were not there."""
    host = Host(steps=9, rule="momentum", rule_options={"momentum": 0.5}, skip=True, clip_norm=clip_norm)
    host.step(1.0, 2.0)
    assert host.newest() == {-1.5}
    with np.errstate(all="ignore"):
        host.step(*bad.get("gradients", (1.0, 2.0)), losses=bad.get("losses", (1.0, 3.0)))
    assert (host.board.version, host.board.outcome, host.newest()) == (2, Outcome.TRAIN, {-1.5})
    assert set(host.vectors.state(2)[0].tolist()) == {3.0}
    assert (host.board.skipped, host.board.skipped_in_a_row) == (1, 1)
    host.step(1.0, 2.0)
    assert host.newest() == {-1.5 - 0.5 * 4.5}
    assert (host.board.skipped, host.board.skipped_in_a_row) == (1, 0)


def test_ten_steps_in_a_row_that_are_not_finite_end_the_run():
    """Nine are skipped; one that is finite between begins the count anew."""
    host = Host(steps=99, skip=True)
    nan = (1.0, math.nan)
    with np.errstate(all="ignore"):
        for gradients in [nan] * 9 + [(1.0, 2.0)] + [nan] * 9:
            host.step(*gradients)
        assert (host.board.version, host.board.outcome, host.board.skipped) == (19, Outcome.TRAIN, 18)
        host.step(*nan)
    assert (host.board.version, host.board.outcome, host.newest()) == (19, Outcome.NOT_FINITE, {-1.5})


def test_a_finite_gradient_that_overflows_the_parameters_is_not_skipped():
    """No sample is at fault, but the learning rate."""
    host = Host(skip=True, schedule={"name": "constant", "learning_rate": 1e30, "warmup_steps": 0})
    with np.errstate(all="ignore"):
        host.step(1e15, 1e15)
    assert (host.board.version, host.board.outcome) == (0, Outcome.NOT_FINITE)


def test_one_share_that_is_not_finite_is_enough():
    """Any worker's."""
    host = Host(workers=3)
    for gradient in host.vectors.gradients(0):
        gradient[...] = 1.0
    host.vectors.gradient(0, 1)[SIZE - 1] = math.nan
    host.steps[0].pushed()
    for step in host.steps:
        step.shares[0][0]()
    assert host.board.finite.tolist() == [1, 1, 0]
    host.steps[1].shares[0][1]()
    assert host.board.outcome is Outcome.NOT_FINITE


@given(st.integers(1, 5000), st.integers(0, 300), st.integers(0, 2))
def test_rows_are_about_a_hundred_and_the_last_version_is_evaluated(steps, eval_every, chunks):
    """Every evaluated version has a row, version 0 has none, and without a held-out set nothing is evaluated."""
    spec = StepSpec(microbatches=1, batch_size=1, steps=steps, rule="sgd", eval_every=eval_every, chunks=chunks)
    rows = [version for version in range(steps + 1) if spec.has_row(version)]
    evaluated = [version for version in range(steps + 1) if spec.evaluates(version)]
    assert set(evaluated) <= set(rows)
    assert 0 not in rows
    assert bool(evaluated) == bool(chunks)
    if not evaluated:
        assert min(steps, 50) <= len(rows) <= 200
    if chunks:
        assert evaluated == [v for v in range(1, steps + 1) if v == steps or (eval_every and v % eval_every == 0)]


def rounds(steps: int, local_steps: int, **changed) -> StepSpec:
    """A job whose workers take so many steps by themselves in each version."""
    return StepSpec(microbatches=1, batch_size=1, steps=steps, rule="sgd", local_steps=local_steps, **changed)


def test_versions_of_local_steps_by_hand():
    """Ten steps in rounds of four: three versions, the last one of two steps; evaluated where step 6 was passed."""
    spec = rounds(10, 4, chunks=1, eval_every=6)
    assert spec.versions == 3
    assert [spec.steps_done(version) for version in range(4)] == [0, 4, 8, 10]
    assert [version for version in range(4) if spec.evaluates(version)] == [2, 3]
    assert [version for version in range(4) if spec.has_row(version)] == [1, 2, 3]


@given(st.integers(1, 3000), st.integers(1, 50))
def test_versions_are_rounds_of_steps(steps, local_steps):
    """Each but the last is of `local_steps` steps; with the last one all steps are done, and not before."""
    spec = rounds(steps, local_steps)
    done = [spec.steps_done(version) for version in range(spec.versions + 1)]
    assert done[-1] == steps
    assert done[:-1] == [version * local_steps for version in range(spec.versions)]
    assert done == sorted(set(done))


@given(st.integers(1, 3000), st.integers(1, 50), st.integers(0, 300), st.integers(0, 2))
def test_a_version_stands_for_all_steps_that_it_is_made_of(steps, local_steps, eval_every, chunks):
    """It is evaluated, and has a row, where one of them would be or have one without local steps; so has the last."""
    spec = rounds(steps, local_steps, eval_every=eval_every, chunks=chunks)
    single = rounds(steps, 1, eval_every=eval_every, chunks=chunks)
    every = max(1, steps // 100)
    for version in range(1, spec.versions + 1):
        made_of = range(spec.steps_done(version - 1) + 1, spec.steps_done(version) + 1)
        assert spec.evaluates(version) == any(single.evaluates(step) for step in made_of)
        assert spec.has_row(version) == (
            version == spec.versions or spec.evaluates(version) or any(step % every == 0 for step in made_of)
        )
    assert not spec.has_row(0)
    assert spec.evaluates(spec.versions) == (chunks > 0)


def test_workers_meet_only_where_all_wait_for_all():
    """In sync without backup workers and local steps; else a server does its part itself."""
    spec = StepSpec(microbatches=2, batch_size=2, steps=1, rule="sgd")
    assert spec.workers_meet
    for changed in ({"consistency": "ssp"}, {"consistency": "async"}, {"backup": 1}, {"local_steps": 2}):
        assert not replace(spec, **changed).workers_meet


@given(st.integers(1, 40), st.integers(1, 1000))
def test_the_weights_of_the_microbatches_add_up_to_the_batch(microbatches, more):
    """Each is its share of the samples."""
    batch_size = microbatches + more
    weights = StepSpec(microbatches=microbatches, batch_size=batch_size, steps=1, rule="sgd").weights()
    assert sum(round(weight * batch_size) for weight in weights) == batch_size
    assert sum(weights) == pytest.approx(1.0)
