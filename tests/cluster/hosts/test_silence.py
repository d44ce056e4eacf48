"""Who says nothing for too long, on a clock of our own."""

from __future__ import annotations

from thalweg_cluster.hosts.silence import Silence


def test_a_host_is_silent_after_the_patience_and_not_before() -> None:
    """Each by itself; what it says begins its time anew."""
    silence = Silence([1, 2], 10.0, now=0.0)
    silence.heard(2, 6.0)
    assert silence.silent(10.0) is None
    assert silence.silent(10.5) == 1
    silence.heard(1, 10.5)
    assert silence.silent(16.0) is None
    assert silence.silent(16.5) == 2


def test_who_stood_still_blames_nobody() -> None:
    """What others said in that time waits to be read; those who go on being silent are lost later."""
    silence = Silence([1], 10.0, now=0.0)
    assert not silence.stood_still(5.0)
    assert silence.stood_still(12.0)
    assert silence.silent(12.0) is None
    assert not silence.stood_still(17.0)
    assert silence.silent(22.0) is None
    assert silence.silent(22.5) == 1


def test_a_host_alone_waits_for_nobody() -> None:
    """However long."""
    assert Silence([], 1.0, now=0.0).silent(1e9) is None
