"""What the options of the benchmarks' command lines may be."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
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


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison that runs in rounds: repeats, seconds, quick, json."""
    parser.add_argument("--repeats", type=at_least_one, default=3, metavar="ROUNDS")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long each run is timed (4)")
    parser.add_argument("--quick", action="store_true", help="1 round, 1 second each: whether it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write machine, ratios and raw figures there")


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what --quick means."""
    options = parser.parse_args(argv)
    if options.quick:
        options.repeats, options.seconds = 1, 1.0
    return options
