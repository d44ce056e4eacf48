from __future__ import annotations

import io

import pytest
from ray.exceptions import ActorDiedError
from rich.console import Console

from thalweg_cluster.launch import following
from thalweg_cluster.launch.following import AWAY_S, RESTART_S, follow
from thalweg_cluster.launch.journal import Ended, News

ENDED = Ended(summary={"state": "succeeded"})


def news(*lines: str, journal: str = "a", ended: Ended | None = None) -> News:
    return News(journal=journal, heard=0, entries=lines, latest=None, steps=0, workers=0, ended=ended)


class Script:
    """A Follower to whom happens what is written."""

    def __init__(self, *happens: object, stops: bool = True, ray_answers: bool = True) -> None:
        self._happens = iter(happens)
        self._ray_answers = ray_answers
        self._stops = stops
        self.stopped: list[str] = []
        self.journal = ""

    def news(self) -> News | None:
        what = next(self._happens)
        if isinstance(what, BaseException):
            raise what
        if what is not None:
            self.journal = what.journal
        return what

    def ray_answers(self) -> bool:
        return self._ray_answers

    def stop(self) -> bool:
        self.stopped.append(self.journal)
        return self._stops


def shown(script: Script, *, stops: bool = True) -> tuple[Ended | None, str]:
    out = io.StringIO()
    return follow(script, Console(file=out), stops=stops), out.getvalue()


def test_a_coordinator_that_is_away_is_waited_for():
    """Then it goes on."""
    assert shown(Script(news("one"), None, None, news("two", journal="b"), news(ended=ENDED))) == (ENDED, "one\ntwo\n")


def test_one_that_is_gone_has_nothing_to_say():
    """None; the folder may know more."""
    assert shown(Script(news("one"), ActorDiedError()))[0] is None


@pytest.mark.parametrize(
    ("script", "patience_s"),
    [
        (Script(*[None] * 20), RESTART_S),
        (Script(*[None] * 20, ray_answers=False), AWAY_S),
        (Script(*[news("still told")] * 20, ray_answers=False), AWAY_S),
    ],
    ids=["the coordinator", "both", "Ray's GCS"],
)
def test_what_is_away_for_too_long_is_gone(script, patience_s, monkeypatch):
    """After so long without one answer, and not before; what the coordinator says meanwhile is shown."""
    seconds = iter(range(0, 1000, 15))
    monkeypatch.setattr(following, "monotonic", lambda: next(seconds))
    found, said = shown(script)
    assert (found, next(seconds)) == (None, patience_s + 30)
    assert said in ("", "still told\n" * 3)


def test_one_that_comes_back_in_time_is_not_gone(monkeypatch):
    """The time away counts from the last answer."""
    seconds = iter(range(0, 1000, 15))
    monkeypatch.setattr(following, "monotonic", lambda: next(seconds))
    told = [None, None, news("back"), None, None, news(ended=ENDED)]
    assert shown(Script(*told)) == (ENDED, "back\n")


def test_an_interrupt_stops_the_run_and_its_end_is_still_shown():
    """Once; it says so."""
    script = Script(news(), KeyboardInterrupt(), news("last"), news(ended=ENDED))
    assert shown(script) == (ENDED, "interrupted: stopping, and keeping the results so far\nlast\n")
    assert script.stopped == ["a"]


def test_a_coordinator_that_was_started_again_is_told_again():
    """It does not know that the one before was asked to stop."""
    script = Script(news(), KeyboardInterrupt(), None, news(journal="b"), news(journal="b", ended=ENDED))
    assert shown(script)[0] == ENDED
    assert script.stopped == ["a", "b"]


@pytest.mark.parametrize(
    ("script", "stops"),
    [
        (Script(news(), KeyboardInterrupt(), stops=False), True),
        (Script(news(), KeyboardInterrupt(), news(), KeyboardInterrupt()), True),
        (Script(news(), KeyboardInterrupt()), False),
    ],
    ids=["a run without results", "the second one", "who only watches"],
)
def test_an_interrupt_is_passed_on(script, stops):
    """KeyboardInterrupt; one who only watches stops nothing."""
    with pytest.raises(KeyboardInterrupt):
        shown(script, stops=stops)
    assert script.stopped == (["a"] if stops else [])
