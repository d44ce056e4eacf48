"""Where a large gradient is cut, so that its last rows leave while the first are yet to be computed.

Tiles are runs of whole rows, from the last rows to the first. BLAS packs the other factor of a product anew for each
tile, which costs as much as 10 to 20 rows more. So tiles are few: the first is small, since until it is there the wire
may be idle, and each next one is twice as high, since computing it takes a fraction of the time that the one before is
on the wire for.

The cuts follow from the shape alone, never from who waits for the tiles or on how many hosts, and so do the bits.
"""

from __future__ import annotations

TILE = 128 * 1024  # elements, about, in the first tile of a gradient
ROWS = 16  # its height is a multiple of this, which the inner loops of BLAS divide into
ROWS_MIN = 32  # and at least this


def gradient_tiles(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows [begin, end) of each tile of a gradient of this shape, in the order in which they are computed."""
    height, width = shape
    return _pieces(height, max(TILE // max(width, 1) // ROWS * ROWS, ROWS_MIN))


def _pieces(height: int, rows: int) -> list[tuple[int, int]]:
    """From the end: `rows`, then twice as many, and so on; the last piece is what is left, at least half of its due."""
    pieces, end = [], height
    while end >= 2 * rows:
        pieces.append((end - rows, end))
        end, rows = end - rows, 2 * rows
    return [*pieces, (0, end)]
