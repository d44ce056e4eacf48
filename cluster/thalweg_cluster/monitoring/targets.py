"""Which processes there are to scrape, and how Prometheus is told.

A run that was started by `thalweg train` writes a file into a folder that Prometheus watches (file_sd), one for each
run; Prometheus takes `*` in the last part of a path only, so they all lie in one folder, wherever the runs write.
Where there is a service, it answers with the same list over HTTP (http_sd).

Rules:
  - The labels of a target say which run it belongs to; no metric does. So no process has more series for being called
    otherwise, and Prometheus has as many series as there are processes, however many jobs there were.
  - A file is there for as long as its run goes on. One whose run was killed with all that would have removed it is
    removed by the next run that writes one, since nobody answers there any more.

(https://prometheus.io/docs/prometheus/latest/http_sd/)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

JOB, RUN, PROCESS, FOLDER = "thalweg_job", "thalweg_run", "thalweg_process", "thalweg_folder"
LABELS: Final = {
    JOB: "name of the job",
    RUN: "name of the run's folder; by default the date and time of its start",
    PROCESS: "`server 0` (the lead), `server 1`, ..., or `coordinator`",
    FOLDER: "where the run writes",
}
CONTENT_TYPE: Final = "application/json"
"""Of an answer to HTTP service discovery."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One /metrics.

    address:  HOST:PORT
    process:  as LABELS says
    """

    address: str
    job: str
    run: str
    process: str
    folder: str


def sd_groups(targets: Iterable[Target]) -> list[dict[str, Any]]:
    """What Prometheus reads, from a file or from the answer over HTTP, as JSON: all targets, each time, in one order;
    [] where there are none, which is an answer, too (status 200)."""
    groups = {
        (target.address, target.process): {
            "targets": [target.address],
            "labels": {JOB: target.job, RUN: target.run, PROCESS: target.process, FOLDER: target.folder},
        }
        for target in targets
    }
    return [groups[key] for key in sorted(groups)]


def sd_json(targets: Iterable[Target]) -> str:
    """`sd_groups` as text: the body of an answer, or a file."""
    return json.dumps(sd_groups(targets), indent=2) + "\n"


def targets_in(text: str) -> list[Target]:
    """The targets in such a text. ValueError where it is none of ours."""
    try:
        return [
            Target(address=address, job=of[JOB], run=of[RUN], process=of[PROCESS], folder=of[FOLDER])
            for group in json.loads(text)
            for of in [group["labels"]]
            for address in group["targets"]
        ]
    except (KeyError, TypeError):
        raise ValueError(f"expected a list of groups of targets; found {text[:80]!r}") from None
