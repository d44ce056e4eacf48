"""What the options of the benchmarks' command lines may be."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def some_of(known: Iterable[T]) -> Callable[[str], tuple[T, ...]]:
    """A list of some of `known`, by their text and with commas between; in the order of `known`."""
    by_text = {str(value): value for value in known}

    def parse(text: str) -> tuple[T, ...]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(by_text):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(by_text)}; found {','.join(unknown)}")
        return tuple(value for name, value in by_text.items() if name in chosen)

    return parse


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1; found {text}")
    return int(text)
