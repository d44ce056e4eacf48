"""What somebody who has the page open is told: each thing once, and again when it has changed."""

from __future__ import annotations

import json

import pytest
from tests.cluster.service.rows import submission

from thalweg_cluster.service.page.following import Following
from thalweg_cluster.service.page.news import LOOK_S, JobsNow, Listener, changed
from thalweg_cluster.service.showing import Showing
from thalweg_cluster.service.table import JobTable
from thalweg_proto.jobs import LIST_DEFAULT, State


class Kept:
    """What a keeper knows."""

    def __init__(self, folder):
        self.why = {}
        self._folder = folder

    def folder(self, job_id):
        return self._folder / str(job_id)


@pytest.fixture
def table(tmp_path):
    found = JobTable(tmp_path / "jobs.sqlite3")
    yield found
    found.close()


def add(table: JobTable, number: int) -> None:
    table.add(submission(f"request-{number}", name=f"job-{number}"), lambda job_id: None)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        self.now_s += LOOK_S
        return self.now_s


def so_far(time_s: float, steps: int) -> dict:
    seconds = {f"{phase}_s": [0.001 * steps] for phase in ("sample", "compute", "push", "wait")}
    return {
        "time_s": time_s, "steps": 9, "sits_out": [], "skipped": 0, "staleness": {"mean": 0.0, "max": 0},
        "checkpoints": {"saved": 1, "failed": 0, "skipped": 0, "step": 2},
        "workers": {"rank": [0], "steps": [steps], "microbatches": [steps], "waited_for_s": [0.0], **seconds},
    }  # fmt: skip


def row(step: int, reached: dict | None = None) -> str:
    values = {"step": step, "time_s": float(step), "train_loss": 0.5, "samples_per_s": 8.0, "evaluation": None}
    return json.dumps(values | {"so_far": reached}) + "\n"


def test_a_job_is_told_first_and_when_it_has_changed(table, tmp_path):
    """And the counts of the states; what did not change is not."""
    kept = Kept(tmp_path)
    listener = Listener(JobsNow(table, Showing(kept), Clock()), None, None)
    add(table, 1)
    add(table, 2)
    first = listener.news()
    assert [job["name"] for job in first["jobs"]] == ["job-2", "job-1"]
    assert first["counts"] == {"queued": 2}
    assert listener.news() == {}
    kept.why = {1: "needs 4 CPUs, 2 free"}
    assert [(job["id"], job["why"]) for job in listener.news()["jobs"]] == [("1", "needs 4 CPUs, 2 free")]
    table.change(2, State.RUNNING, started_s=1.0)
    told = listener.news()
    assert [(job["id"], job["state"]) for job in told["jobs"]] == [("2", "running")]
    assert told["counts"] == {"queued": 1, "running": 1}


def test_what_a_job_costs_is_no_news():
    """It grows all the time; with something else it is told."""
    job = {"step": 1, "worker_seconds": 1.0}
    assert changed({"1": job}, {"1": job | {"worker_seconds": 2.0}}) == []
    assert changed({"1": job}, {"1": {"step": 2, "worker_seconds": 2.0}}) == [{"step": 2, "worker_seconds": 2.0}]


def test_jobs_are_looked_up_once_for_all_who_look_at_the_same_time(table, tmp_path):
    """However many they are."""
    calls = []
    newest = table.newest
    table.newest = lambda *args, **kwargs: calls.append(args) or newest(*args, **kwargs)
    jobs = JobsNow(table, Showing(Kept(tmp_path)), lambda: 100.0)
    for _ in range(100):
        Listener(jobs, None, None).news()
    assert len(calls) == 3  # the newest of all, of those that run, of those that are to end


def test_jobs_that_run_are_told_however_many_are_newer(table, tmp_path):
    """So is the one that is looked at; others that are older are asked for."""
    for number in range(1, LIST_DEFAULT + 4):
        add(table, number)
    table.change(2, State.RUNNING, started_s=1.0)
    jobs = JobsNow(table, Showing(Kept(tmp_path)), Clock())
    told = {job["id"] for job in Listener(jobs, None, None).news()["jobs"]}
    assert told == {"2", *map(str, range(4, LIST_DEFAULT + 4))}
    looked_at = Listener(jobs, "1", Following(tmp_path / "1")).news()
    assert {job["id"] for job in looked_at["jobs"]} == told | {"1"}


def test_a_run_is_told_as_it_grows(tmp_path):
    """Curve, newest point, workers and what died, each when there is something new of it."""
    following = Following(tmp_path)
    assert following.news(ended=False) == {"losses": []}
    file = tmp_path / "metrics.jsonl"
    file.write_text(row(1) + row(2, so_far(2.0, 10)))
    told = following.news(ended=False)
    assert told["curve"]["anew"]
    assert [point["step"] for point in told["curve"]["points"]] == [1, 2]
    assert told["newest"]["step"] == 2
    assert (told["window_s"], told["workers"][0]["steps"], told["checkpoints"]["step"]) == (None, 10, 2)
    assert following.news(ended=False) == {}
    with file.open("a") as stream:
        stream.write(row(3, so_far(5.0, 40)))
    told = following.news(ended=False)
    assert not told["curve"]["anew"]
    assert (told["window_s"], told["workers"][0]["steps"]) == (3.0, 30)
    (tmp_path / "coordinator.json").write_text(json.dumps({"losses": [["worker", 1, "it was killed"]]}))
    assert following.news(ended=False) == {"losses": [["worker", 1, "it was killed"]]}
    whole = following.news(ended=True)  # now that it is over, the times are those of all of it
    assert (whole["window_s"], whole["workers"][0]["steps"]) == (None, 40)


def test_a_run_that_goes_back_is_told_anew(tmp_path):
    """What its file says now is the curve."""
    file, part = tmp_path / "metrics.jsonl", tmp_path / "part"
    file.write_text("".join(map(row, range(1, 6))))
    following = Following(tmp_path)
    following.news(ended=False)
    part.write_text(row(1) + row(2))
    part.replace(file)
    told = following.news(ended=False)["curve"]
    assert told["anew"]
    assert [point["step"] for point in told["points"]] == [1, 2]
