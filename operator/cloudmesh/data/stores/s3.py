"""S3 and what speaks like it: obstore for the bytes of small objects and of reads, boto3 for all the rest.

Both run in threads of the store's own. obstore's write with a condition takes the whole content at once, so an object
of more than one part goes up as parts by boto3: at most four at a time, and the condition is tied to the call that
completes them. Whatever ends a write before that call aborts the upload. Calls that publish or delete are never
repeated by a library: their outcome is for the caller to look at.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from time import perf_counter
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import obstore
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from obstore.exceptions import BaseError

from cloudmesh.data.errors import Changed, Exists, InvalidName, Missing
from cloudmesh.data.stores import s3_guarded
from cloudmesh.data.stores.common import Limits, checked, fits, measured
from cloudmesh.data.stores.objects import (
    CONTROLS,
    HOLDS,
    READ_HOLDS,
    BeyondEnd,
    Pieces,
    Upload,
    in_parts,
    published,
    source_of_copy,
    windows,
)
from cloudmesh.data.stores.ports import CHUNK, Object, Ours, Page, Probe, StoreInfo
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.s3_clients import THREADS, boto_client, bytes_client
from cloudmesh.data.stores.s3_errors import classify, heard
from cloudmesh.data.stores.s3_identity import Role, of_role, of_secret
from cloudmesh.data.stores.threads import Threads
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import CloudmeshError, Transient

T = TypeVar("T")
PART = 8 << 20
MOST_PARTS = 10_000
COPY_AT_ONCE = 5 << 30
CALL_SECONDS = 60.0
LONG: Final = 1 << 30
"""From so many bytes on a server may be busy with them for long when parts become an object."""
PATIENCE: Final = 5
"""So many times as long its answer is waited for then."""
READ_TRIES = 3
PRESIGN_MOST = 7 * 86400
_ERRORS = (
    BaseError, BotoCoreError, ClientError, ResponseParserError, FileNotFoundError, ValueError, RecursionError,
)  # fmt: skip


class S3Store:
    """One bucket.

    Args:
        bucket: Its name.
        credentials: The two keys, perhaps a session token; or a role.
        endpoint: URL of the API, empty for that of AWS in the region.
        region: Region that requests are signed for.
        name: Of the store.
        limits: Of requests and bytes.
        part: Bytes of a part, at least 5 MiB.
        copy_at_once: Largest object that one call may copy.
        call_seconds: Time within which an answer must come.
        guard: Makes the connections.

    Raises:
        AuthFailed: A key is missing.
        InvalidRequest: A credential means nothing here.
    """

    def __init__(
        self,
        bucket: str,
        credentials: Mapping[str, bytes] | Role,
        *,
        endpoint: str = "",
        region: str = "us-east-1",
        name: str = "s3",
        limits: Limits | None = None,
        part: int = PART,
        copy_at_once: int = COPY_AT_ONCE,
        call_seconds: float = CALL_SECONDS,
        guard: Guard = ANYWHERE,
    ) -> None:
        client = partial(boto_client, endpoint=endpoint, region=region, seconds=call_seconds, guard=guard)
        self._sts: Any = client(None, service="sts", tries=READ_TRIES) if isinstance(credentials, Role) else None
        self._credentials = of_role(self._sts, credentials) if isinstance(credentials, Role) else of_secret(credentials)
        self._bucket = bucket
        self._limits = limits or Limits()
        self._part = part
        self._copy_at_once = copy_at_once
        self._threads = Threads(name, THREADS)
        self._guard = guard
        self._once = client(self._credentials, tries=1)
        self._long: Any = None
        self._long_client = partial(client, self._credentials, seconds=PATIENCE * call_seconds, tries=1)
        self._client = client(self._credentials, tries=READ_TRIES)
        url = self._client.meta.endpoint_url
        self._writer = bytes_client(bucket, self._credentials, url, region, call_seconds, tries=1)
        self._reader = bytes_client(bucket, self._credentials, url, region, call_seconds, tries=READ_TRIES)
        self._secure = url.startswith("https:")
        domain = urlsplit(endpoint).netloc or "aws"
        self._info = StoreInfo(
            "s3", "Full", max_key=1024, max_part=1024, max_size=MOST_PARTS * (5 << 30), refuses=CONTROLS,
            failure_domain=domain, write_holds=HOLDS * part, read_holds=READ_HOLDS, holds_for=MOST_PARTS * part,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"S3Store({self._bucket!r})"

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return self._info

    @property
    def _guarded(self) -> bool:
        """Whether contents mustn't go by obstore, which asks whoever it is led to."""
        return not (self._secure or self._guard.inside)

    # -- looking

    async def probe(self) -> Probe:
        """Lists one object."""
        begin = perf_counter()
        answer = await self._call("the bucket", self._client.list_objects_v2, Bucket=self._bucket, MaxKeys=1)
        took = perf_counter() - begin
        told = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "")
        try:
            # told in whole seconds: half of one is added, half the way is taken off
            theirs = parsedate_to_datetime(told).timestamp() + 0.5
            skew = round((theirs - datetime.now(UTC).timestamp() + took / 2) * 1000)
        except (TypeError, ValueError):
            skew = None
        return Probe(round(took * 1000), skew)

    async def stat(self, key: str) -> Object | None:
        """As the port says; a bare 404 is asked about again, since only a code tells that there is none."""
        for _ in range(2):
            try:
                return (await self._get(key, head=True))[0]
            except Missing:
                pass
            try:
                await self._get(key, range=(0, 1))
            except Missing:
                return None
            except BeyondEnd:
                pass  # it is there, and empty
        raise Transient(f"{key} comes and goes")

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says; tags come, attributes don't."""
        asked: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, "MaxKeys": min(limit, 1000)}
        if after:
            asked["StartAfter"] = after
        answer = await self._call(f"listing {prefix}", self._client.list_objects_v2, **asked)
        if "IsTruncated" not in answer or answer.get("Name") != self._bucket:
            raise Transient(f"listing {prefix}: the answer is no listing")
        try:
            found = tuple(
                Object(each["Key"], int(each["Size"]), str(each.get("ETag", "")), _micros(each["LastModified"]))
                for each in answer.get("Contents", ())
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Transient(f"listing {prefix}: the answer can't be read") from error
        if not answer["IsTruncated"]:
            return Page(found)
        if not found:
            raise Transient(f"listing {prefix}: an empty page that isn't the last")
        return Page(found, found[-1].key)

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says: window by window, each tied to the tag of the first one."""
        get = partial(self._window, key)
        coming = windows(key, get, self.stat, self._limits, start=start, length=length, if_tag=if_tag)
        async with aclosing(coming) as pieces:
            async for piece in pieces:
                yield piece

    async def _window(self, key: str, begin: int, end: int, tag: str) -> tuple[Object, Pieces]:
        return await self._get(key, range=(begin, end), if_match=tag or None)

    async def _get(self, key: str, **options: Any) -> tuple[Object, Pieces]:
        await self._limits.request()

        def get() -> tuple[Object, Pieces]:
            self._credentials.get_frozen_credentials()  # what is wrong with a role can be told in words only here
            # what has no value must be left out: a None is sent as an empty header
            asked: Any = {name: value for name, value in options.items() if value is not None}
            if self._guarded:
                told, found = s3_guarded.get(self._client, self._bucket, key, asked)
                seen = s3_guarded.whole_size(told), told.get("ETag", ""), _micros(told["LastModified"])
                return Object(key, *seen, dict(told.get("Metadata", {}))), found
            answer = obstore.get(self._reader, key, options=asked)
            meta = answer.meta
            texts = {name: str(text) for name, text in answer.attributes.items() if name == name.lower()}
            pieces = [] if options.get("head") else list(answer.stream(min_chunk_size=CHUNK))
            return Object(key, meta["size"], meta["e_tag"] or "", _micros(meta["last_modified"]), texts), pieces

        try:
            found, pieces = await self._threads.run(get)
        except _ERRORS as error:
            raise self._of_read(error, key, head=bool(options.get("head"))) from None
        if not found.tag:
            raise Transient(f"{key}: the answer has no entity tag")
        return found, pieces

    @staticmethod
    def _of_read(error: Exception, key: str, *, head: bool) -> CloudmeshError:
        said = heard(error)
        if said.status == 416:
            return BeyondEnd(f"{key} ends before")
        if said.status == 404 and not said.code:
            return Missing(f"there is no {key}") if head else Transient(f"{key}: the answer has no word of S3")
        if isinstance(error, ValueError):
            return InvalidName(f"{key!r} can't be read: {said.message}")
        return classify(error, key)

    # -- changing

    async def write(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the port says: one call up to the size of a part, an upload of parts above."""
        texts = checked(attributes)
        async with aclosing(self._parts(measured(chunks, size, self._info.max_size, self._limits), size)) as parts:
            head = [part for _ in range(2) if (part := await anext(parts, None)) is not None] or [b""]
            if len(head) == 1:
                mode: Any = "create" if if_absent else {"e_tag": if_tag} if if_tag else "overwrite"
                put = partial(self._put, key, head[0], texts, mode)
                answer = await self._change(key, put, if_absent=if_absent, if_tag=if_tag)
                return published(key, len(head[0]), answer.get("e_tag"), texts)
            if if_tag or if_absent:
                # what can be known now needn't be told after gigabytes
                there = await self.stat(key)
                fits(key, there.tag if there else None, if_tag, if_absent=if_absent)
            upload = _Upload(self, key, texts, if_tag=if_tag, if_absent=if_absent)
            tag = await upload.run(head, parts)
            return published(key, upload.size, tag, texts)

    def _put(self, key: str, content: bytes, texts: Mapping[str, str], mode: Any) -> Mapping[str, Any]:
        self._credentials.get_frozen_credentials()
        if self._guarded:
            return s3_guarded.put(self._once, self._bucket, key, content, texts, mode)
        return obstore.put(self._writer, key, content, attributes=dict(texts), mode=mode, use_multipart=False)

    def _parts(self, chunks: AsyncIterable[bytes], size: int | None) -> AsyncGenerator[bytes, None]:
        return in_parts(chunks, size, self._part, MOST_PARTS)

    async def _change(self, key: str, function: Callable[[], T], *, if_absent: bool = False, if_tag: str = "") -> T:
        """One call that changes something: what it did is waited for even by whoever is cancelled."""
        await self._limits.request()
        try:
            return await self._threads.finish(function)
        except _ERRORS as error:
            found = classify(error, key, if_absent=if_absent)
            if isinstance(found, Missing) and if_tag:
                found = Changed(f"{key} is gone")
            raise found from None

    async def _call(self, what: str, function: Callable[..., dict[str, Any]], **parameters: Any) -> dict[str, Any]:
        await self._limits.request()
        try:
            return await self._threads.run(function, **parameters)
        except _ERRORS as error:
            raise classify(error, what) from None

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says; since not all heed the condition, it looks first as well."""
        if if_tag:
            there = await self.stat(key)
            if there is None:
                return
            fits(key, there.tag, if_tag)
        more = {"IfMatch": if_tag} if if_tag else {}
        try:
            await self._change(key, partial(self._once.delete_object, Bucket=self._bucket, Key=key, **more))
        except Missing:
            return

    async def copy(
        self,
        source: str,
        target: str,
        *,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the power Copier says."""
        seen, kept = await source_of_copy(self.stat, source, if_tag, attributes)
        origin = {"CopySource": {"Bucket": self._bucket, "Key": source}, "CopySourceIfMatch": seen.tag}
        if if_absent and seen.size <= self._part:
            # few servers tie a copy to absence: what they tie is a write, and the end of an upload
            content = self.read(source, if_tag=seen.tag)
            return await self.write(target, content, size=seen.size, if_absent=True, attributes=kept)
        if if_absent and await self.stat(target) is not None:
            raise Exists(f"there is a {target}")
        if if_absent or seen.size > self._copy_at_once:
            upload = _Upload(self, target, kept, if_absent=if_absent)
            return published(target, seen.size, await upload.works(upload.copies(seen.size, origin)), kept)
        call = partial(
            self._once.copy_object, Bucket=self._bucket, Key=target, MetadataDirective="REPLACE", Metadata=dict(kept),
            **origin,
        )  # fmt: skip
        answer = await self._change(target, call)
        return published(target, seen.size, answer.get("CopyObjectResult", {}).get("ETag"), kept)

    # -- powers

    async def presign(self, key: str, seconds: int) -> str:
        """As the power Presigner says; at most 7 days."""
        url = await self._threads.run(
            self._client.generate_presigned_url,
            "get_object",
            Params={"Bucket": self._bucket, "Key": key},
            ExpiresIn=max(1, min(seconds, PRESIGN_MOST)),
        )
        return str(url)

    async def sweep(self, prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
        """As the power Sweeper says."""
        old = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        count = 0
        mark: dict[str, str] = {}
        while True:
            answer = await self._call(
                "open uploads", self._client.list_multipart_uploads, Bucket=self._bucket, Prefix=prefix, **mark
            )
            for upload in answer.get("Uploads", ()):
                key = upload["Key"]
                if key.startswith(prefix) and upload["Initiated"] <= old and (ours is None or await ours(key)):
                    count += await self.abort(key, upload["UploadId"])
            if not answer.get("IsTruncated"):
                return count
            mark = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}

    async def abort(self, key: str, upload: str) -> bool:
        """Ends an upload without a trace; False if there is none."""
        try:
            await self._call(key, self._client.abort_multipart_upload, Bucket=self._bucket, Key=key, UploadId=upload)
        except CloudmeshError as error:
            if "NoSuchUpload" in str(error):
                return False
            raise
        return True

    async def close(self) -> None:
        """Lets go of threads and connections."""
        self._threads.close()
        for client in (self._client, self._once, self._sts, self._long):
            if client is not None:
                client.close()

    def publisher(self, size: int) -> Any:
        """The client for the call that makes an object of so many bytes of its parts; blocks the first time."""
        if size < LONG:
            return self._once
        if self._long is None:
            self._long = self._long_client()
        return self._long


class _Upload(Upload):
    """One upload of parts, from its begin to its completion or abortion."""

    def __init__(
        self, store: S3Store, key: str, texts: Mapping[str, str], *, if_tag: str = "", if_absent: bool = False
    ) -> None:
        super().__init__(key, MOST_PARTS)
        self._store = store
        self._texts = texts
        self._if_tag = if_tag
        self._if_absent = if_absent
        self._where: dict[str, Any] = {"Bucket": store._bucket, "Key": key}
        self._tags: dict[int, str] = {}

    async def copies(self, size: int, origin: Mapping[str, Any]) -> AsyncIterator[Coroutine[Any, Any, None]]:
        """Works that each have a range copied inside the store."""
        self.size, step = size, self._store._copy_at_once
        for number, begin in enumerate(range(0, size, step), 1):
            yield self._fetch(number, begin, min(size, begin + step), origin)

    async def open(self) -> None:
        """Begins it."""
        call = partial(self._store._once.create_multipart_upload, Metadata=dict(self._texts), **self._where)
        answer = await self._store._change(self.key, call)
        self._where["UploadId"] = str(answer["UploadId"])

    async def send(self, number: int, part: bytes) -> None:
        """Sends one part; the signature holds its digest."""
        call = partial(self._store._client.upload_part, Body=part, PartNumber=number, **self._where)
        self._keep(number, (await self._store._change(self.key, call)).get("ETag"))

    async def _fetch(self, number: int, begin: int, end: int, origin: Mapping[str, Any]) -> None:
        call = partial(
            self._store._client.upload_part_copy, PartNumber=number, CopySourceRange=f"bytes={begin}-{end - 1}",
            **self._where, **origin,
        )  # fmt: skip
        answer = await self._store._change(self.key, call)
        self._keep(number, answer.get("CopyPartResult", {}).get("ETag"))

    def _keep(self, number: int, tag: str | None) -> None:
        if not tag:
            raise Transient(f"{self.key}: the answer to part {number} has no entity tag")
        self._tags[number] = tag

    async def complete(self) -> str:
        """Publishes, tied to what is there."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(self._tags.items())]
        tied = {"IfMatch": self._if_tag} if self._if_tag else {"IfNoneMatch": "*"} if self._if_absent else {}

        def call() -> dict[str, Any]:
            client = self._store.publisher(self.size)
            answer: dict[str, Any] = client.complete_multipart_upload(
                MultipartUpload={"Parts": parts}, **self._where, **tied
            )
            return answer

        answer = await self._store._change(self.key, call, if_absent=self._if_absent, if_tag=self._if_tag)
        return str(answer.get("ETag") or "")

    async def drop(self) -> None:
        """Aborts it."""
        if "UploadId" in self._where:
            await self._store.abort(self.key, self._where["UploadId"])


def _micros(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000


def make(context: StoreContext) -> S3Store:
    """The store of a bucket.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: The Secret has a key that means nothing, or the endpoint is an address of this machine.
    """
    endpoint = str(context.settings.get("endpoint") or "")
    if endpoint:
        context.check(endpoint)
    role = str(context.identity.get("roleArn", ""))
    return S3Store(
        str(context.settings["bucket"]),
        Role(role, context.identity["session"], context.identity["tokenFile"]) if role else context.credentials,
        endpoint=endpoint,
        region=str(context.settings.get("region") or "us-east-1"),
        name=context.name,
        limits=Limits(context.requests_per_second, context.bytes_per_second),
        guard=context.guarded(),
    )
