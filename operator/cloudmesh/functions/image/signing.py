"""Signatures on images: ECDSA P-256 over an in-toto statement, as a Sigstore bundle that cosign reads.

The same key and statement give the same bytes (RFC 6979), so that signing again adds nothing to a registry.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.blobs import Blob
from cloudmesh.functions.image.oci import (
    EMPTY_CONFIG,
    EPOCH,
    MANIFEST,
    Descriptor,
    Manifest,
    canonical_json,
    manifest_json,
    sha256,
)
from cloudmesh.functions.image.registry import Repository

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
KEY_ANNOTATION = "org.cloudmesh.build-key"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD = "application/vnd.in-toto+json"
_LIMIT = 256 << 10
_MOST = 20


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, what is really signed."""
    return b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(bytes.fromhex(sha256(der).removeprefix("sha256:"))).decode()


class Signer:
    """Signs with one private key.

    Args:
        pem: the private key, ECDSA P-256, PKCS 8 or SEC 1, unencrypted.

    Raises:
        InvalidRequest: it is another kind of key.
    """

    def __init__(self, pem: bytes) -> None:
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidRequest(f"signing key: not an unencrypted PEM private key ({error})") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InvalidRequest("signing key: not an ECDSA P-256 key")
        self._key = key

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """What verifies its signatures."""
        return self._key.public_key()

    def bundle(self, digest: str, build_key: str) -> bytes:
        """A Sigstore bundle v0.3 that says: the image with this digest is the build with this key."""
        subject = {"digest": {"sha256": digest.removeprefix("sha256:")}, "annotations": {KEY_ANNOTATION: build_key}}
        payload = canonical_json(
            {"_type": _STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": {}}
        )
        algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        signature = self._key.sign(_pae(payload), algorithm)
        return canonical_json(
            {
                "mediaType": BUNDLE,
                "verificationMaterial": {"publicKey": {"hint": _hint(self.public_key)}},
                "dsseEnvelope": {
                    "payload": base64.b64encode(payload).decode(),
                    "payloadType": _PAYLOAD,
                    "signatures": [{"sig": base64.b64encode(signature).decode()}],
                },
            }
        )

    def artifact(self, subject: Descriptor, build_key: str) -> tuple[Blob, Blob, Descriptor]:
        """The bundle, the manifest that attaches it to `subject`, and that manifest's descriptor for listings."""
        bundle = Blob.of(BUNDLE, self.bundle(subject.digest, build_key))
        annotations = {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": PREDICATE,
            "org.opencontainers.image.created": EPOCH,
        }
        return bundle, *artifact_manifest(bundle, BUNDLE, subject, annotations)


def artifact_manifest(
    content: Blob, artifact_type: str, subject: Descriptor, annotations: dict[str, str]
) -> tuple[Blob, Descriptor]:
    """A manifest that attaches `content` to `subject`, and its descriptor for listings of referrers."""
    data = manifest_json(
        EMPTY_CONFIG, [content.descriptor], artifact_type=artifact_type, subject=subject, annotations=annotations
    )
    blob = Blob.of(MANIFEST, data)
    described = blob.descriptor
    return blob, Descriptor(MANIFEST, described.digest, described.size, artifact_type, annotations)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks signatures against the keys that count: the current one and, while it is rotated, the previous one."""

    keys: Sequence[ec.EllipticCurvePublicKey]

    @classmethod
    def read(cls, *paths: Path, signer: Signer | None = None) -> Verifier:
        """Public keys from PEM files; those that don't exist are left out.

        Raises:
            InvalidRequest: a file holds no ECDSA public key.
        """
        keys = [signer.public_key] if signer else []
        for path in paths:
            if not path.exists():
                continue
            try:
                key = serialization.load_pem_public_key(path.read_bytes())
            except (OSError, ValueError, UnsupportedAlgorithm) as error:
                raise InvalidRequest(f"{path}: not a PEM public key ({error})") from error
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidRequest(f"{path}: not an ECDSA public key")
            keys.append(key)
        return cls(keys)

    def verify(self, bundle: bytes, digest: str, build_key: str) -> bool:
        """Whether `bundle` says, signed by one of the keys, that `digest` is the build `build_key`."""
        try:
            value = json.loads(bundle)
            envelope = value["dsseEnvelope"]
            if value["mediaType"] != BUNDLE or envelope["payloadType"] != _PAYLOAD:
                return False
            payload = base64.b64decode(envelope["payload"], validate=True)
            signatures = [base64.b64decode(item["sig"], validate=True) for item in envelope["signatures"]][:_MOST]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        if not any(self._signed(signature, payload) for signature in signatures):
            return False
        return _states(payload, digest, build_key)

    def _signed(self, signature: bytes, payload: bytes) -> bool:
        for key in self.keys:
            try:
                key.verify(signature, _pae(payload), ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                continue
            return True
        return False

    async def verified(self, repository: Repository, digest: str, build_key: str) -> bool:
        """Whether the registry holds such a signature on the image `digest`."""
        for described in (await repository.referrers(digest, BUNDLE))[:_MOST]:
            found = await repository.manifest(described.digest)
            if found is None:
                continue
            manifest = Manifest.parse(found[1], f"{repository.name}@{described.digest}")
            if manifest.subject is None or manifest.subject.digest != digest or len(manifest.layers) != 1:
                continue
            bundle = await repository.blob(manifest.layers[0].digest, _LIMIT)
            if bundle is not None and self.verify(bundle, digest, build_key):
                return True
        return False


def _states(payload: bytes, digest: str, build_key: str) -> bool:
    """Whether a statement, its signature checked already, is about this image and this build."""
    try:
        statement = json.loads(payload)
        (subject,) = statement["subject"]
        return (
            statement["_type"] == _STATEMENT
            and statement["predicateType"] == PREDICATE
            and f"sha256:{subject['digest']['sha256']}" == digest
            and subject["annotations"][KEY_ANNOTATION] == build_key
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
