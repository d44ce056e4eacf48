"""Write a job back as TOML, with every default filled in and every path absolute."""

from __future__ import annotations

from typing import Any

import tomli_w

from thalweg_proto.job.data_section import DataSection
from thalweg_proto.job.kinds import ArrayPair, one_of
from thalweg_proto.job.options import REQUIRED, options_in
from thalweg_proto.job.parsing import describe
from thalweg_proto.job.sections import SECTIONS, Job, ModelSection


def job_to_toml(job: Job) -> str:
    """The job file of a job: parsing it gives an equal job, from whatever folder."""
    return tomli_w.dumps(job_to_table(job))


def job_to_table(job: Job) -> dict[str, Any]:
    """The TOML table of a job."""
    return {**_present(job), **{name: _present(getattr(job, name)) for name in SECTIONS}}


def _present(section: Any) -> dict[str, Any]:
    """The options that have a value: None stands for a key that is not there."""
    values = {name: _plain(getattr(section, name)) for name in options_in(type(section))}
    table = {name: value for name, value in values.items() if value is not None}
    return {**table, **section.options} if isinstance(section, ModelSection | DataSection) else table


def _plain(value: object) -> object:
    if isinstance(value, ArrayPair):
        return {"x": value.x, "y": value.y}
    return list(value) if isinstance(value, tuple) else value


def job_reference() -> str:
    """Every key of the job file with its default and its meaning, as commented TOML for the documentation."""
    lines = _reference("", Job)
    for name, section in SECTIONS.items():
        lines += ["", f"[{name}]", *_reference(name, section)]
    return "\n".join(lines) + "\n"


def _reference(name: str, section: type[Any]) -> list[str]:
    lines = []
    for key, option in options_in(section).items():
        lines += [f"# {option.doc}", f"#   {option.kind.expected}"]
        if option.of:
            shown = {value: _shown(default) for value, default in option.defaults.items()}
            for default in dict.fromkeys(shown.values()):
                values = [value for value in shown if shown[value] == default]
                lines.append(f"#   {default} for {option.of} {one_of(values)}")
            lines.append(f"# {key} =")
        elif option.default is REQUIRED:
            lines.append(f"{key} =  # required")
        elif option.default is None:
            lines.append(f"# {key} =")
        else:
            lines.append(f"{key} = {_shown(option.default)}")
    if section is ModelSection:
        lines.append("# any other key goes to the model")
    if section is DataSection:
        lines.append('# any other key goes to the function, where train or eval is "FILE.py:FUNCTION"')
    return lines


def _shown(default: object) -> str:
    return "required" if default is REQUIRED else describe(default)
