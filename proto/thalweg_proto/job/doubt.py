"""What a key that nobody knows was meant for.

    [data]
    lable = "species"    # no known key; so nobody can tell where the labels are

That there is no column "label" would be no second mistake. Rules:

- An unknown key was meant for the key of its table that is spelt alike; or else for the key of its name in another
  table; or else for any key of its table that would take its value.
- If that key is not given it is in doubt: it has its default, is not reported as missing, and no check builds on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thalweg_proto.job.kinds import Kind, MismatchError, closest
from thalweg_proto.job.options import Option


def in_doubt(
    given: Mapping[str, Mapping[str, Any]], known: Mapping[str, Mapping[str, Option]], folder: Path
) -> frozenset[str]:
    """The keys in doubt: {"data.label"}, or {"seed"} where the table has no name.

    given, known: the keys by table; both have the same tables
    folder:       where relative paths start
    """
    meant: set[tuple[str, str]] = set()
    for table, contents in given.items():
        for key, value in contents.items():
            if key not in known[table]:
                meant |= _meant_by(table, key, value, known, folder)
    return frozenset(f"{table}.{key}" if table else key for table, key in meant if key not in given[table])


def _meant_by(
    table: str, key: str, value: object, known: Mapping[str, Mapping[str, Option]], folder: Path
) -> set[tuple[str, str]]:
    if elsewhere := {(other, key) for other, options in known.items() if key in options}:
        return elsewhere
    if near := closest(key, [*known[table]]):
        return {(table, near)}
    return {(table, name) for name, option in known[table].items() if _takes(option.kind, value, folder)}


def _takes(kind: Kind, value: object, folder: Path) -> bool:
    try:
        kind.read(value, folder)
    except MismatchError:
        return False
    return True
