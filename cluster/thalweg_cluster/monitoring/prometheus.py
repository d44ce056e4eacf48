"""The configuration of Prometheus, and what Grafana loads when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

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

    @property
    def access(self) -> dict[str, Any]:
        """How Prometheus is let in."""
        access: dict[str, Any] = {}
        if self.token_file is not None:
            # The type is the default one, which Prometheus 2.42 does not fill in here.
            access["authorization"] = {"type": "Bearer", "credentials_file": self.token_file}
        if self.ca_file is not None:
            access["tls_config"] = {"ca_file": self.ca_file}
        return access


def prometheus_config(
    targets: str, *, timing: Timing = Timing(), service: Service | None = None, rules: str = "rules.yml"
) -> dict[str, Any]:
    """`targets`: the folder in which runs write what there is to scrape; a relative one starts at the file's own."""
    every = f"{timing.scrape_s}s"
    found: dict[str, Any] = {"file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": every}]}
    others = []
    if service is not None:
        found["http_sd_configs"] = [{"url": service.url, "refresh_interval": every, **service.access}]
        page = urlsplit(service.url)
        itself = {"scheme": page.scheme, "static_configs": [{"targets": [page.netloc]}], **service.access}
        others.append({"job_name": "thalweg-service", **itself})
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": every},
        "rule_files": [rules],
        # The limit is a bound on a mistake: a process of the largest job has about half as many series.
        "scrape_configs": [{"job_name": "thalweg", "sample_limit": 2000, **found}, *others],
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
