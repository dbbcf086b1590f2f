"""Random operations and faults on a gateway over real stores, and a dictionary that tells what must be there.

An operation that raised may have happened or not; one that was acknowledged has. At the end of each history all faults
end, everything is looked at in the stores' own folders, and the catalogue is deleted and made anew.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from benchmarks.vdir_parts.places import NAMES, Places
from benchmarks.vdir_parts.served import PREFIX, Served, opened
from cloudmesh.data.catalog.ports import ALL
from cloudmesh.data.catalog.rebuild import Source, rebuild
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.client import Vdir
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.errors import Changed, Exists, Missing
from cloudmesh.data.mesh import HIDDEN, KEPT
from cloudmesh.data.tree import wall
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, NameConflict
from cloudmesh.testing.directories.checks import Allowed, Tally, short, snapshot

FILES = ("f", "g", "d/f", "d/g", "e/f", "d/e/f", "h/a", "h/b")
DIRECTORIES = ("d", "e", "d/e", "h", "k")
SIZES = (0, 1, 10, 300, 3000, 70_000)
LARGE = 9 << 20
"""More than one part, once in a while."""
SETTLE_SECONDS = 240.0
AWAY = 3
"""Stores that may be away together; more than have copies of a file."""

Step = tuple[str, str, Any]
"""What a rival does too: what, with which path or store, and a file's content, or the calls that go wrong."""


class RealModel:
    """One directory over real stores, and what it must hold.

    Args:
        folder: An empty one.
        places: The stores.
        tally: Takes what goes wrong.
        seed: Of what is drawn.
        keep: Takes a copy of everything where a catalogue made anew isn't equal.
    """

    def __init__(self, folder: Path, places: Places, tally: Tally, seed: int, keep: Path | None = None) -> None:
        self._folder, self._keep = folder, keep
        self.places, self.tally, self.numbers = places, tally, random.Random(seed)
        self.rule = PlacementRule(copies=2, min_copies=1, prefer="Random", weak_copies="Count")
        self.served = Served(folder, places.configs(), self.rule, warm=True, verify_seconds=0)
        # whoever waits here, waits for stores that nobody brings back meanwhile
        self.vdir: Vdir = self.served.vdir(hasty=True)
        self._patient = self.served.vdir()
        self.files: dict[str, Allowed] = {}
        self.steps: list[Step] = []
        self.refused = 0
        self._number = 0
        self._misplaced: list[str] = []
        self._kill = False

    # -- how operations are run

    def run(self, call: Callable[[], Any]) -> Any:
        """One operation; what it raised is given. The process may be killed in the middle of it."""
        found: list[Any] = []

        def work() -> None:
            try:
                found.append(call())
            except CloudmeshError as error:
                found.append(error)

        if not self._kill:
            work()
        else:
            self._kill = False
            self.tally.deaths += 1
            thread = threading.Thread(target=work)
            thread.start()
            time.sleep(self.numbers.uniform(0, 0.1))
            self.served.kill()
            thread.join(60)
            self.served.start()
        if not found:
            raise RuntimeError("an operation never ended")
        return found[0]

    def there(self, path: str) -> bool:
        """Whether something is at a path."""
        for _ in range(20):
            try:
                return self.vdir.exists(path)
            except CloudmeshError:
                time.sleep(0.5)
        raise RuntimeError(f"nobody says whether {path} is there: {self.served.log()[-2000:]}")

    # -- what people do

    def put(self, path: str, *, new: bool = False) -> None:
        """Writes a file, perhaps only where there is none."""
        self._number += 1
        size = LARGE if self.numbers.random() < 0.01 else self.numbers.choice(SIZES)
        content = (f"{self._number}:".encode() * (size // 2 + 1))[:size]
        if not new:
            self.steps.append(("put", path, content))
        result = self.run(lambda: self.vdir.write(path, content, new=new))
        allowed = self.files.get(path, {None})
        if not isinstance(result, CloudmeshError):
            if new and None not in allowed:
                self.tally.blame("wrong", f"{path} was written over although it was there")
            self.files[path] = {content}
        elif not isinstance(result, Exists | NameConflict | Changed | InvalidRequest):
            self.refused += 1
            self.files[path] = allowed | {content}

    def read(self, path: str) -> None:
        """Reads a file, or a part of it."""
        self.steps.append(("read", path, b""))
        start = self.numbers.choice((0, 0, 5))
        stop = start + 100 if start else None
        allowed = {None if c is None else c[start:stop] for c in self.files.get(path, {None})}
        result = self.run(lambda: self.vdir.read(path, start=start, stop=stop))
        if isinstance(result, Missing):
            if None not in allowed:
                self.tally.blame("lost", f"{path} isn't there, which should hold {short(allowed)}")
        elif not isinstance(result, CloudmeshError) and result not in allowed:
            self.tally.blame("corrupt", f"{path} reads {result[:12]!r} instead of {short(allowed)}")

    def _take(self, path: str) -> dict[str, Allowed]:
        below = [p for p in self.files if p == path or p.startswith(f"{path}/")]
        return {name[len(path) :]: self.files.pop(name) for name in below}

    def move(self, source: str, target: str) -> None:
        """Renames a file or a directory."""
        if source == target or not self.there(source):
            return
        overwrite = self.numbers.random() < 0.5
        result = self.run(lambda: self.vdir.move(source, target, overwrite=overwrite))
        if self.there(source):
            if not isinstance(result, CloudmeshError):
                self.tally.blame("wrong", f"the rename of {source} was acknowledged and did not happen")
            return
        self._take(target)
        for rest, allowed in self._take(source).items():
            self.files[target + rest] = allowed

    def delete(self, path: str, *, and_back: bool) -> None:
        """Deletes a file or a directory, and perhaps brings it back."""
        if not self.there(path):
            return
        if path in FILES:
            self.steps.append(("delete", path, b""))
        result = self.run(lambda: self.vdir.delete(path, recursive=True))
        if self.there(path):
            if not isinstance(result, CloudmeshError):
                self.tally.blame("wrong", f"the deletion of {path} was acknowledged and did not happen")
            return
        taken = self._take(path)
        if not and_back or isinstance(result, CloudmeshError):
            return
        self.tally.operations += 1
        found = [one for one in self._patient.trash() if one["path"] == path]
        entry_id = max(found, key=lambda one: one["deleted"])["id"]
        result = self.run(lambda: self.vdir.restore(entry_id, path))
        if self.there(path):
            self.files.update({path + rest: allowed for rest, allowed in taken.items()})
        elif not isinstance(result, CloudmeshError):
            self.tally.blame("wrong", f"the restoration of {path} was acknowledged and did not happen")

    def step(self) -> None:
        """One random operation, or something that goes wrong."""
        draw, file = self.numbers.random(), self.numbers.choice(FILES)
        if draw < 0.09:
            self._harm(self.numbers.random())
            return
        self.tally.operations += 1
        if draw < 0.45:
            self.put(file, new=draw < 0.13)
        elif draw < 0.72:
            self.read(file)
        elif draw < 0.84:
            self.delete(file if draw < 0.81 else self.numbers.choice(DIRECTORIES), and_back=self.numbers.random() < 0.4)
        elif draw < 0.92:
            both = (FILES, FILES) if draw < 0.88 else (DIRECTORIES, DIRECTORIES)
            self.move(self.numbers.choice(both[0]), self.numbers.choice(both[1]))
        elif draw < 0.96:
            directory = self.numbers.choice(DIRECTORIES)
            self.run(lambda: self.vdir.mkdir(directory))
        else:
            colour = self.numbers.choice(("red", "blue"))
            self.run(lambda: self.vdir.set_tags(file, {"colour": colour}))

    def _harm(self, draw: float) -> None:
        self.tally.faults += 1
        store = self.numbers.choice(NAMES)
        if draw < 0.15:
            self._kill = True
        elif draw < 0.5:
            fault = self.places.draw(self.numbers)
            self.steps.append(("fault", "", fault))
            self.places.fault(fault)
        elif store in self.places.down:
            self.steps.append(("back", store, b""))
            self.places.back(store)
        elif len(self.places.down) < AWAY:
            self.steps.append(("lose", store, b""))
            self.places.lose(store)

    # -- what must be so

    def settle(self) -> None:
        """Faults end, and the mover does all it wants to; then everything is looked at, also with a new catalogue."""
        self._kill = False
        self.steps.append(("calm", "", b""))
        self.places.calm()
        self.tally.checks += 1
        before = self._at_rest()
        if before is not None:
            asyncio.run(self._compare(before))
        for path in self.served.catalog.iterdir():
            path.unlink()
        self._at_rest()
        self.served.start()

    async def _compare(self, before: Mapping[str, Any]) -> None:
        """Makes a catalogue anew beside the one that a gateway left, before the next one changes anything."""
        path = self.served.catalog.with_name("anew.sqlite")
        for old in path.parent.glob("anew.sqlite*"):
            old.unlink()
        stores = {config.name: opened(config) for config in self.served.config.stores}
        catalog = SqliteCatalog(path)
        await catalog.open()
        try:
            await rebuild([Source(name, PREFIX, store) for name, store in stores.items()], catalog, now=wall())
            after = await self._snapshot(catalog)
        finally:
            await catalog.close()
            for store in stores.values():
                await store.close()
        if before != after:
            differing = [
                f"{key}: {before.get(key)} became {after.get(key)}"
                for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)
            ]  # fmt: skip
            self.tally.blame("rebuild_unequal", "; ".join(differing[:3]))
            if self._keep is not None:
                kept = self._keep / str(self.tally.rebuild_unequal)
                shutil.copytree(self._folder, kept / "gateway")
                self.places.keep(kept)

    def _at_rest(self) -> Mapping[str, Any] | None:
        """Waits until nothing is left to do, ends the gateway, and looks at all; gives what the catalogue says."""
        end = time.monotonic() + SETTLE_SECONDS
        self.served.stop()
        while True:
            # what failed calls left open is ended when a process begins
            self.served.start()
            while (
                (summary := self.served.summary())["pending"] or summary["waking"]
                or any(s["state"] != "Up" for s in summary["stores"])
            ):  # fmt: skip
                if time.monotonic() > end:
                    self.tally.blame("wrong", f"the mover has always something to do: {summary}")
                    self.served.stop()
                    return None
                time.sleep(0.3)
            self._read_all()
            self.served.stop()
            if (told := asyncio.run(self._look())) is not None:
                return told
            if time.monotonic() > end:
                self.tally.blame("misplaced" if self._misplaced else "wrong", f"always under way: {self._misplaced}")
                return None

    def _read_all(self) -> None:
        there = {one["path"] for one in self._patient.list("", recursive=True) if one["kind"] == "File"}
        for path, allowed in list(self.files.items()):
            if path not in there:
                if None not in allowed:
                    self.tally.blame("lost", f"{path} isn't there, which should hold {short(allowed)}")
                del self.files[path]
        for path in there:
            allowed = self.files.get(path, {None})
            try:
                content = self._patient.read(path)
            except CloudmeshError as error:
                self.tally.blame("lost", f"{path} can't be read: {error}")
                continue
            if content not in allowed:
                self.tally.blame("corrupt", f"{path} holds {content[:12]!r} instead of {short(allowed)}")
            self.files[path] = {content}

    async def _look(self) -> Mapping[str, Any] | None:
        """Compares the catalogue with what lies in the stores' folders; None if something was still under way."""
        catalog = SqliteCatalog(self.served.catalog / "catalog.sqlite")
        await catalog.open()
        try:
            if await catalog.intents(until=ALL) or (await catalog.totals()).pending:
                return None
            files = [one for one in await catalog.walk("", limit=100000, copies=True) if one.entry.kind == "File"]
            self._misplaced = [
                f"{one.path}: {[(c.store, c.state) for c in one.copies]}" for one in files
                if [c.state for c in one.copies] != ["Whole"] * self.rule.copies
            ]  # fmt: skip
            if self._misplaced:
                # a store that has just come back makes files due before anybody has looked whether there is work
                return None
            for one in files:
                (wanted,) = self.files.get(one.path, {None})
                for copy in one.copies:
                    if self.places.content(copy.store, copy.key) != wanted:
                        self.tally.blame("corrupt", f"the copy of {one.path} in {copy.store} isn't what it should be")
            for store in NAMES:
                await self._known(catalog, store)
            for words in await catalog.fsck():
                self.tally.blame("wrong", words)
            return await self._snapshot(catalog)
        finally:
            await catalog.close()

    async def _snapshot(self, catalog: SqliteCatalog) -> Mapping[str, Any]:
        told = await snapshot(cast(Any, catalog))
        held = {(store, key) for store in NAMES for key in self.places.keys(store, PREFIX)}
        # nobody has looked yet at what is in the trash and whose store was away
        return {
            key: (value[0], [one for one in value[1] if one[:2] in held]) if key.startswith("trash ") else value
            for key, value in told.items()
        }

    async def _known(self, catalog: SqliteCatalog, store: str) -> None:
        for key in self.places.keys(store, PREFIX):
            name = key.removeprefix(PREFIX)
            ours = name.startswith(HIDDEN) and not name.startswith(KEPT)
            if not ours and await catalog.at_key(store, key) is None:
                self.tally.blame("unknown_copies", f"{key} in {store}")


def history(model: RealModel, steps: int) -> None:
    """So many random steps, then all is looked at."""
    for _ in range(steps):
        model.step()
    model.settle()
