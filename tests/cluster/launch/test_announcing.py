from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from thalweg_cluster.launch.announcing import Announcement, targets_folder
from thalweg_cluster.monitoring.targets import Target, sd_json


@pytest.fixture
def answering():
    """A port at which somebody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def target(port: int) -> Target:
    return Target(address=f"127.0.0.1:{port}", job="digits", run="first", process="coordinator", folder="/runs/first")


def test_the_folder_is_the_users_own_wherever_runs_write():
    """THALWEG_TARGETS first, then the XDG folder, then the one in the home directory."""
    home = Path.home() / ".local/state/thalweg/targets"
    assert targets_folder({}) == home
    assert targets_folder({"XDG_STATE_HOME": "/s"}) == Path("/s/thalweg/targets")
    assert targets_folder({"XDG_STATE_HOME": "/s", "THALWEG_TARGETS": "/t"}) == Path("/t")


def test_a_file_is_there_for_as_long_as_its_run(tmp_path, answering):
    """Written whole, in place of the one before; removed at the end, and again, which is nothing."""
    announcement = Announcement(tmp_path / "new", "digits-1")
    announcement.write([])
    announcement.write([target(answering)])
    [file] = (tmp_path / "new").iterdir()
    assert file.name == "digits-1.json"
    assert json.loads(file.read_text())[0]["targets"] == [f"127.0.0.1:{answering}"]
    for _ in range(2):
        announcement.remove()
        assert list((tmp_path / "new").iterdir()) == []


def test_files_of_runs_that_are_gone_are_cleared_away(tmp_path, answering):
    """Where nobody answers at any address; what is none of ours, and who answers, stay."""
    (tmp_path / "dead.json").write_text(sd_json([target(free_port())]))
    (tmp_path / "half.json").write_text(sd_json([target(free_port()), target(answering)]))
    (tmp_path / "notes.json").write_text("{}")
    Announcement(tmp_path, "digits-1").write([target(answering)])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["digits-1.json", "half.json", "notes.json"]


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path):
    """The coordinator says so, and trains."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Announcement(tmp_path / "file", "digits-1").write([])
