"""The parts of `make bench-net`: the ideal, the steps, the job; and that what is measured runs on two hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.benchmarks import replicas
from tests.benchmarks.figures import Measurement, ratios
from tests.benchmarks.net import (
    EXPECTED_STEP_MS,
    MEASURE,
    RULES,
    SYSTEMS,
    WIRES,
    ideals,
    main,
    spread_job,
    steps_for,
)
from tests.benchmarks.workload import STEPS_MIN, WORKERS, WORKLOADS, write_data
from tests.hosts.needs import needs_hosts
from tests.hosts.network import Hosts


def run(system: str, samples_per_s: float, *, round_index: int = 0) -> Measurement:
    return Measurement(round=round_index, network="H 128", system=system, samples_per_s=samples_per_s, step_p50_ms=1.0)


def test_ideal_is_the_slower_of_its_round() -> None:
    """Each round has its own ideal, and a round that lacks one of the two has none."""
    first = [run("wire", 10), run("compute", 20), run("ddp", 5)]
    second = [run("compute", 8, round_index=1), run("wire", 10, round_index=1), run("ddp", 6, round_index=1)]
    alone = [run("wire", 1, round_index=2), run("ddp", 1, round_index=2)]
    runs = [*first, *second, *alone]
    assert ideals(runs) == [run("ideal", 10), run("ideal", 8, round_index=1)]
    (ratio,) = ratios([*runs, *ideals(runs)], RULES)
    assert (ratio.name, ratio.rounds) == ("DDP / ideal", (0.5, 0.75))


def test_every_rule_and_size_is_known() -> None:
    """The rules speak of systems that can run, and there is an expectation for every size."""
    assert {name for rule in RULES for name in (rule.over, rule.under)} <= {*SYSTEMS, "ideal"}
    assert set(MEASURE) == set(SYSTEMS)
    assert set(EXPECTED_STEP_MS) == set(WORKLOADS)


def test_steps_follow_the_time_with_a_floor() -> None:
    """Twice the time gives twice the steps, and no run has fewer than the floor."""
    assert steps_for(WORKLOADS[512], 6) == 2 * steps_for(WORKLOADS[512], 3) == 200
    assert steps_for(WORKLOADS[4096], 1) == STEPS_MIN


def test_job_has_a_worker_on_each_host() -> None:
    """[cluster] spreads the workers over the hosts, and names the formats on the wire where they are not float32."""
    spread = {"workers": 2, "placement": "SPREAD"}
    found = {system: spread_job(system, WORKLOADS[128], steps=20)["cluster"] for system in WIRES}
    assert found == {
        "thalweg": spread,
        "thalweg-bfloat16": spread | {"wire": "bfloat16", "wire_parameters": "bfloat16"},
        "thalweg-int8": spread | {"wire": "int8", "wire_parameters": "bfloat16"},
    }


@pytest.mark.parametrize("wrong", [["--only", "ray"], ["--hidden", "100"], ["--repeats", "0"]])
def test_wrong_option_is_answered_before_anything_runs(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown system or size ends with status 2, and what was expected and found."""
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert f"found {wrong[1]}" in capsys.readouterr().err


@pytest.mark.compare
@needs_hosts
@pytest.mark.parametrize("system", ["wire", "compute", "ddp"])
def test_system_runs_on_two_hosts(system: str, tmp_path: Path) -> None:
    """A short run gives a figure, and nothing of it is left on the hosts."""
    if system == "ddp":
        pytest.importorskip("torch")
    write_data(tmp_path, rows=1000)
    with Hosts(WORKERS) as hosts:
        found = MEASURE[system](hosts, WORKLOADS[128], data=tmp_path, seconds=0.01)
        assert [host.processes() for host in hosts] == [[], []]
    assert (found.system, found.network) == (system, "H 128")
    assert found.samples_per_s > 0


def test_a_wrong_option_of_the_benchmark_of_replicas_is_answered_before_anything_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With status 2, and the sizes that there are."""
    with pytest.raises(SystemExit) as ended:
        replicas.main(["--hidden", "100"])
    assert ended.value.code == 2
    assert "128, 512, 1024, 4096" in capsys.readouterr().err
