"""The harness of an SFTP server: any, with a TCP proxy in front of it, and a folder of it that lies on this machine."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.records import RECORDS, TEMPORARY, decoded
from cloudmesh.data.stores.sftp import SftpStore
from cloudmesh.data.stores.sftp_link import Link, Login, Refused
from cloudmesh.engine.errors import Transient
from cloudmesh.testing.proxy.tcp import TcpProxy
from cloudmesh.testing.stores.harness import BaseHarness, Injection, Operation
from cloudmesh.testing.stores.served import files, fill

T = TypeVar("T")
MEANT: Final[Mapping[Operation, tuple[str, ...]]] = {
    "publish": ("publish",),
    "part": ("write",),
    "read": ("open", "read"),
    "stat": ("lstat",),
    "list": ("scandir",),
    "delete": ("remove",),
    "any": (),
}
BAD_PASSWORD = "a-password-that-nobody-has-7f2b"  # noqa: S105 - it opens nothing
CALL_SECONDS: Final = 3.0
TICK_SECONDS: Final = 1.05
"""Longer than a file's time stands still, as SFTP tells it."""


class _Link(Link):
    """A connection on which calls of one kind can be made to fail.

    Args:
        harness: Says which.
    """

    def __init__(self, login: Login, harness: SftpHarness) -> None:
        super().__init__(login, seconds=CALL_SECONDS)
        self._harness = harness

    async def _perform(self, kind: str, function: Callable[[], Awaitable[T]]) -> T:
        what = self._harness.meant(kind)
        if what == "fail":
            raise Refused("Failure, injected")
        if what == "drop":
            self._harness.proxy.cut()
            await asyncio.sleep(0.02)  # until the reset has arrived
        result = await function()
        if what == "lose":
            self._harness.proxy.cut()
            raise Transient("the connection was lost, injected")
        return result


class SftpHarness(BaseHarness):
    """A folder for each case. Use `start` and `stop` around the cases, on their event loop.

    Args:
        login: The server, past the proxy.
        path: A folder of the server that the login may write to.
        folder: That folder as this process sees it, whose every right it has.
        name: Column of the table.
        room: The folder is a small file system of its own, that can be filled.
    """

    part = 1 << 20

    def __init__(self, login: Login, path: str, folder: Path, *, name: str = "sftp", room: bool = True) -> None:
        self.name = name
        self.lacks: Mapping[str, str] = {
            "limit": "SFTP has no answer that asks for fewer calls",
            "lag": "a listing is what is there",
            **({} if room else {"full": "the server's file system is large"}),
        }
        self.secrets = (login.private_key, BAD_PASSWORD) if login.private_key else (login.password, BAD_PASSWORD)
        self._login = login
        self._path, self._folder = path, folder
        self.proxy = TcpProxy(login.host, login.port)
        self.root = Path()
        self._name = ""
        self._faults: list[Injection] = []
        self._left: list[int] = []
        self._stores: list[SftpStore] = []

    async def start(self) -> None:
        """Starts the proxy."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Ends it."""
        await self.proxy.__aexit__(None, None, None)

    async def open(self) -> None:
        """A fresh folder, that belongs to whom the one above it belongs to."""
        await self.heal()
        self._name = secrets.token_hex(6)
        self.root = self._folder / self._name
        self.root.mkdir()
        owner = self._folder.stat()
        os.chown(self.root, owner.st_uid, owner.st_gid)

    async def shut(self) -> None:
        """Closes stores, removes the folder."""
        await self.heal()
        for store in self._stores:
            await store.close()
        self._stores.clear()
        await asyncio.to_thread(_removed, self.root)

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the folder."""
        login = replace(self._login, host="127.0.0.1", port=self.proxy.port)
        if bad_credentials:
            login = replace(login, private_key="", password=BAD_PASSWORD)
        path = f"{self._path}/{'no-such-folder' if bad_place else self._name}"
        self._stores.append(SftpStore(_Link(login, self), path, limits=Limits(**limits)))
        return self._stores[-1]

    def recipe(self) -> Mapping[str, Any]:
        """The folder, by the proxy."""
        login = self._login
        keys = {"ssh-privatekey": login.private_key, "password": login.password}
        settings = {
            "host": "127.0.0.1", "port": self.proxy.port, "user": login.user, "hostKey": login.host_key,
            "path": f"{self._path}/{self._name}",
        }  # fmt: skip
        coded = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items() if value}
        return {"kind": "sftp", "name": "victim", "settings": settings, "credentials": coded, "allow_private": True}

    async def inject(self, injection: Injection) -> None:
        """By the proxy, by calls that fail, and in the folder itself."""
        match injection.what, injection.operation:
            case "hang", _:
                self.proxy.stall()
            case "garbage", _:
                self.proxy.spoil()
            case "drop", "any":
                self.proxy.refuse = True
                self.proxy.cut()
            case "full", _:
                await asyncio.to_thread(fill, self._folder / "ballast")
            case "read-only", _:
                self.root.chmod(0o555)
            case (("drop" | "lose" | "fail"), _):
                self._faults.append(injection)
                self._left.append(-1 if injection.times is None else injection.times)
            case what, _:
                raise NotImplementedError(what)

    def meant(self, kind: str) -> str:
        """The fault of this call, empty for none; counts."""
        for number, fault in enumerate(self._faults):
            kinds = MEANT[fault.operation]
            if self._left[number] and (not kinds or kind in kinds):
                self._left[number] -= 1
                return fault.what
        return ""

    async def heal(self) -> None:
        """All is well again."""
        self._faults.clear()
        self._left.clear()
        self.proxy.clear()
        (self._folder / "ballast").unlink(missing_ok=True)
        if self._name and self.root.is_dir():
            self.root.chmod(0o755)

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
        await asyncio.sleep(TICK_SECONDS)
        path = self.root / key
        if content is None:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        owner = self._folder.stat()
        for each in (path.parent, path):
            os.chown(each, owner.st_uid, owner.st_gid)


def _mark(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size:x}-{int(found.st_mtime):x}"


def _removed(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
