"""The harness of a WebDAV server: any that keeps plain files in a folder of this machine, behind the fault proxy."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.records import RECORDS, TEMPORARY, decoded
from cloudmesh.data.stores.webdav import WebdavStore
from cloudmesh.data.stores.webdav_client import DavClient
from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.webdav import WebdavDialect
from cloudmesh.testing.stores.harness import BaseHarness, Injection, Operation
from cloudmesh.testing.stores.served import files, fill

MEANT: Final[Mapping[Operation, str]] = {
    "publish": "MOVE",
    "part": "PUT",
    "read": "GET",
    "stat": "PROPFIND:0",
    "list": "PROPFIND:1",
    "delete": "DELETE",
    "any": ".*",
}
ACTIONS: Final = {"drop": "cut_before", "lose": "cut_after", "hang": "hang", "garbage": "garbage"}
REFUSALS: Final = {"fail": (500, "Internal Server Error"), "limit": (429, "Too Many Requests")}
BAD_PASSWORD = "a-password-that-nobody-has-4b1d"  # noqa: S105 - it opens nothing
CALL_SECONDS: Final = 2.0
BALLAST: Final = "ballast"


class WebdavHarness(BaseHarness):
    """A collection for each case. Use `start` and `stop` around the cases, on their event loop.

    Args:
        url: The server's collection.
        user: Who may do all in it.
        password: Their password.
        folder: That collection as this process sees it, whose every right it has.
        name: Column of the table.
        room: The folder is a small file system of its own, that can be filled.
    """

    part = 1 << 20

    def __init__(
        self, url: str, user: str, password: str, folder: Path, *, name: str = "webdav", room: bool = True
    ) -> None:
        self.name = name
        self.lacks: Mapping[str, str] = {
            "network": "a content goes up by one request, which has no parts to send again",
            "lag": "a listing is what is there",
            **({} if room else {"full": "the server's file system is large"}),
        }
        self.secrets = (password, BAD_PASSWORD, base64.b64encode(f"{user}:{password}".encode()).decode())
        self._user, self._password = user, password
        self._folder = folder
        self.proxy = FaultProxy(url, WebdavDialect(self._quota), keep_host=True)
        self.root = Path()
        self._name = ""
        self._stores: list[WebdavStore] = []

    async def start(self) -> None:
        """Starts the proxy."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Ends it."""
        await self.proxy.__aexit__(None, None, None)

    async def open(self) -> None:
        """A fresh collection."""
        await self.heal()
        self.proxy.calls.clear()
        self.proxy.received.clear()
        self._name = secrets.token_hex(6)
        self.root = self._folder / self._name
        self.root.mkdir()
        self.hand_over(self.root)

    async def shut(self) -> None:
        """Closes stores, removes the collection."""
        await self.heal()
        for store in self._stores:
            await store.close()
        self._stores.clear()
        await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the collection."""
        client = DavClient(
            f"{self.proxy.url}/{'no-such-folder' if bad_place else self._name}", self._user,
            BAD_PASSWORD if bad_credentials else self._password, seconds=CALL_SECONDS,
        )  # fmt: skip
        self._stores.append(WebdavStore(client, limits=Limits(**limits)))
        return self._stores[-1]

    def recipe(self) -> Mapping[str, Any]:
        """The collection, by the proxy."""
        keys = {"username": self._user, "password": self._password}
        coded = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
        settings = {"endpoint": f"{self.proxy.url}/{self._name}/"}
        return {"kind": "webdav", "name": "victim", "settings": settings, "credentials": coded, "allow_private": True}

    async def inject(self, injection: Injection) -> None:
        """By rules of the proxy, and in the folder itself."""
        operation, what = MEANT[injection.operation], injection.what
        if what in ACTIONS:
            self.proxy.add(ACTIONS[what], operation, times=injection.times, status=injection.status)  # type: ignore[arg-type]
        elif what == "full":
            await asyncio.to_thread(fill, self._folder / BALLAST)
        elif what == "read-only":
            self.proxy.add("answer", "PUT|MOVE|COPY|MKCOL|DELETE", times=None, status=403, code="Forbidden")
        else:
            status, code = REFUSALS[what]
            wait = injection.seconds or None
            self.proxy.add("answer", operation, times=injection.times, status=status, code=code, retry_after=wait)

    async def heal(self) -> None:
        """All is well again."""
        self.proxy.clear()
        (self._folder / BALLAST).unlink(missing_ok=True)

    async def truth(self) -> Mapping[str, bytes]:
        """What `find -type f` would show, without our own."""
        return await asyncio.to_thread(files, self.root)

    async def leftovers(self) -> int:
        """Temporary files; records without their file."""

        def count() -> int:
            left = sum(1 for _ in (self.root / TEMPORARY).glob("*"))
            for path in (self.root / RECORDS).glob("*/*"):
                record = decoded(path.read_bytes())
                file = self.root / record.key if record is not None else None
                if record is None or file is None or not file.is_file() or _mark(file) != record.mark:
                    left += 1
            return left

        return await asyncio.to_thread(count)

    async def meddle(self, key: str, content: bytes | None) -> None:
        """By hand, in place where there is a file."""
        path = self.root / key
        if content is None:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.hand_over(path.parent)
        self.hand_over(path)

    def hand_over(self, path: Path) -> None:
        """Gives it to whom the folder above all belongs to."""
        owner = self._folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def _quota(self) -> tuple[int, int]:
        found = os.statvfs(self._folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bavail * found.f_frsize


def _mark(path: Path) -> str:
    """As Apache makes an entity tag of size and microseconds."""
    found = path.stat()
    return f"{found.st_size:x}-{found.st_size:x}-{found.st_mtime_ns // 1000:x}"
