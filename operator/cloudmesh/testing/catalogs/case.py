"""Cases of the contract suite for catalogues, and what they stand on."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from cloudmesh.data.catalog.ports import ANY, Catalog
from cloudmesh.data.model import Copy, Entry, Intent, Target
from cloudmesh.engine.errors import CloudmeshError

E = TypeVar("E", bound=CloudmeshError)
NOON: Final = 1_790_000_000_000_000
"""Microseconds at which a case begins; each change comes a millisecond later."""


class CaseFailed(AssertionError):
    """A catalogue doesn't do what the case asks for; the message says what was seen."""


def need(condition: object, message: str) -> None:
    """Fails the case unless the condition holds.

    Raises:
        CaseFailed: It doesn't.
    """
    if not condition:
        raise CaseFailed(message)


async def refused(kind: type[E], call: Awaitable[Any], message: str) -> E:
    """Runs a call that has to be refused with an error of this very kind or one below it.

    Raises:
        CaseFailed: It wasn't, or otherwise.
    """
    try:
        result = await call
    except kind as error:
        return error
    except CloudmeshError as error:
        raise CaseFailed(f"{message}: expected {kind.__name__}, got {type(error).__name__}: {error}") from error
    raise CaseFailed(f"{message}: expected {kind.__name__}, got {result!r}")


class Harness(Protocol):
    """One database, for one case."""

    async def open(self, clock: Callable[[], int]) -> Catalog:
        """Opens the catalogue, the first time an empty one; later with what was there when it was closed."""

    async def settled(self, catalog: Catalog) -> None:
        """Waits until what the catalogue does in the background is done."""

    async def wrong(self, catalog: Catalog) -> Sequence[str]:
        """What is wrong with sums and tree, found by counting everything; empty where nobody can look."""


class Bench:
    """One case's view.

    Args:
        harness: The database.
    """

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.now = NOON
        self._catalog: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalogue under test."""
        assert self._catalog is not None  # noqa: S101 - `open` comes first
        return self._catalog

    def clock(self) -> int:
        """A time that goes on by itself."""
        self.now += 1000
        return self.now

    async def open(self) -> None:
        """Opens the catalogue, again if it is open."""
        await self.close()
        self._catalog = await self.harness.open(self.clock)

    async def close(self) -> None:
        """Closes it."""
        if self._catalog is not None:
            await self._catalog.close()
            self._catalog = None

    async def settled(self) -> None:
        """Waits for what is done in the background."""
        await self.harness.settled(self.catalog)

    async def begin(
        self,
        path: str,
        *,
        stores: Sequence[str] = ("s1",),
        if_version: int = ANY,
        until: int = 0,
        keys: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Intent:
        """Begins to write a file, a new one or over one that is there."""
        old = await self.catalog.entry(path)
        parent, _, name = path.rpartition("/")
        targets = tuple(Target(store, (keys or {}).get(store, path)) for store in stores)
        intent = Intent(
            secrets.token_hex(8),
            "Put",
            old.id if old else secrets.token_hex(8),
            parent,
            name,
            old.version + 1 if old else 1,
            targets,
            until or self.now + 1_000_000,
            mtime=self.now,
            content_type="text/plain",
            tags=tags or {},
        )
        await self.catalog.begin(intent, if_version=if_version)
        return intent

    async def commit(
        self,
        intent: Intent,
        *,
        size: int = 10,
        failed: Mapping[str, str] | None = None,
        due: int = 0,
        sha256: str = "ab" * 32,
        keep: bool = False,
    ) -> Entry:
        """Ends the write; all targets but those in `failed` hold it."""
        whole = [
            Copy(intent.entry, t.store, t.key, intent.version, "Whole", f"t{intent.version}", size, self.now)
            for t in intent.targets
            if t.store not in (failed or {})
        ]
        return await self.catalog.commit_put(
            intent.id, size=size, sha256=sha256, whole=whole, failed=failed or {}, due=due, keep=keep
        )

    async def put(
        self,
        path: str,
        *,
        stores: Sequence[str] = ("s1",),
        size: int = 10,
        due: int = 0,
        tags: Mapping[str, str] | None = None,
    ) -> Entry:
        """Writes a file."""
        return await self.commit(await self.begin(path, stores=stores, tags=tags), size=size, due=due)

    async def names(self, path: str = "") -> list[str]:
        """All paths below a directory, as `walk` tells them."""
        return [found.path for found in await self.catalog.walk(path)]


Run = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Args:
        id: `group/name`.
        text: What has to be so.
        run: The case.
    """

    id: str
    text: str
    run: Run


CASES: dict[str, Case] = {}


def case(id_: str) -> Callable[[Run], Run]:
    """Registers a case; its docstring says what has to be so."""

    def register(run: Run) -> Run:
        if id_ in CASES:
            raise ValueError(f"two cases are called {id_}")
        CASES[id_] = Case(id_, (run.__doc__ or "").strip(), run)
        return run

    return register


async def run_case(harness: Harness, chosen: Case) -> None:
    """Runs one case on an empty database; at its end the sums must be right, also after the catalogue was opened anew.

    Raises:
        CaseFailed: The catalogue doesn't do what the case asks for.
    """
    bench = Bench(harness)
    await bench.open()
    try:
        await chosen.run(bench)
        await bench.settled()
        wrong = list(await harness.wrong(bench.catalog))
        need(not wrong, f"at the end: {wrong}")
        before = (await bench.names(), await bench.catalog.totals(), await bench.catalog.trash(versions=True))
        await bench.open()
        after = (await bench.names(), await bench.catalog.totals(), await bench.catalog.trash(versions=True))
        need(before == after, f"before it was closed {before}, opened again {after}")
    finally:
        await bench.close()
