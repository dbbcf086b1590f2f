"""Signatures: the same bytes twice, and nothing but the right image under the right key counts."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.oci import MANIFEST, Descriptor, Manifest
from cloudmesh.functions.image.signing import BUNDLE, KEY_ANNOTATION, Signer, Verifier

_DIGEST = "sha256:" + "ab" * 32
_KEY = "0123456789abcdef" * 2


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(_pem(ec.generate_private_key(ec.SECP256R1())))


def test_the_same_bytes_twice_and_verified(signer: Signer) -> None:
    bundle = signer.bundle(_DIGEST, _KEY)
    assert bundle == signer.bundle(_DIGEST, _KEY)
    assert Verifier([signer.public_key]).verify(bundle, _DIGEST, _KEY)


def test_the_bundle_is_what_sigstore_specifies(signer: Signer) -> None:
    value = json.loads(signer.bundle(_DIGEST, _KEY))
    envelope = value["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)
    assert value["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://sigstore.dev/cosign/sign/v1"
    assert statement["subject"] == [{"digest": {"sha256": "ab" * 32}, "annotations": {KEY_ANNOTATION: _KEY}}]
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    signer.public_key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    der = signer.public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    assert base64.b64decode(value["verificationMaterial"]["publicKey"]["hint"]) == digest.finalize()


def test_other_images_keys_and_signers_do_not_count(signer: Signer) -> None:
    bundle = signer.bundle(_DIGEST, _KEY)
    verifier = Verifier([signer.public_key])
    assert not verifier.verify(bundle, "sha256:" + "cd" * 32, _KEY)
    assert not verifier.verify(bundle, _DIGEST, "f" * 32)
    assert not Verifier([ec.generate_private_key(ec.SECP256R1()).public_key()]).verify(bundle, _DIGEST, _KEY)
    assert not Verifier([]).verify(bundle, _DIGEST, _KEY)


def test_the_previous_key_counts_while_keys_are_changed(signer: Signer, tmp_path: Path) -> None:
    new = Signer(_pem(ec.generate_private_key(ec.SECP256R1())))
    previous = tmp_path / "previous.pub.pem"
    previous.write_bytes(
        signer.public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    verifier = Verifier.read(tmp_path / "none.pub.pem", previous, signer=new)
    assert verifier.verify(signer.bundle(_DIGEST, _KEY), _DIGEST, _KEY)
    assert verifier.verify(new.bundle(_DIGEST, _KEY), _DIGEST, _KEY)


def test_a_changed_bundle_does_not_count(signer: Signer) -> None:
    verifier = Verifier([signer.public_key])
    value = json.loads(signer.bundle(_DIGEST, _KEY))
    statement = base64.b64decode(value["dsseEnvelope"]["payload"])
    forged = dict(value["dsseEnvelope"], payload=base64.b64encode(statement.replace(b"abab", b"cdcd", 1)).decode())
    assert not verifier.verify(json.dumps({**value, "dsseEnvelope": forged}).encode(), "sha256:cd" + "ab" * 31, _KEY)
    for broken in (
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({**value, "dsseEnvelope": None}).encode(),
        json.dumps({**value, "dsseEnvelope": {**value["dsseEnvelope"], "payload": "%%"}}).encode(),
        json.dumps({**value, "dsseEnvelope": {**value["dsseEnvelope"], "payloadType": "text/plain"}}).encode(),
        json.dumps({**value, "dsseEnvelope": {**value["dsseEnvelope"], "signatures": [{"sig": "AAAA"}]}}).encode(),
    ):
        assert not verifier.verify(broken, _DIGEST, _KEY)


def test_the_artifact_refers_to_the_image(signer: Signer) -> None:
    subject = Descriptor(MANIFEST, _DIGEST, 123)
    bundle, manifest, listed = signer.artifact(subject, _KEY)
    read = Manifest.parse(manifest.read(), "test")
    assert read.subject == subject
    assert read.artifact_type == listed.artifact_type == BUNDLE
    assert [layer.digest for layer in read.layers] == [bundle.descriptor.digest]
    assert read.annotations["dev.sigstore.bundle.content"] == "dsse-envelope"


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        _pem(ed25519.Ed25519PrivateKey.generate()),
        _pem(ec.generate_private_key(ec.SECP384R1())),
    ],
)
def test_other_private_keys_are_refused(pem: bytes) -> None:
    with pytest.raises(InvalidRequest, match="signing key"):
        Signer(pem)
