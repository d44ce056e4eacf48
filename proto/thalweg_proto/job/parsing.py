"""From a table to a job: every mistake is found before any is reported.

A field that is wrong does not hide another: each section is read to its end, and a law that ties fields
together (see laws.py) is tried as soon as all the fields that it needs are right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.kinds import MismatchError, nearest, one_of
from thalweg_proto.job.laws import broken_laws
from thalweg_proto.job.options import REQUIRED, Option, Section, options_in
from thalweg_proto.job.sections import SECTIONS, Job, ModelSection

FOUND_CHARACTERS_MAX = 60


def parse_job(table: Mapping[str, Any], *, folder: Path) -> Job:
    """The job of a TOML table; relative paths start at `folder`. Raises InputError with all problems."""
    problems: list[Problem] = []
    sections: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        contents = table.get(name, {})
        if isinstance(contents, Mapping):
            sections[name], found = _read_section(section, name, contents, folder)
            problems += found
        else:
            sections[name], _ = _read_section(section, name, {}, folder)
            problems.append(Problem(name, f"a table, [{name}]", describe(contents)))

    own = {key: value for key, value in table.items() if key not in SECTIONS}
    values, found = _read_options(Job, "", own, folder)
    problems += found
    job = Job(**values, **sections)

    problems += broken_laws(job, wrong={problem.field for problem in problems})
    if problems:
        raise InputError(problems)
    return job


def _read_section(section: type[Any], name: str, table: Mapping[str, Any], folder: Path) -> tuple[Any, list[Problem]]:
    """The section with None for each value that is wrong or missing, and their problems."""
    rest: dict[str, Any] = {}
    if section is ModelSection:
        rest = {"options": {key: value for key, value in table.items() if key not in options_in(section)}}
        table = {key: value for key, value in table.items() if key in options_in(section)}
    values, problems = _read_options(section, f"{name}.", table, folder)
    return section(**values, **rest), problems


def _read_options(
    section: type[Section], prefix: str, table: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], list[Problem]]:
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
            problems.append(Problem(prefix + key, option.kind.expected, "nothing", option.doc))
    problems += _misplaced(options, values, table, prefix)
    return values, problems


def _misplaced(
    options: Mapping[str, Option], values: Mapping[str, Any], table: Mapping[str, Any], prefix: str
) -> Iterator[Problem]:
    """Options that the chosen rule (schedule, consistency) does not take, or needs and does not get."""
    for key, option in options.items():
        if not option.of:
            continue
        chosen = values.get(option.of, options[option.of].default)
        if chosen is None:  # it is wrong itself
            continue
        if key in table and chosen not in option.defaults:
            takes = [name for name, other in options.items() if other.of == option.of and chosen in other.defaults]
            yield Problem(
                prefix + key,
                f'an option of {option.of} "{chosen}"' + (f" ({', '.join(takes)})" if takes else ", which has none"),
                describe(table[key]),
                f'"{key}" belongs to {option.of} ' + one_of([f'"{value}"' for value in option.defaults]),
            )
        elif key not in table and option.defaults.get(chosen) is REQUIRED:
            needed = f'{option.kind.expected}, which {option.of} "{chosen}" needs'
            yield Problem(prefix + key, needed, "nothing", option.doc)


def _place_of(key: str, prefix: str, known: list[str]) -> str:
    """A hint for an unknown key: the nearest one here, or where the key is known, or all that there are."""
    here = known if prefix else [*known, *SECTIONS]
    elsewhere = [f"[{name}]" for name, section in SECTIONS.items() if key in options_in(section)]
    if not prefix and key in options_in(Job):
        elsewhere = []
    if hint := nearest(key, here):
        return hint
    if elsewhere:
        return f"it belongs in {one_of(elsewhere)}"
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
