"""What `thalweg monitor` tells Prometheus of a service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from thalweg_cluster.commands.jobs import CA
from thalweg_cluster.monitoring.prometheus import Service
from thalweg_cluster.security.given import READ_TOKEN, TOKEN
from thalweg_proto.errors import InputError, Problem


def service_of(url: str, environment: Mapping[str, str]) -> Service:
    """The service that lists its targets at `url`, with what the environment has for its clients.

    Prometheus reads the token from a file, so that it stands in no configuration: InputError where there is none, and
    where `url` is no URL.
    """
    problems = []
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        right = False
    if not right:
        problems.append(Problem("--service", "a URL, as in http://127.0.0.1:8701/targets", repr(url)))
    names = (READ_TOKEN, TOKEN)
    file = next((environment[f"{name}_FILE"] for name in names if environment.get(f"{name}_FILE")), None)
    if file is None and (given := [name for name in names if environment.get(name)]):
        expected = "a file with the token, which Prometheus can read"
        problems.append(Problem(f"{READ_TOKEN}_FILE", expected, f"nothing, and a token in {given[0]}"))
    if problems:
        raise InputError(problems)
    ca = environment.get(CA)
    return Service(
        url=url,
        token_file=None if file is None else str(Path(file).absolute()),
        ca_file=str(Path(ca).absolute()) if ca else None,
    )
