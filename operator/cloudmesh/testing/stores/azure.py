"""The harness of Azure Blob: an emulator of it, with the fault proxy in front."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from cloudmesh.data.stores.azure import AzureStore, open_store
from cloudmesh.data.stores.azure_auth import KEY, VERSION, ByKey
from cloudmesh.data.stores.azure_words import listing
from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.federation import Workload
from cloudmesh.data.stores.http import Answer, Http
from cloudmesh.data.stores.ports import Store
from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.azure_blob import AzureBlobDialect
from cloudmesh.testing.stores.harness import BaseHarness, Injection, Operation

MEANT: Final[Mapping[Operation, str]] = {
    "publish": "PutBlob|PutBlockList|CopyBlob",
    "part": "PutBlock",
    "read": "GetBlob",
    "stat": "GetBlobProperties",
    "list": "ListBlobs",
    "delete": "DeleteBlob",
    "any": ".*",
}
ACTIONS: Final = {"drop": "cut_before", "lose": "cut_after", "hang": "hang", "garbage": "garbage"}
REFUSALS: Final = {"fail": (500, "InternalError"), "limit": (503, "ServerBusy"), "full": (507, "InsufficientStorage")}
BAD_KEY = base64.b64encode(b"a key that nobody gave").decode()


class AzureHarness(BaseHarness):
    """A container for each case. Use `start` and `stop` around the cases, on their event loop.

    Args:
        url: The server, with the account in its path.
        account: Name of the account.
        key: Its key.
        name: Column of the table.
    """

    part = 1 << 20

    def __init__(self, url: str, account: str, key: str, name: str = "azureBlob") -> None:
        self.name = name
        self.lacks = {
            "read-only": "a missing right to write is AuthFailed, as any other",
            "lag": "its listings are strong",
            "leftovers": "blocks that nobody commits can't be taken away: the service forgets them",
        }
        self.secrets = (key, BAD_KEY)
        self.account = account
        self.container = ""
        self._key = key
        self._path = url.removesuffix("/").rpartition("/")[2]
        self._url = url.removesuffix("/")
        self._sign = ByKey(account, key)
        self._http = Http(4, 20.0)
        self.dialect = AzureBlobDialect(sign=self._sign)
        self.proxy = FaultProxy(self._url.rpartition("/")[0], self.dialect, keep_host=True)
        self._stores: list[AzureStore] = []

    @property
    def endpoint(self) -> str:
        """The account's blobs, by the proxy."""
        return f"{self.proxy.url}/{self._path}"

    async def start(self) -> None:
        """Starts the proxy."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Ends it."""
        await self.proxy.__aexit__(None, None, None)
        self._http.close()

    def send(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """One call past the proxy; blocks.

        Raises:
            RuntimeError: It failed.
        """
        told = {"x-ms-version": VERSION, **(headers or {})}
        if method == "PUT":
            told["Content-Length"] = str(len(body))
        url, signed = self._sign(method, f"{self._url}/{path}", told)
        answer = self._http.send(method, url, signed, body)
        if not answer.ok and answer.status != 404:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer

    async def open(self) -> None:
        """A fresh container."""
        self.proxy.clear()
        self.container = f"suite-{secrets.token_hex(6)}"
        await asyncio.to_thread(self.send, "PUT", f"{self.container}?restype=container")

    async def shut(self) -> None:
        """Closes stores; the container stays, and goes with the server."""
        self.proxy.clear()
        for store in self._stores:
            await store.close()
        self._stores.clear()

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the container."""
        return self.made(
            {KEY: (BAD_KEY if bad_credentials else self._key).encode()},
            container="no-such-container-anywhere" if bad_place else self.container,
            limits=Limits(**limits),
        )

    def made(self, credentials: Mapping[str, bytes] | Workload, *, container: str = "", **more: Any) -> AzureStore:
        """A store with other credentials, or otherwise different."""
        options = {
            "endpoint": self.endpoint, "name": self.name, "part": self.part, "call_seconds": 2.0, "plain": True, **more,
        }  # fmt: skip
        made = open_store(self.account, container or self.container, credentials, **options)
        self._stores.append(made)
        return made

    def recipe(self) -> Mapping[str, Any]:
        """The container, by the proxy."""
        settings = {"endpoint": self.endpoint, "account": self.account, "container": self.container}
        keys = {KEY: base64.b64encode(self._key.encode()).decode()}
        return {"kind": "azureBlob", "name": "victim", "settings": settings, "credentials": keys, "allow_private": True}

    async def inject(self, injection: Injection) -> None:
        """By rules of the proxy."""
        operation, what = MEANT[injection.operation], injection.what
        if what in ACTIONS:
            self.proxy.add(ACTIONS[what], operation, times=injection.times, status=injection.status)  # type: ignore[arg-type]
            return
        status, code = REFUSALS[what]
        if what == "full":
            self.proxy.add("answer", "PutBlob|PutBlock", times=None, status=status, code=code)
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
            marker = ""
            while True:
                page = listing(
                    self.send("GET", f"{self.container}?restype=container&comp=list&marker={quote(marker)}").body,
                    self.container,
                    "the truth",
                )
                for each in page.objects:
                    found[each.key] = self.send("GET", f"{self.container}/{quote(each.key)}").body
                marker = page.marker
                if not marker:
                    return found

        return await asyncio.to_thread(look)

    async def meddle(self, key: str, content: bytes | None) -> None:
        """By a call of its own."""
        path = f"{self.container}/{quote(key)}"
        if content is None:
            await asyncio.to_thread(self.send, "DELETE", path)
        else:
            await asyncio.to_thread(self.send, "PUT", path, {"x-ms-blob-type": "BlockBlob"}, content)
