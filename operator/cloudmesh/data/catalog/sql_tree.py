"""Changes of the tree in a catalogue in SQL: functions of a connection, each within the caller's transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from cloudmesh.data.catalog import records
from cloudmesh.data.catalog import sql_read as read
from cloudmesh.data.catalog.ports import ANY, Check
from cloudmesh.data.catalog.sql_read import DB, Row, dumps, parts_of, to_entry
from cloudmesh.data.errors import Changed, Exists, InvalidName, Missing
from cloudmesh.data.model import ROOT, TRASH, Entry
from cloudmesh.engine.errors import Conflict

VISIT: Final = 250
"""Rows that one transaction in the background looks at after a directory moved; who changes something waits for it."""
AT_ONCE: Final = 100
"""Rows that are looked at in the move itself, for which somebody waits."""


def new_id() -> str:
    """Id of a new entry."""
    while True:
        found = secrets.token_hex(8)
        if found not in (ROOT, TRASH):
            return found


def record(db: DB, now: int, body: Mapping[str, Any]) -> None:
    """Keeps a line for the journal."""
    db.execute("INSERT INTO journal (at, body) VALUES (?, ?)", (now, line(body)))


def line(body: Mapping[str, Any]) -> str:
    """Text of a record."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


INSERT: Final = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)"


def row_of(entry: Entry, *, live: bool, due: int, pending: bool | None = None) -> Row:
    """Values of a new row; one that is due has work pending, unless it is told otherwise."""
    return (
        entry.id,
        entry.parent,
        entry.name,
        entry.kind == "Directory",
        entry.size,
        entry.mtime,
        entry.sha256,
        entry.version,
        entry.content_type,
        dumps(entry.tags),
        entry.created,
        live,
        due,
        due > 0 if pending is None else pending,
    )


def insert(db: DB, entry: Entry, *, live: bool, due: int, pending: bool | None = None) -> None:
    """Writes a new row, see `row_of`."""
    db.execute(INSERT, row_of(entry, live=live, due=due, pending=pending))


def rouse(db: DB, entry_id: str, due: int, *, pending: bool = True) -> None:
    """Makes it due at a time, or before if it is already."""
    db.execute(
        "UPDATE entry SET due = CASE WHEN due = 0 THEN ?1 ELSE min(due, ?1) END, pending = max(pending, ?3), "
        "stamp = stamp + 1 WHERE id = ?2",
        (due, entry_id, pending),
    )


def need_free(db: DB, parent: str, name: str, path: str) -> None:
    """Refuses a name that is taken, or that a file is being written to.

    Raises:
        Exists: Something has it.
        Conflict: An intent has it.
    """
    if read.child_id(db, parent, name) is not None:
        raise Exists(f"there is already something at '/{path}'")
    need_unwritten(db, parent, name, path)


def need_unwritten(db: DB, parent: str, name: str, path: str) -> None:
    """Refuses a name that a new file is being written to. An intent that nobody works on any more lets go of it: what
    its stores hold is taken back when they answer.

    Raises:
        Conflict: An open intent holds it.
    """
    db.execute("UPDATE intent SET directory = '' WHERE directory = ? AND name = ? AND until = 0", (parent, name))
    holding = "SELECT 1 FROM intent WHERE directory <> '' AND directory = ? AND name = ?"
    if db.execute(holding, (parent, name)).fetchone():
        raise Conflict(f"'/{path}' is being written")


def make_directories(db: DB, now: int, here: str, parts: Sequence[str], prefix: str) -> str:
    """Id of the directory below a live one, missing ones made.

    Args:
        db: Connection.
        now: Time.
        here: Id of the directory above.
        parts: Names.
        prefix: Path of the directory above.
    """
    for part in parts:
        path = f"{prefix}/{part}" if prefix else part
        row = read.find(db, here, part)
        if row is None:
            here = _make(db, now, here, part, path).id
        elif not row[3]:
            raise InvalidName(f"'/{path}' is a file, nothing can lie below it")
        else:
            here = row[0]
        prefix = path
    return here


def _make(db: DB, now: int, parent: str, name: str, path: str) -> Entry:
    need_free(db, parent, name, path)
    made = Entry(new_id(), parent, name, "Directory", created=now)
    insert(db, made, live=True, due=0)
    record(db, now, records.mkdir(made, path))
    return made


def _parent(db: DB, path: str) -> tuple[str, str]:
    """Directory and name of a path that isn't the root."""
    above, _, name = path.rpartition("/")
    found = read.entry(db, above)
    if found is None:
        raise Missing(f"there is no directory '/{above}'")
    if found.kind != "Directory":
        raise InvalidName(f"'/{above}' is a file, nothing can lie below it")
    return found.id, name


def mkdir(db: DB, now: int, path: str, parents: bool) -> Entry:
    """Makes a directory."""
    parts = parts_of(path)
    there = read.entry(db, path)
    if there is not None:
        if parents and there.kind == "Directory":
            return there
        raise Exists(f"there is already something at '/{path}'")
    if parents:
        made = read.find_id(db, make_directories(db, now, ROOT, parts, ""))
        assert made is not None  # noqa: S101 - just made
        return to_entry(made)
    parent, name = _parent(db, path)
    return _make(db, now, parent, name, path)


def check_version(row: Row, if_version: int, path: str) -> None:
    """Refuses another version.

    Raises:
        Changed: It is of another one.
    """
    if if_version != ANY and row[7] != if_version:
        raise Changed(f"'/{path}' is of version {row[7]}, not {if_version}")


def move(db: DB, now: int, source: str, target: str, overwrite: bool, if_version: int) -> Entry:
    """Renames."""
    found = read.entry(db, source)
    if found is None:
        raise Missing(f"there is nothing at '/{source}'")
    if not source or not target:
        raise InvalidName("the root can't be moved or replaced")
    row = read.find_id(db, found.id)
    assert row is not None  # noqa: S101 - just read
    check_version(row, if_version, source)
    if source == target:
        return found
    parts_of(target)
    if found.kind == "Directory" and target.startswith(f"{source}/"):
        raise InvalidName(f"'/{source}' can't be moved into itself")
    parent, name = _parent(db, target)
    there = read.find(db, parent, name)
    if there is not None:
        if not overwrite:
            raise Exists(f"there is already something at '/{target}'")
        if there[3] and read.child_id_any(db, there[0]):
            raise Exists(f"the directory '/{target}' isn't empty")
        _trash(db, now, to_entry(there), target)
    need_free(db, parent, name, target)
    db.execute("UPDATE entry SET parent = ?, name = ? WHERE id = ?", (parent, name, found.id))
    moved = replace(found, parent=parent, name=name)
    record(db, now, records.moved(moved, target, source))
    _moved(db, now, found)
    return moved


def delete(db: DB, now: int, path: str, recursive: bool, if_version: int) -> Entry | None:
    """Moves to the trash."""
    found = read.entry(db, path)
    if found is None:
        if if_version > 0:
            raise Changed(f"there is nothing at '/{path}', and version {if_version} was expected")
        return None
    if not path:
        raise InvalidName("the root can't be deleted")
    row = read.find_id(db, found.id)
    assert row is not None  # noqa: S101 - just read
    check_version(row, if_version, path)
    if found.kind == "Directory" and not recursive and read.child_id_any(db, found.id):
        raise Exists(f"the directory '/{path}' isn't empty")
    return _trash(db, now, found, path)


def _trash(db: DB, now: int, found: Entry, path: str) -> Entry:
    db.execute("INSERT INTO trash VALUES (?, ?, ?, '')", (found.id, path, now))
    db.execute("UPDATE entry SET parent = ?, name = id WHERE id = ?", (TRASH, found.id))
    record(db, now, records.deleted(found, path))
    _moved(db, now, found)
    # the mover ends directories too: it has to see the deleted one itself
    rouse(db, found.id, now)
    after = read.find_id(db, found.id)
    assert after is not None  # noqa: S101 - just written
    return read.renamed(db, to_entry(after))


def restore(db: DB, now: int, entry_id: str, path: str, check: Check | None = None) -> Entry:
    """Brings back from the trash."""
    if check is not None:
        check(read.totals(db))
    row = db.execute("SELECT path FROM trash WHERE id = ? AND origin = ''", (entry_id,)).fetchone()
    if row is None:
        raise Missing(f"there is no '{entry_id}' in the trash")
    target = path or row[0]
    *above, name = parts_of(target)
    parent = make_directories(db, now, ROOT, above, "")
    need_free(db, parent, name, target)
    db.execute("DELETE FROM trash WHERE id = ?", (entry_id,))
    db.execute("UPDATE entry SET parent = ?, name = ? WHERE id = ?", (parent, name, entry_id))
    after = read.find_id(db, entry_id)
    assert after is not None  # noqa: S101 - just written
    back = to_entry(after)
    record(db, now, records.restored(back, target))
    if back.kind == "Directory":
        # what made the mover look at it was its deletion
        db.execute("UPDATE entry SET due = 0, pending = 0, stamp = stamp + 1 WHERE id = ?", (entry_id,))
    _moved(db, now, back)
    return back


def set_tags(db: DB, now: int, path: str, tags: Mapping[str, str]) -> Entry:
    """Replaces tags."""
    found = read.entry(db, path)
    if found is None:
        raise Missing(f"there is nothing at '/{path}'")
    db.execute("UPDATE entry SET tags = ? WHERE id = ?", (dumps(tags), found.id))
    record(db, now, records.tagged(replace(found, tags=tags), path))
    if found.kind == "File":
        rouse(db, found.id, now)
    row = read.find_id(db, found.id)
    assert row is not None  # noqa: S101 - just written
    return to_entry(row)


# -- what follows a move


def _moved(db: DB, now: int, found: Entry) -> None:
    """The mover looks at all files that moved, and the sums follow: at once where they are few."""
    if found.kind == "File":
        db.execute("UPDATE entry SET live = ? WHERE id = ?", (not read.trashed(db, found.id), found.id))
        rouse(db, found.id, now)
        return
    db.execute("UPDATE entry SET live = ? WHERE id = ?", (not read.trashed(db, found.id), found.id))
    begin_visit(db, now, found.id)


def begin_visit(db: DB, now: int, directory: str) -> None:
    """All files below a directory are to be looked at: a few at once, the others by `visit` in the background."""
    db.execute("INSERT INTO visit (dir, mark) VALUES (?, '')", (directory,))
    # the newest first: earlier moves of large directories must not keep this one from being done at once
    visit(db, now, newest=True)


def visit(db: DB, now: int, *, newest: bool = False) -> bool:
    """Looks at up to VISIT entries below directories that moved or are over; gives whether more is left. With `newest`
    fewer, those of the last directory first.

    Whether they are in the trash is asked anew at each step, so whatever happens between two steps, the last is right.
    """
    left = min(VISIT, AT_ONCE) if newest else VISIT
    order = "DESC" if newest else "ASC"
    while left > 0:
        step = db.execute(f"SELECT n, dir, mark FROM visit ORDER BY n {order} LIMIT 1").fetchone()  # noqa: S608
        if step is None:
            return False
        n, directory, mark = step
        rows = db.execute(
            "SELECT id, name, dir FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?",
            (directory, mark, left),
        ).fetchall()
        if rows:
            live = not read.trashed(db, directory)
            db.execute(
                "UPDATE entry SET live = ?1, due = CASE WHEN due = 0 THEN ?2 ELSE min(due, ?2) END, pending = 1, "
                "stamp = stamp + 1 WHERE parent = ?3 AND name > ?4 AND name <= ?5 AND dir = 0",
                (live, now, directory, mark, rows[-1][1]),
            )
            for entry_id, _, is_directory in rows:
                if is_directory:
                    db.execute("UPDATE entry SET live = ? WHERE id = ?", (live, entry_id))
                    db.execute("INSERT INTO visit (dir, mark) VALUES (?, '')", (entry_id,))
        if len(rows) < left:
            db.execute("DELETE FROM visit WHERE n = ?", (n,))
        else:
            db.execute("UPDATE visit SET mark = ? WHERE n = ?", (rows[-1][1], n))
        left -= len(rows) + 1
    return db.execute("SELECT 1 FROM visit LIMIT 1").fetchone() is not None


def left(db: DB) -> bool:
    """Whether something is left to do in the background."""
    return bool(db.execute("SELECT 1 FROM visit UNION ALL SELECT 1 FROM waking LIMIT 1").fetchone())


def wakings(db: DB) -> list[int]:
    """Calls of `wake` that aren't done."""
    return [n for (n,) in db.execute("SELECT n FROM waking ORDER BY n").fetchall()]


def begin_wake(db: DB, store: str, due: int) -> int:
    """Keeps a call of `wake`; one that says no more than this one is over."""
    db.execute("DELETE FROM waking WHERE store = ? AND due >= ?", (store, due))
    number: int = db.execute(
        "INSERT INTO waking (store, mark, due) VALUES (?, '', ?) RETURNING n", (store, due)
    ).fetchone()[0]
    return number


def wake(db: DB, n: int) -> tuple[int, bool]:
    """Makes up to VISIT files due for a call of `wake`; gives how many, and whether more is left."""
    row = db.execute("SELECT store, mark, due FROM waking WHERE n = ?", (n,)).fetchone()
    if row is None:
        return 0, False
    store, mark, due = row
    if store:
        last = "SELECT key FROM copy WHERE store = ? AND key > ? ORDER BY key LIMIT 1 OFFSET ?"
        end = db.execute(last, (store, mark, VISIT - 1)).fetchone()
        which, values = "id IN (SELECT entry FROM copy WHERE store = ?2 AND key > ?3", (due, store, mark)
        bound = " AND key <= ?4)" if end else ")"
    else:
        end = db.execute("SELECT id FROM entry WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (mark, VISIT - 1)).fetchone()
        which, values = "?2 = '' AND id > ?3", (due, store, mark)
        bound = " AND id <= ?4" if end else ""
    changed = db.execute(
        "UPDATE entry SET due = CASE WHEN due = 0 THEN ?1 ELSE min(due, ?1) END, pending = 1, stamp = stamp + 1 "  # noqa: S608
        f"WHERE {which}{bound} AND dir = 0",
        (*values, *(end or ())),
    ).rowcount
    if end is None:
        db.execute("DELETE FROM waking WHERE n = ?", (n,))
        return changed, False
    db.execute("UPDATE waking SET mark = ? WHERE n = ?", (end[0], n))
    return changed, True


def integrity(db: DB) -> list[str]:
    """What is wrong with the sums and the tree, by counting everything: for tests and `fsck`, once no visit is left."""
    wrong = []
    kept = read.totals(db)
    counted = db.execute(
        "SELECT coalesce(sum(live * (1 - dir)), 0), coalesce(sum(live * dir), 0), coalesce(sum(live * size), 0), "
        "coalesce(sum(pending), 0) FROM entry"
    ).fetchone()
    if counted != (kept.files, kept.directories, kept.bytes, kept.pending):
        wrong.append(f"sums {kept} but counted {counted}")
    stored = db.execute("SELECT store, state, copies, bytes FROM held WHERE copies <> 0 OR bytes <> 0 ORDER BY 1, 2")
    really = db.execute("SELECT store, state, count(*), sum(size) FROM copy GROUP BY 1, 2 ORDER BY 1, 2")
    if (by_sums := stored.fetchall()) != (by_count := really.fetchall()):
        wrong.append(f"copies by sums {by_sums} but counted {by_count}")
    reached = (
        "WITH RECURSIVE below (id, live, own) AS (SELECT id, 0, live FROM entry WHERE id = ?1 UNION ALL "
        "SELECT e.id, 1, e.live FROM entry e JOIN below b ON e.parent = b.id WHERE e.parent <> ?2), "
        "gone (id, live) AS (SELECT id, live FROM entry WHERE parent = ?2 UNION ALL "
        "SELECT e.id, e.live FROM entry e JOIN gone g ON e.parent = g.id) "
    )
    queries = {
        "entries that nothing leads to": "SELECT id FROM entry WHERE id NOT IN (SELECT id FROM below) "
        "AND id NOT IN (SELECT id FROM gone)",
        "entries of the tree that aren't live": "SELECT id FROM below WHERE live <> own",
        "live entries of the trash": "SELECT id FROM gone WHERE live = 1",
        "copies without entry": "SELECT entry FROM copy WHERE entry NOT IN (SELECT id FROM entry)",
        "things below a file": "SELECT c.id FROM entry c JOIN entry p ON p.id = c.parent WHERE p.dir = 0",
        "trash without entry": "SELECT id FROM trash WHERE id NOT IN (SELECT id FROM entry WHERE parent = ?2)",
        "entries without trash": "SELECT id FROM entry WHERE parent = ?2 AND id NOT IN (SELECT id FROM trash)",
        "targets without intent": "SELECT intent FROM target WHERE intent NOT IN (SELECT id FROM intent)",
        "intents whose entry is gone": "SELECT id FROM intent WHERE directory = '' AND kind <> 'Delete' "
        "AND until > 0 AND entry NOT IN (SELECT id FROM entry)",
    }
    for words, query in queries.items():
        found = db.execute(reached + query, (ROOT, TRASH)).fetchall()
        if found:
            wrong.append(f"{words}: {[row[0] for row in found[:5]]}")
    return wrong
