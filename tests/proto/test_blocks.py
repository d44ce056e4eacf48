from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.blocks import BLOCK_ELEMENTS_MAX, BLOCK_ELEMENTS_MIN, BLOCKS, Block, Shards
from thalweg_proto.shared_memory import CHUNK

SIZES = st.integers(1, 60 * CHUNK) | st.integers(1, 60).map(lambda chunks: chunks * CHUNK)
OWNS = st.lists(st.booleans(), min_size=1, max_size=9).filter(any)
CUTS = st.none() | st.integers(1, 9).map(lambda chunks: chunks * CHUNK)
SHARDS = st.builds(lambda size, owns, block: Shards.of(size, owns, block=block), SIZES, OWNS, CUTS)


def test_shards_by_hand():
    """10 chunks for hosts 0 and 2: five each, in blocks of 4 chunks and what is left."""
    shards = Shards.of(10 * CHUNK - 3, [True, False, True])
    assert shards.bounds == ((0, 5 * CHUNK), (0, 0), (5 * CHUNK, 10 * CHUNK - 3))
    assert shards.blocks == (
        Block(0, 4 * CHUNK, 0),
        Block(4 * CHUNK, 5 * CHUNK, 0),
        Block(5 * CHUNK, 9 * CHUNK, 2),
        Block(9 * CHUNK, 10 * CHUNK - 3, 2),
    )


@given(SIZES, OWNS, CUTS)
def test_blocks_cover_every_element_once_and_in_order(size, owns, cut):
    """Each block begins where the one before it ends; the first begins at 0, the last ends with the vector."""
    blocks = Shards.of(size, owns, block=cut).blocks
    assert (blocks[0].begin, blocks[-1].end) == (0, size)
    assert all(left.end == right.begin for left, right in pairwise(blocks))
    assert all(block.begin < block.end for block in blocks)
    assert all(block.begin % CHUNK == 0 for block in blocks)


@given(SIZES, OWNS, CUTS)
def test_shards_are_contiguous_and_in_the_order_of_the_hosts(size, owns, cut):
    """A host's shard is what its blocks are, one behind the other; a host that owns nothing has none."""
    shards = Shards.of(size, owns, block=cut)
    assert [block.owner for block in shards.blocks] == sorted(block.owner for block in shards.blocks)
    assert len(shards.bounds) == len(owns)
    for host, (begin, end) in enumerate(shards.bounds):
        mine = [block for block in shards.blocks if block.owner == host]
        assert sum(block.end - block.begin for block in mine) == end - begin
        assert owns[host] or not mine
        if mine:
            assert (mine[0].begin, mine[-1].end) == (begin, end)


@given(SIZES, OWNS, CUTS)
def test_shards_are_equal_to_within_a_chunk(size, owns, cut):
    """However many owners there are."""
    bounds = Shards.of(size, owns, block=cut).bounds
    lengths = [end - begin for (begin, end), does in zip(bounds, owns, strict=True) if does]
    assert max(lengths) - min(lengths) <= CHUNK


@given(SIZES, OWNS, CUTS.filter(bool))
def test_all_blocks_of_a_shard_but_its_last_are_as_long_as_asked_for(size, owns, cut):
    """The last one is no longer."""
    shards = Shards.of(size, owns, block=cut)
    for host in range(len(owns)):
        lengths = [block.end - block.begin for block in shards.blocks if block.owner == host]
        assert set(lengths[:-1]) <= {cut}
        assert all(length <= cut for length in lengths[-1:])


@pytest.mark.parametrize("owners", [1, 2, 3])
@pytest.mark.parametrize("chunks", [1, 4, 48, 49, 100, 384, 1000, 5000])
def test_a_shard_has_a_dozen_blocks_within_limits(chunks, owners):
    """Of at least 128 KiB, even where that makes fewer, and of at most 1 MiB, even where that makes more."""
    shards = Shards.of(owners * chunks * CHUNK, [True] * owners)
    for host in range(owners):
        lengths = [block.end - block.begin for block in shards.blocks if block.owner == host]
        longest = max(lengths)
        assert longest <= BLOCK_ELEMENTS_MAX
        assert longest >= BLOCK_ELEMENTS_MIN or len(lengths) == 1
        if BLOCK_ELEMENTS_MIN < longest < BLOCK_ELEMENTS_MAX:
            assert BLOCKS - 1 <= len(lengths) <= BLOCKS + 1


@given(st.integers(1, 3 * CHUNK), st.integers(4, 9))
def test_a_vector_of_fewer_chunks_than_owners_leaves_some_without(size, owners):
    """Each chunk is one owner's whole shard; the shards of the others are empty."""
    shards = Shards.of(size, [True] * owners)
    assert sum(begin < end for begin, end in shards.bounds) == len(shards.blocks) == -(-size // CHUNK)
    for host, (begin, end) in enumerate(shards.bounds):
        assert len(shards.owned_by(host)) == (begin < end)


@given(SHARDS)
def test_owned_by_gives_the_blocks_of_a_host(shards):
    """The same as looking at all of them."""
    for host in range(len(shards.bounds)):
        mine = [index for index, block in enumerate(shards.blocks) if block.owner == host]
        assert list(shards.owned_by(host)) == mine


@given(SHARDS, st.data())
def test_index_finds_a_block_and_nothing_else(shards, data):
    """The same as looking through all of them, for ends of blocks and for any other elements."""
    ends = sorted({end for block in shards.blocks for end in block[:2]})
    element = st.sampled_from(ends) | st.integers(0, ends[-1] + CHUNK)
    begin, end = data.draw(element), data.draw(element)
    found = [index for index, block in enumerate(shards.blocks) if block[:2] == (begin, end)]
    assert shards.index(begin, end) == (found[0] if found else None)
    assert [shards.index(*block[:2]) for block in shards.blocks] == list(range(len(shards.blocks)))
