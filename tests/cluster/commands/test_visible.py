from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.commands.visible import visible, visible_pieces

HARM = b"\x1b]0;title\x07 \x1b[31mred\r\x9b2J \xe2\x80\xae \xff a\tb \xe2\x9c\x93\n"
SHOWN = "\\x1b]0;title\\x07 \\x1b[31mred\\r\ufffd2J \\u202e \ufffd a\tb \u2713\n"
LOGS = """
import sys
from thalweg_cluster.commands import jobs

class Client:
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def get(self, job): pass
    def logs(self, job, follow): return iter([bytes.fromhex(sys.argv[1])])

jobs.client_for = lambda address: Client()
jobs.logs("1", follow=True, address=None)
"""


def test_text_is_as_it_is_and_the_rest_is_seen():
    """Escape sequences, a carriage return, a C1 byte, an override of direction, a byte that is no UTF-8."""
    assert "".join(visible_pieces([HARM])) == SHOWN


@given(st.text(), st.integers(1, 5))
def test_it_does_not_matter_where_a_log_is_cut(text, size):
    """Also in the middle of a character; and nothing that does anything is left."""
    data = text.encode(errors="replace")
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    found = "".join(visible_pieces(pieces))
    assert found == visible(data.decode())
    assert all(char in "\n\t" or char.isprintable() for char in found)


def test_what_was_cut_off_is_seen_too():
    """The beginning of a character at the end of a log."""
    assert "".join(visible_pieces([b"a\xe2\x80"])) == "a\ufffd"


@pytest.mark.parametrize("terminal", [True, False])
def test_thalweg_logs_is_harmless_on_a_terminal_and_exact_elsewhere(terminal):
    """What comes out of `thalweg logs` of a job that printed HARM."""
    command = [sys.executable, "-c", LOGS, HARM.hex()]
    environment = os.environ | {"PYTHONUTF8": "1"}
    if not terminal:
        assert subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True).stdout == HARM
        return
    screen, end = pty.openpty()
    try:
        subprocess.run(command, stdout=end, env=environment, check=True)
        said = os.read(screen, 1 << 16).decode()
    finally:
        os.close(end)
        os.close(screen)
    assert said == SHOWN.replace("\n", "\r\n")  # as a terminal ends a line
