"""Locks in the registry: made once for the same inputs, found again by any builder that shares registry and key."""

from __future__ import annotations

import asyncio
import hashlib
import logging

from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.functions.builder.requests import LockRequest
from cloudmesh.functions.image.blobs import Blob
from cloudmesh.functions.image.oci import (
    EMPTY,
    EMPTY_JSON,
    MANIFEST,
    Manifest,
    canonical_json,
    manifest_json,
)
from cloudmesh.functions.image.registry import Repository
from cloudmesh.functions.image.signing import Signer, Verifier
from cloudmesh.functions.lock import Lock

LOCK = "application/vnd.cloudmesh.lock.v1+toml"
_SIGNATURE = "org.cloudmesh.signature"
_LARGEST = 1 << 20
_log = logging.getLogger(__name__)


def lock_key(request: LockRequest, index_url: str, constraints: str) -> str:
    """Name a lock by all that it depends on.

    Returns:
        32 hexadecimal digits.
    """
    inputs = [
        sorted(request.requirements),
        request.python,
        [str(platform) for platform in request.platforms],
        index_url,
        constraints,
    ]
    return hashlib.sha256(canonical_json(inputs)).hexdigest()[:32]


async def find_lock(repository: Repository, key: str, verifier: Verifier) -> Lock | None:
    """The lock under a key, if it is there and our signature on it holds. A registry that fails has none."""
    try:
        found = await repository.manifest(f"lock-{key}")
        if found is None:
            return None
        manifest = Manifest.parse(found[1], f"{repository.name}:lock-{key}")
        text = await repository.blob(manifest.layers[0].digest, _LARGEST) if manifest.layers else None
        if text is None or manifest.artifact_type != LOCK:
            return None
        signature = manifest.annotations.get(_SIGNATURE, "").encode()
        if not verifier.verify(signature, manifest.layers[0].digest, key):
            return None
        return Lock.parse(text.decode())
    except (CloudmeshError, UnicodeDecodeError) as error:
        _log.warning("lock %s can't be read from the registry, so it is made: %s", key, error)
        return None


async def keep_lock(repository: Repository, key: str, lock: Lock, signer: Signer) -> None:
    """Store a lock under its key. A registry that fails keeps none; the next caller makes it again."""
    text, empty = Blob.of(LOCK, lock.text().encode()), Blob.of(EMPTY, EMPTY_JSON)
    annotations = {_SIGNATURE: signer.bundle(text.descriptor.digest, key).decode()}
    manifest = manifest_json(empty.descriptor, [text.descriptor], artifact_type=LOCK, annotations=annotations)
    try:
        await asyncio.gather(repository.push_blob(text), repository.push_blob(empty))
        await repository.put_manifest(f"lock-{key}", Blob.of(MANIFEST, manifest))
    except CloudmeshError as error:
        _log.warning("lock %s isn't kept in the registry: %s", key, error)
