from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.in_hand import Chunk, InHand, Part, runs


def parts(*numbers: int, step: int = 0) -> list[Part]:
    return [Part(step, number) for number in numbers]


def chunks(*numbers: int) -> list[Chunk]:
    return [Chunk(0, number) for number in numbers]


def of(*ranks: int) -> InHand:
    in_hand = InHand()
    for rank in ranks:
        in_hand.joined(rank)
    return in_hand


def give(in_hand: InHand, dealt: dict, now: float = 0.0) -> dict:
    """All that was dealt is given, on version 0."""
    for rank, pieces in dealt.items():
        in_hand.give(rank, pieces, 0, now)
    return dealt


def test_each_gets_a_run_of_about_equal_length():
    """Seven parts and one chunk among three; a part and a chunk of the same numbers are not the same."""
    assert of(4, 5, 6).deal([*parts(*range(7)), *chunks(0)]) == {
        4: parts(0, 1),
        5: parts(2, 3),
        6: [*chunks(0), *parts(4, 5, 6)],
    }


def test_what_one_who_is_gone_had_goes_to_those_who_have_less():
    """Chunks first: who computes parts goes on to parameters that come over those of the chunks."""
    in_hand = of(0, 1, 2)
    in_hand.give(0, [*parts(0, 1), *chunks(0)], 0, 0.0)
    in_hand.give(1, parts(2, 3), 0, 0.0)
    in_hand.give(2, parts(4), 0, 0.0)
    lost = in_hand.gone(0)
    assert lost == [*chunks(0), *parts(0, 1)]
    assert in_hand.deal(lost) == {1: parts(0), 2: [*chunks(0), *parts(1)]}


def test_where_nobody_is_there_it_waits_for_whoever_joins():
    """With what falls due meanwhile; and is dealt once."""
    in_hand = of(3)
    in_hand.give(3, parts(0, 1), 0, 0.0)
    assert in_hand.deal(in_hand.gone(3)) == {}
    assert (in_hand.deal(chunks(0)), in_hand.empty) == ({}, False)
    in_hand.joined(3)
    assert in_hand.deal(()) == {3: [*chunks(0), *parts(0, 1)]}
    assert (in_hand.deal(()), in_hand.empty) == ({}, True)


def test_a_piece_is_done_once_by_the_one_who_has_it():
    """What others say of it, or he again, is nothing."""
    in_hand = of(0, 1)
    in_hand.give(0, parts(0), 0, 0.0)
    [part] = parts(0)
    assert (in_hand.has(0, part), in_hand.has(1, part)) == (True, False)
    assert [in_hand.done(rank, part) for rank in (1, 0, 0)] == [False, True, False]
    assert in_hand.empty


def test_what_two_have_in_hand_is_done_by_the_first_and_late_of_the_other():
    """Worker 1 has a copy of what 0 is in the middle of, and is done first: 0 is away, and gets nothing, until it says
    that it is done with it; it is still at work, and may hang."""
    in_hand = of(0, 1)
    in_hand.whole(0, 1.0)
    in_hand.give(0, parts(0), 0, 5.0)
    in_hand.give(1, parts(0), 0, 6.0)
    [part] = parts(0)
    assert in_hand.holders(part) == [0, 1]
    assert in_hand.done(1, part)
    assert (in_hand.there, in_hand.away(0), in_hand.empty) == ([1], True, True)
    assert in_hand.working_since == {0: 5.0}
    assert in_hand.deal(parts(1, 2, step=1)) == {1: parts(1, 2, step=1)}
    assert [in_hand.late(rank, part) for rank in (1, 0, 0)] == [False, True, False]
    assert in_hand.there == [0, 1]


def test_what_a_dead_worker_has_in_hand_with_another_is_not_dealt_anew():
    """The other one computes it."""
    in_hand = of(0, 1)
    in_hand.give(0, parts(0, 1), 0, 5.0)
    in_hand.give(1, parts(0), 0, 6.0)
    assert in_hand.gone(0) == parts(1)
    assert in_hand.gone(1) == parts(0)


def test_where_all_are_away_they_get_what_is_to_be_done():
    """Else nobody would."""
    in_hand = of(0, 1)
    in_hand.give(0, parts(0), 0, 5.0)
    in_hand.give(1, parts(0), 0, 6.0)
    in_hand.done(1, parts(0)[0])
    in_hand.gone(1)
    assert in_hand.deal(parts(1)) == {0: parts(1)}


def test_when_a_step_is_over_its_parts_are_nobodys_but_chunks_stay():
    """With backup workers some parts are late."""
    in_hand = of(0)
    in_hand.give(0, [*parts(0, 1), *chunks(0)], 0, 0.0)
    in_hand.drop_parts()
    assert in_hand.gone(0) == chunks(0)
    in_hand.deal([*parts(2), *chunks(1)])
    in_hand.drop_parts()
    in_hand.joined(0)
    assert in_hand.deal(()) == {0: chunks(1)}


def test_a_worker_is_at_work_since_it_got_some_or_said_something():
    """Who has nothing in hand waits for others, and more work does not make it younger."""
    in_hand = of(0, 1)
    in_hand.whole(0, 1.0)
    in_hand.give(0, parts(0), 0, 5.0)
    in_hand.give(0, chunks(0), 0, 6.0)
    assert in_hand.working_since == {0: 5.0}
    in_hand.said(0, 7.0)
    assert in_hand.working_since == {0: 7.0}
    in_hand.done(0, Part(0, 0))
    in_hand.done(0, Chunk(0, 0))
    in_hand.said(1, 8.0)
    assert in_hand.working_since == {}


def test_who_waits_for_parameters_is_not_at_work_before_they_are_whole():
    """However early it was told what to compute on them; a later version does not make it younger."""
    in_hand = of(0)
    in_hand.give(0, parts(0, step=3), 3, 5.0)
    in_hand.whole(2, 6.0)
    assert in_hand.working_since == {}
    in_hand.whole(3, 9.0)
    in_hand.whole(3, 10.0)
    assert in_hand.working_since == {0: 9.0}
    in_hand.whole(4, 11.0)
    assert in_hand.working_since == {0: 5.0}


def test_where_the_server_stood_still_itself_nobody_hung_meanwhile():
    """What they said is still to be read."""
    in_hand = of(0)
    in_hand.whole(0, 0.0)
    in_hand.give(0, parts(0), 0, 5.0)
    in_hand.stood_still(1000.0)
    assert in_hand.working_since == {0: 1000.0}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("deal"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["joins", "dies", "does"]), st.integers(0, 3)),
    ),
    max_size=30,
)


@given(EVENTS)
def test_each_piece_is_in_one_hand_or_nobodys_until_it_is_done(events):
    """Whoever dies and joins, and whenever: nothing is lost, and nothing is in two hands."""
    in_hand, living, due, done = InHand(), {}, set(), set()

    def deal(pieces):
        for rank, some in give(in_hand, in_hand.deal(pieces)).items():
            living[rank] |= set(some)

    for step, (what, n) in enumerate(events):
        if what == "deal":
            due |= set(parts(*range(n), step=step))
            deal(parts(*range(n), step=step))
        elif what == "joins" and n not in living:
            living[n] = set()
            in_hand.joined(n)
            deal(())
        elif what == "dies" and n in living:
            lost = in_hand.gone(n)
            assert set(lost) == living.pop(n)
            deal(lost)
        elif what == "does" and living.get(n):
            piece = min(living[n])
            living[n].remove(piece)
            done.add(piece)
            assert in_hand.done(n, piece)
        held = [piece for hand in living.values() for piece in hand]
        assert len(held) == len(set(held))
        assert (set(held) | done == due) or not living
        assert in_hand.empty == (done == due)


@given(st.sets(st.integers(0, 20)))
def test_numbers_as_ranges_are_the_same_numbers(numbers):
    """And no two ranges touch."""
    found = list(runs(sorted(numbers)))
    assert [n for run in found for n in run] == sorted(numbers)
    assert all(a.stop < b.start for a, b in pairwise(found))
