from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.server.membership import Membership


def meeting(*ranks: int) -> Membership:
    membership = Membership()
    membership.meet(ranks)
    return membership


def test_the_first_meet_without_being_called():
    """Nobody has met before: whoever is there may begin."""
    membership = Membership()
    assert membership.call({0, 1}) == []
    assert not membership.ready(set())
    assert membership.ready({0, 1})
    membership.meet({1, 0})
    assert (membership.members, membership.generation) == ((0, 1), 1)


def test_after_a_loss_the_others_meet_once_all_of_them_are_out():
    """Rank 1 of three is gone: 0 and 2 are called, and meet when both have said so."""
    membership = meeting(0, 1, 2)
    assert membership.call({0, 1, 2}) == []
    membership.gone(1)
    assert membership.call({0, 2}) == [0, 2]
    assert membership.call({0, 2}) == []  # once is enough
    membership.out(0)
    assert not membership.ready({0, 2})
    membership.out(2)
    assert membership.ready({0, 2})
    membership.meet({0, 2})
    assert (membership.members, membership.generation) == ((0, 2), 2)


def test_who_joins_is_let_in_between_two_microbatches():
    """Those who meet are called out; the new one need not say anything."""
    membership = meeting(0)
    assert membership.call({0, 1}) == [0]
    membership.out(0)
    assert membership.ready({0, 1})


def test_who_takes_the_place_of_another_is_not_taken_for_it():
    """Rank 1 was gone and is there again before anybody looked."""
    membership = meeting(0, 1)
    membership.gone(1)
    assert membership.call({0, 1}) == [0]


def test_who_dies_while_it_is_awaited_is_not_awaited_any_more():
    """Else the others would wait for ever."""
    membership = meeting(0, 1, 2)
    membership.gone(1)
    membership.call({0, 2})
    membership.out(0)
    membership.gone(2)
    assert membership.ready({0})


def test_with_nobody_left_it_waits_for_somebody():
    """All have died at once."""
    membership = meeting(0, 1)
    membership.gone(0)
    membership.gone(1)
    assert membership.call(set()) == []
    assert not membership.ready(set())
    assert membership.ready({1})


def test_who_has_nothing_more_to_do_may_go():
    """It is over when all have said so; one that is gone before it did is missed."""
    membership = meeting(0, 1)
    membership.leaves(0)
    membership.gone(0)
    assert membership.call({1}) == []
    assert not membership.finished
    membership.leaves(1)
    assert membership.finished
    membership = meeting(0, 1)
    membership.leaves(0)
    membership.gone(1)
    assert membership.call({0}) == [0]


def test_who_holds_up_all_is_left_out_and_meets_again_when_it_is_back():
    """Rank 1 of two is in the middle of something: 0 goes on alone, and 1 is taken in once it says that it is out."""
    membership = meeting(0, 1)
    assert membership.call({0, 1}, held_up=True) == [0, 1]
    membership.out(0)
    assert membership.awaited == {1}
    membership.leave_out(1)
    assert membership.ready({0, 1})
    membership.meet({0})
    assert membership.call({0, 1}) == []  # it is there, and away
    assert membership.place(1) == (1, 2)  # what it still tells of
    membership.out(1)
    assert membership.call({0, 1}) == [0]
    membership.out(0)
    membership.meet({0, 1})
    assert (membership.members, membership.away) == ((0, 1), set())


def test_who_is_left_out_and_alone_is_waited_for():
    """The one that went on without it is gone."""
    membership = meeting(0, 1)
    membership.call({0, 1}, held_up=True)
    membership.out(0)
    membership.leave_out(1)
    membership.meet({0})
    membership.gone(0)
    assert membership.call({1}) == []
    assert not membership.ready({1})
    membership.out(1)
    assert membership.ready({1})


EVENTS = st.tuples(st.sampled_from(["join", "gone", "out", "leave out", "back"]), st.integers(0, 4))


@given(st.lists(EVENTS, max_size=60))
def test_nobody_meets_before_all_who_met_are_out_or_gone(events):
    """Whatever happens in whatever order, against a record of who may still be writing; and nobody is forgotten. Those
    who are left out write to what is theirs alone, and do not meet before they are back."""
    membership, joined, writing, called, away = Membership(), set(), set(), set(), set()
    for what, rank in events:
        if what == "join":
            joined.add(rank)
        elif what == "gone" and rank in joined:
            joined.discard(rank)
            writing.discard(rank)
            away.discard(rank)
            membership.gone(rank)
        elif what == "out" and rank in called & writing:
            writing.discard(rank)
            membership.out(rank)
        elif what == "leave out" and rank in called & writing:
            writing.discard(rank)
            away.add(rank)
            membership.leave_out(rank)
        elif what == "back" and rank in away:
            away.discard(rank)
            membership.out(rank)
        called |= set(membership.call(joined))
        if membership.ready(joined):
            assert not writing
            assert membership.away == away
            membership.meet(joined - away)
            writing, called = joined - away, set()
    assert called or writing == joined - away
