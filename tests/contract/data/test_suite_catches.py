"""The suite finds the mistakes that stores are known to make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest

from cloudmesh.data.errors import Missing
from cloudmesh.data.stores.memory import MemoryStore
from cloudmesh.data.stores.ports import Object, Page, Store
from cloudmesh.engine.errors import Transient
from cloudmesh.testing.stores import CASES, run_case
from cloudmesh.testing.stores.memory import MemoryHarness


class PublishesHalf(MemoryStore):
    """As writers that publish when they are closed."""

    async def write(self, key: str, chunks: AsyncIterable[bytes], **more: Any) -> Object:
        got: list[bytes] = []

        async def kept() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                got.append(chunk)
                yield chunk

        try:
            return await super().write(key, kept(), **more)
        except Exception:
            self.place.put(key, b"".join(got))
            raise


class LooksBefore(MemoryStore):
    """Compares when the write begins, and not when it ends."""

    async def write(self, key: str, chunks: AsyncIterable[bytes], *, if_absent: bool = False, **more: Any) -> Object:
        if if_absent:
            self._fits(key, "", True)
        return await super().write(key, chunks, **more)


class Repeats(MemoryStore):
    """Repeats a write whose answer was lost."""

    async def write(self, key: str, chunks: AsyncIterable[bytes], **more: Any) -> Object:
        content = b"".join([chunk async for chunk in chunks])

        async def again() -> AsyncIterator[bytes]:
            yield content

        more.pop("size", None)
        try:
            return await super().write(key, again(), **more)
        except Transient:
            return await super().write(key, again(), **more)


class FailureIsAbsence(MemoryStore):
    """Takes an error for an absence."""

    async def stat(self, key: str) -> Object | None:
        try:
            return await super().stat(key)
        except Transient:
            return None


class ForgetsTags(MemoryStore):
    """Reads whatever is there."""

    async def read(self, key: str, *, if_tag: str = "", **more: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        async for chunk in super().read(key, **more):
            yield chunk


class EmptyForMissing(MemoryStore):
    """Has no bytes where there is no object."""

    async def read(self, key: str, **more: Any) -> AsyncIterator[bytes]:  # type: ignore[override]
        try:
            async for chunk in super().read(key, **more):
                yield chunk
        except Missing:
            return


class ShortPages(MemoryStore):
    """Loses the first object of each page but the first."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        page = await super().list(prefix, after=after, limit=limit)
        return Page(page.objects[1:] if after else page.objects, page.after)


class FolderPrefix(MemoryStore):
    """Takes a prefix for a folder."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        folder = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        return await super().list(folder, after=after, limit=limit)


class AnySize(MemoryStore):
    """Doesn't care how many bytes were announced."""

    async def write(self, key: str, chunks: AsyncIterable[bytes], *, size: int | None = None, **more: Any) -> Object:
        return await super().write(key, chunks, **more)


MISTAKES = {
    PublishesHalf: ("write/source-breaks", "write/source-breaks-over", "write/source-breaks-late", "write/too-few"),
    LooksBefore: ("absent/race", "absent/race-large"),
    Repeats: ("broken/after", "broken/after-absent"),
    FailureIsAbsence: ("broken/no-absence",),
    ForgetsTags: ("read/tag",),
    EmptyForMissing: ("read/missing",),
    ShortPages: ("list/pages", "list/prefix"),
    FolderPrefix: ("list/prefix",),
    AnySize: ("write/too-few", "write/too-many", "write/too-many-late"),
}


@pytest.mark.parametrize(("store", "name"), [(store, name) for store, names in MISTAKES.items() for name in names])
def test_found(store: type[MemoryStore], name: str) -> None:
    class Mistaken(MemoryHarness):
        async def store(self, **more: Any) -> Store:
            return store(self.place)

    with asyncio.Runner() as runner:
        assert runner.run(run_case(MemoryHarness(), CASES[name])).outcome == "pass"
        result = runner.run(run_case(Mistaken(), CASES[name]))
    assert result.outcome == "FAIL", f"{name} passes"
    assert result.reason
