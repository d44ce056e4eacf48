from __future__ import annotations

import math
import shutil
import subprocess
import urllib.request
from time import perf_counter

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from thalweg_cluster.consistency import Verdict
from thalweg_cluster.metrics import TelemetryCollector, serve_metrics
from thalweg_cluster.server.telemetry import Telemetry
from thalweg_proto.messages import Push, pack_push


def used(steps: int = 3) -> Telemetry:
    """The telemetry of a run of two workers after `steps` steps."""
    t = Telemetry(workers=2, batch_size=64, bytes_pushed=400, bytes_published=400)
    t.joined = 2
    t.gradient_norm = 1.25
    t.evaluation_loss, t.evaluation_accuracy = 0.3, 0.9
    for step in range(steps):
        for rank in range(2):
            t.judged(Verdict.ACCEPTED)
            t.heard(pack_push(Push(rank, 1, step, rank, 0.5, 0.0001, 0.002, 0.00001, 0.0003)))
        t.stepped(0.003, 0.0002, 0.5, 0.1)
    return t


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
    assert samples["thalweg_samples_total", ()] == 192
    assert samples["thalweg_pushes_total", (("result", "accepted"),)] == 6
    assert samples["thalweg_pushes_total", (("result", "duplicate"),)] == 0
    assert samples["thalweg_exchanged_bytes_total", (("direction", "push"),)] == 2400
    assert samples["thalweg_workers", (("state", "joined"),)] == 2
    assert samples["thalweg_gradient_norm", ()] == 1.25
    assert samples["thalweg_step_seconds_count", ()] == 3
    assert samples["thalweg_step_seconds_bucket", (("le", "0.0025"),)] == 0
    assert samples["thalweg_step_seconds_bucket", (("le", "0.005"),)] == 3
    assert samples["thalweg_apply_seconds_sum", ()] == pytest.approx(0.0006)


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
    """Two pushes and a step, drained as in a long run, take less than 5 us."""
    t = used()
    pushes = [
        [pack_push(Push(rank, 1, step, rank, 0.5, 0.0001, 0.002, 0.00001, 0.0003)) for rank in range(2)]
        for step in range(5000)
    ]
    rounds = []
    for _ in range(5):
        begin = perf_counter()
        for first, second in pushes:
            t.judged(Verdict.ACCEPTED)
            t.heard(first)
            t.judged(Verdict.ACCEPTED)
            t.heard(second)
            t.stepped(0.003, 0.0002, 0.5, 0.1)
        rounds.append((perf_counter() - begin) / 5000)
    cost_s = sorted(rounds)[2]
    print(f"instruments: {1e6 * cost_s:.2f} us a step, {100 * cost_s / 0.0005:.2f} % of 0.5 ms")
    assert cost_s < 0.01 * 0.0005
