"""What a person gives to the doors: it is right, or all that is wrong is told at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from thalweg_cluster.security import certificates
from thalweg_cluster.security.certificates import make_certificates
from thalweg_cluster.security.given import Given, read_given
from thalweg_cluster.security.guard import Guard
from thalweg_cluster.security.run import RunSecurity, between_hosts, on_loopback
from thalweg_cluster.security.tokens import Right, Tokens
from thalweg_proto.errors import InputError

MADE, OTHER = make_certificates(["127.0.0.1"]), make_certificates(["127.0.0.1"])


def problems(environment: dict[str, object], *, insecure: bool = False) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_given({name: str(value) for name, value in environment.items()}, insecure=insecure)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def file(tmp_path: Path):
    """`file("name", b"content")` is its path."""

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def test_nothing_is_given_by_an_empty_environment():
    """And a variable that is empty is as one that is not there."""
    assert read_given({}, insecure=False) == read_given({"THALWEG_TOKEN": ""}, insecure=False) == Given()


def test_tokens_come_from_the_environment_or_from_files(file):
    """Without the end of the line."""
    for end in (b"", b"\n", b"\r\n"):
        environment = {"THALWEG_TOKEN_FILE": str(file("token", b"abc" + end)), "THALWEG_READ_TOKEN": "def"}
        given = read_given(environment, insecure=True)
        assert given == Given(token="abc", read_token="def", insecure=True)
        assert "abc" not in repr(given)


def test_certificates_come_from_files(file):
    """With or without an authority for those of clients."""
    environment = {
        "THALWEG_CERTIFICATE_FILE": str(file("certificate", MADE.certificate)),
        "THALWEG_KEY_FILE": str(file("key", MADE.key)),
    }
    assert read_given(environment, insecure=False).tls == replace(MADE, ca=None)
    environment["THALWEG_CLIENT_CA_FILE"] = str(file("ca", OTHER.ca))
    assert read_given(environment, insecure=False).tls == replace(MADE, ca=OTHER.ca)


def test_all_that_is_wrong_is_told_at_once_and_no_secret(file):
    """Each with what was expected and found."""
    found = problems(
        {
            "THALWEG_TOKEN": "a secret",
            "THALWEG_READ_TOKEN_FILE": "/nowhere/token",
            "THALWEG_CERTIFICATE_FILE": file("certificate", b"nonsense"),
            "THALWEG_CLIENT_CA_FILE": "/nowhere/ca",
        },
        insecure=True,
    )
    assert [line.split(":")[0] for line in found] == [
        "THALWEG_TOKEN",
        "THALWEG_READ_TOKEN_FILE",
        "THALWEG_CLIENT_CA_FILE",
        "THALWEG_KEY_FILE",
        f"THALWEG_CERTIFICATE_FILE ({file('certificate', b'nonsense')})",
        "--insecure",
    ]
    assert "No such file or directory" in found[1]
    assert "secret" not in "".join(found)


@pytest.mark.parametrize(
    "token", ["a b", "ab\tc", "ab\x00", "h\N{LATIN SMALL LETTER A WITH DIAERESIS}", "a" * 1025, " "]
)
def test_a_token_that_cannot_travel_is_refused(token):
    """In a header there is room for visible ASCII only, and not for endlessly much of it."""
    [found] = problems({"THALWEG_TOKEN": token})
    assert found.startswith("THALWEG_TOKEN: expected a token of 1 to 1024 visible ASCII characters on one line; found")


def test_an_empty_file_of_a_token_is_refused(file):
    """It is a mistake, and not a door without a token."""
    [found] = problems({"THALWEG_TOKEN_FILE": file("token", b"\n")})
    assert found.startswith("THALWEG_TOKEN_FILE: expected a token")


def test_a_token_that_is_said_twice_is_refused(file):
    """In two places, or for two rights."""
    [found] = problems({"THALWEG_TOKEN": "abc", "THALWEG_TOKEN_FILE": file("token", b"abc")})
    assert found == "THALWEG_TOKEN: expected either it or THALWEG_TOKEN_FILE; found both"
    [found] = problems({"THALWEG_TOKEN": "abc", "THALWEG_READ_TOKEN": "abc"})
    assert found.startswith("THALWEG_READ_TOKEN: expected another one than THALWEG_TOKEN")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (OTHER.key, "that of another certificate"),
        (b"nonsense", "no private key in PEM"),
        (b"", "no private key in PEM"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(file, key, why):
    """Before anything starts, not at the first handshake."""
    [found] = problems(
        {"THALWEG_CERTIFICATE_FILE": file("certificate", MADE.certificate), "THALWEG_KEY_FILE": file("key", key)}
    )
    assert "expected the private key of THALWEG_CERTIFICATE_FILE" in found
    assert found.endswith(f"found {why}")


@pytest.mark.parametrize(("years", "why"), [(-2, "one that ended at"), (2, "one that begins at")])
def test_a_certificate_that_is_not_valid_now_is_refused(file, monkeypatch, years, why):
    """Neither before nor after its time."""

    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(timezone.utc) + timedelta(days=365 * years)

    with monkeypatch.context() as then:
        then.setattr(certificates, "datetime", Then)
        made = make_certificates(["127.0.0.1"])
    [found] = problems(
        {"THALWEG_CERTIFICATE_FILE": file("certificate", made.certificate), "THALWEG_KEY_FILE": file("key", made.key)}
    )
    assert why in found


# What the doors of a run make of it


def test_a_run_on_one_host_asks_for_what_is_given_and_for_nothing_else():
    """On loopback."""
    assert on_loopback(Given()) == RunSecurity()
    given = on_loopback(Given(token="abc", tls=MADE)).clients
    assert given.tls == MADE
    assert given.tokens.right_of("abc") is Right.FULL
    only_read = on_loopback(Given(read_token="abc")).clients.tokens
    assert only_read.right_of("abc") is Right.READ


def test_a_run_on_several_hosts_makes_its_own():
    """A token and an authority, new for each run; clients have neither, and nobody is let in where nothing is given."""
    first, second = (between_hosts(Given(), ["10.0.0.1", "10.0.0.2"]) for _ in range(2))
    assert first.token != second.token
    assert first.tls.ca != second.tls.ca
    assert first.hosts.tokens.right_of(first.token) is Right.FULL
    assert first.hosts.tls.ca is not None  # mutual
    assert first.clients.tokens == Tokens.of()
    assert first.clients.tls == replace(first.tls, ca=None)
    assert first.ca == first.tls.ca
    assert first.token not in repr(first)
    assert "PRIVATE" not in repr(first)


def test_a_run_on_several_hosts_shows_clients_what_was_given():
    """The hosts among themselves keep to the run's own."""
    security = between_hosts(Given(token="abc", read_token="def", tls=OTHER), ["10.0.0.1", "10.0.0.2"])
    assert security.clients.tls == OTHER
    assert security.tls != OTHER
    assert security.ca is None
    assert [security.clients.tokens.right_of(token) for token in ("abc", "def")] == [Right.FULL, Right.READ]
    assert [security.hosts.tokens.right_of(token) for token in ("abc", "def")] == [None, None]


def test_an_insecure_run_keeps_its_tokens():
    """Only TLS is off."""
    security = between_hosts(Given(insecure=True), ["10.0.0.1", "10.0.0.2"])
    assert (security.tls, security.ca, security.clients.tls, security.hosts.tls) == (None, None, None, None)
    assert security.hosts.tokens.right_of(security.token) is Right.FULL
    assert security.clients != Guard(insecure=True)
