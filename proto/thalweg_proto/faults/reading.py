"""From a TOML file to a plan of faults, with every mistake in it.

seed = 7              # optional

[[fault]]
do = "kill"
at = "push.before"
worker = 1            # or server = 0; left out: whoever comes there first
step = 20             # left out: the first
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.faults.plan import ACTS, CORRUPT, DELAY, PAUSE, POINTS, Fault, Plan
from thalweg_proto.job.kinds import Choice, Kind, MismatchError, Number, Whole, nearest, one_of
from thalweg_proto.job.loading import read_table
from thalweg_proto.job.parsing import describe

_KINDS: Mapping[str, Kind] = {
    "do": Choice(tuple(ACTS)),
    "at": Choice(tuple(POINTS)),
    "worker": Whole(minimum=0),
    "server": Whole(minimum=0),
    "step": Whole(minimum=0),
    "seconds": Number(above=0.0),
    "jitter": Number(minimum=0.0),
    "byte": Whole(minimum=-(2**63)),
}
_REQUIRED = tuple(field.name for field in fields(Fault) if field.name in ("do", "at"))
# Which acts take a key that not all take.
_OF_ACTS = {"seconds": (PAUSE, DELAY), "jitter": (DELAY,), "byte": (CORRUPT,)}


def load_plan(file: Path) -> Plan:
    """The plan of a TOML file. InputError with all mistakes."""
    plan, problems = parse_plan(read_table(file), str(file))
    if problems:
        raise InputError(problems)
    return plan


def parse_plan(table: Mapping[str, Any], where: str) -> tuple[Plan, list[Problem]]:
    """The plan of a table, and its mistakes, of which `where` says in which file they are."""
    problems = [
        Problem(f"{where}: {key}", "seed or [[fault]]", describe(value), nearest(key, ("seed", "fault")))
        for key, value in table.items()
        if key not in ("seed", "fault")
    ]
    seed, wrong = _read({"seed": Whole(minimum=0)}, {"seed": table.get("seed", 0)}, f"{where}: ")
    problems += wrong
    given = table.get("fault", [])
    faults = []
    if not isinstance(given, list) or not given or not all(isinstance(each, Mapping) for each in given):
        found = describe(given) if "fault" in table else "none"
        problems.append(Problem(f"{where}: fault", "one or more tables [[fault]]", found))
        given = []
    for number, each in enumerate(given, start=1):
        place = f"{where}: fault {number}: "
        values, wrong = _read(_KINDS, each, place)
        wrong += [Problem(f"{place}{key}", _KINDS[key].expected, "nothing") for key in _REQUIRED if key not in each]
        wrong += _broken_laws(values, each, place)
        problems += wrong
        if not wrong:
            faults.append(Fault(**values))
    return Plan(faults=tuple(faults), seed=seed.get("seed", 0)), problems


def _read(kinds: Mapping[str, Kind], table: Mapping[str, Any], place: str) -> tuple[dict[str, Any], list[Problem]]:
    """The values that are right, and what is wrong."""
    values: dict[str, Any] = {}
    problems = []
    for key, value in table.items():
        if key not in kinds:
            known = nearest(key, [*kinds]) or f"known here: {', '.join(kinds)}"
            problems.append(Problem(place + key, "a known key", describe(value), known))
            continue
        try:
            values[key] = kinds[key].read(value, Path())
        except MismatchError as mismatch:
            problems.append(Problem(place + key, kinds[key].expected, describe(value), str(mismatch)))
    return values, problems


def _broken_laws(values: Mapping[str, Any], given: Mapping[str, Any], place: str) -> Iterator[Problem]:
    """What must hold together, as far as its parts are right."""
    act, point = values.get("do"), POINTS.get(values.get("at", ""))
    if act is not None and point is not None and act not in point.acts:
        there = [name for name, other in POINTS.items() if act in other.acts]
        hint = f'"{act}" can happen at {one_of(there)}'
        yield Problem(f"{place}do", f"what can happen at {values['at']}: {one_of(point.acts)}", act, hint)
    for part in ("worker", "server"):
        if part in given and point is not None and part not in point.parts:
            yield Problem(place + part, f"{point.parts[0]}, who comes to {values['at']}", part)
    if "worker" in given and "server" in given:
        yield Problem(f"{place}server", "worker or server", "both")
    for key, acts in _OF_ACTS.items():
        if key in given and act is not None and act not in acts:
            yield Problem(place + key, f"{one_of(acts)} for do, which take it", act)
    if act in _OF_ACTS["seconds"] and "seconds" not in given:
        yield Problem(f"{place}seconds", f"{_KINDS['seconds'].expected}, which {act} needs", "nothing")
    if "seconds" in values and values.get("jitter", 0.0) > values["seconds"]:
        yield Problem(f"{place}jitter", f"at most seconds, {values['seconds']:g}", f"{values['jitter']:g}")
