"""How the fields of a section are declared: kind, meaning and default in one place.

    learning_rate: float = option(Number(above=0), "step width", default=0.1)
    momentum: float | None = option_of("rule", {"momentum": 0.9}, Number(minimum=0, below=1), "...")

An `option_of` another field exists only for some values of that field, each with its own default. Where it
does not exist it is None, and giving it is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from thalweg_proto.job.kinds import Kind

REQUIRED: Any = object()
_KEY = "thalweg"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One key of the job file.

    default:  what it is where the file does not say; REQUIRED where the file must say
    of:       the field of the same section that decides whether it exists, e.g. "rule"; "": it always does
    defaults: for each value of `of` that has this option: its default, or REQUIRED
    """

    kind: Kind
    doc: str
    default: Any = None
    of: str = ""
    defaults: Mapping[str, Any]


def option(kind: Kind, doc: str, *, default: Any = REQUIRED) -> Any:
    """A dataclass field for a key that always exists."""
    metadata = {_KEY: Option(kind=kind, doc=doc, default=default, defaults={})}
    return field(metadata=metadata) if default is REQUIRED else field(default=default, metadata=metadata)


def option_of(of: str, defaults: Mapping[str, Any], kind: Kind, doc: str) -> Any:
    """A dataclass field for a key that exists for some values of the field `of` only."""
    return field(default=None, metadata={_KEY: Option(kind=kind, doc=doc, of=of, defaults=defaults)})


def options_in(section: type[Any]) -> Mapping[str, Option]:
    """The options of a section by name, in the order of the class."""
    return {f.name: f.metadata[_KEY] for f in fields(section) if _KEY in f.metadata}


class Section:
    """A table of the job file: a frozen dataclass whose fields are options."""

    def __post_init__(self) -> None:
        for name, declared in options_in(type(self)).items():
            if declared.of and getattr(self, name) is None:
                default = declared.defaults.get(getattr(self, declared.of))
                object.__setattr__(self, name, None if default is REQUIRED else default)

    def options_for(self, of: str) -> dict[str, Any]:
        """The options that exist for the present value of field `of`, by name: `options_for("rule")`."""
        value = getattr(self, of)
        return {
            name: getattr(self, name)
            for name, declared in options_in(type(self)).items()
            if declared.of == of and value in declared.defaults
        }
