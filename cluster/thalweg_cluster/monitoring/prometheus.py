"""The configuration of Prometheus, and what Grafana loads when it starts."""

from __future__ import annotations

from typing import Any

from thalweg_cluster.monitoring.rules import Timing

DATASOURCE_UID = "thalweg-prometheus"


def prometheus_config(
    targets: str, *, timing: Timing = Timing(), service: str | None = None, rules: str = "rules.yml"
) -> dict[str, Any]:
    """
    targets: the folder in which runs write what there is to scrape; a relative one starts at the file's own folder
    service: the URL at which a service answers with its list
    """
    every = f"{timing.scrape_s}s"
    found: dict[str, Any] = {"file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": every}]}
    if service is not None:
        found["http_sd_configs"] = [{"url": service, "refresh_interval": every}]
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": every},
        "rule_files": [rules],
        # A bound on a mistake: a process of the largest job has about half as many series.
        "scrape_configs": [{"job_name": "thalweg", "sample_limit": 2000, **found}],
    }


def grafana_datasource(url: str, timing: Timing = Timing()) -> dict[str, Any]:
    """`url`: of Prometheus."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Thalweg",
                "uid": DATASOURCE_UID,
                "type": "prometheus",
                "access": "proxy",
                "url": url,
                "isDefault": True,
                "jsonData": {"timeInterval": f"{timing.scrape_s}s", "httpMethod": "POST"},
            }
        ],
    }


def grafana_provider(folder: str) -> dict[str, Any]:
    """`folder`: of the dashboards; Grafana takes it from the environment where it starts with `$`."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "thalweg",
                "folder": "Thalweg",
                "type": "file",
                "allowUiUpdates": False,
                "options": {"path": folder},
            }
        ],
    }
