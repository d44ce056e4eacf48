"""The pure parts of `make bench`: ratios, verdicts, order, steps, the job file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.compare import SYSTEMS, TITLES, main
from tests.benchmarks.figures import RULES, Measurement, Ratio, Rule, missed, ratios, turn
from tests.benchmarks.launch import BenchError, finished, process, read_summary
from tests.benchmarks.machine import cpu_model
from tests.benchmarks.report import ratio_table, speed_table
from tests.benchmarks.rivals.common import Task, initial_weights, parse_task, row_source, timing
from tests.benchmarks.workload import STEPS_MIN, WORKLOADS, thalweg_job, write_data

PAIR = Rule(name="a / (2 b)", over="a", under="b", times=2, targets={"H 8": 1.0})


def run(system: str, samples_per_s: float, *, round_index: int = 0, network: str = "H 8") -> Measurement:
    return Measurement(round=round_index, network=network, system=system, samples_per_s=samples_per_s, step_p50_ms=1.0)


def test_ratio_by_hand() -> None:
    """Ratios are formed within a round, divided by `times`, and judged by their median."""
    runs = [run("a", 6), run("b", 1), run("a", 4, round_index=1), run("b", 1, round_index=1)]
    runs += [run("b", 5, round_index=2), run("a", 5, round_index=2)]
    (ratio,) = ratios(runs, [PAIR])
    assert ratio == Ratio(name="a / (2 b)", network="H 8", rounds=(3.0, 2.0, 0.5), target=1.0)
    assert (ratio.median, ratio.reached) == (2.0, True)


def test_round_without_one_of_the_pair_is_left_out() -> None:
    """A round counts only where both systems ran, and a rule with no such round gives no ratio."""
    runs = [run("a", 4), run("a", 4, round_index=1), run("b", 1, round_index=1), run("a", 4, network="H 16")]
    assert [(r.network, r.rounds) for r in ratios(runs, [PAIR])] == [("H 8", (2.0,))]


speeds = st.floats(min_value=1.0, max_value=1e6)


@given(st.lists(st.tuples(speeds, speeds, st.floats(min_value=0.1, max_value=10)), min_size=1, max_size=6))
def test_noise_that_slows_a_round_alike_cancels(rounds: list[tuple[float, float, float]]) -> None:
    """Scaling all speeds of a round by one factor leaves every ratio as it was."""

    def measured(noisy: bool) -> tuple[float, ...]:
        runs = []
        for i, (a, b, noise) in enumerate(rounds):
            factor = noise if noisy else 1.0
            runs += [run("a", a * factor, round_index=i), run("b", b * factor, round_index=i)]
        (ratio,) = ratios(runs, [PAIR])
        assert min(ratio.rounds) <= ratio.median <= max(ratio.rounds)
        return ratio.rounds

    assert measured(noisy=True) == pytest.approx(measured(noisy=False), rel=1e-9)


@given(st.permutations([run("a", 6), run("b", 1), run("a", 4, round_index=1), run("b", 1, round_index=1)]))
def test_order_of_runs_does_not_matter(runs: list[Measurement]) -> None:
    """The same runs in any order give the same ratios."""
    assert ratios(runs, [PAIR])[0].rounds == (3.0, 2.0)


def test_missed_are_those_below_their_target() -> None:
    """A ratio on its target is reached; one without a target is never missed."""
    on, below, free = (
        Ratio(name=name, network="H 8", rounds=(value,), target=target)
        for name, value, target in (("on", 1.0, 1.0), ("below", 0.99, 1.0), ("free", 0.1, None))
    )
    assert missed([on, below, free]) == [below]


def test_every_rule_names_known_systems_and_sizes() -> None:
    """The rules speak of systems that can run, at sizes that are run."""
    assert {name for rule in RULES for name in (rule.over, rule.under)} <= set(SYSTEMS)
    assert all(set(rule.targets) <= {workload.network for workload in WORKLOADS.values()} for rule in RULES)


def test_turn_gives_each_system_each_half() -> None:
    """Over two rounds every system has run as often early as late."""
    systems = ("a", "b", "c")
    places = [[turn(systems, r).index(s) for s in systems] for r in (0, 1)]
    assert [first + second for first, second in zip(*places, strict=True)] == [2, 2, 2]


def test_steps_follow_the_time_with_a_floor() -> None:
    """Ten times the time gives ten times the steps, and no run has fewer than the floor."""
    assert WORKLOADS[1024].steps("thalweg", 40) == 10 * WORKLOADS[1024].steps("thalweg", 4) == 2000
    assert WORKLOADS[4096].steps("ray", 0.001) == STEPS_MIN


def test_parameters_are_those_of_the_network() -> None:
    """The count that Thalweg's is checked against is that of the rivals' arrays."""
    assert WORKLOADS[128].parameters == sum(w.size for w in initial_weights(128, seed=0))


def test_job_file_does_a_rivals_work() -> None:
    """The job has one microbatch of the rival's batch for each worker, and holds nothing out."""
    job = thalweg_job(WORKLOADS[512], steps=7, workers=2)
    assert job["train"] == {"steps": 7, "batch_size": 256, "microbatches": 2, "eval_every": 0}
    assert job["model"] == {"use": "mlp", "hidden": [512, 512]}
    assert job["data"] == {
        "train": {"x": "x.npy", "y": "y.npy"},
        "eval": 0.0,
        "task": "classification",
        "scale": "none",
    }


def test_timing_by_hand() -> None:
    """Samples/s come from the wall time of the counted steps, the median from the steps."""
    assert timing([10.0, 11.0, 12.0, 14.0], samples_per_step=8) == {
        "samples_per_s": 6.0,
        "steps": 3,
        "wall_s": 4.0,
        "step_ms": {"p50": 1000.0, "mean": pytest.approx(4000 / 3)},
    }


def task(tmp_path: Path, *more: str) -> Task:
    numbers = {"hidden": 4, "batch": 3, "workers": 2, "warmup-steps": 1, "steps": 2}
    flags = [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
    return parse_task(["--data", str(tmp_path), *flags, *more])


def test_rows_are_drawn_anew_for_each_step_and_rank(tmp_path: Path) -> None:
    """Drawn rows lie in [0, rows), and differ between steps and between ranks."""
    write_data(tmp_path, rows=1000)
    sources = [row_source(task(tmp_path), rank, 1000) for rank in (0, 1)]
    drawn = np.array([source(step) for source in sources for step in range(50)])
    assert drawn.shape == (100, 3)
    assert 0 <= drawn.min() < 200 < 800 < drawn.max() < 1000
    assert len(np.unique(drawn, axis=0)) == 100


def test_given_rows_are_taken(tmp_path: Path) -> None:
    """With --rows a worker takes exactly the rows of its step and rank."""
    rows = np.arange(3 * 2 * 3).reshape(3, 2, 3)
    np.save(tmp_path / "rows.npy", rows)
    source = row_source(task(tmp_path, "--rows", str(tmp_path / "rows.npy")), 1, 100)
    assert source(2).tolist() == [15, 16, 17]


def test_failed_run_tells_its_last_words(tmp_path: Path) -> None:
    """A run that exits with another status than 0 raises with what it wrote."""
    command = [sys.executable, "-c", "raise SystemExit('no such gradient')"]
    with pytest.raises(BenchError, match=r"exit status 1(.|\n)*no such gradient"), process(command, tmp_path) as child:
        finished(child)


def test_run_that_hangs_is_ended(tmp_path: Path) -> None:
    """A run over its time raises, and its process is gone after the block."""
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with pytest.raises(BenchError, match="still running"), process(command, tmp_path) as child:
        finished(child, timeout_s=0.1)
    assert child.poll() is not None


def test_summary_of_another_run_is_refused(tmp_path: Path) -> None:
    """A summary that tells of other steps than were asked for names the field, the expected and the found."""
    (tmp_path / "summary.json").write_text('{"state": "succeeded", "steps": 3}')
    assert read_summary(tmp_path, steps=3)["state"] == "succeeded"
    with pytest.raises(BenchError, match="steps: expected 4; found 3"):
        read_summary(tmp_path, steps=4)


def test_cpu_model_where_it_is_given() -> None:
    """The first processor's model is taken, and its absence is told."""
    assert cpu_model("processor\t: 0\nmodel name\t: Some CPU\nmodel name\t: Other\n") == "Some CPU"
    assert cpu_model("processor\t: 0\n") == "unknown"


def test_tables_have_a_row_for_each_size_and_ratio() -> None:
    """Both tables show what they are given, and a size that a system lacks is an empty cell."""
    runs = [run("thalweg", 4, network="H 128"), run("ddp", 1, network="H 128"), run("ddp", 1, network="H 512")]
    speed = speed_table(runs, SYSTEMS, TITLES)
    assert [list(column.cells) for column in speed.columns] == [
        ["H 128", "H 512"],
        ["4\n1 ms", ""],
        ["1\n1 ms", "1\n1 ms"],
    ]
    assert list(ratio_table(ratios(runs)).columns[2].cells) == ["4.00"]


@pytest.mark.parametrize("wrong", [["--only", "tensorflow"], ["--hidden", "100"], ["--repeats", "0"]])
def test_wrong_option_is_answered_before_anything_runs(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown system or size ends with status 2, and what was expected and found."""
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert f"found {wrong[1]}" in capsys.readouterr().err
