from __future__ import annotations

import asyncio
import base64
import datetime

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloudmesh.engine import SECRET, Kube
from cloudmesh.functions.secrets import BUILDER, REGISTRY, SIGNING, ensure_secrets
from cloudmesh.testing import MemoryApi

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def read(api: MemoryApi, name: str) -> dict[str, str]:
    found = api.get(SECRET, "sys", name)
    assert found is not None
    return {k: base64.b64decode(v).decode() for k, v in found["data"].items()}


async def test_secrets_are_made_once_and_then_left_alone() -> None:
    api = MemoryApi([SECRET])
    first = await ensure_secrets(Kube(api), "sys", NOW)
    before = {n: read(api, n) for n in (BUILDER, REGISTRY, SIGNING)}
    writes = api.writes()
    again = await ensure_secrets(Kube(api), "sys", NOW)
    assert again == first
    assert api.writes() == writes
    assert {n: read(api, n) for n in before} == before


async def test_what_is_made_fits_together() -> None:
    api = MemoryApi([SECRET])
    access = await ensure_secrets(Kube(api), "sys", NOW)
    registry = read(api, REGISTRY)
    user, _, hashed = registry["htpasswd"].strip().partition(":")
    assert user == registry["username"]
    assert bcrypt.checkpw(registry["password"].encode(), hashed.encode())
    builder = read(api, BUILDER)
    assert access.token == builder["token"]
    assert len(access.token) >= 40
    certificate = x509.load_pem_x509_certificate(builder["tls.crt"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "cloudmesh-builder.sys.svc" in names.get_values_for_type(x509.DNSName)
    signing = read(api, SIGNING)
    private = serialization.load_pem_private_key(signing["current.pem"].encode(), None)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public.decode() == signing["current.pub.pem"]
    assert access.token not in repr(access)


async def test_two_replicas_at_once_agree() -> None:
    api = MemoryApi([SECRET])
    found = await asyncio.gather(*(ensure_secrets(Kube(api), "sys", NOW) for _ in range(4)))
    assert len({f.token for f in found}) == 1
    assert found[0].token == read(api, BUILDER)["token"]


async def test_one_that_somebody_deleted_comes_back_alone() -> None:
    api = MemoryApi([SECRET])
    await ensure_secrets(Kube(api), "sys", NOW)
    signing = read(api, SIGNING)
    api.remove(SECRET, "sys", REGISTRY)
    await ensure_secrets(Kube(api), "sys", NOW)
    assert read(api, REGISTRY)["password"]
    assert read(api, SIGNING) == signing


async def test_a_certificate_near_its_end_is_renewed_and_the_token_kept() -> None:
    api = MemoryApi([SECRET])
    first = await ensure_secrets(Kube(api), "sys", NOW)
    later = await ensure_secrets(Kube(api), "sys", NOW + datetime.timedelta(days=3640))
    assert later.token == first.token
    assert later.ca != first.ca
    assert read(api, BUILDER)["ca.crt"] == later.ca
