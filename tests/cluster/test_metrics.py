from __future__ import annotations

import math
import shutil
import subprocess
import urllib.request
from time import perf_counter

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from thalweg_cluster.consistency import Verdict
from thalweg_cluster.metrics import TelemetryCollector, serve_metrics
from thalweg_cluster.server.telemetry import Telemetry, WireCounts
from thalweg_proto.messages import StepRecord, pack_step, unpack_from_worker


def used(steps: int = 3) -> Telemetry:
    """The telemetry of a run of two workers after `steps` steps."""
    t = Telemetry(workers=2, batch_size=64, bytes_pushed=400, bytes_published=400)
    t.joined, t.generation, t.taken_over, t.pace_s = 2, 3, 7, {0: 0.002, 1: math.inf}
    t.gradient_norm = 1.25
    t.evaluation_loss, t.evaluation_accuracy = 0.3, 0.9
    told = unpack_from_worker(b"".join(pack_step(record(0, step)) for step in range(steps)))
    for _ in range(2):
        hear(t, told)
    t.step_skipped()
    t.learning_rate = 0.1
    t.checkpoint_saved(2, 0.02)
    t.checkpoint_failed(3, "No space left on device")
    t.wire[0] = WireCounts()
    t.wire[0].add("gradients_sent", 1000)
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
    """A step of 3 ms."""
    return StepRecord(
        rank=rank, microbatches=1, step=step, loss=0.5, gradient_norm=math.nan, published_s=0.003 * (step + 1),
        sample_s=0.0001, compute_s=0.002, push_s=0.00001, wait_s=0.0009, apply_s=0.0002,
    )  # fmt: skip


def text_of(telemetry: Telemetry) -> str:
    registry = CollectorRegistry()
    registry.register(TelemetryCollector(telemetry))
    return generate_latest(registry).decode()


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_say_what_happened():
    """3 steps of 64 samples, 6 pushes of 400 bytes."""
    samples = samples_of(text_of(used()))
    assert samples["thalweg_steps_total", ()] == 3
    assert (samples["thalweg_generation", ()], samples["thalweg_microbatches_taken_over_total", ()]) == (3, 7)
    assert samples["thalweg_worker_microbatch_seconds", (("worker", "1"),)] == math.inf
    assert samples["thalweg_samples_total", ()] == 192
    assert samples["thalweg_pushes_total", (("result", "accepted"),)] == 6
    assert samples["thalweg_exchanged_bytes_total", (("direction", "push"),)] == 2400
    wire = [("content", "gradients"), ("direction", "sent"), ("host", "0")]
    assert samples["thalweg_wire_bytes_total", tuple(wire)] == 1000
    assert samples["thalweg_wire_messages_amiss_total", (("host", "1"), ("how", "repeated"))] == 2
    assert used().duplicates == 2
    assert samples["thalweg_workers", (("state", "joined"),)] == 2
    assert samples["thalweg_steps_skipped_total", ()] == 1
    assert samples["thalweg_gradient_norm", ()] == 1.25
    assert samples["thalweg_step_seconds_count", ()] == 3
    assert samples["thalweg_step_seconds_bucket", (("le", "0.0025"),)] == 0
    assert samples["thalweg_step_seconds_bucket", (("le", "0.005"),)] == 3
    assert samples["thalweg_apply_seconds_sum", ()] == pytest.approx(0.0012)


def test_what_is_not_known_yet_has_no_series():
    """Before the first step there is no loss: a missing series, not a NaN."""
    text = text_of(Telemetry(workers=1, batch_size=1, bytes_pushed=4, bytes_published=4))
    assert "thalweg_loss" not in text
    assert not any(math.isnan(value) for value in samples_of(text).values())


def test_no_label_grows_with_the_run():
    """A longer run has the same series as a short one."""
    assert samples_of(text_of(used(2))).keys() == samples_of(text_of(used(200))).keys()


def test_metrics_are_served_over_http():
    """A scrape of /metrics gives the same text."""
    port = serve_metrics(used(), 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        assert samples_of(response.read().decode())["thalweg_steps_total", ()] == 3


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_promtool_finds_nothing_to_complain_of():
    """Names, types, units and help follow the conventions that `promtool check metrics` knows."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text_of(used()), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.bench
def test_instruments_cost_under_one_percent_of_a_step_of_half_a_millisecond():
    """What a worker and the server do for them, for two workers, takes less than 5 us a step."""
    rounds = []
    for _ in range(5):
        t = used()
        begin = perf_counter()
        for first in range(0, 20_000, 200):  # a datagram each 100 ms
            for rank in range(2):
                data = b"".join([pack_step(record(rank, step)) for step in range(first, first + 200)])
                hear(t, unpack_from_worker(data))
        rounds.append((perf_counter() - begin) / 20_000)
    cost_s = sorted(rounds)[2]
    print(f"instruments: {1e6 * cost_s:.2f} us a step, {100 * cost_s / 0.0005:.2f} % of 0.5 ms")
    assert cost_s < 0.01 * 0.0005
