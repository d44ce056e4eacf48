from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from thalweg_cluster.monitoring.catalogue import METRICS
from thalweg_cluster.monitoring.docs import metrics_page
from thalweg_cluster.monitoring.files import commands, committed_files, monitoring_files, write
from thalweg_cluster.monitoring.prometheus import Service
from thalweg_cluster.monitoring.rules import Timing, alerts, recordings
from thalweg_cluster.security.certificates import make_certificates

COMMITTED = Path(__file__).parents[3] / "cluster" / "monitoring"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus"
)


def promtool(*arguments: str) -> str:
    """What it says; it must find nothing wrong."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_committed_files_are_what_the_code_makes():
    """`make monitoring` changes nothing."""
    found = {
        str(path.relative_to(COMMITTED)): path.read_text()
        for path in COMMITTED.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert sorted(found) == sorted(committed_files())
    stale = [name for name, content in committed_files().items() if found[name] != content]
    assert stale == [], "run `make monitoring`"


@needs_promtool
@pytest.mark.parametrize("seconds", [1, 5, 60])
def test_promtool_finds_nothing_wrong_with_configuration_and_rules(tmp_path, seconds):
    """Syntax, expressions, and the unit tests of all rules, whatever the time between two scrapes."""
    timing = Timing(scrape_s=seconds)
    (tmp_path / "token").write_text("secret")
    ca = Path(tmp_path, "ca.pem")
    ca.write_bytes(make_certificates(["localhost"]).ca or b"")
    service = Service(url="https://127.0.0.1:8701/targets", token_file=str(tmp_path / "token"), ca_file=str(ca))
    write(tmp_path, monitoring_files(str(tmp_path / "targets"), str(tmp_path), timing=timing, service=service))
    promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert f"{len(recordings()) + len(alerts())} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))
    promtool("test", "rules", str(tmp_path / "rules_test.yml"))


@needs_promtool
@pytest.mark.parametrize("group", [0, 1], ids=["recordings", "alerts"])
def test_a_rule_that_is_broken_fails_its_unit_test(tmp_path, group):
    """With all expressions of a group changed, promtool names each of its rules."""
    files = monitoring_files(str(tmp_path), str(tmp_path))
    write(tmp_path, files)
    groups = yaml.safe_load(files["rules.yml"])
    for rule in groups["groups"][group]["rules"]:
        rule["expr"] = f"({rule['expr']}) > 1e99"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(groups))
    test = ["promtool", "test", "rules", str(tmp_path / "rules_test.yml")]
    done = subprocess.run(test, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for rule in groups["groups"][group]["rules"]:
        name = f'"round({rule["record"]}, 0.001)"' if "record" in rule else f"alertname: {rule['alert']},"
        assert name in done.stdout + done.stderr


def test_prometheus_is_told_where_the_targets_are():
    """The folder of files, and the service where there is one; a bound on the series of a process."""
    files = monitoring_files("/runs/targets", "/m", timing=Timing(scrape_s=7), service=Service(url="http://x/targets"))
    scraped, itself = yaml.safe_load(files["prometheus.yml"])["scrape_configs"]
    assert scraped["file_sd_configs"] == [{"files": ["/runs/targets/*.json"], "refresh_interval": "7s"}]
    assert scraped["http_sd_configs"] == [{"url": "http://x/targets", "refresh_interval": "7s"}]
    assert scraped["sample_limit"] == 2000
    assert itself == {"job_name": "thalweg-service", "scheme": "http", "static_configs": [{"targets": ["x"]}]}
    locked = Service(url="https://x/targets", token_file="/t/token", ca_file="/t/ca.pem")
    scraped, itself = yaml.safe_load(monitoring_files("/t", "/m", service=locked)["prometheus.yml"])["scrape_configs"]
    for asked in (*scraped["http_sd_configs"], itself):  # and the runs get no token
        assert asked["authorization"] == {"type": "Bearer", "credentials_file": "/t/token"}
        assert asked["tls_config"] == {"ca_file": "/t/ca.pem"}
    assert itself["scheme"] == "https"
    assert "authorization" not in scraped
    [alone] = yaml.safe_load(monitoring_files("/t", "/m")["prometheus.yml"])["scrape_configs"]
    assert "http_sd_configs" not in alone


def test_grafana_finds_its_data_source_and_dashboards():
    """By the address of Prometheus, and by the folder where the files lie."""
    files = monitoring_files("/t", "/m", address="127.0.0.1:9999")
    [source] = yaml.safe_load(files["grafana/provisioning/datasources/thalweg.yml"])["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://127.0.0.1:9999", True)
    [provider] = yaml.safe_load(files["grafana/provisioning/dashboards/thalweg.yml"])["providers"]
    assert provider["options"]["path"] == "/m/grafana/dashboards"
    assert all(json.loads(content) for name, content in files.items() if name.endswith(".json"))


def test_commands_can_be_pasted_whatever_the_folder_is_called():
    """Spaces are quoted."""
    prometheus, grafana = commands(Path("/a b"))
    assert "--config.file='/a b/prometheus.yml'" in prometheus
    assert "GF_PATHS_PROVISIONING='/a b/grafana/provisioning'" in grafana


def test_the_page_lists_everything():
    """Each metric, recording and alert has a line, with type, unit, labels, and what to do."""
    lines = [line for line in metrics_page().splitlines() if line.startswith("| `")]
    assert len(lines) == len(METRICS) + len(recordings()) + len(alerts())
    for metric in METRICS:
        [line] = [each for each in lines if re.match(rf"\| `{metric.name}`( \*)? \|", each)]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [metric.kind.value, metric.unit, ", ".join(metric.labels) or "-", metric.help, metric.bad]
