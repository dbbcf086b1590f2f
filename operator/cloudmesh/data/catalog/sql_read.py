"""What is read from a catalogue in SQL: functions of a connection, all within the caller's transaction."""

from __future__ import annotations

import fnmatch
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, Protocol

from cloudmesh.data.catalog.ports import Located, Query, Record
from cloudmesh.data.errors import InvalidName, Missing
from cloudmesh.data.model import OVER, ROOT, TRASH, Copy, Entry, Intent, Kind, Target, Totals, Trashed, Work

ENTRY: Final = "id, parent, name, dir, size, mtime, sha256, version, content_type, tags, created"
E_ENTRY: Final = "e." + ENTRY.replace(", ", ", e.")
COPY: Final = "entry, store, key, version, state, tag, size, verified, scrubbed, error"
C_COPY: Final = "c." + COPY.replace(", ", ", c.")
INTENT: Final = "id, kind, entry, parent, name, version, until, sha256, size, mtime, content_type, tags"

CHUNK: Final = 1000
"""Rows that are read at once where nobody knows how many there are."""
MARKS: Final = 64
"""Values of a list in one statement."""
DEPTH: Final = 8
"""Parts of a path that one statement goes down: SQLite's parser takes some 14."""

Row = tuple[Any, ...]


class DB(Protocol):
    """What these functions need of a connection: statements in the SQL that SQLite and PostgreSQL have in common, with
    `?` or `?1` for values."""

    def execute(self, text: str, values: Any = ..., /) -> Any:
        """Runs a statement; its result has `fetchone`, `fetchall` and `rowcount`, and gives its rows."""

    def executemany(self, text: str, values: Iterable[Any], /) -> Any:
        """Runs it with many values, one after the other."""


def parts_of(path: str) -> list[str]:
    """The parts of a clean path.

    Raises:
        InvalidName: It isn't clean.
    """
    if not path:
        return []
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts:
        raise InvalidName(f"'{path}' isn't a clean path: no empty parts, no '.', no '..'")
    return parts


_MANY: Final = ", ".join("?" * MARKS)


def loads(text: str) -> Mapping[str, str]:
    """Tags of their text."""
    tags: Mapping[str, str] = json.loads(text) if text else {}
    return tags


def dumps(tags: Mapping[str, str]) -> str:
    """Text of tags, the same for the same tags."""
    return json.dumps(dict(tags), ensure_ascii=False, sort_keys=True, separators=(",", ":")) if tags else ""


def to_entry(row: Row) -> Entry:
    """Entry of a row of ENTRY."""
    id_, parent, name, directory, size, mtime, sha256, version, content_type, tags, created = row
    kind: Kind = "Directory" if directory else "File"
    return Entry(id_, parent, name, kind, size, mtime, sha256, version, content_type, loads(tags), created)


def to_copy(row: Row) -> Copy:
    """Copy of a row of COPY."""
    return Copy(*row)


def find(db: DB, parent: str, name: str) -> Row | None:
    """Row of a directory's entry."""
    row: Row | None = db.execute(f"SELECT {ENTRY} FROM entry WHERE parent = ? AND name = ?", (parent, name)).fetchone()  # noqa: S608
    return row


def find_id(db: DB, entry_id: str) -> Row | None:
    """Row of an entry."""
    row: Row | None = db.execute(f"SELECT {ENTRY} FROM entry WHERE id = ?", (entry_id,)).fetchone()  # noqa: S608
    return row


def child_id(db: DB, parent: str, name: str) -> str | None:
    """Id of a directory's entry, by the index alone."""
    row = db.execute("SELECT id FROM entry WHERE parent = ? AND name = ?", (parent, name)).fetchone()
    return row[0] if row else None


def child_id_any(db: DB, parent: str) -> str | None:
    """Id of any entry of a directory."""
    row = db.execute("SELECT id FROM entry WHERE parent = ? LIMIT 1", (parent,)).fetchone()
    return row[0] if row else None


def entry(db: DB, path: str) -> Entry | None:
    """What is at a path: one statement, unless it lies deeper than `DEPTH`."""
    parts = parts_of(path)
    if not parts:
        row = find_id(db, ROOT)
    else:
        parent = ROOT
        for part in parts[:-DEPTH]:
            above = child_id(db, parent, part)
            if above is None:
                return None
            parent = above
        last = parts[-DEPTH:]
        row = db.execute(_down(len(last)), (parent, *last)).fetchone()
    return to_entry(row) if row else None


@lru_cache(maxsize=DEPTH)
def _down(parts: int) -> str:
    """Finds the entry so many names below another one."""
    parent = "?"
    for _ in range(parts - 1):
        parent = f"(SELECT id FROM entry WHERE parent = {parent} AND name = ?)"  # noqa: S608
    return f"SELECT {ENTRY} FROM entry WHERE parent = {parent} AND name = ?"  # noqa: S608


def directory_id(db: DB, path: str) -> str:
    """Id of the directory at a path.

    Raises:
        Missing: There is none.
    """
    found = entry(db, path)
    if found is None or found.kind != "Directory":
        raise Missing(f"there is no directory '/{path}'")
    return found.id


def place(db: DB, entry_id: str) -> tuple[str, str]:
    """Path of an entry, and the trashed thing that it is or lies in; one of both is empty."""
    rows = db.execute(
        "WITH RECURSIVE up (n, id, parent, name) AS (SELECT 1, id, parent, name FROM entry WHERE id = ?1 UNION ALL "
        "SELECT u.n + 1, e.id, e.parent, e.name FROM up u JOIN entry e ON e.id = u.parent) "
        "SELECT id, parent, name FROM up ORDER BY n DESC",
        (entry_id,),
    ).fetchall()
    if rows and rows[0][1] == TRASH:
        return "", rows[0][0]
    if not rows or rows[0][0] != ROOT:
        raise sqlite3.DatabaseError(f"entry {entry_id} has no way up to the root")
    return "/".join(row[2] for row in rows[1:]), ""


def trashed(db: DB, entry_id: str) -> bool:
    """Whether it lies in the trash."""
    return bool(place(db, entry_id)[1])


def renamed(db: DB, found: Entry) -> Entry:
    """An entry, with its own name again if it lies in the trash (where the row has its id)."""
    if found.parent != TRASH:
        return found
    (path,) = db.execute("SELECT path FROM trash WHERE id = ?", (found.id,)).fetchone()
    return replace(found, name=path.rpartition("/")[2])


def copies(db: DB, entry_id: str) -> tuple[Copy, ...]:
    """Copies of an entry, by store."""
    rows = db.execute(f"SELECT {COPY} FROM copy WHERE entry = ? ORDER BY store", (entry_id,))  # noqa: S608
    return tuple(map(to_copy, rows))


def copies_of(db: DB, entries: Sequence[str]) -> Mapping[str, tuple[Copy, ...]]:
    """Copies of many entries, by store; entries without any are left out."""
    found: dict[str, list[Copy]] = {}
    for begin in range(0, len(entries), MARKS):
        # always as many, so that the statement is always the same
        ids = [*entries[begin : begin + MARKS], *[""] * (begin + MARKS - len(entries))]
        rows = db.execute(f"SELECT {COPY} FROM copy WHERE entry IN ({_MANY}) ORDER BY entry, store", ids)  # noqa: S608
        for row in rows:
            found.setdefault(row[0], []).append(to_copy(row))
    return {entry_id: tuple(held) for entry_id, held in found.items()}


def entries_of(db: DB, entries: Sequence[str]) -> list[Row]:
    """Rows of up to MARKS entries in their order; those that aren't there are left out."""
    ids = [*entries, *[""] * (MARKS - len(entries))]
    rows = {row[0]: row for row in db.execute(f"SELECT {ENTRY} FROM entry WHERE id IN ({_MANY})", ids)}  # noqa: S608
    return [rows[entry_id] for entry_id in entries if entry_id in rows]


def by_id(db: DB, entry_id: str) -> Located | None:
    """An entry with path and copies."""
    row = find_id(db, entry_id)
    if row is None:
        return None
    return Located(place(db, entry_id)[0], renamed(db, to_entry(row)), copies(db, entry_id))


def at_key(db: DB, store: str, key: str) -> Copy | None:
    """The copy at a key; one that an open intent will put there is `Writing`."""
    row = db.execute(f"SELECT {COPY} FROM copy WHERE store = ? AND key = ?", (store, key)).fetchone()  # noqa: S608
    if row:
        return to_copy(row)
    row = db.execute(
        "SELECT i.entry, i.version, t.expect FROM target t JOIN intent i ON i.id = t.intent "
        "WHERE t.store = ? AND t.key = ? AND i.kind <> 'Delete'",
        (store, key),
    ).fetchone()
    return Copy(row[0], store, key, row[1], "Writing", row[2]) if row else None


def moving(db: DB, entry_id: str, store: str) -> bool:
    """Whether a copy of an entry is made or removed in a store just now."""
    text = (
        "SELECT 1 FROM intent i JOIN target t ON t.intent = i.id "
        "WHERE i.entry = ? AND t.store = ? AND i.kind IN ('Copy', 'Delete') AND i.until > 0"
    )
    return db.execute(text, (entry_id, store)).fetchone() is not None


def children(db: DB, path: str, after: str, limit: int, with_copies: bool) -> list[Located]:
    """Entries of a directory by name."""
    parent = directory_id(db, path)
    prefix = f"{path}/" if path else ""
    rows = db.execute(
        f"SELECT {ENTRY} FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?",  # noqa: S608
        (parent, after, limit),
    ).fetchall()
    held: dict[str, list[Copy]] = {}
    if with_copies and rows:
        found = db.execute(
            f"SELECT {C_COPY} FROM entry e JOIN copy c ON c.entry = e.id "  # noqa: S608
            "WHERE e.parent = ? AND e.name > ? AND e.name <= ? ORDER BY e.name, c.store",
            (parent, after, rows[-1][2]),
        )
        for row in found:
            held.setdefault(row[0], []).append(to_copy(row))
    return [Located(prefix + row[2], to_entry(row), tuple(held.get(row[0], ()))) for row in rows]


def _rows(db: DB, parent: str, after: str, chunk: int) -> Iterator[Row]:
    """Rows of a directory by name, read as they are asked for."""
    while True:
        rows = db.execute(
            f"SELECT {ENTRY} FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?",  # noqa: S608
            (parent, after, chunk),
        ).fetchall()
        yield from rows
        if len(rows) < chunk:
            return
        after = rows[-1][2]


def _below(db: DB, path: str, after: str, chunk: int = CHUNK) -> Iterator[tuple[str, Row]]:
    """Everything below a directory, in the order of the paths' parts."""
    here = directory_id(db, path)
    prefix = f"{path}/" if path else ""
    levels: list[tuple[str, Iterator[Row]]] = []
    top = parts_of(path)
    mark = parts_of(after)
    if mark[: len(top)] == top:
        # go down along the mark: what comes after it is what follows it on each level, the deepest first
        for part in mark[len(top) :]:
            levels.append((prefix, _rows(db, here, part, chunk)))
            row = find(db, here, part)
            if row is None or not row[3]:
                break
            here, prefix = row[0], f"{prefix}{part}/"
        else:
            levels.append((prefix, _rows(db, here, "", chunk)))
    elif mark < top:
        levels.append((prefix, _rows(db, here, "", chunk)))
    while levels:
        prefix, rows = levels[-1]
        row = next(rows, None)
        if row is None:
            levels.pop()
            continue
        yield prefix + row[2], row
        if row[3]:
            levels.append((f"{prefix}{row[2]}/", _rows(db, row[0], "", chunk)))


def walk(db: DB, path: str, after: str, limit: int, with_copies: bool) -> list[Located]:
    """Everything below a directory in the order of the paths' parts."""
    found: list[tuple[str, Row]] = []
    if limit > 0:
        for place in _below(db, path, after, min(limit, CHUNK)):
            found.append(place)
            if len(found) >= limit:
                break
    held = copies_of(db, [row[0] for _, row in found if not row[3]]) if with_copies else {}
    return [Located(where, to_entry(row), held.get(row[0], ())) for where, row in found]


def search(db: DB, query: Query, after: str, limit: int) -> list[Located]:
    """What matches a query, in the order of `walk`."""
    # its translation never goes back over a star, so that no pattern takes for ever
    pattern = re.compile(fnmatch.translate(query.name.casefold().replace("[", "[[]")))
    found: list[Located] = []
    if limit <= 0:
        return found
    for where, row in _below(db, query.under, after):
        size, mtime = row[4], row[5]
        if (
            size < query.min_size
            or (query.max_size is not None and size > query.max_size)
            or (query.newer and mtime <= query.newer)
            or (query.older and mtime >= query.older)
            or not pattern.fullmatch(row[2].casefold())
        ):
            continue
        if query.tags:
            tags = loads(row[9])
            if any(name not in tags or (value and tags[name] != value) for name, value in query.tags.items()):
                continue
        found.append(Located(where, to_entry(row)))
        if len(found) >= limit:
            break
    return found


def to_trashed(row: Row) -> Trashed:
    """What lies in the trash, of a row of path, time, origin and ENTRY."""
    path, at, origin, *rest = row
    return Trashed(replace(to_entry(tuple(rest)), name=path.rpartition("/")[2]), path, at, origin)


def trash(db: DB, after: str, limit: int, with_versions: bool) -> list[Trashed]:
    """What was deleted, by id."""
    rows = db.execute(
        f"SELECT t.path, t.at, t.origin, {E_ENTRY} FROM trash t JOIN entry e ON e.id = t.id "  # noqa: S608
        "WHERE t.id > ?1 AND (?3 = 1 OR t.origin = '') ORDER BY t.id LIMIT ?2",
        (after, limit, with_versions),
    )
    return [to_trashed(row) for row in rows]


def thrown(db: DB, entry_id: str) -> Trashed | None:
    """One thing that was deleted or replaced."""
    row = db.execute(
        f"SELECT t.path, t.at, t.origin, {E_ENTRY} FROM trash t JOIN entry e ON e.id = t.id WHERE t.id = ?",  # noqa: S608
        (entry_id,),
    ).fetchone()
    return to_trashed(row) if row else None


def versions(db: DB, entry_id: str, over: bool) -> list[Trashed]:
    """Older contents of a file, the newest first."""
    rows = db.execute(
        f"SELECT t.path, t.at, t.origin, {E_ENTRY} FROM trash t JOIN entry e ON e.id = t.id "  # noqa: S608
        "WHERE t.origin = ? AND t.origin <> '' AND t.at > ? ORDER BY e.version DESC, e.id",
        (entry_id, 0 if over else OVER),
    )
    return [to_trashed(row) for row in rows]


def held(db: DB, store: str, after: str, limit: int) -> list[Copy]:
    """Copies on record in a store, by key."""
    rows = db.execute(
        f"SELECT {COPY} FROM copy WHERE store = ? AND key > ? ORDER BY key LIMIT ?",  # noqa: S608
        (store, after, limit),
    )
    return [to_copy(row) for row in rows]


def totals(db: DB) -> Totals:
    """The sums."""
    # before `held`: who empties the tables locks them in that order too
    left = "SELECT (SELECT count(*) FROM (SELECT 1 FROM visit LIMIT 1) v), "
    left += "(SELECT count(*) FROM (SELECT 1 FROM waking LIMIT 1) w)"
    moving, waking = db.execute(left).fetchone()
    files, directories, size, pending = db.execute("SELECT files, directories, bytes, pending FROM sums").fetchone()
    stores: dict[str, tuple[int, int]] = {}
    states: dict[str, int] = {}
    held_by: dict[str, int] = {}
    for store, state, number, held in db.execute("SELECT store, state, copies, bytes FROM held WHERE copies > 0"):
        held_by[store] = held_by.get(store, 0) + number
        if state == "Whole":
            stores[store] = (number, held)
        else:
            states[state] = states.get(state, 0) + number
    return Totals(files, directories, size, stores, pending, states, held_by, bool(moving), bool(moving or waking))


def weigh(db: DB, entry_id: str) -> tuple[int, int]:
    """Files at and below an entry, and their bytes."""
    files, size = db.execute(
        "WITH RECURSIVE below (id) AS (SELECT id FROM entry WHERE id = ? UNION ALL "
        "SELECT e.id FROM entry e JOIN below b ON e.parent = b.id) "
        "SELECT count(*), coalesce(sum(size), 0) FROM entry WHERE dir = 0 AND id IN (SELECT id FROM below)",
        (entry_id,),
    ).fetchone()
    return int(files), int(size)


def work(db: DB, now: int, limit: int) -> list[Work]:
    """What is due, the longest waiting first."""
    rows = db.execute(
        f"SELECT due, stamp, {ENTRY} FROM entry WHERE due > 0 AND due <= ? ORDER BY due, id LIMIT ?",  # noqa: S608
        (now, limit),
    ).fetchall()
    return to_work(db, rows)


def to_work(db: DB, rows: Sequence[Row]) -> list[Work]:
    """What is due, of rows of due, stamp and ENTRY."""
    found, held_by = [], copies_of(db, [row[2] for row in rows])
    for due, stamp, *row in rows:
        path, thing = place(db, row[0])
        lies = "SELECT at, origin FROM trash WHERE id = ?"
        at, origin = db.execute(lies, (thing,)).fetchone() if thing else (0, "")
        found.append(Work(renamed(db, to_entry(tuple(row))), path, held_by.get(row[0], ()), at, due, stamp, origin))
    return found


def next_due(db: DB) -> int:
    """When the next file is due."""
    due: int | None = db.execute("SELECT min(due) FROM entry WHERE due > 0").fetchone()[0]
    return due or 0


def to_intent(db: DB, row: Row) -> Intent:
    """Intent of a row of INTENT."""
    found = db.execute("SELECT store, key, expect FROM target WHERE intent = ? ORDER BY position", (row[0],))
    targets = tuple(Target(*target) for target in found)
    id_, kind, entry_id, parent, name, version, until, sha256, size, mtime, content_type, tags = row
    return Intent(
        id_, kind, entry_id, parent, name, version, targets, until, sha256, size, mtime, content_type, loads(tags)
    )


def intents(db: DB, until: int) -> list[Intent]:
    """Open intents that nobody works on at a time."""
    rows = db.execute(f"SELECT {INTENT} FROM intent WHERE until <= ? ORDER BY id", (until,)).fetchall()  # noqa: S608
    return [to_intent(db, row) for row in rows]


def unwritten(db: DB, limit: int) -> list[Record]:
    """Journal records that aren't in a store."""
    rows = db.execute("SELECT seq, at, body FROM journal ORDER BY seq LIMIT ?", (limit,))
    return [Record(seq, at, json.loads(body)) for seq, at, body in rows]


def get(db: DB, name: str) -> str:
    """A kept text."""
    row = db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return row[0] if row else ""


def last_seq(db: DB) -> int:
    """Number of the last journal record."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
    return row[0] if row else 0


def rows(db: DB, after: str, limit: int) -> list[Located]:
    """All entries but the root by id, with copies."""
    found = db.execute(
        f"SELECT {ENTRY} FROM entry WHERE id > ? AND id <> ? ORDER BY id LIMIT ?",  # noqa: S608
        (after, ROOT, limit),
    ).fetchall()
    held_by = copies_of(db, [row[0] for row in found])
    return [Located(place(db, row[0])[0], renamed(db, to_entry(row)), held_by.get(row[0], ())) for row in found]
