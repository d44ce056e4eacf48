"""The table of faults: what was done to a run, what was expected, and what was found.

A test that does something to a run says so, and has a row:

    @pytest.mark.faults("worker killed", how="SIGKILL", expected="=bits")
    def test_...(row):
        ...
        row.found("=bits", recovery_s=1.2)   # else what was expected, since the test has passed

`{id}` in any of these is the id of the test's parameters. Tests with the same three texts share a row. "=bits" means:
weights_sha256 is that of the run to which nothing was done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

COLUMNS = ("fault", "how injected", "expected", "found", "recovery")
ROW = pytest.StashKey["Row"]()


@dataclass
class Row:
    """One line. `tests`: how many there are of it, and of these `failed` and `skipped`."""

    fault: str
    how: str
    expected: str
    seen: list[str] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    tests: int = 0
    failed: int = 0
    skipped: int = 0

    def found(self, text: str, *, recovery_s: float | None = None) -> None:
        """What came of it, where that says more than what was expected; how long it took until the run went on."""
        if text not in self.seen:
            self.seen.append(text)
        if recovery_s is not None:
            self.recoveries_s.append(recovery_s)

    def take(self, outcome: str) -> None:
        """One of its tests has ended."""
        self.tests += 1
        self.failed += outcome == "failed"
        self.skipped += outcome == "skipped"

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        ran = self.tests - self.skipped
        if not ran:
            return "not run"
        words = "; ".join(self.seen) or self.expected
        if self.failed:
            return f"FAILED ({self.failed} of {ran} tests)"
        return words if ran == 1 else f"{words} ({ran} tests)"

    @property
    def recovery(self) -> str:
        """e.g. "1.2 s", or the shortest and the longest."""
        if not self.recoveries_s:
            return ""
        low, high = min(self.recoveries_s), max(self.recoveries_s)
        return f"{high:.2f} s" if low == high else f"{low:.2f} to {high:.2f} s"

    @property
    def cells(self) -> tuple[str, ...]:
        """By column."""
        return (self.fault, self.how, self.expected, self.verdict, self.recovery)


class Table:
    """Collects rows while tests run."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Row] = {}

    def row(self, fault: str, *, how: str, expected: str) -> Row:
        """The row of these three texts."""
        return self.rows.setdefault((fault, how, expected), Row(fault, how, expected))

    def markdown(self) -> str:
        """As a table of Markdown."""
        lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells for row in self.rows.values())]
        return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n" for cells in lines)

    def json(self) -> str:
        """The same, a list of objects."""
        rows = [asdict(row) | {"found": row.verdict} for row in self.rows.values()]
        return json.dumps(rows, indent=2) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults-table", action="store_true", help="print the table of faults when the tests have run")
    group.addoption("--faults-out", metavar="DIR", help="write it to DIR/faults.md and DIR/faults.json")


TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Rows stand in the order of the tests that are to run."""
    for item in session.items:
        mark = item.get_closest_marker("faults")
        if mark is not None:
            name = item.callspec.id if hasattr(item, "callspec") else ""
            texts = {key: text.format(id=name) for key, text in mark.kwargs.items()}
            item.stash[ROW] = session.config.stash[TABLE].row(mark.args[0].format(id=name), **texts)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The row of this test in the table of faults."""
    return request.node.stash[ROW]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    row = item.stash.get(ROW, None)
    # What breaks before or after the test itself counts, too.
    if row is not None and (report.when == "call" or report.outcome != "passed"):
        row.take(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if config.getoption("faults_table") and table.rows:
        terminalreporter.section("what was done, and what came of it", sep="=")
        terminalreporter.write(aligned([COLUMNS, *(row.cells for row in table.rows.values())]))
    out = config.getoption("faults_out")
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faults.md").write_text(table.markdown())
        (folder / "faults.json").write_text(table.json())


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Lines of cells, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n"
        for cells in lines
    )
