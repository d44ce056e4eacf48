"""Where large matrices are cut, so that the wire and the products work at the same time.

    tiles   of a gradient, from the last rows to the first: each leaves while the next is computed
    blocks  of a parameter, from the first rows to the last, the order in which it arrives: the product with each is
            computed while the next is on its way

Both are runs of whole rows, cut off from the last row on, each twice as high as the one cut off before. BLAS packs the
other factor of a product anew for each, which costs as much as 10 to 20 rows more, and a product in blocks is a sum. So
they are few. The last rows are the small piece on both sides: there the wire waits for the product, or the product for
the wire, and nowhere else, since a product takes a fraction of the time that its matrix is on the wire: a twelfth, for
128 samples and 1 Gbit/s.

The cuts follow from the shape alone, never from who waits or on how many hosts, and so do the bits.
"""

from __future__ import annotations

TILE = 128 * 1024  # elements of the smallest tile or block, about
ROWS = 16  # its height is a multiple of this, which the inner loops of BLAS divide into
TILE_ROWS = 128  # and at least this,
BLOCK_ROWS = 256  # or this: of lower ones the sum would take longer
UNCUT_MAX = 1024 * 1024  # elements of a parameter that is one block


def gradient_tiles(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows [begin, end) of each tile of a gradient of this shape, in the order in which they are computed."""
    height, width = shape
    return _pieces(height, _lowest(width, TILE_ROWS))


def parameter_blocks(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows [begin, end) of each block of a parameter of this shape, in the order in which they are read."""
    height, width = shape
    return _pieces(height, _lowest(width, BLOCK_ROWS))[::-1] if height * width > UNCUT_MAX else [(0, height)]


def _lowest(width: int, rows_min: int) -> int:
    return max(TILE // max(width, 1) // ROWS * ROWS, rows_min)


def _pieces(height: int, rows: int) -> list[tuple[int, int]]:
    """From the end: `rows`, then twice as many, and so on; the last piece is what is left, at least half of its due."""
    pieces, end = [], height
    while end >= 2 * rows:
        pieces.append((end - rows, end))
        end, rows = end - rows, 2 * rows
    return [*pieces, (0, end)]
