"""The table of faults: what was done to a run, what was expected, and what was found.

A test that does something to a run says so, and has a row:

    @pytest.mark.faults("worker killed", how="SIGKILL", expected="=bits")
    def test_...(row):
        ...
        row.found("=bits", recovery_s=1.2)   # else what was expected, since the test has passed

`{id}` in any of these is the id of the test's parameters. Tests with the same three texts share a row. "=bits" means:
weights_sha256 is that of the run to which nothing was done.

With --faults-out DIR the table is written there, and what an earlier call of pytest has written there stays in it: so
`make test` and `make test-slow` make one table together, with FAULTS=DIR, and no test runs twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import pytest

COLUMNS = ("fault", "how injected", "expected", "found", "recovery")
PROPERTY = "faults"
"""Of the report of a test: with reports its finding gets from the process that ran it to the one that has the table."""
FINDING = pytest.StashKey["Finding"]()


@dataclass
class Finding:
    """What one test has to say. seen: "" where no more than was expected; recovery_s: how long until the run went on"""

    fault: str
    how: str
    expected: str
    seen: str = ""
    recovery_s: float | None = None

    def found(self, text: str, *, recovery_s: float | None = None) -> None:
        """What came of it, where that says more than what was expected; how long it took until the run went on."""
        self.seen, self.recovery_s = text, recovery_s


@dataclass
class Row:
    """One line. `tests`: how many there are of it, and of these `failed` and `skipped`; `at`: where the first one
    stands."""

    fault: str
    how: str
    expected: str
    at: tuple[str, int, str] = ("", 0, "")
    seen: list[str] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    tests: int = 0
    failed: int = 0
    skipped: int = 0

    def take(self, finding: Finding, outcome: str) -> None:
        """One of its tests has ended."""
        if finding.seen and finding.seen not in self.seen:
            self.seen.append(finding.seen)
        if finding.recovery_s is not None:
            self.recoveries_s.append(finding.recovery_s)
        self.tests += 1
        self.failed += outcome == "failed"
        self.skipped += outcome == "skipped"

    def add(self, other: Row) -> None:
        """Other tests of the same line ran elsewhere."""
        self.at = min(self.at, other.at)
        self.seen += [text for text in other.seen if text not in self.seen]
        self.recoveries_s += other.recoveries_s
        self.tests += other.tests
        self.failed += other.failed
        self.skipped += other.skipped

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
        self._rows: dict[tuple[str, str, str], Row] = {}

    def take(self, finding: Finding, outcome: str, at: tuple[str, int, str] = ("", 0, "")) -> None:
        """A test of this file, line and name has ended."""
        texts = (finding.fault, finding.how, finding.expected)
        row = self._rows.setdefault(texts, Row(*texts, at=at))
        row.at = min(row.at, at)
        row.take(finding, outcome)

    def add(self, written: str) -> None:
        """Takes in what another table has, as `json` wrote it."""
        names = {each.name for each in fields(Row)}
        for given in json.loads(written):
            row = Row(**{name: value for name, value in given.items() if name in names} | {"at": tuple(given["at"])})
            known = self._rows.setdefault((row.fault, row.how, row.expected), row)
            if known is not row:
                known.add(row)

    @property
    def rows(self) -> list[Row]:
        """In the order in which the tests are written, however many of them ran at once."""
        return sorted(self._rows.values(), key=lambda row: row.at)

    def markdown(self) -> str:
        """As a table of Markdown."""
        lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells for row in self.rows)]
        return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n" for cells in lines)

    def json(self) -> str:
        """The same, a list of objects."""
        rows = [asdict(row) | {"found": row.verdict} for row in self.rows]
        return json.dumps(rows, indent=2) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults-table", action="store_true", help="print the table of faults when the tests have run")
    group.addoption("--faults-out", metavar="DIR", help="add it to DIR/faults.md and DIR/faults.json")


TABLE = pytest.StashKey[Table]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test: also what breaks there is in the table."""
    mark = item.get_closest_marker("faults")
    if mark is not None:
        name = item.callspec.id if hasattr(item, "callspec") else ""
        texts = {key: text.format(id=name) for key, text in mark.kwargs.items()}
        item.stash[FINDING] = Finding(mark.args[0].format(id=name), **texts)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Finding:
    """What this test tells the table of faults."""
    return request.node.stash[FINDING]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    finding = item.stash.get(FINDING, None)
    # What breaks before or after the test itself counts, too.
    if finding is not None and (report.when == "call" or report.outcome != "passed"):
        report.user_properties.append((PROPERTY, asdict(finding)))
    return report


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Collector(config.stash.setdefault(TABLE, Table())))


class Collector:
    """Takes what reports say, from whichever process."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each is seen here once."""
        for name, value in report.user_properties:
            if name == PROPERTY:
                file, line, test = report.location
                self._table.take(Finding(**value), report.outcome, (file, line or 0, test))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # of xdist: the one that started it has all reports
    table = config.stash[TABLE]
    out = config.getoption("faults_out")
    written = None if out is None else Path(out, "faults.json")
    if written is not None and written.exists():
        table.add(written.read_text())
    if config.getoption("faults_table") and table.rows:
        terminalreporter.section("what was done, and what came of it", sep="=")
        terminalreporter.write(aligned([COLUMNS, *(row.cells for row in table.rows)]))
    if written is not None:
        written.parent.mkdir(parents=True, exist_ok=True)
        written.with_suffix(".md").write_text(table.markdown())
        written.write_text(table.json())


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Lines of cells, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n"
        for cells in lines
    )
