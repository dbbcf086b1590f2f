"""The harness of Google Cloud Storage: an emulator of it, with the fault proxy in front, which does what it lacks."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.gcs import GcsStore, open_store
from cloudmesh.data.stores.gcs_auth import KEY
from cloudmesh.data.stores.http import Answer, Http
from cloudmesh.data.stores.ports import Store
from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.gcs import GcsDialect
from cloudmesh.testing.stores.harness import BaseHarness, Injection, Operation

MEANT: Final[Mapping[Operation, str]] = {
    "publish": "InsertObject|FinishSession|RewriteObject",
    "part": "UploadPart",
    "read": "GetContent",
    "stat": "GetObject",
    "list": "ListObjects",
    "delete": "DeleteObject",
    "any": ".*",
}
ACTIONS: Final = {"drop": "cut_before", "lose": "cut_after", "hang": "hang", "garbage": "garbage"}
REFUSALS: Final = {
    "fail": (500, "backendError"), "limit": (429, "rateLimitExceeded"), "full": (403, "storageQuotaExceeded"),
}  # fmt: skip
EMAIL = "suite@project.iam.gserviceaccount.com"


def service_account(key: RSAPrivateKey, token_uri: str) -> bytes:
    """The file of a service account's key."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {
            "type": "service_account", "project_id": "project", "private_key_id": "1", "private_key": pem,
            "client_email": EMAIL, "token_uri": token_uri,
        }
    ).encode()  # fmt: skip


@cache
def _key(which: str) -> RSAPrivateKey:
    """Made once a process, which takes a good while."""
    return generate_private_key(65537, 2048)


class GcsHarness(BaseHarness):
    """A bucket for each case. Use `start` and `stop` around the cases, on their event loop.

    Args:
        url: The server.
        name: Column of the table.
    """

    part = 1 << 20

    def __init__(self, url: str, name: str = "gcs") -> None:
        self.name = name
        self.lacks = {
            "read-only": "a missing right to write is AuthFailed, as any other",
            "lag": "its listings are strong",
        }
        self._key, self._bad = _key("good"), _key("bad")
        files = [json.loads(service_account(key, ""))["private_key"] for key in (self._key, self._bad)]
        self.secrets = tuple(line for file in files for line in file.splitlines()[1:-1] if len(line) > 40)
        self.dialect = GcsDialect(EMAIL, self._key.public_key())
        self.proxy = FaultProxy(url, self.dialect)
        self.bucket = ""
        self._url = url
        self._http = Http(4, 20.0)
        self._stores: list[GcsStore] = []
        self._killed = False

    @property
    def credentials(self) -> dict[str, bytes]:
        """A Secret's data that is good."""
        return {KEY: service_account(self._key, f"{self.proxy.url}/token")}

    async def start(self) -> None:
        """Starts the proxy."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Ends it."""
        await self.proxy.__aexit__(None, None, None)
        self._http.close()

    def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Answer:
        """One call past the proxy; blocks.

        Raises:
            RuntimeError: It failed.
        """
        answer = self._http.send(method, f"{self._url}{path}", {"Content-Type": kind} if body else {}, body)
        if not answer.ok and answer.status != 404:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer

    async def open(self) -> None:
        """A fresh bucket."""
        self.proxy.clear()
        self.dialect.sessions.clear()
        self._killed = False
        self.bucket = f"suite-{secrets.token_hex(6)}"
        body = json.dumps({"name": self.bucket}).encode()
        await asyncio.to_thread(self.send, "POST", "/storage/v1/b?project=suite", body)

    async def shut(self) -> None:
        """Closes stores; the bucket stays, and goes with the server."""
        self.proxy.clear()
        for store in self._stores:
            await store.close()
        self._stores.clear()

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the bucket."""
        credentials = (
            {KEY: service_account(self._bad, f"{self.proxy.url}/token")} if bad_credentials else self.credentials
        )
        made = open_store(
            "no-such-bucket-anywhere" if bad_place else self.bucket,
            credentials,
            endpoint=self.proxy.url,
            name=self.name,
            limits=Limits(**limits),
            part=self.part,
            call_seconds=2.0,
            patience=(0.05, 0.05),
        )
        self._stores.append(made)
        return made

    def recipe(self) -> Mapping[str, Any]:
        """The bucket, by the proxy. What is made of it gets killed, so its session is nobody's to end any more."""
        self._killed = True
        keys = {name: base64.b64encode(value).decode() for name, value in self.credentials.items()}
        settings = {"endpoint": self.proxy.url, "bucket": self.bucket}
        return {"kind": "gcs", "name": "victim", "settings": settings, "credentials": keys, "allow_private": True}

    async def inject(self, injection: Injection) -> None:
        """By rules of the proxy."""
        operation, what = MEANT[injection.operation], injection.what
        if what in ACTIONS:
            self.proxy.add(ACTIONS[what], operation, times=injection.times, status=injection.status)  # type: ignore[arg-type]
            return
        status, code = REFUSALS[what]
        if what == "full":
            self.proxy.add("answer", "InsertObject|UploadPart|FinishSession", times=None, status=status, code=code)
            return
        wait = injection.seconds or None
        self.proxy.add("answer", operation, times=injection.times, status=status, code=code, retry_after=wait)

    async def heal(self) -> None:
        """All is well again."""
        self.proxy.clear()

    async def truth(self) -> Mapping[str, bytes]:
        """By calls of its own, past the proxy."""

        def look() -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            mark = ""
            while True:
                path = f"/storage/v1/b/{self.bucket}/o?maxResults=1000&pageToken={quote(mark, safe='')}"
                told = json.loads(self.send("GET", path).body)
                for each in told.get("items") or ():
                    path = f"/storage/v1/b/{self.bucket}/o/{quote(each['name'], safe='')}?alt=media"
                    found[each["name"]] = self.send("GET", path).body
                mark = told.get("nextPageToken") or ""
                if not mark:
                    return found

        return await asyncio.to_thread(look)

    async def leftovers(self) -> int:
        """Open sessions, which only the proxy can count; that of a killed process ends by itself after a week."""
        return 0 if self._killed else self.dialect.open_sessions

    async def meddle(self, key: str, content: bytes | None) -> None:
        """By a call of its own."""
        if content is None:
            await asyncio.to_thread(self.send, "DELETE", f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}")
            return
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(key, safe='')}"
        await asyncio.to_thread(self.send, "POST", path, content, "application/octet-stream")
