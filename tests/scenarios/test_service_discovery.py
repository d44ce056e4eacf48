"""A real Prometheus asks a service what there is to scrape, and the service itself."""

from __future__ import annotations

from time import time

import pytest
from tests.cluster.service.rows import submission
from tests.integration.job_service import served
from tests.scenarios.prometheus import implausible, needs_prometheus, panel_queries, until, watching

from thalweg_cluster.client import Client
from thalweg_cluster.exposition import serve
from thalweg_cluster.launch.announcing import Announcement
from thalweg_cluster.monitoring.dashboards import SERVICE
from thalweg_cluster.monitoring.targets import Target
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.security.tokens import Tokens
from thalweg_proto.jobs import State


@pytest.fixture
def guard(tmp_path, monkeypatch):
    """Of a service that asks for tokens; Prometheus gets the read-only one, from a file."""
    token = tmp_path / "token"
    token.write_text("read\n")
    monkeypatch.setenv("THALWEG_READ_TOKEN_FILE", str(token))
    return Guard(tokens=Tokens.of(full="full", read="read"))


@needs_prometheus
@pytest.mark.slow
def test_prometheus_scrapes_what_the_service_lists_with_the_token_of_a_file(tmp_path, guard):
    """As long as the job runs; the labels say which job it is."""
    with served(tmp_path / "state", guard=guard) as service:
        # Of too many workers for the keeper to start it by itself meanwhile.
        waits = submission(workers=9)
        job = service.table.add(waits, lambda job_id: service.keeper.folder(job_id).mkdir(parents=True))
        service.runner.alive[service.keeper.folder(job.id)] = None
        service.table.change(job.id, State.RUNNING, started_s=1.0)
        port = serve(lambda: "thalweg_step 7\n", 0)
        target = Target(
            address=f"127.0.0.1:{port}",
            job="digits",
            run="1",
            process="coordinator",
            folder=str(service.keeper.folder(job.id)),
        )
        Announcement(service.state / "targets", "run-1").write([target])
        url = f"{service.page.url}targets"
        with watching(tmp_path / "monitor", tmp_path / "none", "--interval", "1", "--service", url) as prometheus:
            [(labels, step)] = until(lambda: prometheus.query("thalweg_step"), "a scrape", 60)
            assert (labels["thalweg_job"], labels["thalweg_process"], step) == ("digits", "coordinator", 7)
            service.table.change(job.id, State.SUCCEEDED)
            until(lambda: prometheus.query("up{job='thalweg'}") == [], "that nothing is scraped any more", 60)


@needs_prometheus
@pytest.mark.slow
def test_every_panel_of_the_service_has_an_answer(tmp_path, guard):
    """Of jobs that wait and calls that were answered, with the read-only token."""
    with served(tmp_path / "state", guard=guard) as service, Client(service.address, token="read") as client:
        service.table.add(submission(submitted_s=time() - 10, workers=9), lambda _: None)  # too many to start
        url = f"{service.page.url}targets"
        with watching(tmp_path / "monitor", tmp_path / "none", "--interval", "1", "--service", url) as prometheus:

            def unanswered() -> dict[str, str]:
                client.get("1")
                return {
                    name: why
                    for name, (expression, panel) in panel_queries().items()
                    if name.startswith(SERVICE)
                    and (why := implausible([v for _, v in prometheus.query(expression)], panel, expression))
                }

            until(lambda: not unanswered(), "an answer to every panel of the service", 60)
            assert prometheus.query('thalweg_jobs{job_state="queued"}')[0][1] == 1
            assert prometheus.query("thalweg_oldest_queued_seconds")[0][1] >= 10
            assert prometheus.query('thalweg_service_calls_total{method="Get", status="OK"}')[0][1] >= 1
