"""The harness of a store that speaks S3: any server, with the fault proxy in front of it."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Mapping
from typing import Any, Final

from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.s3 import S3Store
from cloudmesh.data.stores.s3_clients import boto_client
from cloudmesh.data.stores.s3_identity import KEY_ID, SECRET_KEY, of_secret
from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.s3 import S3Dialect
from cloudmesh.testing.stores.harness import BaseHarness, Injection, Operation

MEANT: Final[Mapping[Operation, str]] = {
    "publish": "PutObject|CompleteMultipartUpload|CopyObject",
    "part": "UploadPart",
    "read": "GetObject",
    "stat": "HeadObject|GetObject",
    "list": "ListObjectsV2",
    "delete": "DeleteObject",
    "any": ".*",
}
ACTIONS: Final = {"drop": "cut_before", "lose": "cut_after", "hang": "hang", "garbage": "garbage"}
REFUSALS: Final = {"fail": (500, "InternalError"), "limit": (503, "SlowDown"), "full": (507, "InsufficientStorage")}
BAD_SECRET = "a-secret-key-that-nobody-gave-51ce"  # noqa: S105 - it opens nothing


class S3Harness(BaseHarness):
    """A bucket for each case. Use `start` and `stop` around the cases, on their event loop.

    Args:
        url: The server.
        key_id: Access key that may make buckets.
        secret: Its secret.
        name: Column of the table.
        lacks: What this server can't.
    """

    part = 5 << 20

    def __init__(
        self, url: str, key_id: str, secret: str, name: str = "s3", lacks: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.lacks = {
            "read-only": "a missing right to write is AuthFailed, as any other",
            "lag": "its listings are strong",
            **(lacks or {}),
        }
        self.secrets = (secret, BAD_SECRET)
        self._values = {KEY_ID: key_id, SECRET_KEY: secret}
        self._client = boto_client(
            of_secret({key: value.encode() for key, value in self._values.items()}), url, "us-east-1", 20.0, tries=2
        )
        self.proxy = FaultProxy(url, S3Dialect(), keep_host=True)
        self.bucket = ""
        self._stores: list[S3Store] = []

    async def start(self) -> None:
        """Starts the proxy."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Ends it."""
        await self.proxy.__aexit__(None, None, None)
        self._client.close()

    async def open(self) -> None:
        """A fresh bucket."""
        self.proxy.clear()
        self.bucket = f"suite-{secrets.token_hex(6)}"
        await asyncio.to_thread(self._client.create_bucket, Bucket=self.bucket)

    async def shut(self) -> None:
        """Closes stores; the bucket stays, and goes with the server."""
        self.proxy.clear()
        for store in self._stores:
            await store.close()
        self._stores.clear()

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the bucket."""
        values = {**self._values, **({SECRET_KEY: BAD_SECRET} if bad_credentials else {})}
        made = S3Store(
            "no-such-bucket-anywhere" if bad_place else self.bucket,
            {key: value.encode() for key, value in values.items()},
            endpoint=self.proxy.url,
            name=self.name,
            limits=Limits(**limits),
            part=self.part,
            copy_at_once=2 * self.part,
            call_seconds=2.0,
        )
        self._stores.append(made)
        return made

    def recipe(self) -> Mapping[str, Any]:
        """The bucket, by the proxy."""
        keys = {name: base64.b64encode(value.encode()).decode() for name, value in self._values.items()}
        settings = {"endpoint": self.proxy.url, "bucket": self.bucket}
        return {"kind": "s3", "name": "victim", "settings": settings, "credentials": keys, "allow_private": True}

    async def inject(self, injection: Injection) -> None:
        """By rules of the proxy."""
        operation, what = MEANT[injection.operation], injection.what
        if what in ACTIONS:
            self.proxy.add(ACTIONS[what], operation, times=injection.times, status=injection.status)  # type: ignore[arg-type]
            return
        status, code = REFUSALS[what]
        if what == "full":
            self.proxy.add("answer", "PutObject|UploadPart", times=None, status=status, code=code)
            return
        wait = injection.seconds or None
        self.proxy.add("answer", operation, times=injection.times, status=status, code=code, retry_after=wait)

    async def heal(self) -> None:
        """All is well again."""
        self.proxy.clear()

    async def truth(self) -> Mapping[str, bytes]:
        """By a client of its own, past the proxy."""

        def look() -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
                for each in page.get("Contents", ()):
                    body = self._client.get_object(Bucket=self.bucket, Key=each["Key"])["Body"]
                    found[each["Key"]] = body.read()
            return found

        return await asyncio.to_thread(look)

    async def leftovers(self) -> int:
        """Open uploads."""
        answer = await asyncio.to_thread(self._client.list_multipart_uploads, Bucket=self.bucket)
        return len(answer.get("Uploads", ()))

    async def meddle(self, key: str, content: bytes | None) -> None:
        """By a client of its own."""
        if content is None:
            await asyncio.to_thread(self._client.delete_object, Bucket=self.bucket, Key=key)
        else:
            await asyncio.to_thread(self._client.put_object, Bucket=self.bucket, Key=key, Body=content)
