"""A call of a user's function with the options of the job file, and what can be wrong with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.kinds import closest, nearest
from thalweg_proto.job.parsing import describe
from thalweg_worker.models.tracebacks import indented, summary, user_traceback
from thalweg_worker.models.user_file import UserFile


def call(file: UserFile, name: str, options: Mapping[str, Any], *given: Any, table: str, returns: str) -> Any:
    """What the function `name` of the file returns for these arguments.

    table:   of the job file, in which the options stand
    returns: what it is to return, in words

    Raises InputError with every wrong option, or with the traceback of the user's code.
    """
    function = file.function(name)
    if problems := misfits(function, name, options, table=table, given=len(given)):
        raise InputError(problems)
    try:
        return function(*given, **options)
    except InputError:  # the user's function called one of ours and passed a wrong option on
        raise
    except (Exception, SystemExit) as error:
        hint = indented(user_traceback(error))
        raise InputError([Problem(f"{file.key} ({file.name}:{name})", returns, summary(error), hint)]) from None


def misfits(
    function: Callable[..., Any], name: str, options: Mapping[str, Any], *, table: str, given: int
) -> list[Problem]:
    """Options that a user's function does not take, and those that it needs and does not get.

    name:  of the function
    table: of the job file, in which the options stand
    given: how many arguments it gets besides, in front
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C: the call will tell
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = {p.name: p for p in parameters[given:] if p.kind in by_name}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    unknown = [key for key in options if key not in taken and not takes_any]
    problems = [
        Problem(
            f"{table}.{key}",
            f"an option of {name} ({', '.join(taken) or 'it has none'})",
            describe(options[key]),
            nearest(key, [*taken]),
        )
        for key in unknown
    ]
    # A key that is spelt like none of them may have been meant for any.
    near = [closest(key, [*taken]) for key in unknown]
    meant = set(near) if all(near) else set(taken)
    problems += [
        Problem(f"{table}.{key}", f"a value, which {name} needs", "nothing")
        for key, parameter in taken.items()
        if parameter.default is inspect.Parameter.empty and key not in options and key not in meant
    ]
    return problems
