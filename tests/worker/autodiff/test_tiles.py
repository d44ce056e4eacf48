"""Where large matrices are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_worker.autodiff.tiles import BLOCK_ROWS, ROWS, TILE, TILE_ROWS, UNCUT_MAX, gradient_tiles, parameter_blocks


@pytest.mark.parametrize(
    ("shape", "begins"),
    [
        ((784, 128), [0]),
        ((4096, 10), [0]),
        ((511, 512), [0]),  # less than two tiles
        ((512, 512), [256, 0]),
        ((784, 512), [528, 0]),
        ((784, 1024), [656, 400, 0]),
        ((1024, 1024), [896, 640, 0]),
        ((784, 4096), [656, 400, 0]),
        ((4096, 4096), [3968, 3712, 3200, 2176, 0]),
        ((1000, 50_000), [872, 616, 0]),  # two rows are nearly a tile
        ((1_000_000, 1), [868_928, 606_784, 0]),
        ((0, 10), [0]),
        ((10, 0), [0]),
    ],
)
def test_tiles_of_a_gradient(shape: tuple[int, int], begins: list[int]) -> None:
    """Shapes that occur, and those at the edge, by hand."""
    assert [begin for begin, _ in gradient_tiles(shape)] == begins


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_tiles_are_whole_rows_from_the_last_to_the_first(height: int, width: int) -> None:
    """Each row is in one tile; heights double, and are multiples of 16; the last tile takes what is left."""
    cuts = gradient_tiles((height, width))
    assert [end for _, end in cuts] == [height, *(begin for begin, _ in cuts[:-1])]
    assert cuts[-1][0] == 0
    heights = [end - begin for begin, end in cuts]
    assert all(rows == heights[0] * 2**i and rows % ROWS == 0 for i, rows in enumerate(heights[:-1]))
    if len(heights) > 1:
        assert heights[0] >= TILE_ROWS
        assert TILE - ROWS * width < heights[0] * width <= max(TILE, TILE_ROWS * width)
        assert heights[-2] <= heights[-1] < 4 * heights[-2]


@pytest.mark.parametrize(
    ("shape", "begins"),
    [
        ((1024, 1024), [0]),
        ((1025, 1024), [0, 769]),
        ((784, 4096), [0, 528]),
        ((4096, 4096), [0, 2304, 3328, 3840]),
        ((511, 4096), [0]),  # less than two blocks
        ((1_000_000, 2), [0, 541_248, 803_392, 934_464]),  # few columns: as many elements as a tile has
        ((0, 10), [0]),
        ((10, 0), [0]),
    ],
)
def test_blocks_of_a_parameter(shape: tuple[int, int], begins: list[int]) -> None:
    """Shapes that occur, and those at the edge, by hand."""
    assert [begin for begin, _ in parameter_blocks(shape)] == begins


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_blocks_are_whole_rows_from_the_first_to_the_last(height: int, width: int) -> None:
    """Each row is in one block; heights halve down to the least, the first block takes what is left."""
    cuts = parameter_blocks((height, width))
    assert [begin for begin, _ in cuts] == [0, *(end for _, end in cuts[:-1])]
    assert cuts[-1][1] == height
    heights = [end - begin for begin, end in cuts][::-1]
    assert all(rows == heights[0] * 2**i and rows % ROWS == 0 for i, rows in enumerate(heights[:-1]))
    if len(heights) > 1:
        assert height * width > UNCUT_MAX
        assert heights[0] >= BLOCK_ROWS
        assert heights[0] * width > TILE - ROWS * width
        assert heights[-2] <= heights[-1] < 4 * heights[-2]
