"""Follows a run by its coordinator, from any process of the Ray cluster; all it takes is the actor's handle.

A coordinator that dies is away for some seconds, until Ray has started it again; who follows waits for it. Where Ray's
GCS is gone, or was started anew and knows of no run, nobody starts it again: that is told before Ray ends this process.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError
from rich.console import Console

from thalweg_cluster.launch.journal import Ended, News
from thalweg_cluster.launch.ray_cluster import why_nobody_answers
from thalweg_cluster.reporting.progress import ProgressView, progress_view

NEWS_S = 1.0
AWAY_S = 45.0
"""How long Ray's GCS may be away. Without it Ray ends all processes of its cluster after 60 s, and this one, too, in
the middle of whatever it does (gcs_rpc_server_reconnect_timeout_s)."""
RESTART_S = 120.0
"""How long the coordinator may be away while Ray is there: on a busy machine a process takes its time to start."""


class Follower:
    """One who hears everything once."""

    def __init__(self, coordinator: Any, address: str) -> None:
        """`coordinator`: the actor's handle; `address`: of Ray's GCS.

        `journal`, of those it hears, is the name of the newest; "": it has heard none yet.
        """
        self._coordinator = coordinator
        self._address = address
        self.journal, self._heard = "", 0

    def news(self, timeout_s: float = NEWS_S) -> News | None:
        """What is new; waits for it until `timeout_s` is over. None where the coordinator is away; RayActorError where
        it is gone for good."""
        try:
            news: News = ray.get(self._coordinator.news.remote(self.journal, self._heard, timeout_s))
        except ActorUnavailableError:
            return None
        self.journal, self._heard = news.journal, news.heard
        return news

    def stop(self) -> bool:
        """Asks the run to end, with its results and a checkpoint. False where none goes on that could leave any, or it
        is away: the coordinator has to be ended then. RayActorError where it is gone for good."""
        asked = monotonic()
        while monotonic() - asked < AWAY_S:
            with suppress(ActorUnavailableError):
                return bool(ray.get(self._coordinator.stop.remote()))
        return False

    def ray_answers(self) -> bool:
        """Whether Ray's GCS is there."""
        return why_nobody_answers(self._address) is None

    def end(self) -> None:
        """Ends the coordinator, and with it all that it has started."""
        ray.kill(self._coordinator, no_restart=True)


def follow(follower: Follower, console: Console, *, stops: bool) -> Ended | None:
    """Shows a run to its end. Returns how it ended; None where the coordinator, or the Ray cluster, is gone without its
    having told.

    stops: Ctrl-C ends the run, with its results, where it has any. KeyboardInterrupt where it has none, and at the
           second one; without `stops`, at the first.
    """
    asked: str | None = None  # the journal of the coordinator that was asked to stop
    answered_s = monotonic()
    with ExitStack() as stack:
        screen = _Screen(console, stack)
        while True:
            try:
                news = follower.news()
                ray_answers = follower.ray_answers()
                if news is not None and ray_answers:
                    answered_s = monotonic()
                elif monotonic() - answered_s > (RESTART_S if ray_answers else AWAY_S):
                    return None
                if news is None:
                    continue
                screen.show(news)
                if news.ended is not None:
                    return news.ended
                if asked is not None and news.journal != asked:
                    # It was started again since, and does not know.
                    asked = _stop(follower, news.journal)
            except KeyboardInterrupt:
                if not stops or asked is not None:
                    raise
                asked = _stop(follower, follower.journal)
                console.print("interrupted: stopping, and keeping the results so far", highlight=False)
            except RayActorError:
                return None


def _stop(follower: Follower, journal: str) -> str:
    if not follower.stop():
        raise KeyboardInterrupt
    return journal


class _Screen:
    """What a person sees: lines, and between them how far the run is."""

    def __init__(self, console: Console, stack: ExitStack) -> None:
        """`stack`: ends the view."""
        self._console = console
        self._stack = stack
        self._view: ProgressView | None = None

    def show(self, news: News) -> None:
        if self._view is None and news.latest is not None:
            view = progress_view(self._console, steps=news.steps, workers=news.workers)
            self._view = self._stack.enter_context(view)
        for entry in news.entries:
            if isinstance(entry, str):
                self._console.print(entry, highlight=False, soft_wrap=True)
            elif self._view is not None:
                self._view.show(entry)
        if self._view is not None and news.latest is not None:
            self._view.show(news.latest)
