"""The harness of a volume: a folder for each case."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import _GeneratorContextManager
from pathlib import Path
from typing import Any

from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.folder import OWN, RESERVED, Folder, Temporary
from cloudmesh.data.stores.local import LocalStore
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.system_errors import told
from cloudmesh.testing.stores.harness import BaseHarness, Injection

_NO_NETWORK = "files are at hand: no connection breaks"
TICK_SECONDS = 0.012
"""Longer than the file system's clock stands still."""


class _Folder(Folder):
    """A folder whose system calls can be made to fail.

    Args:
        harness: Says which.
    """

    def __init__(self, root: str, harness: LocalHarness, **kind: bool) -> None:
        super().__init__(root, **kind)
        self._harness = harness

    def append(self, temporary: Temporary, chunk: bytes) -> None:
        """Fails where there is no room."""
        if self._harness.state == "full":
            with told("a new file", writing=True):
                super().append(temporary, chunk[: len(chunk) // 2])
                raise OSError(errno.ENOSPC, "injected")
        super().append(temporary, chunk)

    def locked(self) -> _GeneratorContextManager[None]:
        """Fails on a file system that takes no writes."""
        if self._harness.state == "read-only":
            raise OSError(errno.EROFS, "injected")
        return super().locked()


class LocalHarness(BaseHarness):
    """A folder of this machine.

    Args:
        name: Column of the table.
        plain: As on a file system without files that have no name and without extended attributes.
    """

    lacks: Mapping[str, str]
    part = 1 << 20

    def __init__(self, name: str = "local", *, plain: bool = False) -> None:
        self.name = name
        self._kind = {"nameless": not plain, "extended": not plain}
        self.lacks = {
            **dict.fromkeys(("drop", "lose", "hang", "fail", "limit", "garbage", "network"), _NO_NETWORK),
            "credentials": "it has no credentials",
            "lag": "a listing is what is there",
        }
        if plain:
            self.lacks = {**self.lacks, "process": "only this harness makes it plain"}
        self.root = Path()
        self.state = ""
        self._stores: list[LocalStore] = []

    async def open(self) -> None:
        """A fresh folder."""
        self.root = Path(tempfile.mkdtemp(prefix="cloudmesh-store-"))
        self.state = ""

    async def shut(self) -> None:
        """The folder is removed."""
        for store in self._stores:
            await store.close()
        self._stores.clear()
        await asyncio.to_thread(shutil.rmtree, self.root)

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the folder."""
        folder = _Folder(str(self.root / "nowhere" if bad_place else self.root), self, **self._kind)
        self._stores.append(LocalStore(folder, self.name, Limits(**limits)))
        return self._stores[-1]

    def recipe(self) -> Mapping[str, Any]:
        """The folder."""
        return {"kind": "local", "name": "victim", "settings": {}, "mount": str(self.root)}

    async def inject(self, injection: Injection) -> None:
        """States of the file system."""
        self.state = injection.what

    async def heal(self) -> None:
        """All is well again."""
        self.state = ""

    async def truth(self) -> Mapping[str, bytes]:
        """What `find -type f` would show, without our own."""
        found = {}
        for path in self.root.rglob("*"):
            parts = path.relative_to(self.root).parts
            if path.is_file() and not (parts[0] == OWN and parts[1] in RESERVED):
                found["/".join(parts)] = path.read_bytes()
        return found

    async def leftovers(self) -> int:
        """Temporary files; records without their file."""
        temporary = sum(1 for _ in (self.root / OWN / "tmp").glob("*"))
        records = sum(1 for _ in (self.root / OWN / "meta").glob("*/*"))
        return temporary + max(0, records - len(await self.truth()))

    async def meddle(self, key: str, content: bytes | None) -> None:
        """By hand, in place where there is a file."""
        await asyncio.sleep(TICK_SECONDS)
        path = self.root / key
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if path.exists() else "wb") as handle:
                handle.write(content)
                handle.truncate()
                os.fsync(handle)
