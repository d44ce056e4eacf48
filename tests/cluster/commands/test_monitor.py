"""What `thalweg monitor` tells Prometheus of a service."""

from __future__ import annotations

import pytest

from thalweg_cluster.commands.monitor import service_of
from thalweg_cluster.monitoring.prometheus import Service
from thalweg_proto.errors import InputError

URL = "http://127.0.0.1:8701/targets"


def test_a_service_without_token_is_asked_as_it_is():
    """By its URL alone."""
    assert service_of(URL, {}) == Service(url=URL)


def test_the_token_is_that_of_a_file_the_one_that_may_less_first():
    """And the authority is that of the service's clients."""
    files = {"THALWEG_TOKEN_FILE": "/t/full", "THALWEG_READ_TOKEN_FILE": "/t/read", "THALWEG_CA_FILE": "/t/ca.pem"}
    assert service_of(URL, files) == Service(url=URL, token_file="/t/read", ca_file="/t/ca.pem")
    assert service_of(URL, {"THALWEG_TOKEN_FILE": "/t/full", "THALWEG_READ_TOKEN": "r"}).token_file == "/t/full"


def test_a_token_in_the_environment_is_written_nowhere():
    """What is wrong is told at once, and the token is not."""
    with pytest.raises(InputError) as refused:
        service_of("127.0.0.1:8701", {"THALWEG_TOKEN": "secret"})
    first, second = map(str, refused.value.problems)
    assert first == "--service: expected a URL, as in http://127.0.0.1:8701/targets; found '127.0.0.1:8701'"
    assert second.startswith("THALWEG_READ_TOKEN_FILE: expected a file with the token")
    assert "secret" not in second
