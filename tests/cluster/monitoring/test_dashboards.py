from __future__ import annotations

import json
import re

import pytest

from thalweg_cluster.monitoring.catalogue import METRICS, Kind
from thalweg_cluster.monitoring.dashboards import SERVICE, dashboards
from thalweg_cluster.monitoring.rules import Timing, alerts, recordings

MODELS = dashboards()
PANELS = [
    pytest.param(panel, id=f"{file}: {panel['title']}")
    for file, model in MODELS.items()
    for panel in model["panels"]
    if panel["type"] != "row"
]
OF_OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "ALERTS"}


def series_of(expression: str) -> set[str]:
    """The names of series in an expression: what stands before { or [, or is one of ours."""
    return set(re.findall(r"\b([a-zA-Z_:]\w*(?::\w+)*)(?=[{\[])", expression)) | set(
        re.findall(r"\bthalweg_(?!job\b|run\b|process\b|folder\b)[\w:]+", expression)
    )


def known() -> set[str]:
    """All that there is."""
    names = {metric.name for metric in METRICS if metric.kind is not Kind.HISTOGRAM}
    names |= {f"{m.name}_{part}" for m in METRICS if m.kind is Kind.HISTOGRAM for part in ("bucket", "sum", "count")}
    return names | {recording.name for recording in recordings()} | OF_OTHERS


def test_there_is_one_for_the_cluster_a_job_comparison_and_the_service():
    """Each has a uid of its own, by which links and bookmarks stay."""
    assert sorted(MODELS) == ["cluster.json", "comparison.json", "job.json", "service.json"]
    assert len({model["uid"] for model in MODELS.values()}) == 4


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_unit_a_description_and_words_for_when_it_is_empty(panel):
    """And its data source is a variable, so that it shows whichever Prometheus is chosen."""
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"]
    assert panel["description"].endswith(".")
    assert panel["targets"]
    assert {json.dumps(each["datasource"]) for each in [panel, *panel["targets"]]} == {
        '{"type": "prometheus", "uid": "${datasource}"}'
    }


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_series_that_there_are(panel):
    """A metric that is renamed is missed here."""
    for target in panel["targets"]:
        found = series_of(target["expr"])
        assert found, target
        assert found <= known(), target


@pytest.mark.parametrize("panel", PANELS)
def test_a_single_number_is_the_last_one_of_the_time_range(panel):
    """So that a run that has ended shows one."""
    for target in panel["targets"]:
        assert target["instant"] == (panel["type"] != "timeseries")
        assert ("$__range" in target["expr"]) == target["instant"]


@pytest.mark.parametrize("file", MODELS)
def test_runs_of_the_time_range_can_be_chosen(file):
    """Variables are asked for anew when the time range changes. The service is none of its runs."""
    source, *asked = MODELS[file]["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert [variable["name"] for variable in asked] == ([] if file == SERVICE else ["job", "run"])
    assert all(variable["refresh"] == 2 for variable in asked)
    assert all(variable["query"].startswith("label_values(") for variable in asked)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_panels_do_not_overlap(model):
    """On the 24 columns of Grafana; ids differ."""
    taken = set()
    for panel in model["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells
        taken |= cells
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])


def test_no_metric_is_for_nothing():
    """Each is in a panel or a rule."""
    expressions = [
        target["expr"] for model in MODELS.values() for p in model["panels"] for target in p.get("targets", ())
    ]
    expressions += [rule.expr for rule in (*recordings(), *alerts())]
    asked = set().union(*map(series_of, expressions))
    unused = [m.name for m in METRICS if not {m.name, f"{m.name}_bucket", f"{m.name}_sum"} & asked]
    assert unused == [
        "thalweg_started_timestamp_seconds",  # for those who look up when an attempt began
        "thalweg_worker_device_info",  # and what it runs on, which most runs have none of
        "thalweg_worker_device_memory_bytes",
    ]


def test_windows_follow_the_time_between_scrapes():
    """Nothing that is fixed in seconds is left behind."""
    for rule in (*recordings(Timing(scrape_s=30)), *alerts(Timing(scrape_s=30))):
        assert set(re.findall(r"\[(\w+)\]", rule.expr)) <= {"360s", "3600s"}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_grafanas_own_types_know_every_field(model):
    """Read by Grafana's SDK and written again, nothing is lost or different but what is empty."""
    sdk = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="needs grafana-foundation-sdk (dev)")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()  # the kinds of panels and of queries
    again = json.loads(json.dumps(sdk.Dashboard.from_json(json.loads(json.dumps(model))), cls=JSONEncoder))
    assert list(lost("", model, again)) == []


def lost(path: str, ours: object, theirs: object):
    """Where `theirs` lacks something of `ours`, or has something else."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if isinstance(theirs, dict) and key in theirs:
                yield from lost(f"{path}.{key}", value, theirs[key])
            elif value not in ({}, [], None, "", False, 0):
                yield f"{path}.{key}"
    elif isinstance(ours, list):
        if not isinstance(theirs, list) or len(ours) != len(theirs):
            yield path
        else:
            for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                yield from lost(f"{path}[{index}]", one, other)
    elif ours != theirs:
        yield f"{path}: {ours!r}, {theirs!r}"
