"""Files of a run that grow, read from where they were left."""

from __future__ import annotations

import json

from thalweg_cluster.service.watching import Lines, Rows, log_from, newest_row


def line(step: int) -> str:
    return json.dumps({"step": step, "time_s": 1.0, "samples_per_s": 2.0}) + "\n"


def steps(rows: Rows) -> list[int]:
    return [row["step"] for row in rows.new()]


def test_rows_are_told_once_as_they_come(tmp_path):
    """Also before there is a file; a line that is not whole yet comes with the next look."""
    file = tmp_path / "metrics.jsonl"
    rows = Rows(file)
    assert steps(rows) == []
    file.write_text(line(1) + line(2) + line(3)[:10])
    assert steps(rows) == [1, 2]
    assert steps(rows) == []
    with file.open("a") as stream:
        stream.write(line(3)[10:] + line(4))
    assert steps(rows) == [3, 4]


def test_a_run_that_goes_back_tells_no_step_twice(tmp_path):
    """It writes the file anew up to its checkpoint, and goes on from there."""
    file, other = tmp_path / "metrics.jsonl", tmp_path / "part"
    file.write_text(line(1) + line(2) + line(3))
    rows = Rows(file)
    assert steps(rows) == [1, 2, 3]
    other.write_text(line(1))
    other.replace(file)
    assert steps(rows) == []
    with file.open("a") as stream:
        stream.writelines(map(line, range(2, 6)))
    assert steps(rows) == [4, 5]


def test_lines_of_a_file_that_was_begun_anew_come_from_the_first_one_on(tmp_path):
    """And it is told that it was; a first file is not one that was begun anew."""
    file, other = tmp_path / "metrics.jsonl", tmp_path / "part"
    lines = Lines(file)
    assert (list(lines.new()), lines.anew) == ([], 0)
    file.write_text(line(1) + line(2))
    assert (list(lines.new()), lines.anew) == ([line(1).encode(), line(2).encode()], 0)
    other.write_text(line(1))
    other.replace(file)
    assert (list(lines.new()), lines.anew) == ([line(1).encode()], 1)
    file.write_text("")
    assert (list(lines.new()), lines.anew) == ([], 2)


def test_rows_before_a_step_are_left_out(tmp_path):
    """For who has heard them before."""
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(map(line, range(1, 6))) + "nonsense\n")
    assert steps(Rows(file, after_step=3)) == [4, 5]


def test_the_newest_row_is_the_last_whole_line(tmp_path):
    """However long the file is."""
    file = tmp_path / "metrics.jsonl"
    assert newest_row(file) is None
    file.write_text("".join(map(line, range(1, 1001))) + line(1001)[:-1])
    assert newest_row(file)["step"] == 1000


def test_a_log_is_read_on_from_where_it_was_left(tmp_path):
    """In pieces that fit a message."""
    file = tmp_path / "log.txt"
    assert log_from(file, 0) == b""
    file.write_bytes(b"x" * 70_000)
    first = log_from(file, 0)
    assert len(first) == 65_536
    assert log_from(file, len(first)) == b"x" * (70_000 - 65_536)
    assert log_from(file, 70_000) == b""
