"""From a table to a job and every mistake in it.

A field that is wrong does not hide another: each section is read to its end, and a law that ties fields
together (see laws.py) is tried as soon as all the fields that it needs are right. Nor does it make another: a
field that an unknown key may have been meant for (see doubt.py) is not reported as missing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from thalweg_proto.errors import Problem
from thalweg_proto.job.data_section import is_function
from thalweg_proto.job.doubt import in_doubt
from thalweg_proto.job.draft import Draft
from thalweg_proto.job.kinds import MismatchError, closest, nearest, one_of
from thalweg_proto.job.laws import broken_laws
from thalweg_proto.job.options import REQUIRED, Option, Section, options_in
from thalweg_proto.job.sections import SECTIONS, Job

FOUND_CHARACTERS_MAX = 60


def parse_job(table: Mapping[str, Any], *, folder: Path) -> Draft:
    """The job of a TOML table, with all its mistakes; relative paths start at `folder`. Raises nothing."""
    own = {key: value for key, value in table.items() if key not in SECTIONS}
    tables = {name: table[name] if isinstance(table.get(name), Mapping) else {} for name in SECTIONS}
    # What [model] does not know is for its model, and what [data] does not know for the function that it names.
    options = {name: _others(tables[name], section) for name, section in SECTIONS.items() if _is_open(name, tables)}
    for name, others in options.items():
        tables[name] = {key: value for key, value in tables[name].items() if key not in others}

    known = {"": options_in(Job), **{name: options_in(section) for name, section in SECTIONS.items()}}
    doubt = in_doubt({"": own, **tables}, known, folder) | _tables_in_doubt(own, table)
    sections: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, section in SECTIONS.items():
        values, found = _read_options(section, f"{name}.", tables[name], folder, doubt)
        sections[name] = section(**values, options=options[name]) if name in options else section(**values)
        if name in table and not isinstance(table[name], Mapping):
            problems.append(Problem(name, f"a table, [{name}]", describe(table[name])))
        elif name not in doubt:
            problems += found
    values, found = _read_options(Job, "", own, folder, doubt)
    problems += found
    draft = Draft(job=Job(**values, **sections), problems=tuple(problems), doubt=doubt)
    return replace(draft, problems=(*problems, *broken_laws(draft)))


def _is_open(name: str, tables: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether other keys than those of the section may stand in its table."""
    return name == "model" or (name == "data" and any(map(is_function, map(tables["data"].get, ("train", "eval")))))


def _others(table: Mapping[str, Any], section: type[Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in options_in(section)}


def _tables_in_doubt(own: Mapping[str, Any], table: Mapping[str, Any]) -> set[str]:
    """The tables that are not given, but perhaps misspelt."""
    meant = {closest(key, [*SECTIONS]) for key in own if key not in options_in(Job)}
    return meant & (SECTIONS.keys() - table.keys())


def _read_options(
    section: type[Section], prefix: str, table: Mapping[str, Any], folder: Path, doubt: Collection[str]
) -> tuple[dict[str, Any], list[Problem]]:
    """The values by key, None for each that is wrong or missing, and the problems."""
    options = options_in(section)
    values: dict[str, Any] = {}
    problems = [
        Problem(prefix + key, "a known key", describe(table[key]), _place_of(key, prefix, [*options]))
        for key in table
        if key not in options
    ]
    for key, option in options.items():
        if key in table:
            try:
                values[key] = option.kind.read(table[key], folder)
            except MismatchError as mismatch:
                values[key] = None
                problems.append(Problem(prefix + key, option.kind.expected, describe(table[key]), str(mismatch)))
        elif option.default is REQUIRED:
            values[key] = None
            if prefix + key not in doubt:
                problems.append(Problem(prefix + key, option.kind.expected, "nothing", option.doc))
    misplaced = {problem.field: problem for problem in _misplaced(options, values, table, prefix, doubt)}
    # Where a key does not belong it does not matter what its value is.
    return values, [*(problem for problem in problems if problem.field not in misplaced), *misplaced.values()]


def _misplaced(
    options: Mapping[str, Option],
    values: Mapping[str, Any],
    table: Mapping[str, Any],
    prefix: str,
    doubt: Collection[str],
) -> Iterator[Problem]:
    """Options that the chosen rule (schedule, consistency) does not take, or needs and does not get."""
    for key, option in options.items():
        if not option.of:
            continue
        chosen = values.get(option.of, options[option.of].default)
        if chosen is None or prefix + option.of in doubt:
            continue  # which one was meant is not known
        if key in table and chosen not in option.defaults:
            takes = [name for name, other in options.items() if other.of == option.of and chosen in other.defaults]
            yield Problem(
                prefix + key,
                f'an option of {option.of} "{chosen}"' + (f" ({', '.join(takes)})" if takes else ", which has none"),
                describe(table[key]),
                f'"{key}" belongs to {option.of} ' + one_of([f'"{value}"' for value in option.defaults]),
            )
        elif key not in table and prefix + key not in doubt and option.defaults.get(chosen) is REQUIRED:
            needed = f'{option.kind.expected}, which {option.of} "{chosen}" needs'
            yield Problem(prefix + key, needed, "nothing", option.doc)


def _place_of(key: str, prefix: str, known: list[str]) -> str:
    """A hint for an unknown key: where it is known, or the nearest one here, or all that there are."""
    here = known if prefix else [*known, *SECTIONS]
    elsewhere = [f"[{name}]" for name, section in SECTIONS.items() if key in options_in(section)]
    if not prefix and key in options_in(Job):
        elsewhere = []
    if elsewhere:
        return f"it belongs in {one_of(elsewhere)}"
    if hint := nearest(key, here):
        return hint
    return f"known here: {', '.join(here)}"


def describe(value: object) -> str:
    """A value of a TOML table as it would stand in the file, cut to a bounded length."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {describe(part)}" for key, part in list(value.items())[:4])
        text = "{ " + inner + " }" if inner else "{}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(describe(part) for part in value[:8]) + (", ...]" if len(value) > 8 else "]")
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int) and value.bit_length() > 128:
        text = f"a whole number of {value.bit_length()} bits"  # Python refuses to print the longest ones
    elif isinstance(value, str):
        text = json.dumps(value[: FOUND_CHARACTERS_MAX + 1], ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= FOUND_CHARACTERS_MAX else text[: FOUND_CHARACTERS_MAX - 3] + "..."
