"""The coordinator's own /metrics, and the file in which Prometheus finds it, and the servers'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

from thalweg_cluster.exposition import LOOPBACK, serve, text
from thalweg_cluster.launch.announcing import VARIABLE, Announcement
from thalweg_cluster.launch.journal import Journal
from thalweg_cluster.launch.record import read_record
from thalweg_cluster.launch.run_telemetry import RunTelemetry
from thalweg_cluster.monitoring.targets import Target
from thalweg_cluster.reporting.files import JOB
from thalweg_cluster.reporting.wording import warning
from thalweg_proto.job import load_job


class Scraped:
    """Of one coordinator."""

    def __init__(self, folder: Path, targets: str, telemetry: RunTelemetry, journal: Journal) -> None:
        """Serves what `telemetry` has; `targets`: where the file goes, "": there is none."""
        self._folder = folder
        self._journal = journal
        self._file = Announcement(Path(targets), read_record(folder).name) if targets else None
        self._port = serve(lambda: text(telemetry.families(perf_counter())), 0)
        self._job = ""

    def announce(self, ports: Mapping[int, int]) -> None:
        """`ports`: of the servers on this machine, by host."""
        if self._file is None:
            return
        processes = {"coordinator": self._port} | {f"server {host}": port for host, port in ports.items()}
        self._job = self._job or load_job(self._folder / JOB, []).job.name
        try:
            self._file.write(
                Target(
                    address=f"{LOOPBACK}:{port}",
                    job=self._job,
                    run=self._folder.name,
                    process=process,
                    folder=str(self._folder),
                )
                for process, port in processes.items()
            )
        except OSError as error:
            self._journal.say(
                warning(
                    f"Prometheus will not find this run: {error}; {VARIABLE} names another folder for the files that "
                    f"tell it"
                )
            )

    def end(self) -> None:
        """There is nothing more to scrape."""
        if self._file is not None:
            self._file.remove()
