"""Repositories of an OCI registry: manifests, blobs with mounts across repositories, and referrers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from yarl import URL

from cloudmesh.engine.errors import AuthFailed, InvalidRequest, RateLimited, Transient, Unsupported
from cloudmesh.functions.image.blobs import Blob
from cloudmesh.functions.image.oci import INDEX, MANIFEST, Descriptor, check_digest, index_json, parse_index, sha256
from cloudmesh.functions.image.transport import Answer, Transfer, Transport

MONOLITHIC = 8 << 20
"""Blobs up to this many bytes go in one PUT, larger ones in chunks of this size."""

_SMALL = 64 << 10
_BLOB_TRIES = 4
_ACCEPT = {"Accept": f"{INDEX}, {MANIFEST}"}
_OCTETS = "application/octet-stream"


class Repository:
    """One repository of a registry.

    Args:
        transport: connections to the registry.
        name: the repository's name below the endpoint's prefix.
        transfer: counts what is sent; share one between repositories to count a whole piece of work.
    """

    def __init__(self, transport: Transport, name: str, transfer: Transfer | None = None) -> None:
        self._transport = transport
        self.name = f"{transport.endpoint.prefix}{name}"
        self.transfer = transfer or Transfer()
        self._path = f"/v2/{self.name}"
        self._pull = (f"repository:{self.name}:pull",)
        self._push = (f"repository:{self.name}:pull,push",)

    async def head(self, reference: str) -> Descriptor | None:
        """The manifest or index under a tag or digest; None if it isn't there."""
        answer = await self._ask("HEAD", "manifests", reference)
        if answer is None:
            return None
        digest = answer.headers.get("Docker-Content-Digest")
        if digest is None:  # the specification doesn't demand it
            found = await self.manifest(reference)
            return found[0] if found else None
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else 0
        return Descriptor(_media_type(answer), check_digest(digest, f"{self.name}:{reference}"), size)

    async def manifest(self, reference: str) -> tuple[Descriptor, bytes] | None:
        """The manifest or index under a tag or digest with its bytes; None if it isn't there.

        Raises:
            InvalidRequest: the bytes are not those that the digest asked for.
        """
        answer = await self._ask("GET", "manifests", reference)
        if answer is None:
            return None
        digest = sha256(answer.body)
        if reference.startswith("sha256:") and digest != reference:
            raise InvalidRequest(f"{self.name}@{reference}: the registry gave other content, {digest}")
        return Descriptor(_media_type(answer), digest, len(answer.body)), answer.body

    async def _ask(self, method: str, kind: str, reference: str, limit: int = 4 << 20) -> Answer | None:
        """The answer to a read of `manifests` or `blobs`; None if what is asked for isn't there."""
        answer = await self._transport.request(
            method,
            f"{self._path}/{kind}/{reference}",
            scopes=self._pull,
            transfer=self.transfer,
            headers=_ACCEPT if kind == "manifests" else None,
            expect=(200, 404),
            limit=limit,
        )
        return None if answer.status == 404 else answer

    async def put_manifest(self, reference: str, blob: Blob) -> bool:
        """Store a manifest or index under a tag or its digest.

        Returns:
            Whether the registry says that it lists the manifest under its subject (`OCI-Subject`).
        """
        answer = await self._transport.request(
            "PUT",
            f"{self._path}/manifests/{reference}",
            scopes=self._push,
            transfer=self.transfer,
            headers={"Content-Type": blob.descriptor.media_type},
            body=blob.read(),
            expect=(201, 200, 202),
        )
        stored = answer.headers.get("Docker-Content-Digest", blob.descriptor.digest)
        if stored != blob.descriptor.digest:
            raise InvalidRequest(f"{self.name}:{reference}: the registry stored {stored}")
        return "OCI-Subject" in answer.headers

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        return await self._ask("HEAD", "blobs", digest) is not None

    async def blob(self, digest: str, limit: int) -> bytes | None:
        """A blob of at most `limit` bytes, checked against its digest; None if it isn't there."""
        answer = await self._ask("GET", "blobs", digest, limit)
        if answer is None:
            return None
        if sha256(answer.body) != digest:
            raise InvalidRequest(f"{self.name}@{digest}: the registry gave other content")
        return answer.body

    async def push_blob(self, blob: Blob, sources: Iterable[Repository] = ()) -> None:
        """Make the repository have `blob`: mounted from one of `sources` if possible, else uploaded.

        Raises:
            CloudmeshError: neither worked.
        """
        descriptor = blob.descriptor
        candidates = [source for source in sources if source.name != self.name]
        for attempt in range(_BLOB_TRIES):
            try:
                asked = attempt > 0 or (not candidates and descriptor.size > _SMALL)
                if asked and await self.has_blob(descriptor.digest):
                    self.transfer.present += 1
                    return
                location = await self._start(descriptor.digest, candidates)
                if location is None:
                    self.transfer.mounted += 1
                    return
                with blob.open() as stream:
                    await self._upload(location, descriptor, stream)
                self.transfer.uploaded += 1
            except FileNotFoundError as error:
                raise Transient(f"layer {descriptor.digest} was dropped from the cache") from error
            except (Transient, RateLimited) as error:
                if attempt + 1 == _BLOB_TRIES:
                    raise
                await asyncio.sleep(getattr(error, "retry_after", None) or 0.1 * 2**attempt)
            else:
                return

    async def _start(self, digest: str, sources: Sequence[Repository]) -> URL | None:
        """Open an upload, trying to mount first. None when a mount succeeded."""
        for source in sources:
            try:
                answer = await self._post({"mount": digest, "from": source.name}, (*self._push, *source._pull))
            except (AuthFailed, InvalidRequest, Unsupported):
                continue  # some registries refuse a mount instead of opening an upload
            if answer.status == 201:
                return None
            return self._location(answer)
        return self._location(await self._post(None, self._push))

    async def _post(self, params: dict[str, str] | None, scopes: Sequence[str]) -> Answer:
        return await self._transport.request(
            "POST",
            f"{self._path}/blobs/uploads/",
            scopes=scopes,
            transfer=self.transfer,
            params=params,
            headers={"Content-Length": "0"},
            expect=(201, 202) if params else (202,),
        )

    def _location(self, answer: Answer) -> URL:
        location = answer.headers.get("Location")
        if not location:
            raise InvalidRequest(f"{self.name}: the registry opened an upload without saying where")
        return answer.url.join(URL(location, encoded=True))

    async def _upload(self, location: URL, descriptor: Descriptor, stream: BinaryIO) -> None:
        body: bytes | None = None
        if descriptor.size <= MONOLITHIC:
            body = stream.read()
        else:
            location = await self._upload_chunks(location, descriptor, stream)
        answer = await self._transport.request(
            "PUT",
            location,
            scopes=self._push,
            transfer=self.transfer,
            params={"digest": descriptor.digest},
            headers={"Content-Type": _OCTETS},
            body=body,
            expect=(201, 204),
            tries=1,
        )
        stored = answer.headers.get("Docker-Content-Digest", descriptor.digest)
        if stored != descriptor.digest:
            raise InvalidRequest(f"{self.name}@{descriptor.digest}: the registry stored {stored}")

    async def _upload_chunks(self, location: URL, descriptor: Descriptor, stream: BinaryIO) -> URL:
        start, failures, size = 0, 0, MONOLITHIC
        while start < descriptor.size:
            stream.seek(start)
            chunk = stream.read(size)
            if not chunk:
                raise InvalidRequest(f"layer {descriptor.digest}: shorter than its {descriptor.size} bytes")
            try:
                answer = await self._transport.request(
                    "PATCH",
                    location,
                    scopes=self._push,
                    transfer=self.transfer,
                    headers={"Content-Type": _OCTETS, "Content-Range": f"{start}-{start + len(chunk) - 1}"},
                    body=chunk,
                    expect=(202, 204, 416),
                    tries=1,
                )
                location = self._location(answer) if "Location" in answer.headers else location
                if answer.status == 416:
                    location, start = await self._status(location)
                else:
                    start += len(chunk)
                minimum = answer.headers.get("OCI-Chunk-Min-Length", "")
                size = max(size, int(minimum)) if minimum.isdigit() else size
            except (Transient, RateLimited):
                failures += 1
                if failures > 2:
                    raise
                location, start = await self._status(location)
        return location

    async def _status(self, location: URL) -> tuple[URL, int]:
        """Ask a broken upload how far it got.

        Raises:
            Transient: the registry forgot it: start again.
        """
        try:
            answer = await self._transport.request(
                "GET", location, scopes=self._push, transfer=self.transfer, expect=(204, 202)
            )
        except (InvalidRequest, Unsupported) as error:
            raise Transient(f"{self.name}: the upload is lost ({error})") from error
        if "Location" in answer.headers:
            location = self._location(answer)
        end = answer.headers.get("Range", "").partition("-")[2]
        return location, int(end) + 1 if end.isdigit() and int(end) > 0 else 0

    async def attach(self, subject: Descriptor, artifacts: Sequence[tuple[Blob, Descriptor]]) -> None:
        """Publish manifests that refer to `subject`, also on registries without the referrers API.

        Args:
            subject: the manifest or index they are about.
            artifacts: each manifest, and its descriptor with artifactType and annotations for listings.
        """
        known = await asyncio.gather(
            *(self.put_manifest(manifest.descriptor.digest, manifest) for manifest, _ in artifacts)
        )
        missing = [described for (_, described), listed in zip(artifacts, known, strict=True) if not listed]
        for _ in range(3):
            if not missing:
                return
            listed = await self._fallback(subject.digest)
            own = {described.digest for described in missing}
            if own <= {item.digest for item in listed}:
                return
            merged = [*(item for item in listed if item.digest not in own), *missing]
            index = Blob.of(INDEX, index_json(sorted(merged, key=lambda item: item.digest)))
            await self.put_manifest(_fallback_tag(subject.digest), index)
        listed = await self._fallback(subject.digest)
        if not {described.digest for described in missing} <= {item.digest for item in listed}:
            raise Transient(f"{self.name}@{subject.digest}: another writer changes its list of referrers")

    async def referrers(self, digest: str, artifact_type: str) -> list[Descriptor]:
        """The manifests of one artifact type that refer to `digest`."""
        listed: Sequence[Descriptor] = ()
        if self._transport.has_referrers is not False:
            try:
                answer = await self._transport.request(
                    "GET",
                    f"{self._path}/referrers/{digest}",
                    scopes=self._pull,
                    transfer=self.transfer,
                    params={"artifactType": artifact_type},
                    headers={"Accept": INDEX},
                    expect=(200, 404),
                )
                self._transport.has_referrers = answer.status == 200
                if answer.status == 200:
                    listed = parse_index(answer.body, f"{self.name}: referrers")
            except (AuthFailed, InvalidRequest, Unsupported):
                self._transport.has_referrers = False
        if not listed:
            listed = await self._fallback(digest)
        return [item for item in listed if item.artifact_type == artifact_type]

    async def _fallback(self, digest: str) -> tuple[Descriptor, ...]:
        found = await self.manifest(_fallback_tag(digest))
        if found is None or found[0].media_type != INDEX or found[0].digest == digest:
            return ()  # a registry may resolve the tag to the subject itself
        return parse_index(found[1], f"{self.name}:{_fallback_tag(digest)}")


def _fallback_tag(digest: str) -> str:
    return digest.replace(":", "-")


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0]
