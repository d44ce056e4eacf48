"""The configuration of Prometheus, and what Grafana loads when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thalweg_cluster.monitoring.rules import Timing

DATASOURCE_UID = "thalweg-prometheus"


@dataclass(frozen=True, kw_only=True)
class Service:
    """Where a service lists what there is to scrape.

    token_file: has the token that it asks for; None: it asks for none
    ca_file:    of the authority of its certificate; None: the system knows it, or there is none
    """

    url: str
    token_file: str | None = None
    ca_file: str | None = None


def prometheus_config(
    targets: str, *, timing: Timing = Timing(), service: Service | None = None, rules: str = "rules.yml"
) -> dict[str, Any]:
    """`targets`: the folder in which runs write what there is to scrape; a relative one starts at the file's own."""
    every = f"{timing.scrape_s}s"
    found: dict[str, Any] = {"file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": every}]}
    if service is not None:
        asked: dict[str, Any] = {"url": service.url, "refresh_interval": every}
        if service.token_file is not None:
            # The type is the default one, which Prometheus 2.42 does not fill in here.
            asked["authorization"] = {"type": "Bearer", "credentials_file": service.token_file}
        if service.ca_file is not None:
            asked["tls_config"] = {"ca_file": service.ca_file}
        found["http_sd_configs"] = [asked]
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
