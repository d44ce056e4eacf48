from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from thalweg_cluster.exposition import text
from thalweg_cluster.launch.failures import Loss
from thalweg_cluster.launch.run_telemetry import RunTelemetry
from thalweg_cluster.monitoring.catalogue import METRICS, Process
from thalweg_worker.engines import Card

WORKER, SERVER = Loss("worker", 1, "died"), Loss("server", 0, "died")


def values(telemetry: RunTelemetry, now_s: float = 0.0) -> dict[str, float]:
    return {
        " ".join([sample.name.removeprefix("thalweg_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text(telemetry.families(now_s)))
        for sample in family.samples
    }


def test_it_exports_what_the_catalogue_says_of_a_coordinator():
    """From the start, with zeros: a counter that only appears when it is 1 never grows."""
    families = list(text_string_to_metric_families(text(RunTelemetry().families(0.0))))
    expected = [metric.family for metric in METRICS if metric.process is Process.COORDINATOR]
    assert [family.name for family in families] == expected
    assert values(RunTelemetry())["restarts_total worker"] == 0


def test_a_run_has_recovered_when_all_are_there_and_a_step_was_made():
    """The worker that died at 10 s is back at 13 s; before that, steps of the others alone do not count."""
    telemetry = RunTelemetry()
    telemetry.lost([WORKER], 10.0)
    telemetry.seen(100, 1, 2, 10.5)
    telemetry.seen(150, 1, 2, 11.0)
    assert values(telemetry, 12.0)["recovering_seconds"] == 2.0
    telemetry.seen(200, 2, 2, 13.0)
    found = values(telemetry, 20.0)
    assert (found["recovering_seconds"], found["restarts_total worker"]) == (0, 1)
    assert (found["recovery_seconds_sum"], found["recovery_seconds_count"]) == (3.0, 1)
    assert (found["recovery_seconds_bucket 2.5"], found["recovery_seconds_bucket 5.0"]) == (0, 1)


def test_a_new_attempt_has_to_get_further_than_where_it_began():
    """The run is rewound to a checkpoint: steps that it was at before the loss are no progress."""
    telemetry = RunTelemetry()
    telemetry.begins()
    telemetry.seen(500, 2, 2, 1.0)
    telemetry.lost([SERVER], 2.0)
    telemetry.begins()
    telemetry.seen(400, 2, 2, 9.0)
    assert values(telemetry, 9.0)["recovering_seconds"] == 7.0
    telemetry.seen(401, 2, 2, 10.0)
    found = values(telemetry, 10.0)
    assert (found["attempts_total"], found["restarts_total server"], found["recovery_seconds_sum"]) == (2, 1, 8.0)


def test_a_second_loss_prolongs_the_recovery():
    """It is one, from the first loss on."""
    telemetry = RunTelemetry()
    telemetry.lost([WORKER], 0.0)
    telemetry.seen(10, 1, 2, 1.0)
    telemetry.lost([WORKER], 2.0)
    telemetry.seen(20, 2, 2, 3.0)
    telemetry.seen(30, 2, 2, 4.0)
    found = values(telemetry)
    assert (found["recovery_seconds_sum"], found["recovery_seconds_count"]) == (4.0, 1)


def test_a_new_coordinator_goes_on_with_the_counts_of_the_one_before():
    """It died itself, which counts, too; for how long it was away nobody knows."""
    telemetry = RunTelemetry()
    telemetry.before([WORKER], attempts=2)
    telemetry.lost([Loss("coordinator", 0, "died")], 5.0)
    telemetry.begins()
    found = values(telemetry, 5.0)
    assert [found[f"restarts_total {kind}"] for kind in ("worker", "server", "coordinator")] == [1, 0, 1]
    assert found["attempts_total"] == 3


def test_the_gpus_of_workers_are_told_as_long_as_their_attempt_lasts():
    """A series for each worker that has one; what they are called is cut to what a label may hold."""
    telemetry = RunTelemetry()
    telemetry.begins()
    telemetry.has_cards({1: Card("H100", 85 * 2**30)})
    telemetry.has_cards({0: Card("x" * 1000, 7)})
    found = values(telemetry)
    assert found["worker_device_info 1 H100"] == found[f"worker_device_info 0 {'x' * 100}"] == 1
    assert (found["worker_device_memory_bytes 0"], found["worker_device_memory_bytes 1"]) == (7, 85 * 2**30)
    telemetry.begins()
    assert not [name for name in values(telemetry) if name.startswith("worker_device")]
