"""What all lines of one kind have in common, in Rich's markup."""

from __future__ import annotations

from rich.markup import escape


def warning(text: object) -> str:
    """Something that the run goes on with."""
    return f"[yellow]warning[/] {escape(str(text))}"
