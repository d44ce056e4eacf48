"""The pieces of a Grafana dashboard, as its JSON model has them (schema version 36, Grafana 9 and later).

Rules:
  - A panel has a unit and a description, and says in words what it means where there is nothing to show.
  - Nothing names a data source: it is a variable of the dashboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24
HEIGHT: Final = 8


@dataclass(frozen=True, kw_only=True)
class Query:
    """expr: PromQL, with the dashboard's variables; legend: with {{label}}"""

    expr: str
    legend: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """unit:    one of Grafana's
    empty:   what it means where there is nothing to show
    kind:    timeseries, stat, bargauge or table
    width:   of 24 columns
    stacked: whether the series of a timeseries are shares of a whole
    colours: thresholds by value, ascending; the first one from below
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    empty: str
    kind: str = "timeseries"
    width: int = 12
    stacked: bool = False
    colours: Sequence[tuple[float | None, str]] = field(default=((None, "green"),))
    min: float | None = None
    max: float | None = None


def layout(rows: Sequence[tuple[str, Sequence[Panel]]]) -> list[dict[str, Any]]:
    """Panels below headings, from left to right and from top to bottom."""
    made: list[dict[str, Any]] = []
    y = 0
    for heading, panels in rows:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": heading,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
                "panels": [],
            }
        )
        x, y = 0, y + 1
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + HEIGHT
            made.append(_panel(panel, len(made) + 1, x, y))
            x += panel.width
        y += HEIGHT
    return made


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "noValue": panel.empty,
        "color": {"mode": "thresholds" if instant else "palette-classic"},
        "mappings": [],
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.colours],
        },
        "custom": _custom(panel),
    }
    defaults |= {key: value for key, value in (("min", panel.min), ("max", panel.max)) if value is not None}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "transparent": False,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS[panel.kind],
        "transformations": _TRANSFORMATIONS.get(panel.kind, []),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return {"align": "auto", "filterable": True} if panel.kind == "table" else {}


_REDUCED: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": _REDUCED,
        "orientation": "auto",
        "textMode": "auto",
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
    },
    "bargauge": {
        "reduceOptions": _REDUCED,
        "orientation": "horizontal",
        "displayMode": "gradient",
        "showUnfilled": True,
        "minVizWidth": 0,
        "minVizHeight": 10,
    },
    "table": {"showHeader": True},
}
_TRANSFORMATIONS: Final[dict[str, list[dict[str, Any]]]] = {
    "table": [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": {}}},
    ]
}


def dashboard(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[dict[str, Any]],
    rows: Sequence[tuple[str, Sequence[Panel]]],
    *,
    refresh: str,
) -> dict[str, Any]:
    """The model of a dashboard. It has no `version` and no id: Grafana gives those."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["thalweg"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one crosshair on all panels
        "time": {"from": "now-1h", "to": "now"},
        "fiscalYearStartMonth": 0,
        "refresh": refresh,
        "schemaVersion": 36,
        "templating": {"list": [_datasource(), *variables]},
        "annotations": {"list": [_alerts()]},
        "links": [
            {
                "title": "Thalweg",
                "type": "dashboards",
                "icon": "external link",
                "tooltip": "",
                "tags": ["thalweg"],
                "asDropdown": True,
                "targetBlank": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": layout(rows),
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "skipUrlSync": False,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "regex": "",
    }


def variable(name: str, label: str, query: str, *, multi: bool) -> dict[str, Any]:
    """Values of a label within the time range of the dashboard, so that runs that have ended are among them."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": query,
        "hide": 0,
        "skipUrlSync": False,
        "multi": multi,
        "includeAll": multi,
        "allValue": ".*" if multi else None,
        "refresh": 2,  # whenever the time range changes
        "sort": 2,  # descending: the newest run first
        "regex": "",
    }


def _alerts() -> dict[str, Any]:
    """Alerts that were told, as marks on every panel."""
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Thalweg.*", alertstate="firing"}',
    }
