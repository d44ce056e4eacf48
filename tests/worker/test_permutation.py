"""The keyed permutation: its formula against plain Python, its bijection, its uniformity."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_worker.permutation import SIZE_MAX, Permutation, permute, splitmix64, word

WORD = 2**64


def hashed(z: int) -> int:
    """F of the module's text, in Python integers."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    return (z ^ z >> 27) * 0x94D049BB133111EB % WORD


def permuted(key: int, size: int, x: int) -> int:
    """The formula of the module's text, one position at a time."""
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    b += b % 2
    rounds = max(6, 2 * math.ceil(12 / max(1, int(math.log2(min(a, b))))))
    while True:
        left, right = divmod(x, b)
        for i in range(rounds):
            k = hashed((key + (i + 1) * 0x9E3779B97F4A7C15) % WORD)
            k ^= k >> 31
            if i % 2 == 0:
                left = (left + (hashed((k + right) % WORD) >> 32) * a // 2**32) % a
            else:
                right = (right + (hashed((k + left) % WORD) >> 32) * b // 2**32) % b
        x = left * b + right
        if x < size:
            return x


def chi_square_bound(freedom: int) -> float:
    """The value that chi-square exceeds once in 10,000: Wilson and Hilferty, PNAS 17 (1931), z = 3.719."""
    ninth = 2 / (9 * freedom)
    return freedom * (1 - ninth + 3.719 * math.sqrt(ninth)) ** 3


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def test_splitmix64_draws_the_published_numbers() -> None:
    """Seed 1234567 gives the numbers that splitmix64.c prints."""
    drawn = splitmix64(word(1234567), np.arange(5, dtype=np.uint64))
    assert drawn.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@settings(max_examples=50, deadline=None)
@given(key=st.integers(0, WORD - 1), size=st.integers(1, 5000) | st.integers(10**11, SIZE_MAX), data=st.data())
def test_permutation_follows_its_formula(key: int, size: int, data: st.DataObject) -> None:
    """Array arithmetic agrees with the formula written out in Python integers."""
    positions = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8))
    assert Permutation(key, size)(np.array(positions)).tolist() == [permuted(key, size, x) for x in positions]


def test_permutation_is_pinned() -> None:
    """The rows never change between releases: a resumed job must see the same samples."""
    assert Permutation(0, 10)(np.arange(10)).tolist() == [5, 4, 1, 0, 9, 3, 8, 6, 7, 2]
    assert Permutation(7, 10**12)(np.arange(3)).tolist() == [543237060691, 37713875977, 156712832696]


@settings(max_examples=50, deadline=None)
@given(key=st.integers(), size=st.integers(1, 3000))
def test_permutation_is_a_bijection(key: int, size: int) -> None:
    """Each row comes exactly once, and `inverse` finds its position again."""
    permutation = Permutation(key, size)
    rows = permutation(np.arange(size))
    assert np.array_equal(np.sort(rows), np.arange(size))
    assert np.array_equal(permutation.inverse(rows), np.arange(size))


@settings(max_examples=50, deadline=None)
@given(key=st.integers(), size=st.integers(2**40, SIZE_MAX), data=st.data())
def test_inverse_undoes_at_any_size(key: int, size: int, data: st.DataObject) -> None:
    """At sizes that cannot be listed, inverse(permutation(x)) = x = permutation(inverse(x))."""
    x = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8)))
    permutation = Permutation(key, size)
    assert np.array_equal(permutation.inverse(permutation(x)), x)
    assert np.array_equal(permutation(permutation.inverse(x)), x)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 200),
    keys=st.lists(st.integers(0, WORD - 1), min_size=1, max_size=20),
    data=st.data(),
)
def test_permute_is_many_permutations_in_one_call(size: int, keys: list[int], data: st.DataObject) -> None:
    """permute(x, keys, size)[i] = Permutation(keys[i], size)(x[i]), with runs of equal keys or none."""
    keys = [key for key in keys for _ in range(data.draw(st.integers(1, 3)))]
    positions = [data.draw(st.integers(0, size - 1)) for _ in keys]
    rows = permute(np.array(positions), np.array(keys, dtype=np.uint64), size)
    assert rows.tolist() == [int(Permutation(k, size)(np.array(x))) for k, x in zip(keys, positions, strict=True)]


def test_long_arrays_are_cut_into_blocks_without_a_seam() -> None:
    """100,000 positions in one call give what 100 calls give; keys may change inside a block."""
    positions = np.arange(100_000) % 777
    keys = splitmix64(word(1), (np.arange(100_000) // 777).astype(np.uint64))
    parts = [permute(positions[i : i + 1000], keys[i : i + 1000], 777) for i in range(0, 100_000, 1000)]
    assert np.array_equal(permute(positions, keys, 777), np.concatenate(parts))


def test_shape_is_kept() -> None:
    """A (2, 3) array of positions gives a (2, 3) array of rows; none gives none."""
    permutation = Permutation(1, 6)
    assert np.array_equal(permutation(np.arange(6).reshape(2, 3)).reshape(-1), permutation(np.arange(6)))
    assert permutation(np.empty(0, dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize("size", [3, 4, 5, 6])
def test_every_order_of_a_tiny_size_is_equally_frequent(size: int) -> None:
    """Over 60,000 keys, each of the size! orders comes about as often as any other (chi-square)."""
    keys = np.arange(60_000, dtype=np.uint64)
    rows = permute(np.tile(np.arange(size), keys.size), np.repeat(keys, size), size).reshape(-1, size)
    weights = size ** np.arange(size)
    orders = np.sort([int(np.dot(order, weights)) for order in permutations(range(size))])
    counts = np.bincount(np.searchsorted(orders, rows @ weights), minlength=orders.size)
    assert chi_square(counts) < chi_square_bound(orders.size - 1)


@pytest.mark.parametrize("size", [7, 9, 50, 101])
def test_pairs_of_rows_are_uniform_over_keys(size: int) -> None:
    """The rows at two positions, over 100,000 keys, fall on each pair of rows about equally often."""
    keys = np.arange(100_000, dtype=np.uint64)
    pair = permute(np.tile([0, size - 1], keys.size), np.repeat(keys, 2), size).reshape(-1, 2)
    counts = np.bincount(pair[:, 0] * size + pair[:, 1], minlength=size * size).reshape(size, size)
    assert np.trace(counts) == 0
    assert chi_square(counts[~np.eye(size, dtype=bool)]) < chi_square_bound(size * (size - 1) - 1)


def test_even_and_odd_orders_are_equally_frequent() -> None:
    """At size 9 = 3 * 3 an odd b would give even permutations only; over 10,000 keys half are odd."""
    keys = np.arange(10_000, dtype=np.uint64)
    rows = permute(np.tile(np.arange(9), keys.size), np.repeat(keys, 9), 9).reshape(-1, 9)
    inversions = sum((rows[:, i] > rows[:, j]).astype(int) for i in range(9) for j in range(i + 1, 9))
    assert chi_square(np.bincount(inversions % 2, minlength=2)) < chi_square_bound(1)


def test_keys_count_modulo_the_word() -> None:
    """A key may be any integer; keys that differ by 2**64 name the same permutation, others do not."""
    x = np.arange(1000)
    assert np.array_equal(Permutation(-1, 1000)(x), Permutation(WORD - 1, 1000)(x))
    assert not np.array_equal(Permutation(0, 1000)(x), Permutation(1, 1000)(x))


@pytest.mark.parametrize("size", [0, -1, SIZE_MAX + 1])
def test_size_out_of_range_is_refused(size: int) -> None:
    """A size that is not 1 .. 2**62 raises ValueError with what was found."""
    with pytest.raises(ValueError, match=str(size)):
        Permutation(0, size)


@pytest.mark.parametrize("position", [-1, 10])
def test_position_out_of_range_is_refused(position: int) -> None:
    """A position outside [0, size) raises IndexError, both ways."""
    permutation = Permutation(0, 10)
    with pytest.raises(IndexError, match="0, 10"):
        permutation(np.array([3, position]))
    with pytest.raises(IndexError, match="0, 10"):
        permutation.inverse(np.array([3, position]))
