"""The page's door over real HTTP, without Ray: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from time import time
from urllib.parse import urlsplit

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.service.rows import submission
from tests.integration.job_service import served

from thalweg_cluster import web
from thalweg_cluster.client import Client
from thalweg_cluster.monitoring.catalogue import METRICS, Process
from thalweg_cluster.monitoring.targets import Target, sd_json, targets_in
from thalweg_cluster.security.certificates import make_certificates
from thalweg_cluster.security.guard import Guard, Tls
from thalweg_cluster.security.tokens import Tokens
from thalweg_cluster.service.page import door as page_door
from thalweg_proto.errors import InputError, ServerError
from thalweg_proto.jobs import State

JSON = {"Content-Type": "application/json"}
TIMEOUT_S = 60
ROW = {"time_s": 1.0, "train_loss": 0.5, "samples_per_s": 8.0, "evaluation": None, "so_far": None}


@pytest.fixture
def service(tmp_path):
    with served(tmp_path / "state") as standing:
        yield standing


@pytest.fixture
def locked(tmp_path):
    with served(tmp_path / "state", guard=Guard(tokens=Tokens.of(full="full", read="read"))) as standing:
        yield standing


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def connected(service) -> HTTPConnection:
    return HTTPConnection(urlsplit(service.page.url).netloc, timeout=TIMEOUT_S)


@contextmanager
def asked(service, method: str, path: str, headers=(), body=None):
    """The answer, as long as the block lasts."""
    connection = connected(service)
    try:
        connection.request(method, path, body, dict(headers))
        with connection.getresponse() as answer:
            yield answer
    finally:
        connection.close()


def ask(service, method: str, path: str, headers=(), body=None):
    """Status, and what the answer says."""
    with asked(service, method, path, headers, body) as answer:
        text = answer.read()
        return answer.status, json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


def add(service, name: str = "digits", state: State = State.QUEUED, workers: int = 9) -> int:
    """A job in the table; it has too many workers to start by itself."""
    number = len(service.table.ids()) + 1
    taken = submission(f"request-{number}", name=name, workers=workers)
    job = service.table.add(taken, lambda job_id: service.keeper.folder(job_id).mkdir(parents=True))
    if state is not State.QUEUED:
        service.table.change(job.id, State.RUNNING, started_s=2.0)
        service.runner.alive[service.keeper.folder(job.id)] = None
    return job.id


def news_until(answer, condition):
    """The news, up to those that fulfil `condition`."""
    for line in answer:
        if line.strip() and condition(news := json.loads(line)):
            return news
    raise AssertionError("the news ended")


# What is answered


def test_the_page_is_whole_and_names_no_other_host(service):
    """Each file that it names is there, under a policy that lets it load nothing else."""
    with asked(service, "GET", "/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        html = answer.read().decode()
    assert "://" not in html
    files = {"icon.svg", "page.css", "page.js", "uplot/uPlot.min.css", "uplot/uPlot.iife.min.js"}
    assert all(f'"{file}"' in html for file in files)
    for file in (*files, "jobs.js", "job.js", "charts.js", "api.js", "words.js", "uplot/LICENSE"):
        assert ask(service, "GET", f"/{file}")[0] == 200, file
    for path in ("/nothing", "/../door.py", "/%2e%2e/door.py", "//etc/passwd", "/api", "/api/jobs/1"):
        assert ask(service, "GET", path)[0] == 404, path


def test_jobs_are_listed_the_newest_first_and_older_ones_after_one(service):
    """With the fields of `thalweg jobs --json`."""
    for name in ("first", "second", "third"):
        add(service, name)
    status, answer = ask(service, "GET", "/api/jobs")
    assert status == 200
    assert [job["name"] for job in answer["jobs"]] == ["third", "second", "first"]
    assert (answer["jobs"][0]["state"], answer["jobs"][0]["workers"]) == ("queued", 9)
    assert [job["id"] for job in ask(service, "GET", "/api/jobs?before=2")[1]["jobs"]] == ["1"]
    assert ask(service, "GET", "/api/jobs?before=x")[0] == 400


def test_news_come_as_things_happen(service):
    """Jobs, then changes of theirs; of the one that is looked at its curve, as its run writes it."""
    job = add(service, state=State.RUNNING)
    metrics = service.keeper.folder(job) / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 1, **ROW}) + "\n")
    with asked(service, "GET", f"/api/news?job={job}") as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        first = json.loads(next(answer))
        assert first["jobs"][0]["state"] == "running"
        assert first["counts"] == {"running": 1}
        assert first["run"]["curve"] == {
            "anew": True,
            "points": [{"step": 1, "time_s": 1.0, "train_loss": 0.5, "samples_per_s": 8.0}],
        }
        with metrics.open("a") as stream:
            stream.write(json.dumps({"step": 2, **ROW}) + "\n")
        more = news_until(answer, lambda news: "curve" in news.get("run", {}))
        assert not more["run"]["curve"]["anew"]
        assert more["run"]["newest"]["step"] == 2
        another = add(service, "another")
        service.changes.tell()
        told = news_until(answer, lambda news: any(job["name"] == "another" for job in news.get("jobs", ())))
        assert told["counts"] == {"queued": 1, "running": 1}
        service.table.cancel(another, 5.0)
        service.changes.tell()
        news_until(answer, lambda news: [job["state"] for job in news.get("jobs", ())] == ["cancelled"])
    assert ask(service, "GET", "/api/news?job=77")[0] == 404


def test_a_job_is_cancelled(service):
    """One that waits at once; one that runs is asked to end, once; an unknown one is not found."""
    waits, runs = add(service), add(service, state=State.RUNNING)
    status, job = ask(service, "POST", f"/api/jobs/{waits}/cancel", JSON, "{}")
    assert (status, job["state"]) == (200, "cancelled")
    status, job = ask(service, "POST", f"/api/jobs/{runs}/cancel", JSON, "{}")
    assert (status, job["state"]) == (200, "cancelling")
    status, answer = ask(service, "POST", f"/api/jobs/{runs}/cancel", JSON, "{}")
    assert status == 409
    assert answer["error"] == "job 2: expected one that waits or runs; found one that is being cancelled"
    assert ask(service, "POST", "/api/jobs/77/cancel", JSON, "{}") == (
        404, {"error": "expected a job of this service; found 77"}
    )  # fmt: skip
    assert ask(service, "POST", "/api/jobs/x/cancel", JSON, "{}")[0] == 400
    assert ask(service, "POST", "/api/jobs", JSON, "{}")[0] == 404


def test_every_metrics_of_the_jobs_that_run_is_listed_and_always_with_200(service):
    """None, then all of them each time; what a run has left that is over, and what is none of ours, is not."""

    def targets():
        status, answer = ask(service, "GET", "/targets")
        assert status == 200
        return targets_in(json.dumps(answer))

    assert targets() == []
    folder = service.state / "targets"

    folder.mkdir()

    def announce(job: int, *ports: int) -> list[Target]:
        where = str(service.keeper.folder(job))
        found = [
            Target(address=f"127.0.0.1:{port}", job="digits", run=str(job), process=f"server {host}", folder=where)
            for host, port in enumerate(ports)
        ]
        (folder / f"run-{job}.json").write_text(sd_json(found))
        return found

    first, second = add(service, state=State.RUNNING), add(service, state=State.RUNNING)
    expected = announce(first, 9001, 9002) + announce(second, 9003)
    announce(77, 9004)
    (folder / "broken.json").write_text("[{")
    for _ in range(2):
        assert targets() == expected
    service.table.change(first, State.SUCCEEDED)
    assert {target.run for target in targets()} == {"2"}


# To whom


def test_without_a_token_nothing_but_the_page_itself_is_told(locked):
    """A wrong one is told from none; the read-only one may look, the full one may cancel."""
    job = add(locked)
    for path in ("/api/jobs", "/api/news", "/targets", "/nothing"):
        assert ask(locked, "GET", path)[0] == 401, path
        assert ask(locked, "GET", path, bearer("other"))[0] == 401, path
    with asked(locked, "GET", "/api/jobs") as answer:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert ask(locked, "GET", "/page.js")[0] == 200
    assert ask(locked, "GET", "/targets", bearer("read"))[0] == 200
    assert len(ask(locked, "GET", "/api/jobs", bearer("read"))[1]["jobs"]) == 1
    status, answer = ask(locked, "POST", f"/api/jobs/{job}/cancel", JSON | bearer("read"), "{}")
    assert status == 403
    assert "expected the full token" in answer["error"]
    assert locked.table.get(job).state is State.QUEUED
    assert ask(locked, "POST", f"/api/jobs/{job}/cancel", JSON | bearer("full"), "{}")[0] == 200


def test_other_pages_in_the_same_browser_are_kept_out(service):
    """A name that was made to lead here (DNS rebinding), a form or a script of another origin (CSRF)."""
    job = add(service)
    for path in ("/", "/api/jobs", "/targets"):
        assert ask(service, "GET", path, {"Host": "evil.example"})[0] == 421, path
    cancel = f"/api/jobs/{job}/cancel"
    assert ask(service, "POST", cancel, JSON | {"Host": "evil.example"}, "{}")[0] == 421
    assert ask(service, "POST", cancel, JSON | {"Origin": "http://evil.example"}, "{}")[0] == 403
    assert ask(service, "POST", cancel, {"Content-Type": "text/plain"}, "{}")[0] == 415
    assert ask(service, "GET", cancel)[0] == 404
    with asked(service, "OPTIONS", cancel) as answer:
        assert answer.status == 501
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert service.table.get(job).state is State.QUEUED
    own = {"Origin": service.page.url.rstrip("/")}
    assert ask(service, "POST", cancel, JSON | own, "{}")[0] == 200


def test_beyond_loopback_it_listens_with_a_token_and_tls_only(tmp_path):
    """As the gRPC door, whose words it uses."""
    for guard in (Guard(), Guard(tokens=Tokens.of(full="full"))):
        with pytest.raises(ServerError, match=r"refused to listen on 0\.0\.0\.0: expected a token and TLS"):
            page_door.PageDoor(
                "0.0.0.0", 0, names=[], table=None, keeper=None, changes=None, targets=tmp_path, calls=None, guard=guard
            )  # fmt: skip


def test_with_tls_the_page_is_what_the_certificate_says(tmp_path):
    """Who trusts its authority gets in; who speaks no TLS gets nothing, and holds nobody up."""
    made = make_certificates(["127.0.0.1"])
    guard = Guard(tokens=Tokens.of(full="full"), tls=Tls(certificate=made.certificate, key=made.key))
    with served(tmp_path / "state", guard=guard) as service:
        assert service.page.url.startswith("https://")
        host = urlsplit(service.page.url).netloc
        with socket.create_connection(tuple(host.split(":"))) as silent:
            trust = ssl.create_default_context(cadata=made.ca.decode())
            connection = HTTPSConnection(host, context=trust, timeout=TIMEOUT_S)
            connection.request("GET", "/api/jobs", headers=bearer("full"))
            assert connection.getresponse().status == 200
            connection.close()
            silent.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"200" not in silent.recv(1000)


# Bounds, and mistakes


def test_listeners_are_bounded_and_room_is_given_back(service, monkeypatch):
    """One too many is told so; when another one has gone, which is found when it is written to, there is room."""
    monkeypatch.setattr(page_door, "HEARTBEAT_S", 0.0)
    service.page._room = threading.BoundedSemaphore(1)
    with asked(service, "GET", "/api/news") as first:
        next(first)
        status, answer = ask(service, "GET", "/api/news")
        assert status == 503
        assert "expected at most" in answer["error"]
    assert service.page._room.acquire(timeout=TIMEOUT_S)
    service.page._room.release()


def test_a_heartbeat_comes_where_nothing_else_does(service, monkeypatch):
    """An empty line."""
    monkeypatch.setattr(page_door, "HEARTBEAT_S", 0.0)
    with asked(service, "GET", "/api/news") as answer:
        assert [next(answer), next(answer)] == [b'{"counts": {}}\n', b"\n"]


def test_the_news_end_with_the_service(tmp_path):
    """At once, and no thread is left."""
    with served(tmp_path / "state") as service:
        connection = connected(service)
        connection.request("GET", "/api/news")
        answer = connection.getresponse()
        add(service)
        service.changes.tell()
        news_until(answer, lambda news: "jobs" in news)
    assert answer.read().strip() == b""
    connection.close()
    assert [thread.name for thread in threading.enumerate() if thread.name == "thalweg-page"] == []


def test_who_says_too_little_too_slowly_or_too_much_is_let_go(service, monkeypatch):
    """A connection that says nothing ends; so does one that says a bit of it now and then; a long body is not read."""
    job = add(service)
    assert ask(service, "POST", f"/api/jobs/{job}/cancel", JSON, "x" * 2000)[0] == 413
    assert ask(service, "POST", f"/api/jobs/{job}/cancel", JSON | {"Content-Length": "-1"}, "")[0] == 413
    monkeypatch.setattr(web, "SILENT_S", 0.2)
    host, port = urlsplit(service.page.url).netloc.split(":")
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as slow:
        slow.sendall(b"GET /")
        assert slow.recv(100) == b""


def test_a_mistake_of_ours_is_told_with_an_id_only(service, monkeypatch, caplog):
    """The log has the rest under it."""
    monkeypatch.setattr(service.page, "jobs", lambda before: 1 / 0)
    status, answer = ask(service, "GET", "/api/jobs")
    assert status == 500
    name = answer["error"].split()[1].rstrip(":")
    assert "division" not in answer["error"]
    assert any(name in record.message for record in caplog.records)


def test_the_services_own_metrics_say_what_was_asked_and_what_waits(service):
    """Jobs by state, all states; calls by method and status; the longest time in the queue. promtool's rules hold."""
    service.table.add(submission(submitted_s=time() - 60, workers=9), lambda _: None)  # too many to start
    with Client(service.address) as client:
        client.get("1")
        with pytest.raises(InputError):
            client.get("2")
    with asked(service, "GET", "/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    jobs = {state.value: found["thalweg_jobs", state.value] for state in State}
    assert jobs == dict.fromkeys(jobs, 0) | {"queued": 1}
    assert 60 <= found[("thalweg_oldest_queued_seconds",)] < 600
    assert found["thalweg_service_calls_total", "Get", "OK"] == 1
    assert found["thalweg_service_calls_total", "Get", "NOT_FOUND"] == 1
    assert found["thalweg_service_call_seconds_count", "Get"] == 2
    assert found[("process_resident_memory_bytes",)] > 0
    ours = {family.name for family in text_string_to_metric_families(text) if family.name.startswith("thalweg_")}
    assert ours == {metric.family for metric in METRICS if metric.process is Process.SERVICE}


def test_the_services_own_metrics_are_for_those_with_a_token(locked):
    """The read-only one will do. Calls that were not let in are counted, too, but of no method that there is not."""
    assert ask(locked, "GET", "/metrics")[0] == 401
    with Client(locked.address, token="wrong") as client, pytest.raises(InputError):
        client.get("1")
    with grpc.insecure_channel(locked.address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/thalweg.v1.JobService/Made up")(b"")
    with asked(locked, "GET", "/metrics", bearer("read")) as answer:
        assert answer.status == 200
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("thalweg_service_calls_total")]
    assert lines == ['thalweg_service_calls_total{method="Get",status="UNAUTHENTICATED"} 1']
