"""Secrets that the parts of an installation share: made by the operator where they are absent, never by Helm.

| Secret | keys | who mounts it |
|---|---|---|
| `cloudmesh-builder` | tls.crt, tls.key, ca.crt, token | builder; the operator reads token and ca.crt |
| `cloudmesh-registry` | htpasswd, username, password | registry (htpasswd), builder (username, password) |
| `cloudmesh-signing` | current.pem, current.pub.pem | builder |

Making them in a template would need `lookup`, which Argo CD doesn't have: they would rotate at each sync, and every
signature would be void.
"""

from __future__ import annotations

import base64
import datetime
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudmesh.api.names import LABEL_MANAGED_BY, MANAGED_BY
from cloudmesh.engine import SECRET, AlreadyExists, Kube, Transient

BUILDER = "cloudmesh-builder"
REGISTRY = "cloudmesh-registry"
SIGNING = "cloudmesh-signing"

REGISTRY_USER = "cloudmesh"
# Paid at every request of a push; the password is 32 random bytes, which no cost protects better.
BCRYPT_COST = 4
CERTIFICATE_DAYS = 3650
RENEW_BEFORE_DAYS = 60

Data = dict[str, str]


@dataclass(frozen=True, slots=True)
class BuilderAccess:
    """What the operator calls the builder with."""

    token: str = field(repr=False)
    ca: str = field(repr=False)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def make_certificate(host: str, now: datetime.datetime) -> tuple[str, str]:
    """A self-signed certificate for a Service and its key, both PEM.

    Args:
        host: `<service>.<namespace>.svc`; its shorter forms and the one with the cluster's domain are in it too.
        now: start of its life of ten years.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    service, namespace, _ = host.split(".", 2)
    sans = [service, f"{service}.{namespace}", host, f"{host}.cluster.local", "localhost"]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(s) for s in sans]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key)


def make_builder(host: str, now: datetime.datetime) -> Data:
    """Data of the builder's Secret."""
    certificate, key = make_certificate(host, now)
    return {"tls.crt": certificate, "tls.key": key, "ca.crt": certificate, "token": secrets.token_urlsafe(32)}


def make_registry() -> Data:
    """Data of the registry's Secret."""
    password = secrets.token_urlsafe(32)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    return {"username": REGISTRY_USER, "password": password, "htpasswd": f"{REGISTRY_USER}:{hashed}\n"}


def make_signing() -> Data:
    """Data of the signing key's Secret."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {"current.pem": _pem(key), "current.pub.pem": public.decode()}


def expires(certificate: str) -> datetime.datetime:
    """When a PEM certificate's life ends, UTC."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


async def ensure_secrets(kube: Kube, namespace: str, now: datetime.datetime) -> BuilderAccess:
    """Makes what is absent, and gives what the operator needs itself. Safe to call again and from two replicas.

    Raises:
        CloudmeshError: the API server doesn't answer, or a Secret of the name isn't usable.
    """
    host = f"{BUILDER}.{namespace}.svc"
    builder = await _ensure(kube, namespace, BUILDER, lambda: make_builder(host, now))
    await _ensure(kube, namespace, REGISTRY, make_registry)
    await _ensure(kube, namespace, SIGNING, make_signing)
    if expires(builder["tls.crt"]) - now < datetime.timedelta(days=RENEW_BEFORE_DAYS):
        renewed = {**make_builder(host, now), "token": builder["token"]}
        await kube.patch(SECRET, namespace, BUILDER, {"data": _encoded(renewed)})
        builder = renewed
    return BuilderAccess(builder["token"], builder["ca.crt"])


async def _ensure(kube: Kube, namespace: str, name: str, make: Callable[[], Data]) -> Data:
    found = await kube.get(SECRET, namespace, name)
    if found is None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
            "type": "Opaque",
            "data": _encoded(make()),
        }
        try:
            found = await kube.create(SECRET, body)
        except AlreadyExists:  # the other replica was first
            found = await kube.get(SECRET, namespace, name)
    if found is None:
        raise Transient(f"Secret '{name}' went while it was read")
    return {k: base64.b64decode(v).decode() for k, v in (found.get("data") or {}).items()}


def _encoded(data: Data) -> dict[str, Any]:
    return {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
