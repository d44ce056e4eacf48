"""The coordinator of a run: a Ray actor that starts servers and workers, again where some die, and writes its files.

It belongs to nobody (detached), so that it outlives the command that started it; and Ray starts it again where it dies.
What it started dies with it, by Ray's hand, before that: children of an actor end with their owner's process. So a new
one goes on as after any other loss, from the newest whole checkpoint, or replica: the memories (replicas.py) live on.

All it needs lies in the folder of the run: job.toml, coordinator.json, the checkpoints. Only the first one, to be
quick, is handed the job that the command has prepared already; Ray keeps no such thing for those that come after.

Rules:
  - A loss of the coordinator counts as a failure (`max_failures`): it costs the steps since the newest checkpoint, as
    any other, and one that dies again and again must not be started for ever. Before the first attempt nothing is lost.
  - The run is over once summary.json is there. Then the coordinator stays for LINGER_S, for those who follow, and ends.
"""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter, sleep
from typing import Any

import ray
from rich.markup import escape

from thalweg_cluster.checkpoints import newest, open_store
from thalweg_cluster.launch.attempts import Attempts, Outcome
from thalweg_cluster.launch.failures import Failures, Loss
from thalweg_cluster.launch.journal import Ended, Journal, News
from thalweg_cluster.launch.preparation import Preparation, prepare
from thalweg_cluster.launch.record import read_record
from thalweg_cluster.launch.replicas import RunReplicas
from thalweg_cluster.launch.resuming import checkpoint_place
from thalweg_cluster.launch.run_telemetry import RunTelemetry
from thalweg_cluster.launch.scraped import Scraped
from thalweg_cluster.reporting.files import JOB, RECORD, RunFolder, read_summary
from thalweg_cluster.reporting.summary import summarise
from thalweg_cluster.reporting.wording import warning
from thalweg_cluster.security.given import Given
from thalweg_proto.errors import RunError, ThalwegError
from thalweg_proto.faults import Plan
from thalweg_proto.job import load_job

BEGIN_S = 20.0
"""How long the command may take to hand over what it has prepared."""
LINGER_S = 10.0
DIED = "its process died"


@dataclass(frozen=True, kw_only=True)
class CoordinatorSpec:
    """What a coordinator is made with; small, since Ray keeps it to start the actor again.

    folder:  of the run, an absolute path
    given:   to the doors
    place_s: how long Ray may take to find room for the workers
    faults:  what shall go wrong
    targets: the folder in which Prometheus looks for what to scrape; "": nobody is told
    """

    folder: str
    given: Given
    place_s: float
    faults: Plan = field(default_factory=Plan)
    targets: str = ""


class Coordinator:
    """As Ray runs it. The run goes on in a thread from here: no call of anybody's has to last as long."""

    def __init__(self, spec: CoordinatorSpec) -> None:
        self._journal = Journal()
        folder = RunFolder(Path(spec.folder), replace=False)
        telemetry = RunTelemetry()
        self._scraped = Scraped(folder.path, spec.targets, telemetry, self._journal)
        record = read_record(folder.path)
        replicas = RunReplicas(record.name, record.namespace)
        self._attempts = Attempts(
            folder, self._journal, spec.given, spec.place_s, telemetry, replicas, self._scraped.announce
        )
        self._leading = Leading(folder, self._journal, self._attempts, spec.faults, telemetry)
        Thread(target=self._lead, daemon=True, name="thalweg-lead").start()

    def begin(self, preparation: Preparation) -> None:
        """Hands over the job to the first coordinator of a run."""
        self._leading.prepared.put(preparation)

    def news(self, journal: str, heard: int, timeout_s: float) -> News:
        return self._journal.news(journal, heard, timeout_s)

    def stop(self) -> bool:
        """Ends the run, with its results and a checkpoint; False where none goes on yet that could leave any."""
        return self._journal.ended or self._attempts.stop()

    def _lead(self) -> None:
        try:
            ended = Ended(summary=self._leading.lead())
        except ThalwegError as error:
            ended = Ended(error=error)
        except BaseException:  # whatever it is, those who follow have to hear of it
            ended = Ended(error=RunError(f"the coordinator failed:\n{traceback.format_exc()}"))
        self._attempts.close()
        self._scraped.end()
        self._journal.end(ended)
        sleep(LINGER_S)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


class Leading:
    """The run from where the folder says it is to its summary."""

    def __init__(
        self,
        folder: RunFolder,
        journal: Journal,
        attempts: Attempts,
        faults: Plan = Plan(),
        telemetry: RunTelemetry | None = None,
    ) -> None:
        """`faults`: what shall go wrong. InputError where the folder has no record."""
        self._telemetry = telemetry or RunTelemetry()
        self._path = folder.path
        self._record = read_record(folder.path)
        self._folder = folder
        self._journal = journal
        self._attempts = attempts
        self._faults = faults
        self.prepared: SimpleQueue[Preparation] = SimpleQueue()

    def lead(self) -> dict[str, Any]:
        """Returns the contents of summary.json. ThalwegError where the run came to none."""
        if (summary := read_summary(self._path)) is not None:
            return summary  # the coordinator before this one got that far
        record = self._record
        preparation, outcome = self._beginning()
        self._journal.about(preparation.lengths.steps, preparation.job.cluster.most)
        failures = Failures(preparation.job.cluster.max_failures, record.losses, record.times)
        self._telemetry.before(record.losses, record.attempts)
        while outcome is None or outcome.resizes or (outcome.losses and failures.may_go_on(outcome.losses)):
            if outcome is not None:
                self._note(losses=failures.losses, times=failures.times)
                if outcome.losses:
                    self._telemetry.lost(outcome.losses, perf_counter())
                preparation = self._after(outcome, failures, preparation)
            outcome = self._attempt(preparation, failures)
        error = outcome.error
        if outcome.losses and failures.times:
            error = f"{error}\n{failures.describe()}"
        summary = summarise(
            outcome.result,
            error,
            parameters=preparation.layout.parameters,
            workers=outcome.workers or preparation.job.cluster.most,
            servers=outcome.servers,
            hosts=outcome.hosts,
            batch_size=preparation.lengths.batch_size,
            first=record.first,
            restarts=failures.restarts if failures.times else {"worker": 0, "server": 0},
            started_at=record.started_at,
            faults=preparation.faults.report(),
            devices=[{"rank": rank, **asdict(card)} for rank, card in sorted(self._telemetry.cards.items())],
        )
        self._folder.write_summary(summary)
        return summary

    def _beginning(self) -> tuple[Preparation, Outcome | None]:
        """The job, and what the coordinator before this one came to, None where it made no attempt."""
        if self._record.attempts:
            self._attempts.take_over()
            lost = Outcome(
                None, f"the coordinator failed: {DIED}", [Loss("coordinator", 0, DIED)], hosts=0, servers=0, workers=0
            )
            return self._prepare(), lost
        try:
            return self.prepared.get(timeout=BEGIN_S), None
        except Empty:  # the command has died, or a coordinator that had been handed it
            return self._at_newest(self._prepare())[0], None

    def _prepare(self) -> Preparation:
        """As the command did, but for where it goes on from."""
        job = load_job(self._path / JOB, [])
        return prepare(job, self._path, None, with_ledger=self._record.ledger, faults=self._faults)

    def _at_newest(self, preparation: Preparation) -> tuple[Preparation, str]:
        """With the newest whole checkpoint or replica of the run, where that is later; and from which of them. RunError
        where there is none, and the run did not begin with step 0."""
        if not (self._record.first or self._record.opened):
            return preparation, ""
        place = checkpoint_place(preparation.job, self._path)
        stores = [(" from replicas", "replica ", self._attempts.replicas()), ("", "", open_store(place))]
        source = ""
        for words, kind, store in stores:
            found, refused = (None, []) if store is None else newest(store, after=preparation.first)
            for reason in refused:
                self._journal.say(warning(f"not used: {kind}{reason}"))
            if found is not None:
                preparation, source = replace(preparation, start=found.state, first=found.manifest.step), words
        if preparation.first < self._record.first:
            raise RunError(f"{place}: expected a whole checkpoint of step {self._record.first} or later; found none")
        return preparation, source

    def _attempt(self, preparation: Preparation, failures: Failures) -> Outcome:
        record = self._record
        self._note(attempts=record.attempts + 1, generation=record.generation + 1)
        try:
            return self._attempts.make(
                preparation,
                self._record.generation,
                on_opened=lambda: self._note(opened=True),
                may_replace=partial(self._may_replace, failures),
            )
        except ThalwegError:
            if not (record.attempts or self._record.opened):
                (self._path / RECORD).unlink()  # nothing was started: there is no run
            raise

    def _may_replace(self, failures: Failures, loss: Loss) -> bool:
        if failures.exhausted:
            return False
        failures.may_go_on([loss])
        self._telemetry.lost([loss], perf_counter())
        self._note(losses=failures.losses, times=failures.times)
        self._journal.say(
            f"[yellow]lost[/] {escape(str(loss))}; the others go on, and another one takes its place "
            f"(failure {failures.allowed})"
        )
        return True

    def _after(self, outcome: Outcome, failures: Failures, preparation: Preparation) -> Preparation:
        """What the run goes on from after a loss: the newest whole replica or checkpoint, or where it began."""
        preparation, source = self._at_newest(preparation)
        self._folder.rewind(preparation.first)
        for loss in outcome.losses:
            self._journal.say(f"[yellow]lost[/] {escape(str(loss))}")
        if outcome.result is not None and outcome.result.error:
            self._journal.say(f"  {escape(outcome.result.error)}")
        why = "there is room for more workers" if outcome.resizes else f"failure {failures.allowed}"
        self._journal.say(f"going on after step {preparation.first:,} of {preparation.lengths.steps:,}{source} ({why})")
        return preparation

    def _note(self, **changes: Any) -> None:
        """Writes down what has changed before it is acted on."""
        self._record = replace(self._record, **changes)
        self._record.write(self._path)
