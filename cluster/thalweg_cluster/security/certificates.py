"""Certificates: those of a run, made for it and gone with it; and what is wrong with those that a person gives.

Rules:
  - The authority signs one certificate, for all servers of the run, and its key is forgotten. So whoever has a
    certificate of this authority is a server of this run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from thalweg_cluster.security.guard import Tls

VALID = timedelta(days=365)
"""How long a run may let in who connects late; hosts connect once, at its start."""
SKEW = timedelta(days=1)
"""How far the clocks of hosts may be apart."""


def make_certificates(addresses: Sequence[str]) -> Tls:
    """An authority, and the certificate of servers at `addresses` (IP addresses or names), with its key."""
    now = datetime.now(timezone.utc)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = _name("Thalweg run"), _name("Thalweg server")
    authority = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        _builder(name, ca_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            # Each server calls the others, too.
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([_alternative(each) for each in addresses]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return Tls(
        certificate=certificate.public_bytes(pem),
        key=key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        ca=authority.public_bytes(pem),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALID)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def why_no_certificate(pem: bytes) -> str | None:
    """What is wrong with a certificate, or a chain that begins with it; None: nothing."""
    try:
        certificate = x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        return "no certificate in PEM"
    now = datetime.now(timezone.utc)
    if now > certificate.not_valid_after_utc:
        return f"one that ended at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"one that begins at {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return None


def why_no_key(pem: bytes, certificate: bytes | None) -> str | None:
    """What is wrong with a key, which is to be that of `certificate` where that is right; None: nothing."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        return "one under a password"
    except (ValueError, UnsupportedAlgorithm):
        return "no private key in PEM"
    if certificate is not None:
        wanted = x509.load_pem_x509_certificates(certificate)[0].public_key()
        if key.public_key() != wanted:
            return "that of another certificate"
    return None
