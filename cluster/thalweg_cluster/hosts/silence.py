"""Who says nothing for too long."""

from __future__ import annotations

from collections.abc import Iterable


class Silence:
    """When each of some hosts was last heard, on one monotonic clock, in seconds."""

    def __init__(self, hosts: Iterable[int], patience_s: float, now: float) -> None:
        """As if all were heard now. patience_s: who is silent for longer is lost"""
        self._heard_s = dict.fromkeys(hosts, now)
        self._patience_s = patience_s
        self._awake_s = now

    def heard(self, host: int, now: float) -> None:
        """`host` said something."""
        self._heard_s[host] = now

    def stood_still(self, now: float) -> bool:
        """Whether whoever asks, and does so again and again, has not done so for half of the patience. What others said
        meanwhile waits at its door: they are as if heard now."""
        still = now - self._awake_s > self._patience_s / 2
        if still:
            self._heard_s = dict.fromkeys(self._heard_s, now)
        self._awake_s = now
        return still

    def silent(self, now: float) -> int | None:
        """A host that has said nothing for longer than the patience; None: there is none."""
        return next((host for host, heard_s in self._heard_s.items() if now - heard_s > self._patience_s), None)
