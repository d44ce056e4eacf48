from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.hosts.readiness import Finals, Presence
from thalweg_proto.blocks import Block


def blocks(*ends: int) -> list[Block]:
    """Blocks of one owner, one behind the other, that end there."""
    return [Block(begin, end, 0) for begin, end in zip((0, *ends), ends, strict=False)]


BLOCKS = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(
    lambda lengths: blocks(*[sum(lengths[: i + 1]) for i in range(len(lengths))])
)


def test_a_block_is_final_when_all_gradients_are_from_its_begin_on():
    """Blocks [0, 4), [4, 8), [8, 10) of two gradients: the slower one decides."""
    finals = Finals(blocks(4, 8, 10), 2)
    assert finals.final(0, 4) == range(3, 3)
    assert finals.final(1, 9) == range(3, 3)
    assert finals.final(1, 5) == range(2, 3)
    assert finals.final(1, 0) == range(1, 2)
    assert finals.final(0, 1) == range(1, 1)
    assert finals.final(0, 0) == range(0, 1)


def test_one_message_may_make_all_blocks_final():
    """A gradient that is told of once, when it is whole."""
    assert Finals(blocks(4, 8, 10), 1).final(0, 0) == range(3)


def test_in_the_next_step_nothing_is_final():
    """After a reset, in the middle of a step too."""
    finals = Finals(blocks(4, 8), 2)
    for told in (0, 5):
        finals.final(0, told)
        finals.final(1, 0)
        finals.reset()
        assert finals.final(1, 0) == range(2, 2)
        assert finals.final(0, 4) == range(1, 2)
        finals.reset()


@given(BLOCKS, st.integers(1, 3), st.data())
def test_each_block_is_told_of_once_and_as_soon_as_it_is_final(of, gradients, data):
    """Looking at all gradients anew each time gives the same; messages may repeat, or fall behind earlier ones."""
    size = of[-1].end
    finals, least, told = Finals(of, gradients), [size] * gradients, []
    messages = st.tuples(st.integers(0, gradients - 1), st.integers(0, size))
    for gradient, begin in data.draw(st.lists(messages, max_size=12)):
        least[gradient] = min(least[gradient], begin)
        found = finals.final(gradient, begin)
        final = [i for i, block in enumerate(of) if all(block.begin >= first for first in least)]
        assert [*found, *told] == final
        told = final


def test_the_beginning_grows_with_the_blocks_that_join_it():
    """Of three blocks the middle one comes first: it counts with the one before it."""
    presence = Presence(blocks(4, 8, 10))
    assert (presence.there(1), presence.end, presence.missing) == (False, 0, [0, 2])
    assert (presence.there(0), presence.end, presence.missing) == (True, 8, [2])
    assert (presence.there(0), presence.end, presence.whole) == (False, 8, False)
    assert (presence.there(2), presence.end, presence.whole) == (True, 10, True)


def test_a_server_alone_waits_for_its_own_blocks():
    """Indices are those of the whole vector."""
    presence = Presence(blocks(4, 8, 10)[1:], 1)
    assert presence.missing == [1, 2]
    assert (presence.there(2), presence.there(1)) == (False, True)
    assert (presence.end, presence.whole) == (10, True)


def test_of_the_next_version_nothing_is_there():
    """After a reset."""
    presence = Presence(blocks(4, 8))
    for index in (0, 1):
        presence.there(index)
    presence.reset()
    assert (presence.end, presence.whole, presence.missing) == (0, False, [0, 1])


@given(BLOCKS, st.integers(0, 9), st.data())
def test_what_is_there_is_what_has_come(of, first, data):
    """A set says the same, whatever comes in whatever order, and twice."""
    presence, came, end = Presence(of, first), set(), 0
    for index in data.draw(st.lists(st.integers(0, len(of) - 1), max_size=12)):
        grew = presence.there(first + index)
        came.add(index)
        prefix = next((i for i in range(len(of)) if i not in came), len(of))
        before, end = end, of[prefix - 1].end if prefix else 0
        assert (presence.end, grew) == (end, end > before)
        assert presence.whole == (len(came) == len(of))
        assert presence.missing == [first + i for i in range(len(of)) if i not in came]
