"""The files that `thalweg monitor` writes, and those that are committed in cluster/monitoring: one code makes both.

Nothing in them depends on where they were made but the folder of targets, the service, and the paths that Grafana wants
whole.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import Any, Final

import yaml

from thalweg_cluster.monitoring.dashboards import dashboards
from thalweg_cluster.monitoring.docs import metrics_page
from thalweg_cluster.monitoring.prometheus import Service, grafana_datasource, grafana_provider, prometheus_config
from thalweg_cluster.monitoring.rule_tests import rule_tests
from thalweg_cluster.monitoring.rules import Timing, rule_groups

PROMETHEUS, RULES, RULE_TESTS, PAGE = "prometheus.yml", "rules.yml", "rules_test.yml", "METRICS.md"
DASHBOARDS: Final = "grafana/dashboards"
PROVISIONING: Final = "grafana/provisioning"
ADDRESS: Final = "127.0.0.1:9090"
"""Of Prometheus, where nothing else is said."""
EXAMPLE_TARGETS: Final = "targets"


def monitoring_files(
    targets: str, folder: str, *, timing: Timing = Timing(), service: Service | None = None, address: str = ADDRESS
) -> dict[str, str]:
    """All files, by path below `folder`.

    targets: the folder in which runs write what there is to scrape
    folder:  where the files will lie, for Grafana
    service: which lists its targets, too
    address: HOST:PORT at which Prometheus will answer
    """
    files = {
        PROMETHEUS: _yaml(prometheus_config(targets, timing=timing, service=service, rules=RULES)),
        RULES: _yaml(rule_groups(timing)),
        RULE_TESTS: _yaml(rule_tests(RULES, timing)),
        PAGE: metrics_page(timing),
        f"{PROVISIONING}/datasources/thalweg.yml": _yaml(grafana_datasource(f"http://{address}", timing)),
        f"{PROVISIONING}/dashboards/thalweg.yml": _yaml(grafana_provider(f"{folder}/{DASHBOARDS}")),
    }
    return files | {f"{DASHBOARDS}/{name}": _json(model) for name, model in dashboards(timing).items()}


def committed_files() -> dict[str, str]:
    """What lies in cluster/monitoring, beside its README."""
    return monitoring_files(EXAMPLE_TARGETS, "/etc/thalweg/monitoring")


def commands(folder: Path, address: str = ADDRESS) -> tuple[str, str]:
    """What starts Prometheus, and what starts Grafana, on the files in `folder`."""

    def path(name: str) -> str:
        return quote(str(folder / name))

    prometheus = (
        f"prometheus --config.file={path(PROMETHEUS)} --storage.tsdb.path={path('data')} --web.listen-address={address}"
    )
    grafana = (
        f"GF_PATHS_PROVISIONING={path(PROVISIONING)} GF_PATHS_DATA={path('grafana/data')} "
        f"GF_SERVER_HTTP_ADDR=127.0.0.1 grafana server --homepath /usr/share/grafana"
    )
    return prometheus, grafana


def write(folder: Path, files: dict[str, str]) -> None:
    """OSError where that fails."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


class _Dumper(yaml.SafeDumper):
    """Each expression in one line; no anchors, though a label set comes twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1_000_000)


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def main() -> None:
    """`python -m thalweg_cluster.monitoring.files FOLDER`: writes the committed files anew (`make monitoring`)."""
    write(Path(sys.argv[1]), committed_files())


if __name__ == "__main__":
    main()
