from __future__ import annotations

import math
import shutil
import subprocess
import urllib.request
from time import process_time, thread_time

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from thalweg_cluster.consistency import Verdict
from thalweg_cluster.exposition import family
from thalweg_cluster.metrics import metrics_of, serve_metrics
from thalweg_cluster.monitoring.catalogue import BY_NAME, METRICS, Kind, Process
from thalweg_cluster.server.telemetry import Telemetry, WireCounts
from thalweg_proto.messages import StepRecord, pack_step, unpack_from_worker


def used(steps: int = 3) -> Telemetry:
    """The telemetry of a run of two workers after `steps` steps."""
    t = Telemetry(workers=2, batch_size=64, bytes_pushed=400, bytes_published=400)
    t.joined, t.generation, t.taken_over, t.pace_s = 2, 3, 7, {0: 0.002, 1: math.inf}
    t.copies_given, t.copies_won = 5, 4
    t.gradient_norm = 1.25
    t.evaluation_loss, t.evaluation_accuracy = 0.3, 0.9
    for rank in range(2):
        hear(t, unpack_from_worker(b"".join(pack_step(record(rank, step)) for step in range(steps))))
    t.door.answered(Verdict.DUPLICATE)
    t.door.fence(host=False)
    t.step_skipped()
    t.learning_rate = 0.1
    t.checkpoints.saved(2, 0.02)
    t.replicas.saved(1, 0.01)
    t.checkpoints.failed(3, "No space left on device")
    t.wire[0] = WireCounts()
    t.wire[0].add("gradients_sent", 1000)
    t.wire_formats = {"gradients": "int8", "parameters": "float32"}
    t.compression_error = 0.5
    t.started_at = t.checkpoints.at = 1.5e9
    t.on_wire(1, {**WireCounts().counts, "gradients_received": 1000, "messages_repeated": 2})
    return t


def hear(t: Telemetry, records: np.ndarray) -> None:
    """What the server does with what a worker tells."""
    t.heard(records)
    t.pushed(Verdict.ACCEPTED, pushes=int(records["microbatches"].sum()))
    new = records[records["step"] >= t.steps]
    if len(new):
        t.stepped(int(new["step"][-1]) + 1, new["loss"], new["gradient_norm"], new["published_s"])


def record(rank: int, step: int) -> StepRecord:
    """A step of 3 ms, for half of which worker 0 computes; worker 1 computes for 1 ms longer."""
    return StepRecord(
        rank=rank, microbatches=1, step=step, loss=0.5, gradient_norm=math.nan, published_s=0.003 * (step + 1),
        sample_s=0.0001, compute_s=0.002 + 0.001 * rank, push_s=0.00001, wait_s=0.0009, apply_s=0.0002,
    )  # fmt: skip


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_say_what_happened():
    """3 steps of 64 samples, 6 pushes of 400 bytes."""
    samples = samples_of(metrics_of(used()))
    assert samples["thalweg_steps_total", ()] == 3
    assert (samples["thalweg_generation", ()], samples["thalweg_microbatches_taken_over_total", ()]) == (3, 7)
    assert samples["thalweg_worker_microbatch_seconds", (("worker", "1"),)] == math.inf
    assert samples["thalweg_microbatch_copies_total", (("copies", "won"),)] == 4
    assert samples["thalweg_samples_total", ()] == 192
    assert samples["thalweg_pushes_total", (("result", "accepted"),)] == 6
    assert samples["thalweg_exchanged_bytes_total", (("direction", "push"),)] == 2400
    wire = [("content", "gradients"), ("direction", "sent"), ("format", "int8"), ("host", "0")]
    assert samples["thalweg_wire_bytes_total", tuple(wire)] == 1000
    assert samples["thalweg_wire_messages_amiss_total", (("how", "repeated"),)] == 2
    assert used().duplicates == 2
    assert samples["thalweg_workers", (("state", "joined"),)] == 2
    assert samples["thalweg_steps_skipped_total", ()] == 1
    assert samples["thalweg_gradient_norm", ()] == 1.25
    assert samples["thalweg_step_seconds_count", ()] == 3
    assert samples["thalweg_step_seconds_bucket", (("le", "0.0025"),)] == 0
    assert samples["thalweg_step_seconds_bucket", (("le", "0.005"),)] == 3
    assert samples["thalweg_apply_seconds_sum", ()] == pytest.approx(0.0012)
    assert samples["thalweg_worker_microbatches_total", (("worker", "1"),)] == 3
    computed = samples["thalweg_worker_phase_seconds_total", (("phase", "compute"), ("worker", "0"))]
    assert computed == pytest.approx(0.006)
    assert samples["thalweg_compression_error_norm", (("host", "0"),)] == 0.5
    assert samples["thalweg_client_pushes_total", (("result", "duplicate"),)] == 1
    assert samples["thalweg_pushes_fenced_total", (("sender", "client"),)] == 1
    assert samples["thalweg_checkpoint_step", ()] == 2
    assert samples["thalweg_replica_step", ()] == 1
    assert samples["thalweg_replicas_total", (("result", "saved"),)] == 1
    assert samples["thalweg_waited_for_seconds_total", (("worker", "1"),)] == pytest.approx(0.003)


def test_what_is_not_known_yet_has_no_series():
    """Before the first step there is no loss: a missing series, not a NaN."""
    text = metrics_of(Telemetry(workers=1, batch_size=1, bytes_pushed=4, bytes_published=4))
    assert "thalweg_loss" not in text
    assert not any(math.isnan(value) for value in samples_of(text).values())


def test_names_follow_the_conventions():
    """Counters, and only they, end in _total; nothing is named twice; everybody hears what to do."""
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.bad.endswith(".")
        assert metric.help.endswith(".")


def test_no_label_grows_with_the_run():
    """A longer run has the same series as a short one."""
    assert samples_of(metrics_of(used(2))).keys() == samples_of(metrics_of(used(200))).keys()


def test_what_is_exported_is_what_the_catalogue_lists():
    """All of a server's metrics and no others, with the labels, types and help that stand there."""
    found = {family.name: family for family in text_string_to_metric_families(metrics_of(used()))}
    expected = [metric for metric in METRICS if metric.process is Process.SERVER]
    assert sorted(found) == sorted(metric.family for metric in expected)
    for metric in expected:
        of = found[metric.family]
        assert (of.type, of.documentation) == (metric.kind.value, metric.help)
        labels = {label for sample in of.samples for label in sample.labels} - {"le"}
        assert labels == set(metric.labels), metric.name


def test_the_servers_of_other_hosts_say_nothing_that_the_lead_says_for_all():
    """So that nothing counts twice."""
    t = used()
    t.host, t.lead = 1, False
    found = [family.name for family in text_string_to_metric_families(metrics_of(t))]
    assert sorted(found) == sorted(metric.family for metric in METRICS if metric.everywhere)


def test_a_value_without_its_labels_is_refused():
    """Each label of a metric has a value."""
    with pytest.raises(ValueError, match="thalweg_pushes_total: expected values of result; found"):
        family(BY_NAME["thalweg_pushes_total"], 1)
    [_, line] = family(BY_NAME["thalweg_pushes_total"], (['a"b\n'], 1))
    assert line == 'thalweg_pushes_total{result="a\\"b\\n"} 1'


def many(workers: int = 64, hosts: int = 8) -> Telemetry:
    """Of a large job, with all that it can have."""
    t = Telemetry(workers=workers, batch_size=64, bytes_pushed=400, bytes_published=400)
    t.loss = t.learning_rate = t.gradient_norm = t.evaluation_loss = t.evaluation_accuracy = 0.5
    t.started_at, t.pace_s = 1.5e9, dict.fromkeys(range(workers), 0.01)
    for host in range(hosts):
        t.on_wire(host, WireCounts().counts)
    return t


@pytest.mark.parametrize("hosts", [1, 8, 64])
def test_a_job_of_64_workers_has_fewer_than_2000_series(hosts):
    """All its servers together, the lead's and the others'."""
    others = []
    for host in range(1, hosts):
        t = many()
        t.host, t.lead, t.wire = host, False, {host: WireCounts()}
        others.append(len(samples_of(metrics_of(t))))
    series = len(samples_of(metrics_of(many(hosts=hosts)))) + sum(others)
    print(f"{series} series of 64 workers on {hosts} hosts")
    assert series < 2000


def test_a_scrape_costs_less_than_5_milliseconds():
    """Of the processor, in the process of the lead of 64 workers on 64 hosts."""
    t, costs = many(hosts=64), []
    for _ in range(21):
        begin = thread_time()
        metrics_of(t)
        costs.append(thread_time() - begin)
    print(f"a scrape costs {1e3 * sorted(costs)[10]:.2f} ms of 64 workers on 64 hosts")
    assert sorted(costs)[10] < 0.005


def test_ten_thousand_job_names_are_no_series():
    """What a process exports does not depend on what its job is called: there is no label for it."""
    assert not {"job", "name", "run", "thalweg_job"} & {label for metric in METRICS for label in metric.labels}


def test_metrics_are_served_over_http():
    """A scrape of /metrics gives the same text."""
    port = serve_metrics(used(), 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        assert samples_of(response.read().decode())["thalweg_steps_total", ()] == 3


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_promtool_finds_nothing_to_complain_of():
    """Names, types, units and help follow the conventions that `promtool check metrics` knows."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics_of(used()), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.bench
def test_instruments_cost_under_one_percent_of_a_step_of_half_a_millisecond():
    """What a worker and the server do for them, for two workers, takes less than 5 us a step."""
    rounds = []
    for _ in range(5):
        t = used()
        begin = process_time()
        for first in range(0, 20_000, 200):  # a datagram each 100 ms
            for rank in range(2):
                data = b"".join([pack_step(record(rank, step)) for step in range(first, first + 200)])
                hear(t, unpack_from_worker(data))
        rounds.append((process_time() - begin) / 20_000)
    cost_s = sorted(rounds)[2]
    print(f"instruments: {1e6 * cost_s:.2f} us a step, {100 * cost_s / 0.0005:.2f} % of 0.5 ms")
    assert cost_s < 0.01 * 0.0005
