"""The harness of a Swift: any server with logins of its own, with the fault proxy in front of it."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.swift import SwiftLinks, SwiftStore
from cloudmesh.data.stores.swift_auth import PASSWORD, USER, V1
from cloudmesh.data.stores.swift_segments import FOLDER
from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.swift import SwiftDialect
from cloudmesh.testing.stores.harness import BaseHarness, Injection, Operation

MEANT: Final[Mapping[Operation, str]] = {
    "publish": "PutObject|PutManifest|CopyObject",
    "part": "PutSegment",
    "read": "GetObject",
    "stat": "HeadObject",
    "list": "ListObjects",
    "delete": "DeleteObject",
    "any": ".*",
}
ACTIONS: Final = {"drop": "cut_before", "lose": "cut_after", "hang": "hang", "garbage": "garbage"}
REFUSALS: Final = {"fail": (503, "Service Unavailable"), "limit": (498, "Rate Limited")}
BAD_SECRET: Final = "a-key-that-nobody-gave-51ce"  # noqa: S105 - it opens nothing
LINK_KEY: Final = "key-of-temporary-urls-7d02"
QUOTA: Final = 1 << 40


class SwiftHarness(BaseHarness):
    """A container for each case. Use `start` and `stop` around the cases, on their event loop.

    Args:
        url: The server, whose login is at `/auth/v1.0`.
        user: User that may make containers.
        key: Its key.
        name: Column of the table.
    """

    part = 1 << 20

    def __init__(self, url: str, user: str, key: str, name: str = "swift") -> None:
        self.name = name
        self.lacks = {"read-only": "a missing right to write is AuthFailed, as any other"}
        self.secrets = (key, BAD_SECRET, LINK_KEY)
        self._user, self._key = user, key
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._storage = ""
        self.proxy = FaultProxy(url, SwiftDialect())
        self.container = ""
        self._stores: list[SwiftStore] = []

    async def start(self) -> None:
        """Starts the proxy, and logs in past it."""
        await self.proxy.__aenter__()
        headers = {"X-Auth-User": self._user, "X-Auth-Key": self._key}
        async with aiohttp.ClientSession() as session, session.get(f"{self._url}/auth/v1.0", headers=headers) as answer:
            self._storage = answer.headers["X-Storage-Url"]
            self._session = aiohttp.ClientSession(headers={"X-Auth-Token": answer.headers["X-Auth-Token"]})

    async def stop(self) -> None:
        """Ends it."""
        await self.proxy.__aexit__(None, None, None)
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[Any, bytes]:
        """Asks the server itself: headers and body of an answer that isn't an error.

        Args:
            method: HTTP method.
            path: Below the container, with a slash before a key, and a query.
            body: Body.
            headers: More headers, `_` for `-`.

        Raises:
            aiohttp.ClientResponseError: It is an error.
        """
        if self._session is None:
            raise RuntimeError("the harness isn't started")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self._storage}/{self.container}{path}"
        async with self._session.request(
            method, URL(url, encoded=True), data=body, headers=named, raise_for_status=True
        ) as answer:
            return answer.headers, await answer.read()

    async def open(self) -> None:
        """A fresh container."""
        self.proxy.clear()
        self.container = f"suite-{secrets.token_hex(6)}"
        quota = str(QUOTA)
        await self.ask("PUT", "", X_Container_Meta_Quota_Bytes=quota, X_Container_Meta_Temp_URL_Key=LINK_KEY)

    async def shut(self) -> None:
        """Closes stores; the container stays, and goes with the server."""
        self.proxy.clear()
        for store in self._stores:
            await store.close()
        self._stores.clear()

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the container."""
        made = SwiftLinks(
            V1(f"{self.proxy.url}/auth/v1.0", self._user, BAD_SECRET if bad_credentials else self._key),
            "no-such-container-anywhere" if bad_place else self.container,
            LINK_KEY.encode(),
            name=self.name,
            limits=Limits(**limits),
            part=self.part,
            fan=8,
            call_seconds=2.0,
        )
        self._stores.append(made)
        return made

    def recipe(self) -> Mapping[str, Any]:
        """The container, by the proxy."""
        keys = {USER: self._user, PASSWORD: self._key}
        return {
            "kind": "swift",
            "name": "victim",
            "settings": {"authUrl": f"{self.proxy.url}/auth/v1.0", "container": self.container},
            "credentials": {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()},
            "allow_private": True,
        }

    async def inject(self, injection: Injection) -> None:
        """By rules of the proxy; no room by a quota."""
        operation, what = MEANT[injection.operation], injection.what
        if what in ACTIONS:
            self.proxy.add(ACTIONS[what], operation, times=injection.times, status=injection.status)  # type: ignore[arg-type]
        elif what == "full":
            await self.ask("POST", "", X_Container_Meta_Quota_Bytes="1")
        elif what == "lag":
            store = await self.store()
            await store.list("")  # what it then goes on to show
            self.proxy.add("stale", MEANT["list"], times=None)
        else:
            status, words = REFUSALS[what]
            wait = injection.seconds or None
            self.proxy.add("answer", operation, times=injection.times, status=status, code=words, retry_after=wait)

    async def heal(self) -> None:
        """All is well again."""
        self.proxy.clear()
        await self.ask("POST", "", X_Container_Meta_Quota_Bytes=str(QUOTA))

    async def keys(self) -> list[str]:
        """All that lies in the container, segments too."""
        found: list[str] = []
        while True:
            marker = f"&marker={quote(found[-1], safe='')}" if found else ""
            _, body = await self.ask("GET", f"?format=json{marker}")
            rows = json.loads(body)
            if not rows:
                return found
            found += [row["name"] for row in rows]

    async def truth(self) -> Mapping[str, bytes]:
        """By a client of its own, past the proxy."""
        keys = [key for key in await self.keys() if not key.startswith(FOLDER)]
        return {key: (await self.ask("GET", f"/{quote(key)}"))[1] for key in keys}

    async def leftovers(self) -> int:
        """Uploads whose segments no manifest has."""
        keys = await self.keys()
        named: set[str] = set()
        for key in keys:
            headers, body = await self.ask("GET", f"/{quote(key)}?multipart-manifest=get")
            if headers.get("X-Static-Large-Object", "").lower() == "true":
                named |= {row["name"].split("/", 2)[2] for row in json.loads(body)}
        return len({key.rpartition("/")[0] for key in keys if key.startswith(FOLDER) and key not in named})

    async def meddle(self, key: str, content: bytes | None) -> None:
        """By a client of its own."""
        if content is None:
            await self.ask("DELETE", f"/{quote(key)}")
        else:
            await self.ask("PUT", f"/{quote(key)}", content)
