from __future__ import annotations

import json

import pytest

from thalweg_cluster.launch.failures import Loss
from thalweg_cluster.launch.record import Record, read_record
from thalweg_proto.errors import InputError

RECORD = Record(
    address="10.0.0.1:6379",
    namespace="thalweg",
    name="digits-00",
    started_at=1.5,
    first=20,
    generation=3,
    attempts=2,
    opened=True,
    times=1,
    losses=(Loss("worker", 1, "its process died"),),
)


def test_what_is_written_is_read_back(tmp_path):
    """Whole, and nothing else is left in the folder."""
    RECORD.write(tmp_path)
    assert read_record(tmp_path) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["coordinator.json"]


def test_a_folder_without_a_record_is_no_run(tmp_path):
    """The folder is named."""
    with pytest.raises(InputError, match=r"expected the folder of a run; found one without coordinator\.json"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"first": "20"}, {"opened": 1}, {"losses": [["worker", "1", "x"]]}, {"losses": [7]}, {"more": 1}],
    ids=str,
)
def test_what_no_run_has_written_is_refused(change, tmp_path):
    """Types and keys are those of a record."""
    (tmp_path / "coordinator.json").write_text(json.dumps(json.loads(RECORD.to_json()) | change))
    with pytest.raises(InputError, match="expected what a run has written"):
        read_record(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"address": "x"}', b"\xff"])
def test_a_file_that_is_cut_or_foreign_is_refused(data, tmp_path):
    """It is named; nothing else is raised."""
    (tmp_path / "coordinator.json").write_bytes(data)
    with pytest.raises(InputError, match=r"coordinator\.json"):
        read_record(tmp_path)
