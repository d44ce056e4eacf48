"""A keyed permutation of [0, size), computed for the positions asked for and never stored.

    permutation = Permutation(key=7, size=10**12)
    rows = permutation(np.arange(64))          # 64 different rows of [0, 10**12)
    permutation.inverse(rows)                  # 0..63 again

Rules:

- Each key gives a bijection on [0, size): no row comes twice and none is left out, at any size up to 2**62.
- Memory and time are O(positions asked for), whatever the size; work goes block by block through the cache.
- The result depends on (key, size, position) only: 64-bit integer arithmetic, the same on every machine.
- It shuffles; it hides nothing. The round function is quick and not cryptographic.

The formula. With a = ceil(sqrt(size)) and b = the least even number with a b >= size, a position x stands for
the pair (l, r) = (x // b, x % b). Rounds i = 0, 1, ... change the halves in turn:

    i even:  l := (l + F(k_i + r) mod a) mod a        i odd:  r := (r + F(k_i + l) mod b) mod b

and the result is l b + r. Each round can be undone, so the whole is a bijection on [0, a b): a generalised
Feistel network. Where a result is not below `size`, the network is applied again until it is ("cycle
walking"), which keeps the bijection; a b - size < 2 a, so that is rare. The round keys are splitmix64's: k_i
is the i-th number that it draws when seeded with `key`. F is its output function short of the last xor-shift,
which would change only one of the bits used: "F mod a" is the top 32 bits of F times a, divided by 2**32,
which is quicker than a division and takes the best mixed bits.

b is even because rounds over odd moduli are even permutations: with both odd, a size of a b would never see
the odd half of its orders.

Sources: Luby and Rackoff, "How to construct pseudorandom permutations", SIAM J. Comput. 17 (1988); Black and
Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (the generalised network and cycle walking);
Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with the constants of
Vigna's splitmix64.c; Lemire, "Fast random integer generation in an interval", ACM TOMACS 29 (2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SIZE_MAX = 2**62

_Words: TypeAlias = NDArray[np.uint64]

_BLOCK = 16384  # positions worked on at once: long enough to hide NumPy's cost of a call, short enough for caches
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_C1 = np.uint64(0xBF58476D1CE4E5B9)
_C2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = (np.uint64(shift) for shift in (27, 30, 31, 32))


def splitmix64(seed: _Words, index: _Words) -> _Words:
    """The `index`-th number (counted from 0) that splitmix64 draws when seeded with `seed`.

    seed, index: uint64, of shapes that broadcast; the result has the shape of both.
    """
    z = seed + (index + np.uint64(1)) * _GAMMA
    z = (z ^ (z >> _S30)) * _C1
    z = (z ^ (z >> _S27)) * _C2
    mixed: _Words = z ^ (z >> _S31)
    return mixed


def word(number: int) -> _Words:
    """A Python integer of any size, modulo 2**64, as uint64 of shape (1,)."""
    return np.array([int(number) % 2**64], dtype=np.uint64)


@dataclass(frozen=True)
class Permutation:
    """The permutation of [0, size) that `key` names; the module's text has the formula.

    key:  any integer; taken modulo 2**64
    size: 1 .. 2**62; another one raises ValueError
    """

    key: int
    size: int
    _network: _Network = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_network", _Network.over(self.size))

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at `positions`: int64 of any shape in, int64 of that shape out, both within [0, size).

        Raises IndexError where a position lies outside.
        """
        return self._network.permute(positions, word(self.key))

    def inverse(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions at which `rows` stand: int64 in and out, of any one shape, within [0, size).

        Raises IndexError where a row lies outside.
        """
        return self._network.permute(rows, word(self.key), inverse=True)


def permute(positions: NDArray[np.int64], keys: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """`Permutation(keys[i], size)` at `positions[i]`: many permutations of one size in one call.

    positions: (n,) int64 within [0, size), else IndexError
    keys:      (n,) uint64; runs of equal keys cost little more than one key
    returns:   (n,) int64 within [0, size)
    """
    return _Network.over(size).permute(positions, keys)


@dataclass(frozen=True, kw_only=True)
class _Network:
    """The network over one size; a, b as in the module's text."""

    size: int
    a: int
    b: int
    rounds: int  # even

    @staticmethod
    def over(size: int) -> _Network:
        if not 1 <= size <= SIZE_MAX:
            raise ValueError(f"the size of a permutation must be 1 .. 2**62; found {size}")
        a = math.isqrt(size - 1) + 1
        b = -(-size // a)
        b += b % 2
        # Two rounds leave at most 1/side of the distance to a uniform permutation (computed exactly for sizes
        # 3 to 6). Long sides take 6 rounds, short ones as many as bring that distance to 2**-12.
        bits = max(1, min(a, b).bit_length() - 1)
        return _Network(size=size, a=a, b=b, rounds=max(6, 2 * math.ceil(12 / bits)))

    def permute(self, positions: NDArray[np.int64], keys: _Words, *, inverse: bool = False) -> NDArray[np.int64]:
        """keys: (1,), one for all positions, or as many as positions."""
        flat = np.ascontiguousarray(positions, dtype=np.int64).reshape(-1)
        if flat.size and not (int(flat.min()) >= 0 and int(flat.max()) < self.size):
            raise IndexError(f"positions must lie in [0, {self.size}); found {flat.min()} .. {flat.max()}")
        result = np.empty(flat.shape, dtype=np.int64)
        for begin in range(0, flat.size, _BLOCK):
            block = slice(begin, begin + _BLOCK)
            round_keys = _RoundKeys.of(keys if keys.size == 1 else keys[block], self.rounds)
            x, out = flat[block].view(np.uint64), result[block].view(np.uint64)
            self._permute_block(x, round_keys, out, inverse)
        return result.reshape(np.shape(positions))

    def _permute_block(self, x: _Words, round_keys: _RoundKeys, out: _Words, inverse: bool) -> None:
        self._once(x, round_keys, out, inverse)
        outside = np.flatnonzero(out >= np.uint64(self.size))
        while outside.size:
            walked = out[outside]
            self._once(walked, round_keys.at(outside), walked, inverse)
            out[outside] = walked
            outside = outside[walked >= np.uint64(self.size)]

    def _once(self, x: _Words, round_keys: _RoundKeys, out: _Words, inverse: bool) -> None:
        """One pass through the network; `out` may be `x`."""
        b = np.uint64(self.b)
        left = x // b
        right = x - left * b
        f, scratch = np.empty_like(left), np.empty_like(left)
        for i in range(self.rounds)[:: -1 if inverse else 1]:
            half, other, side = (left, right, self.a) if i % 2 == 0 else (right, left, self.b)
            modulus = np.uint64(side)
            np.add(other, round_keys.of_round(i), out=f)
            _hash_below(modulus, f, scratch)
            # The smaller candidate is right: the other wrapped around 2**64 or is `modulus` too large.
            if inverse:
                np.subtract(half, f, out=half)
                np.add(half, modulus, out=scratch)
            else:
                np.add(half, f, out=half)
                np.subtract(half, modulus, out=scratch)
            np.minimum(half, scratch, out=half)
        np.multiply(left, b, out=out)
        np.add(out, right, out=out)


def _hash_below(modulus: np.uint64, f: _Words, scratch: _Words) -> None:
    """In place: f becomes F(f) mod `modulus` in the sense of the module's text; `modulus` is below 2**32."""
    np.right_shift(f, _S30, out=scratch)
    np.bitwise_xor(f, scratch, out=f)
    np.multiply(f, _C1, out=f)
    np.right_shift(f, _S27, out=scratch)
    np.bitwise_xor(f, scratch, out=f)
    np.multiply(f, _C2, out=f)
    np.right_shift(f, _S32, out=f)
    np.multiply(f, modulus, out=f)
    np.right_shift(f, _S32, out=f)


@dataclass(frozen=True)
class _RoundKeys:
    """The round keys of each position of a block; a run of equal keys is expanded once.

    table: (rounds, runs) uint64
    run:   (n,) int64, to which run each position belongs
    """

    table: _Words
    run: NDArray[np.int64]

    @staticmethod
    def of(keys: _Words, rounds: int) -> _RoundKeys:
        """keys: (n,), or (1,) for all positions."""
        begins = np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))
        table = splitmix64(keys[begins], np.arange(rounds, dtype=np.uint64)[:, None])
        return _RoundKeys(table, np.repeat(np.arange(begins.size), np.diff(begins, append=keys.size)))

    def of_round(self, i: int) -> _Words:
        """Shape (1,) where all positions share one key, else (n,)."""
        row: _Words = self.table[i]
        return row if row.size == 1 else row[self.run]

    def at(self, chosen: NDArray[np.int64]) -> _RoundKeys:
        """Those of the chosen positions only."""
        return self if self.table.shape[1] == 1 else _RoundKeys(self.table, self.run[chosen])
