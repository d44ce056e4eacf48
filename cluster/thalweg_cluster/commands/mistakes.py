"""Errors as messages on standard error, and exit statuses, for all commands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer
from rich.console import Console

from thalweg_proto.errors import InputError, ThalwegError

EXIT_INTERRUPTED = 130


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turns the errors of a command into messages on standard error, and exit statuses."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    try:
        yield
    except InputError as error:
        noun = "mistake" if len(error.problems) == 1 else "mistakes"
        errors.print(f"{len(error.problems)} {noun}; nothing was started")
        for problem in error.problems:
            errors.print(f"  {problem}")
        raise typer.Exit(error.exit_status) from None
    except ThalwegError as error:
        errors.print(f"failed: {error}")
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        errors.print("interrupted before the first step")
        raise typer.Exit(EXIT_INTERRUPTED) from None
