"""The service and its clients as a person would type them: subprocesses, on real Ray."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from tests.scenarios.conftest import environment, until
from tests.scenarios.served import Served
from tests.scenarios.test_kinds_of_data import BIGRAM

from thalweg_cluster.client import Client

TOKENS = {"THALWEG_TOKEN": "full", "THALWEG_READ_TOKEN": "read"}
LONG = ("--set", "train.steps=10000000", "--set", "checkpoint.every_steps=20")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One for all tests that leave it as it is, on a Ray cluster of its own."""
    with ExitStack() as stack:
        yield Served(tmp_path_factory.mktemp("service") / "state", stack, **TOKENS)


def test_submit_watch_jobs_and_logs_of_a_job_and_its_bits_are_those_of_train(service, job, undisturbed):
    """From a file here to weights there; everything says the same of it."""
    taken = json.loads(service.command("submit", str(job), "--json"))
    number = taken["id"]
    watched = service.command("watch", number)
    assert re.search(rf"^job {number} \(digits\): running since .*, attempt 1$", watched, flags=re.MULTILINE)
    assert re.search(r"^step 30 .* held-out loss .*, accuracy", watched, flags=re.MULTILINE)
    assert f"job {number} (digits): succeeded" in watched
    assert service.summary(number)["weights_sha256"] == undisturbed()
    assert f"weights sha256 {undisturbed()}" in service.command("logs", number)
    assert f"weights sha256 {undisturbed()}" in service.command("logs", "--follow", number)
    shown = service.job(number)
    assert (shown["state"], shown["step"], shown["attempts"]) == ("succeeded", 60, 1)
    assert shown["worker_seconds"] > 0
    line = next(line for line in service.command("jobs").splitlines() if line.split()[0] == number)
    assert line.split()[1:3] == ["digits", "succeeded"]
    assert len(service.command("jobs", "--state", "running").splitlines()) == 1, "only the head of the table"


MODEL = """
from nets.sizes import width

import helpers


def build(data_spec):
    from thalweg_worker.models import mlp

    return mlp.build(data_spec, hidden=[helpers.twice(width)])
"""
DATA = """
import helpers


def data(size):
    class Rows:
        classes = ["even", "odd"]

        def __len__(self):
            return helpers.twice(size)

        def __getitem__(self, i):
            return [float(i), 1.0], i % 2

    return Rows()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["function", "folder", "text"])
def test_what_a_job_names_is_shipped_and_what_belongs_to_it(kind, service, tmp_path, train):
    """Modules beside a model and a data set, a folder of tables, a text, first weights: the service has nothing but
    what was sent, and comes to the bits of `train`, here; its workers have the modules, too."""
    (tmp_path / "nets").mkdir()
    texts = {"mine.py": MODEL, "rows.py": DATA, "helpers.py": "def twice(n):\n    return 2 * n\n", "a.txt": "abc" * 99}
    texts |= {
        "nets/sizes.py": "width = 4\n",
        "nets/bigram.py": BIGRAM,
        "by_character.py": "from nets.bigram import build\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    data, use = {
        "function": ('train = "rows.py:data"\nsize = 20\n', "mine.py:build"),
        "folder": ('train = "tables"\n', "mine.py:build"),
        "text": ('train = "a.txt"\ncontext = 4\n', "by_character.py:build"),
    }[kind]
    if kind == "folder":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        (tmp_path / "tables").mkdir()
        for place, name in enumerate(("b 1", "a")):
            table = pyarrow.table({"label": [i % 3 for i in range(40)], "x": [i * 0.1 - place for i in range(40)]})
            parquet.write_table(table, tmp_path / "tables" / f"{name}.parquet")
    file = tmp_path / "own.toml"
    file.write_text(
        f'[data]\n{data}[model]\nuse = "{use}"\n[train]\nsteps = 5\nbatch_size = 8\n[cluster]\nworkers = 2\n'
    )
    first = train(file=file, out="first")
    assert first.status == 0, first.output
    init = f"model.init={first.folder}/weights.safetensors"
    here = train(init, file=file)
    assert here.status == 0, here.output
    number = json.loads(service.command("submit", str(file), "--json", "--set", init))["id"]
    assert f"job {number} (own): succeeded" in service.command("watch", number)
    assert service.summary(number)["weights_sha256"] == here.summary["weights_sha256"]


def test_a_job_file_that_the_service_refuses_gets_the_messages_of_train(service, job, tmp_path, train):
    """Exit status 2, with all mistakes, of the data and of the cluster, too, and the paths of this machine."""
    (tmp_path / "bad.csv").write_text("label,a\n1,2\n0,x\n")
    sets = ["data.train=bad.csv", "optimizer.learning_rate=-1", "data.eval=nowhere.csv"]
    words = [word for text in sets for word in ("--set", text)]
    before = len(json.loads(service.command("jobs", "--json")))
    refused = service.command("submit", str(job), *words, status=2)
    by_train = train(*sets)
    assert by_train.status == 2
    assert refused == by_train.output
    assert str(tmp_path / "bad.csv") in refused
    assert "cluster.workers: expected at most 2" in service.command(
        "submit", str(job), "--set", "cluster.workers=3", status=2
    )
    assert "no such file" in service.command("submit", str(tmp_path / "nowhere.toml"), status=2)
    assert len(json.loads(service.command("jobs", "--json"))) == before


def test_what_a_person_gets_wrong_is_answered_with_exit_status_2(service, job):
    """Unknown job, cancelled twice, wrong token, read-only token, no address, no service, port taken, state in use."""
    assert "id: expected a job of this service; found 777" in service.command("cancel", "777", status=2)
    for words in (("watch", "777"), ("logs", "777"), ("resume", "777")):
        assert "found 777" in service.command(*words, status=2)
    number = json.loads(service.command("submit", str(job), "--json", "--set", "train.steps=1000000"))["id"]
    assert service.command("cancel", number) in (f"job {number}: cancelling\n", f"job {number}: cancelled\n")
    assert f"job {number}: expected one that waits or runs" in service.command("cancel", number, status=2)
    service.command("watch", number, status=130)
    wrong = service.command("jobs", status=2, THALWEG_TOKEN="another")
    assert "THALWEG_TOKEN: expected a token that this door knows; found another one" in wrong
    assert "full" not in wrong.replace("the full token", "")
    reader = {"THALWEG_TOKEN": "", "THALWEG_READ_TOKEN": "read"}
    assert "digits" in service.command("jobs", **reader)
    assert "expected the full token" in service.command("submit", str(job), status=2, **reader)
    nothing = service.command("jobs", status=2, THALWEG_ADDRESS="")
    assert "--address: expected HOST:PORT, here or in THALWEG_ADDRESS; found nothing" in nothing
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        unreached = service.command("jobs", "--address", address, status=2)
    assert f"found '{address}': Connection refused" in unreached
    assert f"thalweg serve --address {address}" in unreached
    other = str(service.state.parent / f"{service.state.name}-other")
    taken = service.command("serve", "--address", service.address, "--state", other, status=2)
    assert f"--address: expected an address that is free on this machine; found {service.address}" in taken
    shutil.rmtree(other)
    page = service.page.split("/")[2]
    taken = service.command("serve", "--address", "127.0.0.1:0", "--page", page, "--state", other, status=2)
    assert f"--page: expected an address that is free on this machine; found {page}: Address already in use" in taken
    assert "--page off leaves the page out" in taken
    shutil.rmtree(other)
    used = service.command("serve", "--address", "127.0.0.1:0", "--state", str(service.state), status=2)
    assert "--state: expected a folder of its own; found" in used
    assert f"(process {service.process.pid})" in used
    beyond = service.command(
        "serve", "--address", "0.0.0.0:0", "--state", other, status=2, THALWEG_TOKEN="", THALWEG_READ_TOKEN=""
    )
    assert "refused to listen on 0.0.0.0: expected a token and TLS" in beyond
    shutil.rmtree(other)
    words = ("serve", "--address", "127.0.0.1:0", "--state", other)
    beyond = service.command(*words, "--page", "0.0.0.0:0", status=2, THALWEG_TOKEN="", THALWEG_READ_TOKEN="")
    assert "--page: expected one that may be listened on; found refused to listen on 0.0.0.0" in beyond
    shutil.rmtree(other)


def test_help_names_defaults_and_units(service):
    """Of each command."""
    shown = {name: service.command(name, "--help") for name in ("serve", "submit", "jobs", "watch", "cancel", "logs")}
    assert "default: 127.0.0.1:8700" in shown["serve"]
    assert re.search(r"in MiB\.\s+\[default: 256\]", shown["serve"])
    for name in ("submit", "jobs", "watch", "cancel", "logs"):
        assert re.search(r"Default:\s+that of THALWEG_ADDRESS", shown[name]), name
    assert "[default: 100]" in shown["jobs"]
    assert "worker-seconds" in shown["jobs"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("su", {"submit"}), ("lo", {"logs"}), ("jobs --st", {"--state"}), ("jobs --state ru", {"running"})],
)
def test_shell_completion_completes_commands_options_and_states(typed, expected):
    """As bash asks for it."""
    words = f"thalweg {typed}"
    asked = {"_THALWEG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    main = "import sys; sys.argv = ['thalweg']; from thalweg_cluster.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", main], env=environment(**asked), capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.slow
def test_a_job_goes_on_after_it_was_cancelled_to_the_bits_of_one_that_was_not(service, job, undisturbed):
    """It stops with a checkpoint, and `thalweg resume JOB` goes on from it."""
    sets = ("train.steps=4000", "train.eval_every=400", "checkpoint.every_steps=400")
    words = [word for text in sets for word in ("--set", text)]
    number = json.loads(service.command("submit", str(job), "--json", *words))["id"]
    watching = service.watching("watch", number)
    until(watching, "step ")
    service.command("cancel", number)
    assert watching.wait() == 130
    assert "(digits): cancelled" in watching.stdout.read()
    assert 0 < service.job(number)["step"] < 4000
    assert "queued" in service.command("resume", number)
    service.command("watch", number)
    done = service.summary(number)
    assert done["resumed_from"] is not None
    assert done["weights_sha256"] == undisturbed(*sets)


@pytest.mark.slow
def test_a_service_that_is_killed_goes_on_with_its_jobs_to_the_same_bits(tmp_path, job):
    """kill -9: its Ray cluster goes with it. The next one lets jobs go on from their checkpoints; who watches waits.

    The second job is the same one, and nothing happens to it.
    """
    sets = ("train.steps=4000", "train.eval_every=400", "checkpoint.every_steps=400")
    words = [word for text in sets for word in ("--set", text)]
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack)
        for _ in range(2):
            service.command("submit", str(job), *words)
        watching = service.watching("watch", "1")
        until(watching, "step ")
        service.kill()
        service.start()
        assert watching.wait() == 0, watching.stdout.read()
        service.command("watch", "2")
        assert service.summary("1")["weights_sha256"] == service.summary("2")["weights_sha256"]
        assert service.job("1")["attempts"] == 2
        assert service.job("2")["attempts"] == 1
        rows = (tmp_path / "state/jobs/1/metrics.jsonl").read_text().splitlines()
        steps = [json.loads(row)["step"] for row in rows]
        assert steps == sorted(set(steps))


@pytest.mark.slow
def test_on_a_cluster_that_is_there_jobs_go_on_while_the_service_is_killed(tmp_path, job, ray_address, undisturbed):
    """The next one finds their commands, and hears how they end; nothing was started twice."""
    sets = ("train.steps=4000", "train.eval_every=400", "checkpoint.every_steps=400")
    words = [word for text in sets for word in ("--set", text)]
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack, RAY_ADDRESS=ray_address)
        service.command("submit", str(job), *words)
        watching = service.watching("watch", "1")
        until(watching, "step ")
        service.kill()
        service.start()
        assert watching.wait() == 0, watching.stdout.read()
        assert service.summary("1")["weights_sha256"] == undisturbed(*sets)
        assert service.summary("1")["resumed_from"] is None
        assert service.job("1")["attempts"] == 1


@pytest.mark.slow
def test_a_command_that_dies_is_followed_by_another_one(tmp_path, job, ray_address):
    """Its run goes on meanwhile; the job ends as the run does, and the failure is told."""
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack, RAY_ADDRESS=ray_address)
        service.command("submit", str(job), "--set", "train.steps=4000")
        watching = service.watching("watch", "1")
        until(watching, "step ")
        psutil.Process(int((tmp_path / "state/jobs/1/command.pid").read_text())).kill()
        assert watching.wait() == 0, watching.stdout.read()
        assert service.job("1")["attempts"] == 2
        assert service.summary("1")["resumed_from"] is None
        assert "still goes on: following it" in service.command("logs", "1")


@pytest.mark.slow
def test_a_service_that_is_ended_leaves_nothing_and_goes_on_later(tmp_path, job):
    """SIGTERM: jobs stop with a checkpoint, its Ray cluster ends; started again, it goes on with them."""
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack)
        service.command("submit", str(job), *LONG)
        watching = service.watching("watch", "1")
        until(watching, "step ")
        family = psutil.Process(service.process.pid).children(recursive=True)
        service.process.send_signal(signal.SIGTERM)
        assert "end with a checkpoint" in service.process.stdout.read()
        assert service.process.wait() == 0
        assert psutil.wait_procs(family, timeout=60)[1] == []
        service.start()
        until(watching, "job 1 (digits): running since")
        until(watching, "step ")
        service.command("cancel", "1")
        assert watching.wait() == 130
        assert service.summary("1")["resumed_from"] is not None


@pytest.mark.slow
def test_beyond_loopback_the_service_has_a_certificate_of_its_own_and_keeps_it(tmp_path, job):
    """With a token; `ca.pem` in its folder lets clients in, and without it they are told what is missing."""
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack, **TOKENS)
        service.end(service.process)
        port = service.address.rpartition(":")[2]
        local = psutil.net_if_addrs()
        address = next(
            (
                each.address
                for name, found in local.items()
                if name != "lo"
                for each in found
                if each.family == socket.AF_INET
            ),
            None,
        )
        if address is None:
            pytest.skip("this machine has no address beyond loopback")
        service.address = f"{address}:{port}"
        service.start()
        ca = str(tmp_path / "state" / "ca.pem")
        assert "queued" in service.command("submit", str(job), THALWEG_CA_FILE=ca)
        assert "THALWEG_CA_FILE names its authority" in service.command("jobs", status=2)
        before = Path(ca).read_bytes()
        service.end(service.process)
        service.start()
        assert Path(ca).read_bytes() == before
        with Client(service.address, token="full", ca=before) as client:
            assert [each.id for each in client.jobs()] == ["1"]
        service.command("cancel", "1", THALWEG_CA_FILE=ca)
