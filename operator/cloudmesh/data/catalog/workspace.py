"""What a rebuild knows so far, in a file of its own that goes at its end: none of it is kept in memory."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloudmesh.data.catalog.ports import Record
from cloudmesh.data.catalog.sql_tree import new_id
from cloudmesh.data.model import OVER, ROOT, TRASH, Copy, Entry, Trashed

PAGE: Final = 1000
KEPT: Final = 20_000
"""Directories whose ids are kept in mind at most."""

_TABLES: Final = """
CREATE TABLE line (n INTEGER PRIMARY KEY, seq INTEGER, at INTEGER, body TEXT);
CREATE TABLE record (seq INTEGER, at INTEGER, body TEXT, PRIMARY KEY (seq, at)) WITHOUT ROWID;
CREATE TABLE node (
    id TEXT PRIMARY KEY, parent TEXT, name TEXT, dir INTEGER, size INTEGER, mtime INTEGER, sha256 TEXT,
    version INTEGER, type TEXT, tags TEXT, created INTEGER,
    path TEXT,      -- the last one that was told
    told INTEGER,   -- a journal record speaks of it
    thrown TEXT,    -- where it was before it was thrown away; NULL if it wasn't
    at INTEGER, origin TEXT
) WITHOUT ROWID;
CREATE TABLE place (
    store TEXT, key TEXT, entry TEXT, version INTEGER, tag TEXT, PRIMARY KEY (store, key)
) WITHOUT ROWID;
CREATE TABLE copy (
    entry TEXT, store TEXT, key TEXT, version INTEGER, state TEXT, tag TEXT, size INTEGER, rank INTEGER,
    mtime INTEGER, sha256 TEXT, PRIMARY KEY (entry, store)
) WITHOUT ROWID;
CREATE TABLE link (
    entry TEXT PRIMARY KEY, store TEXT, key TEXT, version INTEGER, tag TEXT, size INTEGER
) WITHOUT ROWID;
CREATE INDEX link_key ON link (store, key);
CREATE TABLE purged (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE reach (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE lost (n INTEGER PRIMARY KEY, id TEXT);
"""
_STALE: Final = "(c.state = 'Stale' OR c.version <> n.version OR c.size <> n.size)"
_NODE: Final = "id, parent, name, dir, size, mtime, sha256, version, type, tags, created"


@dataclass(frozen=True, slots=True)
class Node:
    """An entry as far as it is known.

    Args:
        version: Of its content; 0 while only renames and deletions of it are known.
        directory: It is one.
        digest: Of its content is known.
        origin: The file whose older content it is.
    """

    version: int
    directory: bool
    digest: bool
    origin: str


@dataclass(frozen=True, slots=True)
class Held:
    """An object that may be a copy, with what its attributes say of the content."""

    copy: Copy
    rank: int
    mtime: int
    sha256: str


class Workspace:
    """The tree and the objects as they are found out; used with `with`.

    Args:
        folder: Where its file lies; the system's folder for such files if None.
        now: Microseconds.
    """

    def __init__(self, folder: Path | None, now: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rebuild-", dir=folder)
        self._now = now
        # the catalogue reads it in a thread of its own at the end
        self._db = sqlite3.connect(
            Path(self._folder.name) / "state.sqlite", isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -32768", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")
        self._directories: dict[str, str] = {}

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._folder.cleanup()

    def _one(self, query: str, *values: Any) -> Any:
        return self._db.execute(query, values).fetchone()

    # -- the journal

    def stage(self, records: Iterable[Record]) -> None:
        """Takes lines of a snapshot, which count when `replay` is asked for them."""
        self._db.executemany("INSERT INTO line (seq, at, body) VALUES (?, ?, ?)", map(_row, records))

    def unstage(self) -> None:
        """Forgets them."""
        self._db.execute("DELETE FROM line")

    def keep(self, records: Iterable[Record]) -> None:
        """Takes records of the journal, in any order and any number of times."""
        self._db.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?)", map(_row, records))

    def staged(self) -> Iterator[Record]:
        """The lines of the snapshot in their order."""
        yield from self._pages("SELECT n, seq, at, body FROM line WHERE n > ? ORDER BY n LIMIT ?")

    def records(self, after: int) -> Iterator[Record]:
        """The records after a number, in their order."""
        query = "SELECT seq, at, body FROM record WHERE (seq, at) > (?, ?) ORDER BY seq, at LIMIT ?"
        mark = (after, 1 << 62)
        while rows := self._db.execute(query, (*mark, PAGE)).fetchall():
            for row in rows:
                yield Record(row[0], row[1], json.loads(row[2]))
            mark = rows[-1][:2]

    def _pages(self, query: str) -> Iterator[Record]:
        mark = 0
        while rows := self._db.execute(query, (mark, PAGE)).fetchall():
            for row in rows:
                yield Record(row[1], row[2], json.loads(row[3]))
            mark = rows[-1][0]

    def counted(self) -> tuple[int, int]:
        """How many records there are, and the number of the last one."""
        found: tuple[int, int] = self._one("SELECT count(*), coalesce(max(seq), 0) FROM record")
        return found

    # -- entries

    def node(self, entry_id: str) -> Node | None:
        """What is known of an entry."""
        row = self._one("SELECT version, dir, sha256 <> '', origin FROM node WHERE id = ?", entry_id)
        return Node(row[0], bool(row[1]), bool(row[2]), row[3]) if row else None

    def put(self, entry: Entry, path: str, *, told: bool, thrown: str | None = None, at: int = 0, of: str = "") -> None:
        """An entry as it is from here on."""
        self._db.execute(
            "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.id, entry.parent, entry.name, entry.kind == "Directory", entry.size, entry.mtime, entry.sha256,
                entry.version, entry.content_type, json.dumps(dict(entry.tags)), entry.created, path, told, thrown, at,
                of,
            ),
        )  # fmt: skip

    def content(self, entry: Entry) -> None:
        """Another content of an entry that is there; its name stays."""
        self._db.execute(
            "UPDATE node SET dir = 0, size = ?, mtime = ?, sha256 = ?, version = ?, type = ?, tags = ?, created = ? "
            "WHERE id = ?",
            (
                entry.size, entry.mtime, entry.sha256, entry.version, entry.content_type, json.dumps(dict(entry.tags)),
                entry.created, entry.id,
            ),
        )  # fmt: skip

    def newer(self, entry_id: str, version: int, size: int, mtime: int) -> None:
        """A content that an object tells of; one alone doesn't say its digest."""
        self._db.execute(
            "UPDATE node SET version = ?, size = ?, mtime = ?, sha256 = '' WHERE id = ?",
            (version, size, mtime, entry_id),
        )

    def agreed(self, held: Held) -> bool:
        """Whether another store's object tells the same digest of the same content: it is what was written then, though
        one of them may have been edited since."""
        query = "SELECT 1 FROM copy WHERE entry = ? AND store <> ? AND version = ? AND sha256 = ? AND sha256 <> ''"
        copy = held.copy
        return self._one(query, copy.entry, copy.store, copy.version, held.sha256) is not None

    def digest(self, entry_id: str, sha256: str) -> None:
        """The digest of a content, which no record told."""
        self._db.execute("UPDATE node SET sha256 = ? WHERE id = ?", (sha256, entry_id))

    def move(self, entry_id: str, parent: str, name: str, path: str) -> None:
        """An entry is elsewhere, out of the trash if it was there."""
        self._db.execute(
            "UPDATE node SET parent = ?, name = ?, path = ?, thrown = NULL WHERE id = ?", (parent, name, path, entry_id)
        )

    def throw(self, entry_id: str, path: str, at: int) -> None:
        """An entry is in the trash."""
        self._db.execute(
            "UPDATE node SET parent = ?, name = ?, path = '', thrown = ?, at = ? WHERE id = ?",
            (TRASH, path.rpartition("/")[2], path, at, entry_id),
        )

    def expire(self, entry_id: str) -> None:
        """What is in the trash can't be restored any more."""
        self._db.execute("UPDATE node SET at = ? WHERE id = ? AND thrown IS NOT NULL", (OVER, entry_id))

    def purge(self, entry_id: str) -> None:
        """An entry has ended, and its older contents with it."""
        self._db.execute("DELETE FROM node WHERE id = ?", (entry_id,))
        self.unlink(entry_id)
        self._db.execute("INSERT OR IGNORE INTO purged VALUES (?)", (entry_id,))
        self._db.execute("UPDATE node SET at = ? WHERE origin = ? AND origin <> ''", (OVER, entry_id))

    def back(self, entry_id: str) -> None:
        """An entry is there after all."""
        self._db.execute("DELETE FROM purged WHERE id = ?", (entry_id,))

    def ended(self, entry_id: str) -> bool:
        """Whether an entry has ended."""
        return self._one("SELECT 1 FROM purged WHERE id = ?", entry_id) is not None

    def tag(self, entry_id: str, tags: Mapping[str, str]) -> None:
        """An entry has these tags."""
        self._db.execute("UPDATE node SET tags = ? WHERE id = ?", (json.dumps(dict(tags)), entry_id))

    # -- objects

    def lies(self, store: str, key: str, entry_id: str, version: int, tag: str) -> None:
        """What a record says of an object."""
        self._db.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?, ?)", (store, key, entry_id, version, tag))

    def link(self, copy: Copy) -> None:
        """An entry is a link to an object."""
        values = (copy.entry, copy.store, copy.key, copy.version, copy.tag, copy.size)
        self._db.execute("INSERT OR REPLACE INTO link VALUES (?, ?, ?, ?, ?, ?)", values)

    def unlink(self, entry_id: str) -> None:
        """An entry is none."""
        self._db.execute("DELETE FROM link WHERE entry = ?", (entry_id,))

    def linked(self, store: str, key: str) -> bool:
        """Whether an entry is a link to an object."""
        return self._one("SELECT 1 FROM link WHERE store = ? AND key = ?", store, key) is not None

    def place(self, store: str, key: str) -> tuple[str, int, str] | None:
        """Entry, version and tag that records say of an object."""
        found: tuple[str, int, str] | None = self._one(
            "SELECT entry, version, tag FROM place WHERE store = ? AND key = ?", store, key
        )
        return found

    def take(self, held: Held) -> Held | None:
        """An object is the copy of its entry in its store, unless a better one is; gives the one that isn't."""
        copy = held.copy
        row = self._one("SELECT * FROM copy WHERE entry = ? AND store = ?", copy.entry, copy.store)
        there = None
        if row is not None:
            there = Held(Copy(*row[:7]), *row[7:])
            if (there.copy.version, there.rank) >= (copy.version, held.rank):
                return held
        self._db.execute(
            "INSERT OR REPLACE INTO copy VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                copy.entry, copy.store, copy.key, copy.version, copy.state, copy.tag, copy.size, held.rank, held.mtime,
                held.sha256,
            ),
        )  # fmt: skip
        return there

    # -- the tree

    def finish(self) -> Iterator[str]:
        """Gives each entry a way up to the root or the trash, and a name of its own; gives what was done, in words,
        and now and then nothing, so that others can go on."""
        # only renames and deletions of it are on record, and no store has it
        self._db.execute("DELETE FROM copy WHERE entry IN (SELECT id FROM node WHERE version = 0)")
        self._db.execute("DELETE FROM node WHERE version = 0")
        # one that was written over is a file, though no record says so yet; what is older than a link isn't it
        self._db.execute(
            "DELETE FROM link WHERE NOT EXISTS "
            "(SELECT 1 FROM node n WHERE n.id = link.entry AND n.version = link.version)"
        )
        self._db.execute("DELETE FROM copy WHERE entry IN (SELECT entry FROM link)")
        yield ""
        self._db.execute("CREATE INDEX node_name ON node (parent, name)")
        self._db.execute(
            "INSERT INTO reach WITH RECURSIVE r (id) AS (SELECT ? UNION ALL SELECT ? UNION ALL "
            "SELECT n.id FROM node n JOIN r ON n.parent = r.id WHERE n.dir = 1) SELECT id FROM r",
            (ROOT, TRASH),
        )
        self._db.execute(
            "INSERT INTO lost (id) SELECT id FROM node WHERE parent NOT IN (SELECT id FROM reach) "
            "ORDER BY told DESC, created, id"
        )
        yield ""
        mark = 0
        query = "SELECT l.n, n.id, n.path, n.dir FROM lost l JOIN node n ON n.id = l.id WHERE l.n > ? ORDER BY l.n"
        while rows := self._db.execute(f"{query} LIMIT ?", (mark, PAGE)).fetchall():
            for _, entry_id, path, directory in rows:
                if not self._has_way(entry_id):
                    above, _, name = path.rpartition("/")
                    change = "UPDATE node SET parent = ?, name = ? WHERE id = ?"
                    self._db.execute(change, (self._directory(above), name or entry_id, entry_id))
                if directory:
                    self._db.execute("INSERT OR IGNORE INTO reach VALUES (?)", (entry_id,))
            mark = rows[-1][0]
            yield ""
        yield from self._names()

    def _has_way(self, entry_id: str) -> bool:
        seen = {entry_id}
        (above,) = self._one("SELECT parent FROM node WHERE id = ?", entry_id)
        while self._one("SELECT 1 FROM reach WHERE id = ?", above) is None:
            row = None if above in seen else self._one("SELECT parent FROM node WHERE id = ? AND dir = 1", above)
            if row is None:
                return False
            seen.add(above)
            above = row[0]
        return True

    def _directory(self, path: str) -> str:
        """Id of a directory by path, made if no record speaks of it."""
        if path in self._directories:
            return self._directories[path]
        here, way = ROOT, ""
        query = "SELECT id FROM node WHERE parent = ? AND name = ? AND dir = 1 ORDER BY told DESC, created, id LIMIT 1"
        for part in path.split("/") if path else []:
            way = f"{way}/{part}"
            row = self._one(query, here, part)
            below = row[0] if row else new_id()
            if row is None:
                self.put(Entry(below, here, part, "Directory", created=self._now), way[1:], told=False)
                self._db.execute("INSERT INTO reach VALUES (?)", (below,))
            here = below
        if len(self._directories) >= KEPT:
            self._directories.clear()
        self._directories[path] = here
        return here

    def _names(self) -> Iterator[str]:
        """Two things of one name: the second gets its id behind it."""
        twice = "SELECT parent, name FROM node WHERE parent <> ? GROUP BY parent, name HAVING count(*) > 1 LIMIT ?"
        same = "SELECT id FROM node WHERE parent = ? AND name = ? ORDER BY told DESC, created, id"
        while rows := self._db.execute(twice, (TRASH, PAGE)).fetchall():
            for parent, name in rows:
                for (entry_id,) in self._db.execute(same, (parent, name)).fetchall()[1:]:
                    self._db.execute("UPDATE node SET name = ? WHERE id = ?", (f"{name}.~{entry_id}", entry_id))
                    yield f"two things are called '{name}': one is now '{name}.~{entry_id}'"
        yield ""

    def sums(self) -> tuple[int, int, int, int]:
        """Files, directories, copies, and of these those that are older than others."""
        files, directories = self._one("SELECT coalesce(sum(dir = 0), 0), coalesce(sum(dir), 0) FROM node")
        copies, stale = self._one(
            f"SELECT count(*), coalesce(sum({_STALE}), 0) FROM copy c JOIN node n ON n.id = c.entry"  # noqa: S608
        )
        (links,) = self._one("SELECT count(*) FROM link")
        return files, directories, copies + links, stale

    def entries(self) -> Iterator[Entry]:
        """All entries."""
        for row in self._db.execute(f"SELECT {_NODE} FROM node ORDER BY id"):  # noqa: S608
            yield _entry(row)

    def copies(self) -> Iterator[Copy]:
        """All copies with their states."""
        query = (
            f"SELECT c.entry, c.store, c.key, c.version, CASE WHEN {_STALE} THEN 'Stale' ELSE 'Whole' END, "  # noqa: S608
            "c.tag, c.size FROM copy c JOIN node n ON n.id = c.entry ORDER BY c.entry, c.store"
        )
        for entry_id, store, key, version, state, tag, size in self._db.execute(query):
            yield Copy(entry_id, store, key, version, state, tag, size, self._now)
        for entry_id, store, key, version, tag, size in self._db.execute("SELECT * FROM link ORDER BY entry"):
            yield Copy(entry_id, store, key, version, "Linked", tag, size, self._now)

    def trashed(self) -> Iterator[Trashed]:
        """What is in the trash as deleted."""
        query = f"SELECT {_NODE}, thrown, at, origin FROM node WHERE thrown IS NOT NULL ORDER BY id"  # noqa: S608
        for row in self._db.execute(query):
            yield Trashed(_entry(row[:-3]), *row[-3:])

    def fresh(self) -> Iterator[str]:
        """Ids of entries that no record speaks of."""
        for (entry_id,) in self._db.execute("SELECT id FROM node WHERE told = 0 ORDER BY id"):
            yield entry_id


def _row(record: Record) -> tuple[int, int, str]:
    return record.seq, record.at, json.dumps(record.body, ensure_ascii=False)


def _entry(row: tuple[Any, ...]) -> Entry:
    id_, parent, name, directory, size, mtime, sha256, version, type_, tags, created = row
    kind: Any = "Directory" if directory else "File"
    return Entry(id_, parent, name, kind, size, mtime, sha256, version, type_, json.loads(tags), created)
