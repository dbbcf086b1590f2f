"""Older contents of files in a catalogue in SQL, and objects that nobody wants: both lie in the trash; and copies
that change under their entries. Functions of a connection, each within the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cloudmesh.data.catalog import records
from cloudmesh.data.catalog import sql_read as read
from cloudmesh.data.catalog import sql_tree as tree
from cloudmesh.data.catalog.sql_read import DB
from cloudmesh.data.errors import Missing
from cloudmesh.data.model import OVER, TRASH, Copy, Entry, Intent, Trashed
from cloudmesh.engine.errors import Conflict

UPSERT: Final = (
    "INSERT INTO copy VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (entry, store) DO UPDATE SET "
    "key = ?3, version = ?4, state = ?5, tag = ?6, size = ?7, verified = ?8, scrubbed = ?9, error = ?10"
)


def write_copy(db: DB, entry_id: str, copy: Copy) -> None:
    """Writes a copy of an entry that is there.

    Raises:
        Conflict: Another entry's copy lies at its key.
    """
    row = db.execute("SELECT entry FROM copy WHERE store = ? AND key = ?", (copy.store, copy.key)).fetchone()
    if row is not None and row[0] != entry_id:
        raise Conflict(f"'{copy.key}' in store {copy.store} is a copy of another entry, {row[0]}")
    values = (copy.version, copy.state, copy.tag, copy.size, copy.verified, copy.scrubbed, copy.error)
    db.execute(UPSERT, (entry_id, copy.store, copy.key, *values))


def set_aside(db: DB, now: int, old: Entry, intent: Intent, *, keep: bool) -> None:
    """Whole copies of a file's content that a put didn't write over become those of an older version."""
    targets = {target.store: target.key for target in intent.targets}
    copies = [
        copy
        for copy in read.copies(db, old.id)
        if copy.state == "Whole" and copy.version == old.version and targets.get(copy.store) != copy.key
        and (keep or copy.store in targets)
    ]  # fmt: skip
    if copies:
        path, thing = read.place(db, old.id)
        if thing:
            path = db.execute("SELECT path FROM trash WHERE id = ?", (thing,)).fetchone()[0]
        _make(db, now, old, copies, path, now if keep else OVER)
    rouse(db, now, old.id)


def _make(db: DB, now: int, of: Entry, copies: Sequence[Copy], path: str, at: int) -> None:
    """An entry in the trash for copies, those of another entry if they are on record."""
    made = tree.new_id()
    name = path.rpartition("/")[2]
    content = (of.size, of.mtime, of.sha256, of.version, of.content_type, of.tags, of.created)
    tree.insert(db, Entry(made, TRASH, made, "File", *content), live=False, due=now)
    db.execute("INSERT INTO trash VALUES (?, ?, ?, ?)", (made, path, at, of.id))
    for copy in copies:
        change = "UPDATE copy SET entry = ? WHERE entry = ? AND store = ? AND key = ?"
        if not db.execute(change, (made, of.id, copy.store, copy.key)).rowcount:
            write_copy(db, made, copy)
    thing = Trashed(Entry(made, TRASH, name, "File", *content), path, at, of.id)
    tree.record(db, now, records.kept(thing, copies))


def leave(db: DB, now: int, intent: Intent, left: Sequence[Copy]) -> None:
    """Objects of an intent that nobody wants."""
    nobodys = [copy for copy in left if _free(db, copy)]
    if nobodys:
        path = intent.path
        size = max(copy.size for copy in nobodys)
        of = Entry(intent.entry, TRASH, intent.name, "File", size, intent.mtime, version=intent.version, created=now)
        _make(db, now, of, [_deleting(copy) for copy in nobodys], path, OVER)


def _free(db: DB, copy: Copy) -> bool:
    return not db.execute("SELECT 1 FROM copy WHERE store = ? AND key = ?", (copy.store, copy.key)).fetchone()


def _deleting(copy: Copy) -> Copy:
    return Copy(copy.entry, copy.store, copy.key, copy.version, "Deleting", copy.tag, copy.size)


def rouse(db: DB, now: int, entry_id: str) -> None:
    """All older versions of a file are due."""
    db.execute(
        "UPDATE entry SET due = ?1, pending = 1, stamp = stamp + 1 "
        "WHERE id IN (SELECT id FROM trash WHERE origin = ?2 AND origin <> '')",
        (now, entry_id),
    )


def expire(db: DB, now: int, entry_id: str) -> None:
    """What lies in the trash is over."""
    if not db.execute("UPDATE trash SET at = ? WHERE id = ?", (OVER, entry_id)).rowcount:
        raise Missing(f"there is no '{entry_id}' in the trash")
    tree.record(db, now, records.expired(entry_id))
    tree.rouse(db, entry_id, now)
    tree.begin_visit(db, now, entry_id)


def rekey(db: DB, now: int, copy: Copy, was: Copy) -> bool:
    """A copy lies at another key."""
    if was not in read.copies(db, copy.entry):
        return False
    if db.execute("SELECT 1 FROM intent WHERE entry = ? AND kind = 'Put'", (copy.entry,)).fetchone():
        return False
    row = db.execute("SELECT entry FROM copy WHERE store = ? AND key = ?", (copy.store, copy.key)).fetchone()
    if row is not None and row[0] != copy.entry:
        return False
    write_copy(db, copy.entry, copy)
    tree.record(db, now, records.copied(copy))
    return True


def relink(db: DB, now: int, copy: Copy, was: Copy, mtime: int) -> bool:
    """A linked object has another content."""
    row = read.find_id(db, copy.entry)
    if row is None or was not in read.copies(db, copy.entry):
        return False
    if db.execute("SELECT 1 FROM intent WHERE entry = ? AND kind = 'Put'", (copy.entry,)).fetchone():
        return False
    # no version of a write that failed may ever mean another content
    (most,) = db.execute(
        "SELECT max(version) FROM (SELECT version FROM entry WHERE id = ?1 UNION ALL "
        "SELECT version FROM copy WHERE entry = ?1 UNION ALL "
        "SELECT e.version FROM trash t JOIN entry e ON e.id = t.id WHERE t.origin = ?1 AND t.origin <> '') v",
        (copy.entry,),
    ).fetchone()
    db.execute(
        "UPDATE entry SET size = ?, mtime = ?, sha256 = '', version = ? WHERE id = ?",
        (copy.size, mtime, most + 1, copy.entry),
    )
    changed = replace(copy, version=most + 1)
    write_copy(db, copy.entry, changed)
    tree.rouse(db, copy.entry, now)
    entry = read.renamed(db, read.to_entry(read.find_id(db, copy.entry) or ()))
    tree.record(db, now, records.put(entry, read.place(db, copy.entry)[0], [changed]))
    return True
