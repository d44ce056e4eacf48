from __future__ import annotations

import json

import pytest

from thalweg_cluster.monitoring.targets import Target, sd_groups, sd_json, targets_in


def target(port: int, process: str = "coordinator") -> Target:
    return Target(address=f"127.0.0.1:{port}", job="digits", run="first", process=process, folder="/runs/first")


def test_each_target_is_a_group_with_the_labels_of_its_run():
    """The form that file_sd and http_sd share."""
    assert sd_groups([target(1)]) == [
        {
            "targets": ["127.0.0.1:1"],
            "labels": {
                "thalweg_job": "digits",
                "thalweg_run": "first",
                "thalweg_process": "coordinator",
                "thalweg_folder": "/runs/first",
            },
        }
    ]


def test_the_list_is_the_same_in_whatever_order_and_however_often_they_come():
    """Prometheus compares it with the one before."""
    one, other = target(1), target(2, "server 0")
    assert sd_groups([one, other]) == sd_groups([other, one, other])


def test_no_targets_are_an_empty_list():
    """Which is a good answer, too."""
    assert json.loads(sd_json([])) == []


def test_targets_are_read_back():
    """As they were written; what is no list of ours is refused."""
    assert targets_in(sd_json([target(2), target(1)])) == [target(1), target(2)]
    for text in ("1", "[1]", '{"a": 1}', '[{"targets": ["a:1"], "labels": {}}]', "nonsense"):
        with pytest.raises(ValueError, match=r"expected a list of groups|Expecting value"):
            targets_in(text)


def test_ten_thousand_jobs_one_after_the_other_leave_as_many_targets_as_go_on():
    """A run is in the list for as long as it goes on; what its job is called is in no metric (test_metrics.py)."""
    running: list[Target] = []
    for number in range(10_000):
        running = [*running[-1:], Target(address="127.0.0.1:1", job=f"job {number}", run="r", process="p", folder="/")]
    assert len(sd_groups(running)) == 1
