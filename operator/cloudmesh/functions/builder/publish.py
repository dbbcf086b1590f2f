"""Pushes images: layers mounted where the registry has them, referrers, and the key's tag last, as the commit point."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudmesh.functions.image.blobs import Blob, Layer
from cloudmesh.functions.image.layout import Image
from cloudmesh.functions.image.oci import EMPTY, EMPTY_JSON, INDEX, MANIFEST, Descriptor, index_json, manifest_json
from cloudmesh.functions.image.registry import Repository
from cloudmesh.functions.image.signing import Signer, Verifier, artifact_manifest
from cloudmesh.functions.image.transport import Transfer, Transport

OPENAPI = "application/vnd.oai.openapi+json;version=3.1"
WHEEL_LAYER = "application/vnd.cloudmesh.wheel-layer.v1"
_EMPTY = Blob.of(EMPTY, EMPTY_JSON)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image goes.

    Args:
        transport: connections to the registry.
        name: the repository below the endpoint's prefix.
        pull: the repository's full name as nodes see it.
        shared: whether the repositories `base` and `layers` of this registry are ours to mount from.
    """

    transport: Transport
    name: str
    pull: str
    shared: bool


def key_tag(key: str) -> str:
    """The tag of a build."""
    return f"k-{key}"


async def find(place: Place, key: str, verifier: Verifier, transfer: Transfer) -> Descriptor | None:
    """The image that the registry has under a key, if our signature on it holds."""
    repository = Repository(place.transport, place.name, transfer)
    found = await repository.head(key_tag(key))
    if found is None or not await verifier.verified(repository, found.digest, key):
        return None
    return found


async def publish(
    place: Place,
    images: Sequence[Image],
    *,
    key: str,
    signer: Signer,
    openapi: bytes,
    transfer: Transfer,
    sources: Mapping[str, str],
) -> Descriptor:
    """Push an image (an index, if it is for several platforms) with its signature and document.

    Args:
        place: where it goes.
        images: one for each platform.
        key: the build's key.
        signer: signs it.
        openapi: the document's bytes.
        transfer: counts what is sent.
        sources: digest of a layer -> repository of the same registry that it is mounted from.

    Everything is there before the key's tag is: whoever finds the tag finds a whole image.

    Raises:
        CloudmeshError: the registry refused or doesn't answer; nothing is under the tag then that wasn't before.
    """
    repository = Repository(place.transport, place.name, transfer)
    document = Blob.of(OPENAPI, openapi)
    top = top_of(images)
    subject = top.descriptor
    bundle, signature, signature_listed = signer.artifact(subject, key)
    attached, attached_listed = artifact_manifest(document, OPENAPI, subject, {})
    small = {blob.descriptor.digest: blob for blob in (document, bundle, _EMPTY, *(image.config for image in images))}
    layers = {layer.descriptor.digest: layer.blob for image in images for layer in image.layers}
    mounts = {name: Repository(place.transport, name, transfer) for name in sources.values()}
    await asyncio.gather(
        *(repository.push_blob(blob) for blob in small.values()),
        *(
            repository.push_blob(blob, [mounts[sources[digest]]] if place.shared and digest in sources else [])
            for digest, blob in layers.items()
        ),
    )
    if len(images) > 1:
        await asyncio.gather(*(repository.put_manifest(image.digest, image.manifest) for image in images))
    await repository.put_manifest(subject.digest, top)
    await repository.attach(subject, [(signature, signature_listed), (attached, attached_listed)])
    await repository.put_manifest(key_tag(key), top)
    return subject


def top_of(images: Sequence[Image]) -> Blob:
    """The document whose digest names the whole: the manifest, or an index for several platforms."""
    if len(images) == 1:
        return images[0].manifest
    manifests = [
        Descriptor(MANIFEST, image.digest, image.manifest.descriptor.size, platform=image.platform) for image in images
    ]
    return Blob.of(INDEX, index_json(sorted(manifests, key=lambda item: str(item.platform))))


async def push_shared(transport: Transport, images: Sequence[Image]) -> None:
    """Put base, runtime and parts where functions' repositories mount them from: `<push>/base`."""
    repository = Repository(transport, "base")
    for image in images:
        if await repository.head(image.digest) is not None:
            continue
        blobs = [image.config, *(layer.blob for layer in image.layers)]
        await asyncio.gather(*(repository.push_blob(blob) for blob in blobs))
        tag = image.digest.removeprefix("sha256:")[:32]
        await repository.put_manifest(tag, image.manifest)


async def push_wheel_layer(transport: Transport, layer: Layer, filename: str, transfer: Transfer) -> None:
    """Put a wheel's layer into `<push>/layers`, with a manifest that lists it.

    Some registries mount only blobs that a manifest refers to, and all of them collect the others as garbage.
    """
    repository = Repository(transport, "layers", transfer)
    tag = layer.diff_id.removeprefix("sha256:")[:32]
    manifest = Blob.of(
        MANIFEST,
        manifest_json(
            _EMPTY.descriptor,
            [layer.descriptor],
            artifact_type=WHEEL_LAYER,
            annotations={"org.cloudmesh.diff-id": layer.diff_id, "org.opencontainers.image.title": filename},
        ),
    )
    found = await repository.head(tag)
    if found is not None and found.digest == manifest.descriptor.digest:
        return
    await asyncio.gather(repository.push_blob(_EMPTY), repository.push_blob(layer.blob))
    await repository.put_manifest(tag, manifest)
