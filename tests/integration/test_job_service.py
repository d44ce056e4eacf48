"""The service's door over real gRPC, without Ray: what it takes, what it refuses, and what it keeps."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.integration.job_service import JOB, Served, served

from thalweg_cluster.client import Client, Job, MetricsRow
from thalweg_cluster.client import calling as client_calling
from thalweg_cluster.security.certificates import make_certificates
from thalweg_cluster.security.guard import Guard, Tls
from thalweg_cluster.security.tokens import Tokens, bearer
from thalweg_proto.errors import InputError, RunError, ServerError
from thalweg_proto.jobs import PROTOCOL_VERSION
from thalweg_proto.v1 import job_service_pb2 as pb
from thalweg_proto.v1.job_service_pb2_grpc import JobServiceStub

TIMEOUT_S = 60
SUMMARY = json.dumps(
    {"state": "succeeded", "error": None, "workers": 2, "steps": 3, "train_loss": 0.5, "samples_per_s": 9.0}
)


@pytest.fixture
def service(tmp_path):
    with served(tmp_path / "state") as standing:
        yield standing


@pytest.fixture
def client(service):
    with Client(service.address) as made:
        yield made


@pytest.fixture
def job(tmp_path) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(JOB)
    return file


@pytest.fixture
def stub(service):
    with grpc.insecure_channel(service.address) as channel:
        yield JobServiceStub(channel)


def status_of(call) -> tuple[StatusCode | None, str]:
    """The status that a call ends with, and its details; None: it goes well."""
    try:
        answer = call()
        if hasattr(answer, "__next__"):
            list(answer)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None, ""


def until(client: Client, job_id: str, state: str) -> Job:
    """The job, as soon as it is in a state."""
    for news in client.watch(job_id):
        if isinstance(news, Job) and news.state == state:
            return news
    raise AssertionError(f"it ended without having been {state}")


def row(step: int, evaluation=None) -> str:
    values = {
        "step": step, "time_s": 1.0, "train_loss": 0.5, "learning_rate": 0.1, "gradient_norm": None,
        "samples_per_s": 8.0, "evaluation": evaluation,
    }  # fmt: skip
    return json.dumps(values) + "\n"


# The way of a job


def test_a_job_from_its_submit_to_its_end(service, client, job):
    """It waits, runs, tells its rows as they come, ends as its summary says, and can be asked for ever after."""
    taken = client.submit(job, ["cluster.workers=2"], priority=3)
    assert (taken.id, taken.name, taken.priority, taken.workers) == ("1", "tiny", 3, 2)
    news = client.watch("1")
    while (seen := next(news)).state != "running":
        assert seen.state == "queued"
    folder = service.keeper.folder(1)
    assert (folder / "submitted" / "job.toml").is_file()
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write(row(1) + row(2, {"loss": 0.25, "accuracy": 0.75}))
    first, second = next(news), next(news)
    assert isinstance(first, MetricsRow)
    assert (first.step, first.train_loss, first.gradient_norm, first.eval_loss) == (1, 0.5, None, None)
    assert (second.step, second.eval_loss, second.eval_accuracy) == (2, 0.25, 0.75)
    now = client.get("1")
    assert (now.step, now.loss, now.samples_per_s) == (2, 0.5, 8.0)
    assert now.worker_seconds > 0
    service.runner.end(folder, SUMMARY)
    [last] = list(news)
    assert (last.state, last.step, last.loss, last.samples_per_s) == ("succeeded", 3, 0.5, 9.0)
    assert client.get("1") == last == client.jobs()[0]
    assert [each for each in client.watch("1", after_step=1) if isinstance(each, MetricsRow)] == [second]


def test_a_job_waits_for_room_and_says_so_to_who_watches(service, client, job):
    """As soon as there is room it starts."""
    client.submit(job, ["cluster.workers=2"])
    until(client, "1", "running")
    client.submit(job, ["cluster.workers=2"])
    whys = []
    for news in client.watch("2"):
        whys.append(news.why)
        if news.why == "needs 2 CPUs, 0 free":
            service.runner.end(service.keeper.folder(1), SUMMARY)
        if news.state == "running":
            break
    assert "needs 2 CPUs, 0 free" in whys
    assert [each.state for each in client.jobs()] == ["running", "succeeded"]
    assert [each.id for each in client.jobs(state="running")] == ["2"]
    assert [each.id for each in client.jobs(limit=1)] == ["2"]


def test_the_files_of_a_job_arrive_byte_by_byte(service, client, tmp_path):
    """Larger ones than a message, and empty ones."""
    data = os.urandom(900_000)
    (tmp_path / "x.npy").write_bytes(data)
    (tmp_path / "y.npy").write_bytes(b"")
    (tmp_path / "m.py").write_text("code")
    file = tmp_path / "job.toml"
    file.write_text('[data]\ntrain = {x = "x.npy", y = "y.npy"}\n[model]\nuse = "m.py:build"\n[train]\nsteps = 1\n')
    client.submit(file)
    folder = service.keeper.folder(1) / "submitted" / "files"
    assert [(folder / name).read_bytes() for name in ("0/x.npy", "1/y.npy", "2/m.py")] == [data, b"", b"code"]
    assert list((service.state / "incoming").iterdir()) == []


def test_a_log_is_told_while_it_grows_and_to_its_end(service, client, job):
    """In pieces that fit a message; without `follow`, what is there."""
    client.submit(job)
    until(client, "1", "running")
    log = service.keeper.folder(1) / "log.txt"
    log.write_bytes(b"a" * 70_000)
    assert b"".join(client.logs("1")) == b"a" * 70_000
    pieces = client.logs("1", follow=True)
    assert b"".join(itertools.islice(pieces, 2)) == b"a" * 70_000
    with log.open("ab") as stream:
        stream.write(b"the end")
    service.runner.end(log.parent, SUMMARY)
    assert b"".join(pieces) == b"the end"


# Cancel and resume


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_is_asked_to_end(service, client, job):
    """SIGTERM, which `thalweg train` answers with a checkpoint. A second time is refused, and says why."""
    client.submit(job, ["cluster.workers=2"])
    until(client, "1", "running")
    client.submit(job, ["cluster.workers=2"])
    assert client.cancel("2").state == "cancelled"
    with pytest.raises(InputError, match="job 2: expected one that waits or runs; found one that is cancelled"):
        client.cancel("2")
    assert client.cancel("1").state == "cancelling"
    with pytest.raises(InputError, match="job 1: expected one that waits or runs; found one that is being cancelled"):
        client.cancel("1")
    known = 0
    while not service.runner.signals:
        known = service.changes.wait(known, 0.1)
    assert service.runner.signals == [("1", signal.SIGTERM)]
    service.runner.end(service.keeper.folder(1), json.dumps({"state": "cancelled", "workers": 2, "steps": 1}))
    assert until(client, "1", "cancelled").step == 1


def test_a_job_that_was_cancelled_can_go_on(service, client, job):
    """It waits again, with what it has cost; one that runs, or has succeeded, cannot."""
    client.submit(job)
    until(client, "1", "running")
    with pytest.raises(
        InputError, match="job 1: expected one that was cancelled, or has failed; found one that is run"
    ):
        client.resume("1")
    service.runner.end(service.keeper.folder(1), json.dumps({"state": "cancelled", "workers": 2, "steps": 1}))
    cost = until(client, "1", "cancelled").worker_seconds
    assert client.resume("1").state == "queued"
    again = until(client, "1", "running")
    assert again.attempts == 2
    assert again.worker_seconds >= cost
    service.runner.end(service.keeper.folder(1), SUMMARY)
    until(client, "1", "succeeded")
    with pytest.raises(InputError, match="found one that is succeeded"):
        client.resume("1")


# What is refused


def test_a_job_with_mistakes_is_refused_with_all_of_them_and_leaves_nothing(service, client, job):
    """As the service found them; no job, no folder, no file."""
    with pytest.raises(InputError) as caught:
        client.submit(job, ["train.steps=2000"])
    assert [str(problem) for problem in caught.value.problems] == [
        "train.steps: expected less; found more\n    a hint", "data: expected files/0/x; found none",
    ]  # fmt: skip
    assert client.jobs() == []
    assert list((service.state / "jobs").iterdir()) == list((service.state / "incoming").iterdir()) == []


@pytest.mark.parametrize("call", ["get", "cancel", "resume", "watch", "logs"])
@pytest.mark.parametrize(
    ("job_id", "said"),
    [("7", "id: expected a job of this service; found 7"), ("x", "id: expected the number of a job; found 'x'")],
)
def test_an_unknown_job_is_named(client, call, job_id, said):
    """By each call that takes one."""
    with pytest.raises(InputError, match=said):
        list(getattr(client, call)(job_id))


def test_files_over_the_limit_are_refused_before_they_travel(service, client, tmp_path):
    """By name, with what to do instead."""
    (tmp_path / "large.csv").write_bytes(b"x" * (3 << 20))
    file = tmp_path / "job.toml"
    file.write_text('[data]\ntrain = "large.csv"\n[model]\nuse = "linear"\n[train]\nsteps = 1\n')
    with pytest.raises(InputError, match=rf"at most 1.0 MiB in all; found 3.0 MiB, of which {tmp_path / 'large.csv'}"):
        client.submit(file)
    assert client.submit(file, in_place=True).id == "1"


def test_a_client_of_another_version_is_refused_and_told_so(client, monkeypatch, job):
    """By each call: the release of both sides has to be the same."""
    client.submit(job)
    monkeypatch.setattr(client_calling, "PROTOCOL_VERSION", PROTOCOL_VERSION + 1)
    calls = {
        "submit": lambda: client.submit(job), "get": lambda: client.get("1"), "jobs": client.jobs,
        "cancel": lambda: client.cancel("1"), "resume": lambda: client.resume("1"),
        "watch": lambda: list(client.watch("1")), "logs": lambda: list(client.logs("1")),
    }  # fmt: skip
    for call in calls.values():
        with pytest.raises(InputError, match="protocol_version: expected 1; found 2: both sides need the same release"):
            call()


def test_what_no_client_of_ours_would_send_is_refused(stub, service):
    """Field by field, and nothing is left of it."""
    header = pb.SubmitHeader(protocol_version=PROTOCOL_VERSION, request_id="request-1", job=JOB)
    traversal = pb.SubmitHeader(**{**_fields(header), "files": [pb.FileHeader(name="../../x", bytes=1)]})
    short = pb.SubmitHeader(**{**_fields(header), "files": [pb.FileHeader(name="files/0/x", bytes=2)]})
    data = pb.SubmitPart(data=b"x")
    wrong = {
        "part: expected a header first; found nothing": [],
        "part: expected a header first; found data": [data],
        "files.name": [pb.SubmitPart(header=traversal), data],
        "data of x: expected 2 bytes; found the end": [pb.SubmitPart(header=short), data],
        "part: expected data": [pb.SubmitPart(header=short), pb.SubmitPart(header=short)],
    }
    for said, parts in wrong.items():
        code, details = status_of(lambda p=parts: stub.Submit(iter(p), timeout=TIMEOUT_S))
        assert code is StatusCode.INVALID_ARGUMENT
        assert said in details
    for request, said in (
        (pb.ListRequest(protocol_version=PROTOCOL_VERSION, limit=1001), "limit: expected at most 1000; found 1001"),
        (pb.ListRequest(protocol_version=PROTOCOL_VERSION, state=77), "state: expected a JobState; found 77"),
        (pb.ListRequest(protocol_version=PROTOCOL_VERSION, before="x"), "before: expected the number of a job"),
    ):
        code, details = status_of(lambda r=request: stub.List(r, timeout=TIMEOUT_S))
        assert code is StatusCode.INVALID_ARGUMENT
        assert said in details
    too_much = pb.SubmitPart(data=b"x" * (8 << 20))
    code, _ = status_of(lambda: stub.Submit(iter([pb.SubmitPart(header=short), too_much]), timeout=TIMEOUT_S))
    assert code is StatusCode.RESOURCE_EXHAUSTED
    assert service.table.count() == 0
    assert list((service.state / "incoming").iterdir()) == []


def _fields(message):
    return {field.name: value for field, value in message.ListFields()}


def test_a_mistake_of_the_service_is_internal_with_an_id(service, client, job, caplog):
    """The log has the rest under this id; the caller does not."""
    service.checks.raises = ZeroDivisionError("a secret")
    with pytest.raises(RunError, match=r"error [0-9a-f]{8}: the log of the server tells") as caught:
        client.submit(job)
    assert "secret" not in str(caught.value)
    assert "a secret" in caplog.text
    service.checks.raises = None
    assert client.submit(job).id == "1"


@pytest.mark.parametrize("kind", ["files", "table"])
def test_on_a_full_disk_submits_are_refused_and_running_jobs_go_on(kind, service, client, job, monkeypatch):
    """It says that nothing was taken; when there is room again, the same request makes its job."""
    client.submit(job)
    until(client, "1", "running")
    with pytest.MonkeyPatch.context() as patch:
        if kind == "files":

            def full(*args):
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr("thalweg_cluster.service.shipping.os.fsync", full)
        else:
            pages = service.table._writer.execute("PRAGMA page_count").fetchone()[0]
            service.table._writer.execute(f"PRAGMA max_page_count = {pages}")
        long = f"name={'x' * 100}"

        def many() -> None:
            for i in range(1000):  # the table has some room left
                client.submit(job, [long], request_id=f"request-{i:04}")

        with pytest.raises(RunError, match="the service's disk is full, nothing was taken"):
            many()
        taken = service.table.count()
        service.table._writer.execute("PRAGMA max_page_count = 100000")
    assert client.get("1").state == "running"
    assert client.submit(job, [long], request_id=f"request-{taken - 1:04}").id == str(taken + 1)
    assert {int(path.name) for path in (service.state / "jobs").iterdir()} == service.table.ids()
    service.runner.end(service.keeper.folder(1), SUMMARY)
    assert until(client, "1", "succeeded").step == 3


def test_a_table_that_another_program_holds_is_no_mistake_of_ours(service, client, job, monkeypatch):
    """Submits are told so, reads go on."""
    client.submit(job)
    until(client, "1", "running")
    service.table._writer.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(service.state / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunError, match="another program has the service's table"):
        client.submit(job)
    assert client.get("1").state == "running"
    other.execute("ROLLBACK")
    other.close()
    assert client.submit(job).id == "2"


def test_a_service_that_is_not_there_is_told_with_its_address_and_what_to_start():
    """At once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with Client(address) as client, pytest.raises(InputError) as caught:
            client.get("1")
    said = str(caught.value)
    assert f"--address: expected a thalweg service; found '{address}': Connection refused" in said
    assert f"start one with `thalweg serve --address {address} --state DIR`" in said


@pytest.mark.parametrize("address", ["", "nowhere", ":80", "host:", "host:0", "host:70000", "host:x"])
def test_what_is_no_address_is_refused(address):
    """Before anybody is called."""
    with pytest.raises(InputError, match="--address: expected HOST:PORT of a thalweg service; found"):
        Client(address)


# Tokens and TLS


def test_each_token_lets_in_to_what_it_was_given_for(tmp_path, job):
    """None and a wrong one to nothing; the read-only one to see, not to do; Health takes none."""
    guard = Guard(tokens=Tokens.of(full="full", read="read"))
    with served(tmp_path / "state", guard=guard) as service, grpc.insecure_channel(service.address) as channel:
        with Client(service.address, token="full") as full:
            full.submit(job)
            until(full, "1", "running")
            service.runner.end(service.keeper.folder(1), json.dumps({"state": "failed", "error": "x"}))
            until(full, "1", "failed")
        stub = JobServiceStub(channel)
        version = {"protocol_version": PROTOCOL_VERSION}
        header = pb.SubmitHeader(request_id="request-2", job=JOB, **version)
        calls = {
            "Get": lambda m: stub.Get(pb.GetRequest(id="1", **version), metadata=m, timeout=TIMEOUT_S),
            "List": lambda m: stub.List(pb.ListRequest(**version), metadata=m, timeout=TIMEOUT_S),
            "Watch": lambda m: stub.Watch(pb.WatchRequest(id="1", **version), metadata=m, timeout=TIMEOUT_S),
            "Logs": lambda m: stub.Logs(pb.LogsRequest(id="1", **version), metadata=m, timeout=TIMEOUT_S),
            "Submit": lambda m: stub.Submit(iter([pb.SubmitPart(header=header)]), metadata=m, timeout=TIMEOUT_S),
            "Resume": lambda m: stub.Resume(pb.ResumeRequest(id="1", **version), metadata=m, timeout=TIMEOUT_S),
            "Cancel": lambda m: stub.Cancel(pb.CancelRequest(id="1", **version), metadata=m, timeout=TIMEOUT_S),
        }
        reads = ("Get", "List", "Watch", "Logs")
        for name, call in calls.items():
            assert status_of(lambda c=call: c([]))[0] is StatusCode.UNAUTHENTICATED
            assert status_of(lambda c=call: c([bearer("wrong")]))[0] is StatusCode.UNAUTHENTICATED
            code = status_of(lambda c=call: c([bearer("read")]))[0]
            assert code is (None if name in reads else StatusCode.PERMISSION_DENIED), name
        assert service.table.count() == 1
        for name, call in calls.items():
            assert status_of(lambda c=call: c([bearer("full")]))[0] is None, name
        checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        with (
            Client(service.address, token="wrong") as wrong,
            pytest.raises(InputError, match="THALWEG_TOKEN: expected a token that this door knows; found another one"),
        ):
            wrong.jobs()
        with (
            Client(service.address, token="read") as reader,
            pytest.raises(
                InputError, match=r"THALWEG_TOKEN: expected the full token for .*Cancel; found the read-only"
            ),
        ):
            reader.cancel("1")


def test_beyond_loopback_a_service_does_not_listen_without_token_and_tls(tmp_path):
    """It says what is missing."""
    with pytest.raises(ServerError, match="found no token and no TLS"):
        Served(tmp_path, bind="0.0.0.0")


def test_under_tls_who_trusts_the_authority_gets_in_and_who_does_not_is_told(tmp_path, job):
    """Plaintext does not get in, either."""
    made = make_certificates(["127.0.0.1"])
    tls = Tls(certificate=made.certificate, key=made.key)
    with served(tmp_path / "state", guard=Guard(tokens=Tokens.of(full="full"), tls=tls)) as service:
        with Client(service.address, token="full", ca=made.ca) as client:
            assert client.submit(job).id == "1"
        for ca in (None, make_certificates(["127.0.0.1"]).ca):
            with (
                Client(service.address, token="full", ca=ca) as stranger,
                pytest.raises(InputError, match="THALWEG_CA_FILE names its authority"),
            ):
                stranger.jobs()


# Many


def test_the_same_request_makes_one_job_however_often_and_at_once(service, job):
    """And another job under its id is refused."""
    with Client(service.address) as client, ThreadPoolExecutor(8) as pool:
        ids = {each.id for each in pool.map(lambda _: client.submit(job, request_id="request-1"), range(16))}
        assert ids == {"1"}
        assert service.table.count() == 1
        with pytest.raises(InputError, match="request_id: expected one of its own for each job; found that of job 1"):
            client.submit(job, ["train.steps=4"], request_id="request-1")


class Killable:
    """A service in a process of its own, on a port that stays."""

    def __init__(self, state: Path) -> None:
        self.state, self.port = state, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.integration.job_service", str(self.state), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.slow
def test_1000_submits_by_8_clients_over_kill_9_lose_and_double_nothing(tmp_path, job):
    """Each client tries again with the same request id until it is answered; what was answered stays."""
    service = Killable(tmp_path / "state")
    answers: dict[str, str] = {}
    done, lock = threading.Semaphore(0), threading.Lock()

    def submit(number: int) -> None:
        with Client(f"127.0.0.1:{service.port}", patience_s=120) as client:
            for i in range(number, 1000, 8):
                name = f"request-{i:04}"
                job_id = client.submit(job, [f"seed={i}"], request_id=name).id
                with lock:
                    answers[name] = job_id
                done.release()

    try:
        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(submit, number) for number in range(8)]
            for _ in range(3):
                for _ in range(200):
                    assert done.acquire(timeout=TIMEOUT_S)
                service.kill()
                service.start()
            for each in clients:
                each.result()
        with Client(f"127.0.0.1:{service.port}") as client:
            jobs = client.jobs(limit=2000)
            assert len(jobs) == 1000 == len(answers)
            assert len(set(answers.values())) == 1000
            assert {each.id for each in jobs} == set(answers.values())
    finally:
        service.kill()
    for name, job_id in answers.items():
        submitted = (tmp_path / "state" / "jobs" / job_id / "submitted" / "job.toml").read_text()
        assert f"seed = {int(name.removeprefix('request-'))}\n" in submitted


@pytest.mark.parametrize(
    "share", [50, pytest.param(99, marks=pytest.mark.bench)]
)  # other work on the machine is in the slowest calls
def test_get_is_quick_with_10000_jobs_in_the_table(share, service, client, job):
    """99 of 100 within 50 ms, while others submit; and all of them can be listed."""
    with service.table._changing() as writer:
        columns = "request_id, digest, name, state, priority, workers, max_failures, submitted_s"
        rows = [(f"old-{i}", "d", "old", "succeeded", 0, 1, 3, float(i)) for i in range(10_000)]
        writer.executemany(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    stop = threading.Event()

    def submit() -> None:
        with Client(service.address) as other:
            while not stop.is_set():
                other.submit(job)

    submitting = threading.Thread(target=submit)
    submitting.start()
    try:
        times = sorted(_timed(lambda i=i: client.get(str(1 + 97 * i % 10_000))) for i in range(500))
    finally:
        stop.set()
        submitting.join()
    assert times[len(times) * share // 100] < 0.05, f"p50 {times[250]:.4f} s, p99 {times[495]:.4f} s"
    assert len(client.jobs(limit=2500)) == 2500


def _timed(call) -> float:
    begin = perf_counter()
    call()
    return perf_counter() - begin


def test_a_client_that_watches_hears_on_after_the_service_was_killed(tmp_path, job):
    """It hears each step once."""
    service = Killable(tmp_path / "state")
    try:
        with Client(f"127.0.0.1:{service.port}", patience_s=120) as client:
            client.submit(job)
            until(client, "1", "running")
            metrics = tmp_path / "state" / "jobs" / "1" / "metrics.jsonl"
            metrics.write_text(row(1))
            rows = (each.step for each in client.watch("1") if isinstance(each, MetricsRow))
            assert next(rows) == 1
            service.kill()
            with metrics.open("a") as stream:
                stream.write(row(2))
            service.start()
            assert next(rows) == 2
    finally:
        service.kill()
