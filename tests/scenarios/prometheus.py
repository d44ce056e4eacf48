"""A real Prometheus on loopback, started with the command that `thalweg monitor` says."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from tests.scenarios.conftest import environment

from thalweg_cluster.monitoring.dashboards import dashboards
from thalweg_cluster.monitoring.rules import Timing

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs prometheus and promtool: apt-get install prometheus",
)
LOOK_S = 0.25
TIMING = Timing(scrape_s=1)
VARIABLES = {
    "$__rate_interval": TIMING.window,
    "$__range": "300s",
    "$job": ".*",
    "$run": ".*",
}
MAY_BE_INFINITE = "thalweg_worker_microbatch_seconds"


def panel_queries() -> dict[str, tuple[str, dict[str, Any]]]:
    """Each expression of each panel of each dashboard, its variables filled in, with the panel; by file and title."""
    found = {}
    for file, model in dashboards(TIMING).items():
        for panel in model["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                found[f"{file}: {panel['title']} {target['refId']}"] = (expression, panel)
    return found


def implausible(values: list[float], panel: dict[str, Any], expression: str) -> str | None:
    """Why an answer is not plausible; None: it is."""
    if not values:
        return "nothing"
    if any(math.isnan(value) or value < 0 for value in values):
        return f"{values}, where numbers from 0 on make sense"
    if MAY_BE_INFINITE not in expression and any(map(math.isinf, values)):
        return f"{values}, where finite numbers make sense"
    defaults = panel["fieldConfig"]["defaults"]
    if any(value > defaults.get("max", math.inf) + 1e-9 for value in values):
        return f"{values}, where {defaults['max']} is the most"
    if defaults["unit"] == "s" and max(v for v in values if math.isfinite(v)) > 600:
        return f"{values} seconds"
    return None


def until(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """Looks again and again until `condition` is true; what it gave. Prometheus tells nobody when something happens."""
    end = monotonic() + timeout_s
    while not (found := condition()):
        assert monotonic() < end, f"expected within {timeout_s:g} s: {what}"
        sleep(LOOK_S)
    return found


class Prometheus:
    """One that answers at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """What the HTTP API answers."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression comes to now: labels and value of each series."""
        return [(each["metric"], float(each["value"][1])) for each in self.ask("query", query=expression)["result"]]

    def firing(self) -> dict[tuple[str, str | None], float]:
        """The value of each alert that is told now, by its name and worker."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("worker")): float(alert["value"])
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1):
                return True
        except OSError:
            return False


@contextmanager
def watching(folder: Path, targets: Path, *options: str) -> Iterator[Prometheus]:
    """Writes the files into `folder` and starts Prometheus as the command says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "thalweg_cluster.cli", "monitor", str(folder), "--address", address, *options]
    said = subprocess.run(
        command, env=environment(THALWEG_TARGETS=str(targets)), capture_output=True, text=True, check=True
    ).stdout
    [start] = [line for line in said.splitlines() if line.startswith("prometheus ")]
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(shlex.split(start), stdout=output, stderr=subprocess.STDOUT)
    try:
        prometheus = Prometheus(address)
        until(lambda: prometheus.ready() or process.poll() is not None, "an answer of Prometheus", 30)
        assert process.poll() is None, log.read_text()
        yield prometheus
    finally:
        process.terminate()
        process.wait()
