"""The table of jobs, as a person reads it."""

from __future__ import annotations

import io

from rich.console import Console

from thalweg_cluster.client import Job
from thalweg_cluster.commands.tables import age, print_jobs


def job(**values):
    usual = {
        "id": "1", "name": "digits", "state": "queued", "why": "needs 4 CPUs, 2 free", "error": "", "priority": 0,
        "workers": 4, "attempts": 0, "submitted_s": 40.0, "started_s": None, "ended_s": None, "worker_seconds": 0.0,
        "step": None, "steps": None, "loss": None, "samples_per_s": None, "folder": "/state/jobs/1",
    }  # fmt: skip
    return Job(**usual | values)


JOBS = [
    job(),
    job(id="12", name="a-long-name", state="succeeded", why="", step=1200, loss=0.25, samples_per_s=12345.6,
        worker_seconds=99.6),
    job(id="3", state="failed", why="", error="worker 0 failed\nmore"),
]  # fmt: skip


def test_without_a_terminal_the_lines_are_plain_and_whole(capsys):
    """Columns are aligned, numbers to the right, and nothing is cut off."""
    print_jobs(Console(file=io.StringIO(), width=20), JOBS, 100.0)
    assert capsys.readouterr().out == (
        "job  name         state       age   step    loss  samples/s  worker-s\n"
        "  1  digits       queued     60 s                                   0  needs 4 CPUs, 2 free\n"
        " 12  a-long-name  succeeded  60 s  1,200  0.2500     12,346       100\n"
        "  3  digits       failed     60 s                                   0  worker 0 failed\n"
    )


def test_on_a_terminal_it_fits_the_terminal():
    """And says the same."""
    out = io.StringIO()
    print_jobs(Console(file=out, width=100, force_terminal=True, color_system=None), JOBS, 100.0)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].split() == ["1", "digits", "queued", "60", "s", "0", "needs", "4", "CPUs,", "2", "free"]


def test_ages_have_the_unit_that_reads_best():
    """At least two of it."""
    assert [age(seconds) for seconds in (-1, 0, 119, 120, 7200, 172800)] == [
        "0 s",
        "0 s",
        "119 s",
        "2 min",
        "2 h",
        "2 d",
    ]
