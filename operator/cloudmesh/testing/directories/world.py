"""One directory's process over stores in memory, on a virtual clock; any call may fail, and the process may die at it.

The catalogue is the real one on a real file, without its threads: these don't know the virtual clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from cloudmesh.data import waking
from cloudmesh.data.catalog.journal import Journal
from cloudmesh.data.catalog.ports import ALL
from cloudmesh.data.catalog.rebuild import Rebuilt, Source, rebuild
from cloudmesh.data.catalog.schema import connect, prepare
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.catalog.sqlite_threads import Act
from cloudmesh.data.config import DirectoryConfig, PlacementRule, StoreConfig
from cloudmesh.data.mesh import HIDDEN, KEPT, Member, Mesh
from cloudmesh.data.model import MICROS, Copy, Entry
from cloudmesh.data.mover import Mover
from cloudmesh.data.plan import SETTLE_AFTER
from cloudmesh.data.recovery import Recovery
from cloudmesh.data.scan import scan
from cloudmesh.data.stores.memory import PLACES, MemoryStore, Place
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient

T = TypeVar("T")
Moment = Literal["before", "after"]
EPOCH = 1_800_000_000 * MICROS
RECOVERY_SECONDS = 15.0
EFFECTS = frozenset({"write", "publish", "copy", "delete"})
"""Calls that change what outlives the process; a death at any other leaves what one at the effect before it does."""
_numbers = itertools.count(1)


class Killed(BaseException):
    """The process is dead: nothing that it does has an effect any more."""


@dataclass
class Fault:
    """One call that goes wrong.

    Args:
        where: Store, or `catalog`.
        operation: Of the store, `read` or `write` of the catalogue; empty for any.
        moment: Before it acts, or after.
        error: What is raised; None waits for ever.
        key: Part of the key; empty for any.
        times: How often, -1 for always.
        skip: Calls that go well before.
    """

    where: str
    operation: str = ""
    moment: Moment = "before"
    error: BaseException | None = field(default_factory=lambda: Transient("a fault"))
    key: str = ""
    times: int = 1
    skip: int = 0


class Faults:
    """Decides at every call of stores and catalogue what becomes of it."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.planned: list[Fault] = []
        self.kill_after: int | None = None
        """Calls until the process dies."""
        self.kill_before: int | None = None
        """Calls with an effect until the process dies."""
        self.dead = asyncio.Event()
        self.calls = 0

    def clear(self) -> None:
        """Everything goes well from now on."""
        self.down.clear()
        self.planned.clear()
        self.kill_after = self.kill_before = None

    async def call(self, where: str, moment: Moment, operation: str, key: str = "") -> None:
        """One call."""
        await asyncio.sleep(0)
        if self.dead.is_set():
            raise Killed
        self.calls += 1
        if self._dies(moment, operation):
            self.kill_after = self.kill_before = None
            self.dead.set()
            raise Killed
        if where in self.down and moment == "before":
            raise Transient(f"{where} is down")
        for fault in self.planned:
            if (
                fault.where != where or fault.moment != moment or fault.key not in key
                or fault.operation not in ("", operation)
            ):  # fmt: skip
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.times > 0:
                fault.times -= 1
                if not fault.times:
                    self.planned.remove(fault)
            if fault.error is None:
                await asyncio.Event().wait()
            assert fault.error is not None  # noqa: S101 - it would wait
            raise fault.error

    def _dies(self, moment: Moment, operation: str) -> bool:
        if self.kill_after is not None:
            self.kill_after -= 1
            return self.kill_after < 0
        if self.kill_before is not None and moment == "before" and operation in EFFECTS:
            self.kill_before -= 1
            return self.kill_before < 0
        return False


class InlineCatalog(SqliteCatalog):
    """The catalogue without threads: every call is a transaction at once, between two turns of the loop."""

    def __init__(
        self, path: Path, *, clock: Callable[[], int], call: Callable[[Moment, str], Awaitable[None]] | None = None
    ) -> None:
        super().__init__(path, clock=clock)
        self._call = call
        self._db: sqlite3.Connection | None = None

    def _open(self) -> None:
        self._db = connect(self.path, write=True)
        # a process that dies loses nothing that the operating system has
        self._db.execute("PRAGMA synchronous = OFF")
        prepare(self._db, self._clock())

    async def open(self) -> None:
        """Opens it."""
        self._open()
        await self._change(lambda db: None)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def vanish(self) -> None:
        """As if the process had died."""
        self._close()

    async def _read(self, act: Act[T]) -> T:
        return await self._do("read", act)

    async def _look(self, act: Act[T]) -> T:
        if self._db is None:
            raise Transient("the catalogue isn't open")
        return act(self._db)

    async def _plain(self, act: Act[T]) -> T:
        return await self._look(act)

    async def _write(self, act: Act[T]) -> T:
        return await self._do("write", act)

    async def _do(self, operation: str, act: Act[T]) -> T:
        if self._call is not None:
            await self._call("before", operation)
        if self._db is None:
            raise Transient("the catalogue isn't open")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            result = act(self._db)
            self._db.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise Conflict(f"the catalogue has it otherwise: {error}") from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        if self._call is not None:
            await self._call("after", operation)
        return result

    @property
    def opened(self) -> sqlite3.Connection:
        """Its connection, past all faults."""
        assert self._db is not None  # noqa: S101 - for tests
        return self._db

    async def peek(self, act: Act[T]) -> T:
        """Reads past all faults."""
        assert self._db is not None  # noqa: S101 - for tests
        return act(self._db)


class World:
    """One directory, its stores, and the process that serves it; begin with `start`.

    Args:
        folder: Where the catalogue lies.
        stores: Names of its stores, or their configurations.
        more: Members of the configuration.
    """

    def __init__(self, folder: Path, stores: Iterable[str | StoreConfig] = ("a", "b", "c"), **more: Any) -> None:
        self.folder = folder
        number = f"{os.getpid()}-{next(_numbers)}"
        self._places: dict[str, str] = {}
        configs = []
        for store in stores:
            config = store if isinstance(store, StoreConfig) else StoreConfig(store, "memory")
            self._places[config.name] = at = f"{config.name}-{number}"
            PLACES[at] = Place()
            configs.append(msgspec.structs.replace(config, settings={"place": at, **config.settings}, prefix="lab/"))
        given: dict[str, Any] = {"rules": (PlacementRule(prefer="Sequential"),), "verify_seconds": 0} | more
        self.config = DirectoryConfig("ns", "lab", "uid", "installation", tuple(configs), **given)
        self.faults = Faults()
        self.skew = 0
        self.lives = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._scanned: set[str] = set()

    # -- time

    def now(self) -> int:
        """The wall clock of the process, in microseconds."""
        return EPOCH + int(asyncio.get_running_loop().time() * MICROS) + self.skew

    @staticmethod
    def clock() -> float:
        """The monotonic one."""
        return asyncio.get_running_loop().time()

    # -- the process

    async def start(self, *, background: bool = True) -> World:
        """The process begins, as the gateway does."""
        self.lives += 1
        asyncio.get_running_loop().set_exception_handler(_heard)
        for name, at in self._places.items():
            PLACES[at].hook = self._hook(name)
        self.catalog = self._catalogue()
        await self.catalog.open()
        self.mesh = Mesh(
            self.config, self.catalog, clock=self.clock, now=self.now, on_change=self._changed, on_blip=self._back
        )
        self.journal = Journal(self.catalog, self.mesh)
        self.tree = Tree(self.catalog, self.mesh, self.journal, now=self.now, stir=self._stir)
        self.mover = Mover(self.tree)
        self.recovery = Recovery(self.tree)
        self._scanned.clear()
        await self.mesh.use(self.config)
        await self.mesh.settled()
        await self.journal.start()
        if background:
            for work in (self.mover.run(), self._recover(), self._count(), self._scan()):
                self._tasks.append(asyncio.create_task(work))
        return self

    def _catalogue(self) -> InlineCatalog:
        return InlineCatalog(self.folder / "catalog.sqlite", clock=self.now, call=self._catalog_call)

    async def _fill(self) -> None:
        """Loses the catalogue, and makes one of the stores."""
        for old in self.folder.glob("catalog.sqlite*"):
            old.unlink()
        anew, _ = await self.rebuilt(self.folder / "catalog.sqlite")
        anew.vanish()

    async def lose_catalogue(self) -> None:
        """The process dies, its catalogue is lost, and the directory goes on with one that is made anew."""
        await self.die()
        await self._fill()
        await self.start()

    def _hook(self, name: str) -> Callable[[Any, Any, str], Awaitable[None]]:
        async def hook(moment: Moment, operation: str, key: str) -> None:
            await self.faults.call(name, moment, operation, key)

        return hook

    async def _catalog_call(self, moment: Moment, operation: str) -> None:
        await self.faults.call("catalog", moment, operation)

    def _stir(self) -> None:
        self.mover.stir()

    async def _changed(self, name: str) -> None:
        await waking.store_changed(self.tree, name)
        self.mover.stir()
        self._scanned.discard(name)

    async def _back(self, _: str, entry_ids: Sequence[str]) -> None:
        await waking.look_again(self.tree, entry_ids)
        self.mover.stir()

    async def _recover(self) -> None:
        until = self.now() if self.catalog.shared else ALL
        while True:
            with contextlib.suppress(CloudmeshError):
                await self.recovery.run(until)
                until = 0
            await asyncio.sleep(RECOVERY_SECONDS)
            until = until or self.now()

    async def _count(self) -> None:
        while True:
            with contextlib.suppress(CloudmeshError):
                self.mesh.count((await self.catalog.totals()).stores)
            await asyncio.sleep(2.0)

    async def _scan(self) -> None:
        while True:
            for member in self.mesh.up():
                if member.name not in self._scanned and self.config.adopt:
                    try:
                        await scan(self.tree, member)
                        self._scanned.add(member.name)
                    except CloudmeshError as error:
                        member.doubt(error)
            await asyncio.sleep(1.0)

    async def die(self) -> None:
        """The process ends at once: whatever it still does has no effect."""
        self.faults.dead.set()
        self._tasks.clear()
        mine = asyncio.current_task()
        while others := [task for task in asyncio.all_tasks() if task is not mine]:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            for task in others:
                if not task.cancelled():
                    task.exception()  # seen
        self.catalog.vanish()
        self.faults.dead = asyncio.Event()

    async def restart(self) -> None:
        """It dies, and another one begins."""
        await self.die()
        await self.start()

    async def use(self, **changes: Any) -> None:
        """Takes another configuration; the files that it concerns are due by that alone."""
        self.config = msgspec.structs.replace(self.config, **changes)
        await self.mesh.use(self.config)
        self.mover.stir()

    async def wake(self) -> None:
        """Has the mover look at all files."""
        await self.catalog.wake(due=self.now())
        self.mover.stir()

    async def access(self, store: str, access: str) -> None:
        """Changes what a store may be used for."""
        stores = tuple(
            msgspec.structs.replace(config, access=access) if config.name == store else config
            for config in self.config.stores
        )
        await self.use(stores=stores)

    async def end(self) -> None:
        """Ends all; to be called last."""
        await self.die()
        for at in self._places.values():
            PLACES.pop(at, None)

    # -- what lies where

    def place(self, store: str) -> Place:
        """What lies behind a store."""
        return PLACES[self._places[store]]

    @property
    def names(self) -> list[str]:
        """Of stores."""
        return list(self._places)

    def member(self, store: str) -> Member:
        """A store as the process knows it."""
        return self.mesh.members[store]

    def objects(self, store: str, *, kept: bool = False) -> dict[str, bytes]:
        """Objects of files, by key without the prefix; with `kept` those that were put aside too."""
        return {
            key.removeprefix("lab/"): held.content
            for key, held in self.place(store).objects.items()
            if key.startswith("lab/")
            and (not key.startswith(f"lab/{HIDDEN}") or (kept and key.startswith(f"lab/{KEPT}")))
        }

    def holders(self, content: bytes) -> str:
        """Stores that hold an object of this content, in their order."""
        return "".join(name for name in self._places if content in self.objects(name).values())

    def flip(self, store: str, key: str) -> None:
        """Turns a bit of an object, unseen: its tag stays."""
        place = self.place(store)
        held = place.objects[f"lab/{key}"]
        changed = bytes([held.content[0] ^ 1]) + held.content[1:]
        place.objects[f"lab/{key}"] = type(held)(held.object, changed)

    def lose(self, store: str, key: str) -> None:
        """Takes an object away behind our back."""
        self.place(store).remove(f"lab/{key}")

    # -- what people do

    async def put(self, path: str, content: bytes, *, pieces: int = 3, **more: Any) -> Entry:
        """Writes a file."""
        more.setdefault("size", len(content))
        return await self.tree.put(path, chunked(content, pieces), **more)

    async def read(self, path: str, **more: Any) -> bytes:
        """Reads a file."""
        _, chunks = await self.tree.read(path, **more)
        return b"".join([chunk async for chunk in chunks])

    async def copies(self, path: str) -> dict[str, Copy]:
        """Copies on record, by store."""
        entry = await self.tree.stat(path)
        return {copy.store: copy for copy in await self.catalog.copies(entry.id)}

    async def states(self, path: str) -> str:
        """Stores and states on record, as `a:Whole b:Stale`."""
        return " ".join(f"{store}:{copy.state}" for store, copy in sorted((await self.copies(path)).items()))

    async def back(self) -> None:
        """Waits until all stores are up."""
        while not all(member.up for member in self.mesh.members.values()):  # noqa: ASYNC110 - on a virtual clock
            await asyncio.sleep(1)

    async def settle(self, seconds: float = 5000) -> None:
        """Waits until the mover and the recovery have nothing to do; what is due waits as long as a clock was set back.

        Raises:
            TimeoutError: They always have.
        """
        async with asyncio.timeout(seconds):
            while True:
                await asyncio.sleep(1)
                totals = await self.catalog.totals()
                intents = await self.catalog.intents(until=ALL)
                due = await self.catalog.next_due()
                # an object that was just written gets another name a little later
                soon = 0 < due <= self.now() + SETTLE_AFTER
                if not totals.pending and not intents and not soon and not self.mover.leisure.busy:
                    return

    async def rebuilt(self, path: Path) -> tuple[InlineCatalog, Rebuilt]:
        """Another catalogue, made from the stores alone."""
        catalog = InlineCatalog(path, clock=self.now)
        await catalog.open()
        return catalog, await rebuild(self.sources(), catalog, now=self.now())

    def sources(self) -> list[Source]:
        """The stores, to make a catalogue of."""
        return [Source(name, "lab/", MemoryStore(self.place(name))) for name in self._places]


def _heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the dead cry out is nobody's business."""
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


async def chunked(content: bytes, pieces: int = 3) -> AsyncIterator[bytes]:
    """A content in pieces."""
    step = max(1, -(-len(content) // pieces))
    for start in range(0, len(content), step):
        yield content[start : start + step]
        await asyncio.sleep(0)
