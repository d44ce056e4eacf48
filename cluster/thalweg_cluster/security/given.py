"""What a person gives to the doors: tokens and certificates, in the environment or in files that it names.

    THALWEG_TOKEN       or THALWEG_TOKEN_FILE        lets in: to push, and to read
    THALWEG_READ_TOKEN  or THALWEG_READ_TOKEN_FILE   lets in: to read
    THALWEG_CERTIFICATE_FILE, THALWEG_KEY_FILE       what a server shows to its clients, and the key to it
    THALWEG_CLIENT_CA_FILE                           asks clients for a certificate of this authority: mutual TLS

A token in a file is shown by no list of processes, and ends where its line ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from thalweg_cluster.security.guard import Tls
from thalweg_proto.errors import InputError, Problem

TOKEN, READ_TOKEN = "THALWEG_TOKEN", "THALWEG_READ_TOKEN"
CERTIFICATE, KEY, CLIENT_CA = "THALWEG_CERTIFICATE_FILE", "THALWEG_KEY_FILE", "THALWEG_CLIENT_CA_FILE"
TOKEN_MAX = 1024
"""Characters: it travels in the metadata of each call, of which a door takes 8 KiB."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """None: not given. insecure: plaintext is wanted."""

    token: str | None = field(default=None, repr=False)
    read_token: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    insecure: bool = False


def read_given(environment: Mapping[str, str], *, insecure: bool) -> Given:
    """What the environment gives; a variable that is empty counts as not set. InputError with all that is wrong."""
    problems: list[Problem] = []
    token, read_token = (_token(name, environment, problems) for name in (TOKEN, READ_TOKEN))
    if token is not None and token == read_token:
        problems.append(Problem(READ_TOKEN, f"another one than {TOKEN}, which allows to push", "the same one"))
    files = {name: _file(name, environment, problems) for name in (CERTIFICATE, KEY, CLIENT_CA)}
    tls = _tls(files, environment, problems)
    if insecure and (named := [name for name in files if environment.get(name)]):
        found = f"{', '.join(named)} as well"
        problems.append(Problem("--insecure", "no certificates, since it leaves TLS off", found))
    if problems:
        raise InputError(problems)
    return Given(token=token, read_token=read_token, tls=tls, insecure=insecure)


def _token(name: str, environment: Mapping[str, str], problems: list[Problem]) -> str | None:
    text, path = environment.get(name), environment.get(f"{name}_FILE")
    if text and path:
        problems.append(Problem(name, f"either it or {name}_FILE", "both"))
        return None
    if path:
        content = _file(f"{name}_FILE", environment, problems)
        if content is None:
            return None
        name, text = f"{name}_FILE", content.decode("utf-8", "replace").rstrip("\r\n")
    elif not text:
        return None
    assert text is not None  # one of both was there
    if not (text.isascii() and text.isprintable() and " " not in text and 0 < len(text) <= TOKEN_MAX):
        expected = f"a token of 1 to {TOKEN_MAX} visible ASCII characters on one line"
        # What was found is a secret, even with a slip in it.
        problems.append(Problem(name, expected, f"{len(text)} characters", "openssl rand -hex 32 makes one"))
        return None
    return text


def _file(name: str, environment: Mapping[str, str], problems: list[Problem]) -> bytes | None:
    path = environment.get(name)
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problems.append(Problem(name, "a file that can be read", f"{path!r}: {error.strerror}"))
        return None


def _tls(files: Mapping[str, bytes | None], environment: Mapping[str, str], problems: list[Problem]) -> Tls | None:
    named = [name for name in files if environment.get(name)]
    if not named:
        return None
    missing = [name for name in (CERTIFICATE, KEY) if name not in named]
    problems += [Problem(name, "a file, since there is one in " + ", ".join(named), "nothing") for name in missing]
    from thalweg_cluster.security.certificates import why_no_certificate, why_no_key  # slow to import

    certificate, key, ca = (files[name] for name in (CERTIFICATE, KEY, CLIENT_CA))
    whys = {
        CERTIFICATE: None if certificate is None else why_no_certificate(certificate),
        CLIENT_CA: None if ca is None else why_no_certificate(ca),
    }
    right = certificate if whys[CERTIFICATE] is None else None
    whys[KEY] = None if key is None else why_no_key(key, right)
    expected = {KEY: f"the private key of {CERTIFICATE}"}
    problems += [
        Problem(f"{name} ({environment[name]})", expected.get(name, "a certificate in PEM that is valid now"), why)
        for name, why in whys.items()
        if why is not None
    ]
    return None if certificate is None or key is None else Tls(certificate=certificate, key=key, ca=ca)
