"""Catalogues against a model of dicts, through any sequence of changes, moves of large directories that are
followed up later, and restarts."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.property.data.catalog_model import Model, Node, Open
from tests.testbed.postgres import Postgres, postgres

from cloudmesh.data.catalog import sql_tree
from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.model import ROOT, TRASH, Copy, Intent, Target
from cloudmesh.engine.errors import CloudmeshError

PARTS = st.sampled_from(["a", "b", "c.x"])
paths = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
STORES = ("s1", "s2", "s3")
some_stores = st.sets(st.sampled_from(STORES), min_size=1)
FEW, LEASE = 3, 10_000
T = TypeVar("T")


class CatalogMachine(RuleBasedStateMachine):
    """Rules act on both."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.now = 1_000_000
        self.number = 0
        self.visit = sql_tree.VISIT
        # so few at once that moves of small directories are followed up in the background
        sql_tree.VISIT = FEW
        self._open()

    def _make(self) -> SqliteCatalog | PostgresCatalog:
        raise NotImplementedError

    def _open(self) -> None:
        self.catalog = self._make()
        self._do(self.catalog.open())

    def teardown(self) -> None:
        try:
            self._whole()
        finally:
            self._do(self.catalog.close())
            self.loop.close()
            sql_tree.VISIT = self.visit
            self._gone()

    def _gone(self) -> None:
        """Afterwards."""

    def _clock(self) -> int:
        self.now += 1
        return self.now

    # ids of directories are chosen by chance: what is drawn must not follow their order

    def _id(self) -> str:
        self.number += 1
        return f"{self.number:016x}"

    def _do(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(call)

    def _both(self, model: Callable[[], object], call: Callable[[], Awaitable[object]]) -> object:
        """Runs both; gives the catalogue's answer, or None if both refuse for the same reason."""
        expected: type[BaseException] | None = None
        try:
            model()
        except CloudmeshError as error:
            expected = type(error)
        result: object = None
        try:
            result = self._do(call())
        except CloudmeshError as error:
            refused: CloudmeshError | None = error
        else:
            refused = None
        if refused is not None:
            assert type(refused) is expected, f"refused with {refused!r}, expected {expected}"
            return None
        assert expected is None, f"gave {result}, expected {expected}"
        return result if result is not None else True

    def _learn(self, path: str) -> str:
        """Directories that the catalogue made on the way to a path get into the model."""
        here, prefix = ROOT, ""
        for part in path.split("/") if path else []:
            prefix = f"{prefix}/{part}" if prefix else part
            below = self.model.child(here, part)
            if below is None:
                entry = self._do(self.catalog.entry(prefix))
                assert entry is not None and entry.kind == "Directory" and entry.parent == here
                below = entry.id
                self.model.nodes[below] = Node(here, part, True)
            here = below
        return here

    # -- rules

    @rule(path=paths, parents=st.booleans())
    def mkdir(self, path: str, parents: bool) -> None:
        if self._both(lambda: self.model.check_mkdir(path, parents), lambda: self.catalog.mkdir(path, parents=parents)):
            self._learn(path)

    @rule(path=paths, stores=some_stores, version=st.sampled_from([-1, -1, -1, 0, 1, 2]), reuse=st.booleans())
    def begin(self, path: str, stores: set[str], version: int, reuse: bool) -> None:
        there = self.model.find(path)
        node = self.model.nodes.get(there or "")
        entry = there or self._id()
        held = node.copies if node else {}
        keys = {s: held[s][0] if s in held else path if reuse else f"{path}.{self._id()}" for s in sorted(stores)}
        above, _, name = path.rpartition("/")
        opened = Open("Put", entry, node.version + 1 if node else 1, keys)
        intent = Intent(
            self._id(), "Put", entry, above, name, opened.version, tuple(Target(s, k) for s, k in keys.items()),
            self.now + LEASE,
        )  # fmt: skip
        if self._both(
            lambda: self.model.check_begin(opened, path, version, keys),
            lambda: self.catalog.begin(intent, if_version=version),
        ):
            if node is None:
                opened.directory, opened.name = self._learn(above), name
            self.model.intents[intent.id] = opened

    @precondition(lambda self: self.model.intents)
    @rule(data=st.data(), size=st.integers(0, 9), due=st.booleans())
    def commit(self, data: st.DataObject, size: int, due: bool) -> None:
        intent_id = data.draw(st.sampled_from(sorted(self.model.intents)))
        opened = self.model.intents[intent_id]
        failed = data.draw(st.sets(st.sampled_from(sorted(opened.targets)), max_size=len(opened.targets) - 1))
        whole = [
            Copy(opened.entry, store, key, opened.version, "Whole", "t", size)
            for store, key in opened.targets.items()
            if store not in failed
        ]
        self._both(
            lambda: self.model.commit(intent_id, size, failed, due),
            lambda: self.catalog.commit_put(
                intent_id, size=size, sha256="", whole=whole, failed=dict.fromkeys(failed, "x"), due=int(due)
            ),
        )

    @precondition(lambda self: self.model.intents)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        intent_id = data.draw(st.sampled_from(sorted(self.model.intents)))
        del self.model.intents[intent_id]
        self._do(self.catalog.end(intent_id))

    @rule(source=paths, goal=paths, overwrite=st.booleans())
    def move(self, source: str, goal: str, overwrite: bool) -> None:
        self._both(
            lambda: self.model.move(source, goal, overwrite),
            lambda: self.catalog.move(source, goal, overwrite=overwrite),
        )

    @rule(path=paths, recursive=st.booleans())
    def delete(self, path: str, recursive: bool) -> None:
        self._both(lambda: self.model.delete(path, recursive), lambda: self.catalog.delete(path, recursive=recursive))

    @precondition(lambda self: self.model.trash)
    @rule(data=st.data(), path=st.one_of(st.just(""), paths))
    def restore(self, data: st.DataObject, path: str) -> None:
        entry = data.draw(st.sampled_from(list(self.model.trash)))
        target = path or self.model.trash[entry]
        if self._both(lambda: self.model.check_restore(entry, path), lambda: self.catalog.restore(entry, path)):
            above, _, name = target.rpartition("/")
            self.model.restore(entry, self._learn(above), name)

    @rule(path=paths, tags=st.dictionaries(st.sampled_from("xy"), st.sampled_from("12")))
    def tag(self, path: str, tags: dict[str, str]) -> None:
        entry = self.model.find(path)
        if entry is None:
            return
        self._do(self.catalog.set_tags(path, tags))
        node = self.model.nodes[entry]
        node.tags, node.due = tags, node.due or not node.directory

    @precondition(lambda self: any(n.copies for n in self.model.nodes.values()))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        held = [(i, store) for i, n in self.model.nodes.items() for store in sorted(n.copies)]
        # mostly of what was deleted, as the mover does
        gone = [(i, store) for i, store in held if not self.model.live(i)]
        entry, store = data.draw(st.sampled_from(gone or held))
        self._do(self.catalog.settle())
        self.model.drop(entry, store)
        self._do(self.catalog.drop_copy(entry, store))

    @precondition(lambda self: self.model.trash)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(list(self.model.nodes)))
        self._do(self.catalog.settle())
        self.model.purge(entry)
        self._do(self.catalog.purge(entry))

    @rule(data=st.data())
    def looked(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(list(self.model.nodes)))
        node = self.model.nodes[entry]
        self._do(self.catalog.settle())
        version = data.draw(st.sampled_from([node.version, node.version + 1]))
        node.due = node.due and version != node.version
        self._do(self.catalog.looked(entry, version, 0))

    @rule(store=st.sampled_from(["", *STORES]))
    def wake(self, store: str) -> None:
        woken = [n for n in self.model.nodes.values() if not n.directory and (not store or store in n.copies)]
        for node in woken:
            node.due = True
        assert self._do(self.catalog.wake(store=store, due=1)) == len(woken)

    @rule()
    def restart(self) -> None:
        self._do(self.catalog.close())
        self._open()
        for opened in self.model.intents.values():
            opened.leased = False

    @rule()
    def check(self) -> None:
        self._whole()

    # -- what must be so

    @invariant()
    def same_tree(self) -> None:
        self.model.let_go()
        assert [found.path for found in self._do(self.catalog.walk("", limit=10_000))] == self.model.walk()

    def _whole(self) -> None:
        self._do(self.catalog.settle())
        assert self._do(self.catalog.fsck()) == []
        totals = self._do(self.catalog.totals())
        assert (totals.files, totals.directories, totals.bytes) == self.model.sums()
        assert totals.stores == self.model.stores()
        assert {t.entry.id: t.path for t in self._do(self.catalog.trash())} == self.model.trash
        due = {work.entry.id: work for work in self._do(self.catalog.work(1 << 60, limit=10_000))}
        assert sorted(due) == sorted(i for i, n in self.model.nodes.items() if n.due)
        assert all(bool(work.trashed) != self.model.live(i) for i, work in due.items())
        for entry_id, node in self.model.nodes.items():
            located = self._do(self.catalog.by_id(entry_id))
            assert located is not None
            entry = located.entry
            assert located.path == self.model.path(entry_id)
            told = (entry.parent, entry.kind == "Directory", entry.size, entry.version, dict(entry.tags))
            assert told == (node.parent, node.directory, node.size, node.version, node.tags)
            assert entry.name == node.name or (node.parent == TRASH and node.name == "")
            copies = {c.store: (c.key, c.version, c.state, c.size) for c in located.copies}
            assert copies == node.copies
        opened = {i.id: i for i in self._do(self.catalog.intents(until=1 << 60))}
        assert sorted(opened) == sorted(self.model.intents)


class SqliteMachine(CatalogMachine):
    """A file."""

    def _make(self) -> SqliteCatalog:
        self.folder = getattr(self, "folder", None) or Path(tempfile.mkdtemp(prefix="catalog-"))
        return SqliteCatalog(self.folder / "c.sqlite", clock=self._clock, readers=1)

    def _gone(self) -> None:
        shutil.rmtree(self.folder)


class PostgresMachine(CatalogMachine):
    """A schema of its own; leases of a process that ended are over when their time is."""

    server: ClassVar[Postgres]

    def _make(self) -> PostgresCatalog:
        self.schema = getattr(self, "schema", "") or f"machine_{next(_numbers)}"
        return PostgresCatalog(self.server.local, self.schema, clock=self._clock, readers=1)

    @rule()
    def restart(self) -> None:
        super().restart()
        self.now += LEASE
        self._do(self.catalog.intents(until=self.now))


_numbers = itertools.count(1)


TestSqlite = SqliteMachine.TestCase
TestSqlite.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_postgres() -> None:
    with postgres("fsync=off", "full_page_writes=off") as server:

        class Machine(PostgresMachine):
            pass

        Machine.server = server
        few = settings(max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
        run_state_machine_as_test(Machine, settings=few)
