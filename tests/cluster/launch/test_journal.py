from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from thalweg_cluster.launch.journal import KEPT, Ended, Journal
from thalweg_cluster.server.spec import Row, Snapshot


def at(step: int, *rows: int) -> Snapshot:
    """How far a run is, with rows of these steps."""
    return Snapshot(step=step, joined=2, loss=None, samples_per_s=0.0, rows=tuple(map(row, rows)), running=True)


def row(step: int) -> Row:
    return Row(step=step, time_s=0.0, train_loss=None, learning_rate=None, gradient_norm=None, samples_per_s=0.0)


def test_a_follower_hears_everything_once_and_in_order():
    """Lines and rows as they came; snapshots without rows only as the latest."""
    journal = Journal()
    first = journal.news("", 0, 0.0)
    assert (first.entries, first.latest, first.ended) == ((), None, None)
    journal.say("begun")
    journal.show(at(10, 10))
    journal.show(at(15))
    journal.say("lost")
    second = journal.news(first.journal, first.heard, 0.0)
    assert second.entries == ("begun", at(10, 10), "lost")
    assert second.latest == at(15)
    journal.end(Ended(summary={"state": "succeeded"}))
    third = journal.news(second.journal, second.heard, 0.0)
    assert (third.entries, third.ended) == ((), Ended(summary={"state": "succeeded"}))


def test_who_comes_late_hears_the_lines_and_how_far_the_run_is():
    """So does one who knows the journal of a coordinator that died; rows are in metrics.jsonl."""
    journal = Journal()
    journal.about(steps=100, workers=2)
    journal.say("begun")
    journal.show(at(10, 10))
    for known in ("", "of another"):
        news = journal.news(known, 99, 0.0)
        assert (news.entries, news.latest, news.steps, news.workers) == (("begun",), at(10), 100, 2)


def test_what_is_kept_is_bounded():
    """Who falls behind misses the oldest."""
    journal = Journal()
    known = journal.news("", 0, 0.0)
    for step in range(2 * KEPT):
        journal.show(at(step, step))
    news = journal.news(known.journal, known.heard, 0.0)
    assert [entry.step for entry in news.entries] == list(range(KEPT, 2 * KEPT))


def test_a_follower_waits_until_there_is_something():
    """It is woken, long before its time is over."""
    journal = Journal()
    known = journal.news("", 0, 0.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(journal.news, known.journal, known.heard, 60.0)
        journal.say("begun")
        assert waiting.result(30).entries == ("begun",)
