"""The table of faults tells what was found, also where a test fails or does not run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.faults.table import Finding, Table, aligned

TESTS = """
import pytest

@pytest.mark.faults("worker killed", how="SIGKILL", expected="=bits")
def test_measured(row):
    row.found("=bits", recovery_s=1.234)

@pytest.mark.faults("{id}", how="by hand", expected="refused")
@pytest.mark.parametrize("what", ["flipped", "cut"])
def test_each_has_a_row(what):
    pass

@pytest.mark.faults("any of these", how="by hand", expected="refused")
@pytest.mark.parametrize("what", [0, 1, 2])
def test_all_have_one_row(what):
    assert what

@pytest.fixture
def broken():
    raise OSError

@pytest.mark.faults("never tried", how="not at all", expected="nothing")
def test_breaks_before_it_begins(broken):
    pass

@pytest.mark.faults("needs root", how="mount", expected="nothing")
def test_is_skipped():
    pytest.skip("no root")

@pytest.mark.faults("left out", how="slow", expected="nothing")
@pytest.mark.slow
def test_is_deselected():
    pass

def test_of_something_else():
    pass
"""


@pytest.mark.parametrize("at_once", [[], ["-p", "xdist", "-n", "2"]], ids=["one by one", "two at once"])
def test_a_table_is_made_of_the_tests_that_ran(at_once, tmp_path):
    """One row for each three texts; what failed, or did not run, says so; what was not asked for is not there."""
    file = tmp_path / "test_it.py"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.faults.table", "-p", "no:cacheprovider", "-m", "not slow"]
    done = subprocess.run(
        [*command, *at_once, "--faults-table", "--faults-out", tmp_path / "out", "-c", "/dev/null", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "out" / "faults.md").read_text() == (
        "| fault | how injected | expected | found | recovery |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| worker killed | SIGKILL | =bits | =bits | 1.23 s |\n"
        "| cut | by hand | refused | refused |  |\n"
        "| flipped | by hand | refused | refused |  |\n"
        "| any of these | by hand | refused | FAILED (1 of 3 tests) |  |\n"
        "| never tried | not at all | nothing | FAILED (1 of 1 tests) |  |\n"
        "| needs root | mount | nothing | not run |  |\n"
    ), done.stdout + done.stderr
    rows = json.loads((tmp_path / "out" / "faults.json").read_text())
    assert [row["found"] for row in rows][:2] == ["=bits", "refused"]
    assert rows[0]["recoveries_s"] == [1.234]
    assert "worker killed  SIGKILL" in done.stdout


def test_a_row_of_several_tests_tells_all_that_they_found():
    """Each finding once, and the shortest and longest recovery."""
    table = Table()
    for seconds in (0.5, 2.0):
        finding = Finding("worker killed", "SIGKILL", "=bits")
        finding.found("=bits", recovery_s=seconds)
        table.take(finding, "passed")
    [row] = table.rows
    assert row.cells == ("worker killed", "SIGKILL", "=bits", "=bits (2 tests)", "0.50 to 2.00 s")


def test_two_calls_make_one_table():
    """What the second one ran comes to what the first one wrote: rows of both, in the order of the tests."""
    first, second = Table(), Table()
    first.take(Finding("worker killed", "SIGKILL", "=bits", "=bits", 0.5), "passed", ("b.py", 7, "quick"))
    first.take(Finding("disk full", "tmpfs", "told"), "skipped", ("c.py", 1, "mount"))
    second.take(Finding("worker killed", "SIGKILL", "=bits", "=bits", 2.0), "failed", ("b.py", 3, "slow"))
    second.take(Finding("server killed", "SIGKILL", "=bits"), "passed", ("a.py", 1, "slow"))
    second.add(first.json())
    third = Table()
    third.add(second.json())
    assert second.json() == third.json()
    assert [row.cells for row in third.rows] == [
        ("server killed", "SIGKILL", "=bits", "=bits", ""),
        ("worker killed", "SIGKILL", "=bits", "FAILED (1 of 2 tests)", "0.50 to 2.00 s"),
        ("disk full", "tmpfs", "told", "not run", ""),
    ]


def test_columns_are_aligned():
    """As wide as their longest cells."""
    assert aligned([("a", "b"), ("long", "c")]) == "a     b\nlong  c\n"
