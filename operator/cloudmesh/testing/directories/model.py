"""What people may expect of a directory after anything went wrong, told by a dict; and what really became of it.

An operation that raised may have happened or not, a write perhaps later; one that was acknowledged has.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import msgspec

from cloudmesh.data import links
from cloudmesh.data.catalog import sql_read as read
from cloudmesh.data.catalog.ports import ABSENT, ANY
from cloudmesh.data.config import Match, PlacementRule
from cloudmesh.data.errors import Exists, Missing
from cloudmesh.data.model import MICROS, Entry, link_of
from cloudmesh.engine.errors import CloudmeshError, Conflict
from cloudmesh.testing.directories.checks import Allowed, Checks, Tally, short, snapshot
from cloudmesh.testing.directories.world import Fault, World
from cloudmesh.testing.virtualtime import VirtualLoop

__all__ = ["Model", "Tally", "snapshot"]

T = TypeVar("T")
CALL_SECONDS = 7200.0
TRASH_SECONDS = 86400
_TAGGED = Match(tags={"colour": "red"})


@dataclass
class _Flying:
    """A write that is under way beside other operations."""

    task: asyncio.Task[Any]
    content: bytes


class Model(Checks):
    """One directory, and what it must hold.

    Args:
        folder: Where its catalogue lies.
        tally: Takes what goes wrong.
        seed: Of ids and of the order of what could run at the same moment.
        stores: How many.
        world: Makes the directory.
    """

    def __init__(
        self, folder: Path, tally: Tally, *, seed: int = 0, stores: int = 3, world: Callable[..., World] = World
    ) -> None:
        self.log: list[str] = []
        numbers = random.Random(seed)  # noqa: S311 - a repeatable order
        self._ids = mock.patch.object(secrets, "token_hex", lambda size=32: numbers.randbytes(size).hex())
        self._ids.start()
        self._runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(seed))
        super().__init__(world(folder, "abcde"[:stores], trash_seconds=TRASH_SECONDS), tally)
        # some servers list names alone
        self.world.place(self.world.names[-1]).bare = True
        self._runner.run(self._alive(self.world.start()))
        self._flying: list[_Flying] = []
        self._harmed: set[str] = set()
        self._written: set[bytes] = set()
        self._number = 0
        self._late = 0.0
        self._furthest = 0

    def close(self) -> None:
        """Ends it."""
        try:
            self._runner.run(self.world.end())
            self._runner.close()
        finally:
            self._ids.stop()

    # -- how operations are run

    async def _alive(self, start: Awaitable[Any]) -> None:
        """Starts the process, and again if it dies meanwhile."""
        task = asyncio.ensure_future(start)
        while True:
            dead = asyncio.create_task(self.world.faults.dead.wait())
            await asyncio.wait({task, dead}, return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
            if task.done() and not self.world.faults.dead.is_set() and task.exception() is None:
                return
            self.tally.deaths += 1
            await self.world.die()
            task = asyncio.ensure_future(self.world.start())

    def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T | CloudmeshError:
        """One operation; what it raised is given. If the process dies at it, another one begins."""

        async def main() -> T | CloudmeshError:
            if self.world.faults.dead.is_set():
                await self._again()
            task = asyncio.create_task(call())
            dead = asyncio.create_task(self.world.faults.dead.wait())
            await asyncio.wait({task, dead}, timeout=CALL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
            if self.world.faults.dead.is_set():
                await self._again()
                return Conflict("the process died")
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
                self.tally.blame("wrong", "an operation never ended")
            error = None if task.cancelled() else task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, CloudmeshError | TimeoutError):
                self.tally.blame("wrong", f"unexpected {error!r}")
                raise error
            if isinstance(error, TimeoutError):
                raise error
            return error

        return self._runner.run(main())

    async def _again(self) -> None:
        self.tally.deaths += 1
        self.log.append("the process dies and another begins")
        await self.world.die()
        self._flying.clear()
        await self._alive(self.world.start())

    def _note(self, words: str) -> None:
        self.tally.operations += 1
        self.log.append(words)

    def _peek(self, path: str) -> Entry | None:
        return self._runner.run(self.world.catalog.peek(lambda db: read.entry(db, path)))

    def _place(self, entry_id: str) -> tuple[str, str]:
        def look(db: read.DB) -> tuple[str, str]:
            return read.place(db, entry_id) if read.find_id(db, entry_id) else ("", "")

        return self._runner.run(self.world.catalog.peek(look))

    def _content(self, size: int) -> bytes:
        self._number += 1
        made = (f"{self._number}:".encode() * size)[:size] if size else b""
        self._written.add(made)
        return made

    # -- what people do

    def put(self, path: str, size: int, *, told: bool = True, condition: str = "any") -> None:
        """Writes a file, perhaps only over the version that is there, or only where nothing is."""
        content = self._content(size)
        before = self._peek(path)
        version = {"any": ANY, "absent": ABSENT, "same": before.version if before else ABSENT, "wrong": 999999}
        self._note(f"put {path} {content[:8]!r} of {size}, if {condition}")
        result = self.run(
            lambda: self.world.put(path, content, size=size if told else None, if_version=version[condition])
        )
        self.log.append(f"  -> {result!r}"[:200])
        allowed = self.files.get(path, {None})
        if isinstance(result, CloudmeshError):
            if condition == "wrong" or (condition == "absent" and isinstance(result, Exists)):
                return
            if not (before and before.kind == "Directory"):
                self.files[path] = allowed | {content}
            return
        if condition == "wrong" or (condition == "absent" and before is not None):
            self.tally.blame("wrong", f"{path} was written though its condition did not hold")
        flying = {other.content for other in self._flying}
        now: Allowed = {content}
        self.files[path] = now | (allowed & flying)
        self.older.setdefault(result.id, {})[result.version] = content

    def link(self, path: str, store: str) -> None:
        """Links something that somebody else keeps in a store."""
        content, key = self._content(200), f"archive/{self._number}"
        self._note(f"link {path} to {key} in {store}")
        self.world.place(store).put(key, content)
        self.linked[store, key] = content
        result = self.run(lambda: links.link(self.world.tree, path, store, key))
        self.log.append(f"  -> {result!r}"[:200])
        allowed = self.files.get(path, {None})
        if isinstance(result, CloudmeshError):
            if not isinstance(result, Exists) and (there := self._peek(path)) and self._linked_to(there.id):
                self.files[path] = allowed | {content}
            return
        flying = {other.content for other in self._flying}
        now: Allowed = {content}
        self.files[path] = now | (allowed & flying)

    def _linked_to(self, entry_id: str) -> tuple[str, str] | None:
        copies = self._runner.run(self.world.catalog.peek(lambda db: read.copies(db, entry_id)))
        link = link_of(copies)
        return (link.store, link.key) if link else None

    def change_linked(self, path: str) -> None:
        """Somebody else writes over what a link leads to."""
        before = self._peek(path)
        if before is None or (at := self._linked_to(before.id)) is None or self.linked[at] is None:
            return
        old, content = self.linked[at], self._content(150)
        self.log.append(f"what {path} is a link to changes: {content[:8]!r}")
        self.tally.faults += 1
        self.world.place(at[0]).put(at[1], content)
        self.linked[at] = content
        for known in (self.files, *self.trash.values()):
            for name, allowed in known.items():
                if old in allowed:
                    known[name] = allowed | {content}

    def adopt(self, path: str) -> None:
        """Makes a link a file."""
        self._note(f"adopt {path}")
        before = self._peek(path)
        if before is None or before.kind == "Directory":
            return
        result = self.run(lambda: links.adopt(self.world.tree, path))
        self.log.append(f"  -> {result!r}"[:200])

    def restore_version(self, path: str, number: int) -> None:
        """Makes an older content of a file its own again."""
        self._note(f"restore version {number} of {path}")
        before = self._peek(path)
        if before is None or before.kind == "Directory":
            return
        kept = self._runner.run(self.world.catalog.peek(lambda db: read.versions(db, before.id, False)))
        if not kept:
            return
        version = kept[number % len(kept)].entry.version
        content = self.older.get(before.id, {}).get(version)
        result = self.run(lambda: self.world.tree.restore_version(path, version))
        self.log.append(f"  -> {result!r}"[:200])
        allowed = self.files.get(path, {None})
        if isinstance(result, CloudmeshError):
            # which content it is that may yet come isn't known where nobody was told of the version
            self.files[path] = allowed | ({content} if content is not None else self._ever(before.id, path))
            return
        flying = {other.content for other in self._flying}
        now: Allowed = {content} if content is not None else self._ever(before.id, path)
        self.files[path] = now | (allowed & flying)
        if content is not None:
            self.older.setdefault(result.id, {})[result.version] = content

    def _ever(self, entry_id: str, path: str) -> Allowed:
        return {*self.older.get(entry_id, {}).values(), *self.files.get(path, {None}), *self._written}

    def delete_version(self, path: str, number: int) -> None:
        """Gives an older content of a file up."""
        self._note(f"delete version {number} of {path}")
        before = self._peek(path)
        if before is None or before.kind == "Directory":
            return
        kept = self._runner.run(self.world.catalog.peek(lambda db: read.versions(db, before.id, False)))
        if kept:
            version = kept[number % len(kept)].entry.version
            self.run(lambda: self.world.tree.delete_version(path, version))

    def put_slowly(self, path: str, size: int, seconds: float) -> None:
        """Writes a file while other things happen."""
        content = self._content(size)
        self._note(f"put {path} {content[:8]!r} of {size} within {seconds} s")

        async def chunks() -> Any:
            for start in range(0, max(size, 1), max(1, size // 4)):
                await asyncio.sleep(seconds / 4)
                yield content[start : start + max(1, size // 4)]

        async def launch() -> None:
            task = asyncio.create_task(self.world.tree.put(path, chunks(), size=size))
            self._flying.append(_Flying(task, content))
            await asyncio.sleep(0.1)

        before = self._peek(path)
        if before and before.kind == "Directory":
            return
        self.run(launch)
        self.files[path] = self.files.get(path, {None}) | {content}

    def read(self, path: str, start: int | None = None, length: int = 0) -> None:
        """Reads a file, or a range of it."""
        self._note(f"read {path} {start} {length}")
        before = self._peek(path)
        if before and before.kind == "Directory":
            return
        allowed = set(self.files.get(path, {None}))
        if start is None:
            result = self.run(lambda: self.world.read(path))
        else:
            begin = start
            result = self.run(lambda: self.world.read(path, start=begin, length=length))
        if isinstance(result, Missing):
            if None not in allowed:
                self.tally.blame("lost", f"{path} isn't there, which should hold {short(allowed)}")
        elif not isinstance(result, CloudmeshError):
            cuts = {None if c is None else c if start is None else c[start : start + length] for c in allowed}
            if result not in cuts:
                self.tally.blame("corrupt", f"{path} reads {result[:12]!r} instead of {short(allowed)}")

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Renames a file or a directory."""
        self._note(f"move {source} to {target} overwrite={overwrite}")
        before, there = self._peek(source), self._peek(target)
        result = self.run(lambda: self.world.tree.move(source, target, overwrite=overwrite))
        self.log.append(f"  -> {result!r}"[:160])
        if before is None or source == target:
            return
        if self._place(before.id)[0] != target:
            if not isinstance(result, CloudmeshError):
                self.tally.blame("wrong", f"the rename of {source} was acknowledged and did not happen")
            return
        if there is not None:
            self._to_trash(there.id, target)
        for path, allowed in self._take(source).items():
            self.files[target + path] = allowed | self.files.get(target + path, set())

    def _take(self, path: str) -> dict[str, Allowed]:
        """What is at a path and below, by the rest of the path; writes under way may yet bring it there anew."""
        below = [p for p in self.files if p == path or p.startswith(f"{path}/")]
        flying = {other.content for other in self._flying}
        found = {}
        for name in below:
            allowed = self.files.pop(name)
            found[name[len(path) :]] = allowed | {None} if allowed & flying else allowed
            if allowed & flying:
                absent: Allowed = {None}
                self.files[name] = absent | (allowed & flying)
        return found

    def _to_trash(self, entry_id: str, path: str) -> None:
        self.trash[entry_id] = self._take(path)

    def delete(self, path: str) -> None:
        """Deletes a file or a directory."""
        self._note(f"delete {path}")
        before = self._peek(path)
        result = self.run(lambda: self.world.tree.delete(path, recursive=True))
        self.log.append(f"  -> {result!r}"[:160])
        if before is None:
            return
        if self._place(before.id)[1] == before.id:
            self._to_trash(before.id, path)
        elif not isinstance(result, CloudmeshError):
            self.tally.blame("wrong", f"the deletion of {path} was acknowledged and did not happen")

    def restore(self, number: int, path: str) -> None:
        """Brings something back from the trash."""
        if not self.trash:
            return
        entry_id = sorted(self.trash)[number % len(self.trash)]
        if self._place(entry_id)[1] != entry_id:
            return
        self._note(f"restore {entry_id} to {path}")
        result = self.run(lambda: self.world.tree.restore(entry_id, path))
        self.log.append(f"  -> {result!r}"[:160])
        where, trashed = self._place(entry_id)
        if where and not trashed:
            for rest, allowed in self.trash.pop(entry_id).items():
                self.files[where + rest] = allowed | self.files.get(where + rest, set())
        elif not isinstance(result, CloudmeshError):
            self.tally.blame("wrong", f"the restoration of {entry_id} was acknowledged and did not happen")

    def mkdir(self, path: str) -> None:
        """Makes a directory."""
        self._note(f"mkdir {path}")
        result = self.run(lambda: self.world.tree.mkdir(path, parents=True))
        if not isinstance(result, CloudmeshError) and self._peek(path) is None:
            self.tally.blame("wrong", f"the directory {path} was acknowledged and isn't there")

    def tag(self, path: str, value: str) -> None:
        """Tags a file or a directory."""
        self._note(f"tag {path} {value}")
        result = self.run(lambda: self.world.tree.set_tags(path, {"colour": value} if value else {}))
        if not isinstance(result, CloudmeshError):
            there = self._peek(path)
            if there is None or there.tags.get("colour", "") != value:
                self.tally.blame("wrong", f"the tag of {path} was acknowledged and isn't there")

    def policy(
        self, copies: int, min_copies: int, only: str, drain: str, *, versions: int = 0, settle: bool = True,
        room: int = 0,
    ) -> None:  # fmt: skip
        """Another policy, one that can be kept; `room`: bytes that the last store has, by which it may look full."""
        copies = min(copies, len(set(only or self.world.names) - {drain}))
        self._note(
            f"policy copies={copies} min={min_copies} only={only!r} drain={drain!r} versions={versions} settle={settle}"
            f" room={room}"
        )
        rules = (
            PlacementRule("tagged", copies=1, prefer="Sequential", match=_TAGGED),
            PlacementRule(
                copies=copies, min_copies=min(copies, min_copies), prefer="Balanced" if copies == 2 else "Sequential",
                only=tuple(only),
            ),
        )  # fmt: skip

        stores = tuple(
            msgspec.structs.replace(
                store, access="Drain" if store.name == drain else "ReadWrite",
                capacity=room * (number + 1) if room else None,
            )
            for number, store in enumerate(self.world.config.stores)
        )  # fmt: skip
        # a link to a store that is to be emptied is forgotten
        leaving = {content for (store, _), content in self.linked.items() if store == drain}
        for known in (self.files, *self.trash.values()):
            for path, allowed in known.items():
                if allowed & leaving:
                    known[path] = allowed | {None}
        # the operator has written it before the process hears of it
        self.world.config = msgspec.structs.replace(
            self.world.config, rules=rules, stores=stores, versions=versions, settle_names=settle
        )
        self.run(self.world.use)

    # -- what goes wrong

    def fault(self, fault: Fault) -> None:
        """A call that will go wrong."""
        self.tally.faults += 1
        self.log.append(f"fault {fault}")
        self.world.faults.planned.append(fault)

    def down(self, store: str) -> None:
        """A store goes."""
        self.tally.faults += 1
        self.log.append(f"{store} is down")
        self.world.faults.down.add(store)

    def up(self, store: str) -> None:
        """It comes back."""
        self.log.append(f"{store} is back")
        self.world.faults.down.discard(store)

    def die(self, calls: int) -> None:
        """The process will die after so many calls."""
        self.tally.faults += 1
        self.log.append(f"death after {calls} calls")
        self.world.faults.kill_after = calls

    def set_clock(self, seconds: int) -> None:
        """The wall clock of the process is wrong by so much."""
        self.tally.faults += 1
        self.log.append(f"the clock is wrong by {seconds} s")
        self.world.skew = seconds * MICROS

    def lag(self, store: str, seconds: float) -> None:
        """Listings show what was, for a while."""
        self.tally.faults += 1
        self.log.append(f"listings of {store} are {seconds} s late")
        self.world.place(store).lag = seconds
        self._late = max(self._late, seconds)

    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.log.append(f"{seconds} s go by")

        async def sleep() -> None:
            await asyncio.sleep(seconds)

        self.run(sleep)

    def harm(self, path: str, store: str, how: str) -> None:
        """An object is lost, or is somebody else's behind our back, with our attributes or older ones or none; while
        another copy is whole, as far as anybody could know. Once for each file until all is well again."""
        entry = self._peek(path)
        if entry is None or entry.kind == "Directory" or entry.id in self._harmed or self._flying:
            return

        def look(db: read.DB) -> tuple[list[Any], list[Any]]:
            copies = [c for c in read.copies(db, entry.id) if c.state == "Whole" and c.version == entry.version]
            return copies, read.intents(db, 1 << 62)

        copies, intents = self._runner.run(self.world.catalog.peek(look))
        places = {c.store: self.world.place(c.store).objects.get(c.key) for c in copies}
        good = {c.store: c.key for c in copies if (o := places[c.store]) is not None and o.object.tag == c.tag}
        if store not in good or len(good) < 2 or intents:
            return
        self.tally.faults += 1
        self._harmed.add(entry.id)
        self.log.append(f"harm {path} in {store}: {how}")
        place = self.world.place(store)
        if how == "lost":
            place.remove(good[store])
            return
        self._number += 1
        content = b"somebody else's %d" % self._number
        self.foreign.add(content)
        attributes = dict(place.objects[good[store]].object.attributes)
        if how == "foreign":
            attributes = {}
        elif how == "older":
            attributes |= {"version": "0", "write": "0"}
        place.put(good[store], content, attributes)

    def flip(self, path: str, store: str) -> None:
        """A bit flips in a directory that is else well; it is found when the copy is compared."""
        self.settle()
        entry = self._peek(path)
        copies = {} if entry is None or entry.kind == "Directory" else self._runner.run(self.world.copies(path))
        if store not in copies or len(copies) < 2 or not entry or not entry.size:
            return
        self.tally.faults += 1
        self.log.append(f"a bit of {path} flips in {store}")
        self.world.flip(store, copies[store].key.removeprefix("lab/"))
        self.read(path)
        self._verify()

    def flip_kept(self, number: int) -> None:
        """A bit of something in the trash, or of an older content, flips in a directory that is else well."""
        self.settle()
        kept = [one for one in self._runner.run(self.kept()) if len(one.copies) > 1 and one.entry.size]
        if not kept:
            return
        copy = kept[number % len(kept)].copies[0]
        self.tally.faults += 1
        self.log.append(f"a bit of {copy.key} flips in {copy.store}")
        self.world.flip(copy.store, copy.key.removeprefix("lab/"))
        self._verify()

    def _verify(self) -> None:
        async def scrub() -> None:
            self._past_all_clocks()
            await self.world.use(verify_seconds=60)
            await asyncio.sleep(100)
            await self.world.settle()
            await self.world.use(verify_seconds=0)

        self.run(scrub)
        self.settle()

    # -- what must be so

    def settle(self) -> None:
        """Faults end, and the mover does all it wants to; then everything is looked at."""
        self.log.append("faults end")
        world = self.world
        world.faults.clear()
        for store in world.names:
            world.place(store).lag = 0.0

        async def quiet() -> None:
            await asyncio.sleep(self._late)
            self._late = 0.0
            await world.back()
            if self._flying:
                await asyncio.wait([other.task for other in self._flying])
                for other in self._flying:
                    if not other.task.cancelled() and (error := other.task.exception()):
                        self.log.append(f"  {other.content[:8]!r} -> {error!r}"[:160])
            await world.settle()
            if self.linked:
                # what nobody read is found when linked objects are looked at, within the hour
                await world.wake()
                await world.settle()
            if self._harmed:
                # what nobody read is found when copies are compared; by a clock that is past all that were set
                self._past_all_clocks()
                await world.use(verify_seconds=60)
                await asyncio.sleep(100)
                await world.settle()
                await world.use(verify_seconds=0)
                await world.settle()

        if world.faults.dead.is_set():
            self.wait(0)
        try:
            self.run(quiet)
        except TimeoutError:
            self.tally.blame("wrong", f"the mover has always something to do: {self._unsettled()}")
            return
        self._flying.clear()
        self._harmed.clear()
        self.run(self.check)

    def _past_all_clocks(self) -> None:
        self._furthest += 4300 * MICROS
        self.world.skew = self._furthest

    def _unsettled(self) -> str:
        def look(db: read.DB) -> Any:
            return read.work(db, 1 << 62, 3), read.intents(db, 1 << 62)

        return repr(self._runner.run(self.world.catalog.peek(look)))

    def lose_catalogue(self) -> None:
        """The catalogue is lost, and the directory goes on with one that was made from the stores."""
        self.settle()
        if not self.tally.clean:
            return
        self._note("the catalogue is lost and made anew")

        self._runner.run(self.world.lose_catalogue())
        self.settle()
