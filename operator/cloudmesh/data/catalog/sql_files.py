"""Changes of files in a catalogue in SQL: intents, copies, the end of what was deleted. Functions of a connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from cloudmesh.data.catalog import records
from cloudmesh.data.catalog import sql_aside as aside
from cloudmesh.data.catalog import sql_read as read
from cloudmesh.data.catalog import sql_tree as tree
from cloudmesh.data.catalog.ports import ANY, Check
from cloudmesh.data.catalog.sql_read import DB, Row, dumps, parts_of, to_copy, to_entry
from cloudmesh.data.errors import Changed, Exists, InvalidName, Missing
from cloudmesh.data.model import MICROS, OVER, ROOT, TRASH, Copy, Entry, Intent, Target, link_of
from cloudmesh.engine.errors import Conflict

INSERT_COPY: Final = "INSERT INTO copy VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
KEPT: Final = 20_000
"""Paths of directories that a load keeps in mind at most."""
AGAIN: Final = 60 * MICROS
"""After which the mover looks again at what is in the trash and still holds something."""


# -- intents


def begin(db: DB, now: int, intent: Intent, if_version: int) -> None:
    """Commits an intent."""
    row = read.find_id(db, intent.entry)
    directory = ""
    if row is None and intent.kind == "Put":
        if if_version > 0:
            raise Changed(f"'{intent.name}' isn't there, and version {if_version} was expected")
        directory = _new_place(db, now, intent)
    elif row is None:
        raise Missing(f"there is no entry {intent.entry}")
    else:
        _check_present(db, intent, row, if_version)
    # a put doesn't wait for the mover: what that writes meanwhile fits no version any more, and it takes it back (at
    # a key that isn't the put's)
    # nor for one that nobody works on any more: its versions are older, and its recovery sees that
    others = "SELECT 1 FROM intent WHERE id = ?2 OR (entry = ?1 AND (?3 <> 'Put' OR (kind = 'Put' AND until > 0)))"
    if db.execute(others, (intent.entry, intent.id, intent.kind)).fetchone():
        raise Conflict(f"something else is being done to '{intent.name or intent.entry}'")
    for target in intent.targets:
        _check_target(db, intent, target)
    values = (intent.sha256, intent.size, intent.mtime, intent.content_type, dumps(intent.tags), directory)
    db.execute(
        "INSERT INTO intent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (intent.id, intent.kind, intent.entry, intent.parent, intent.name, intent.version, intent.until, *values),
    )
    db.executemany(
        "INSERT INTO target VALUES (?, ?, ?, ?, ?)",
        [(intent.id, n, t.store, t.key, t.expect) for n, t in enumerate(intent.targets)],
    )
    if intent.kind == "Delete":
        # from now on no put counts on this copy
        db.executemany(
            "UPDATE copy SET state = 'Deleting' WHERE entry = ? AND store = ? AND key = ? AND tag = ?",
            [(intent.entry, t.store, t.key, t.expect) for t in intent.targets],
        )


def aim(db: DB, intent_id: str, targets: Sequence[Target]) -> None:
    """Further targets."""
    intent = open_intent(db, intent_id)
    for target in targets:
        if target.store in {one.store for one in intent.targets}:
            raise Conflict(f"{intent_id} has a target in store {target.store} already")
        _check_target(db, intent, target)
    db.executemany(
        "INSERT INTO target VALUES (?, ?, ?, ?, ?)",
        [(intent_id, n, t.store, t.key, t.expect) for n, t in enumerate(targets, start=len(intent.targets))],
    )


def _check_target(db: DB, intent: Intent, target: Target) -> None:
    there = read.at_key(db, target.store, target.key)
    if there is not None and there.entry != intent.entry:
        raise Conflict(f"'{target.key}' in store {target.store} belongs to another entry, {there.entry}")
    # who looks and then acts must be alone at a key: not every store can tie the one to the other
    at_work = (
        "SELECT 1 FROM target t JOIN intent i ON i.id = t.intent WHERE t.store = ?1 AND t.key = ?2 AND i.id <> ?3 "
        "AND ((?4 = 'Put' AND i.kind IN ('Copy', 'Delete') AND i.until > 0) OR (?4 <> 'Put' AND i.entry <> ?5))"
    )
    if db.execute(at_work, (target.store, target.key, intent.id, intent.kind, intent.entry)).fetchone():
        raise Conflict(f"something else is being done to '{target.key}' in store {target.store}")
    elsewhere = "SELECT 1 FROM copy WHERE entry = ? AND store = ? AND state = 'Whole' AND key <> ?"
    goes_over = intent.kind == "Put" and target.expect
    if goes_over and db.execute(elsewhere, (intent.entry, target.store, target.key)).fetchone():
        raise Conflict(f"'{target.key}' in store {target.store} has another key meanwhile")


def _new_place(db: DB, now: int, intent: Intent) -> str:
    """Directory of a new file, made if it is missing."""
    if not intent.name or "/" in intent.name:
        raise InvalidName(f"'{intent.name}' is no name of a file")
    directory = tree.make_directories(db, now, ROOT, parts_of(intent.parent), "")
    if read.child_id(db, directory, intent.name) is not None:
        raise Changed(f"'/{intent.path}' belongs to something else meanwhile")
    tree.need_unwritten(db, directory, intent.name, intent.path)
    return directory


def _check_present(db: DB, intent: Intent, row: Row, if_version: int) -> None:
    if if_version != ANY and row[7] != if_version:
        raise Changed(f"'{intent.name}' is of version {row[7]}, not {if_version}")
    if intent.kind != "Put":
        return
    if row[3]:
        raise InvalidName(f"'/{intent.path}' is a directory")
    if intent.version <= row[7]:
        raise Changed(f"'/{intent.path}' is of version {row[7]} already")
    there = read.entry(db, intent.path)
    if there is None or there.id != row[0]:
        raise Changed(f"'/{intent.path}' was moved or deleted meanwhile")


def open_intent(db: DB, intent_id: str) -> Intent:
    """An open intent.

    Raises:
        Missing: There is none.
    """
    row = db.execute(f"SELECT {read.INTENT} FROM intent WHERE id = ?", (intent_id,)).fetchone()  # noqa: S608
    if row is None:
        raise Missing(f"there is no open intent {intent_id}: it was given up")
    return read.to_intent(db, row)


def end(db: DB, now: int, intent_id: str, left: Sequence[Copy] = ()) -> None:
    """Ends an intent; what it left goes to the trash."""
    if left:
        aside.leave(db, now, open_intent(db, intent_id), left)
    db.execute("DELETE FROM target WHERE intent = ?", (intent_id,))
    db.execute("DELETE FROM intent WHERE id = ?", (intent_id,))


def renew(db: DB, intent_id: str, until: int) -> None:
    """Lengthens the lease."""
    if not db.execute("UPDATE intent SET until = ? WHERE id = ?", (until, intent_id)).rowcount:
        raise Missing(f"there is no open intent {intent_id}: it was given up")


def commit_put(
    db: DB,
    now: int,
    intent_id: str,
    size: int,
    sha256: str,
    whole: Sequence[Copy],
    failed: Mapping[str, str],
    due: int,
    keep: bool,
    check: Check | None = None,
) -> Entry:
    """The content is there."""
    if check is not None:
        check(read.totals(db))
    intent = open_intent(db, intent_id)
    if intent.kind != "Put":
        raise Missing(f"{intent_id} isn't a put")
    row = read.find_id(db, intent.entry)
    mtime = intent.mtime or now
    if row is not None and row[7] >= intent.version:
        raise Missing(f"'{intent.name}' has a newer content than that of {intent_id}")
    living = "SELECT 1 FROM intent WHERE entry = ? AND kind = 'Put' AND until > 0"
    if intent.until == 0 and db.execute(living, (intent.entry,)).fetchone():
        # of a process that has ended: whoever writes now must not find its version taken
        raise Conflict(f"'{intent.name}' is being written anew")
    if row is None:
        (directory,) = db.execute("SELECT directory FROM intent WHERE id = ?", (intent_id,)).fetchone()
        if read.find_id(db, directory) is None:
            raise Missing(f"'{intent.name}' was deleted for good meanwhile")
        version = intent.version
        content = (size, mtime, sha256, version, intent.content_type, intent.tags, now)
        entry = Entry(intent.entry, directory, intent.name, "File", *content)
        # a directory that was deleted meanwhile takes it along to the trash
        gone = read.trashed(db, directory)
        tree.insert(db, entry, live=not gone, due=now if gone else due, pending=bool(gone or 0 < due <= now))
    else:
        aside.set_aside(db, now, to_entry(row), intent, keep=keep)
        db.execute(
            "UPDATE entry SET size = ?, mtime = ?, sha256 = ?, version = ?, content_type = ? WHERE id = ?",
            (size, mtime, sha256, intent.version, intent.content_type, intent.entry),
        )
        if due:
            tree.rouse(db, intent.entry, due, pending=due <= now)
        entry = read.renamed(db, to_entry(read.find_id(db, intent.entry) or ()))
    left = _put_copies(db, intent, whole, failed)
    if left:
        aside.leave(db, now, intent, left)
    end(db, now, intent_id)
    # one that was deleted meanwhile keeps the content in the trash, since what it had may be written over; whoever
    # wrote it must hear of that
    return entry if _record_put(db, now, entry, whole) else replace(entry, parent=TRASH)


def _put_copies(db: DB, intent: Intent, whole: Sequence[Copy], failed: Mapping[str, str]) -> list[Copy]:
    """Writes the copies of a put; gives what lies, or may lie, where no record of the file tells it any more."""
    # a link that is written over ceases to be one: its object was never ours
    db.execute("DELETE FROM copy WHERE entry = ? AND state = 'Linked'", (intent.entry,))
    known = {copy.store: copy for copy in read.copies(db, intent.entry)}
    good = {copy.store for copy in whole}
    for store, copy in known.items():
        if store in good:
            continue
        stale = (copy.state == "Whole" and copy.version < intent.version) or store in failed
        if stale:
            db.execute(
                "UPDATE copy SET state = 'Stale', error = ? WHERE entry = ? AND store = ?",
                (failed.get(store, copy.error), intent.entry, store),
            )
    for copy in whole:
        aside.write_copy(db, intent.entry, copy)
    keys = {target.store: target.key for target in intent.targets}
    for store, error in failed.items():
        if store not in known and store not in good and store in keys:
            # whether something was written is unknown: it must be looked at, and deleted with the entry
            aside.write_copy(db, intent.entry, Copy(intent.entry, store, keys[store], 0, "Stale", error=error))
    left = []
    for store, copy in known.items():
        if keys.get(store, copy.key) == copy.key:
            continue
        if store in failed:
            left.append(Copy(intent.entry, store, keys[store], intent.version, "Stale"))
        elif store in good and copy.state not in ("Whole", "Missing"):
            left.append(copy)
    return left


def _record_put(db: DB, now: int, entry: Entry, copies: Iterable[Copy]) -> bool:
    """Journals a content; False for one in the trash."""
    path, thing = read.place(db, entry.id)
    tree.record(db, now, records.put(entry, path, copies))
    return not thing


def _whole(db: DB, entry_id: str) -> list[Copy]:
    return [copy for copy in read.copies(db, entry_id) if copy.state == "Whole"]


# -- copies


def adopt(
    db: DB, now: int, path: str, copy: Copy, mtime: int, sha256: str, entry_id: str, check: Check | None = None
) -> Entry:
    """Takes in a file that a store already holds."""
    if check is not None:
        check(read.totals(db))
    *above, name = parts_of(path) or [""]
    if not name or read.entry(db, path) is not None:
        raise Exists(f"there is already something at '/{path}'")
    parent = tree.make_directories(db, now, ROOT, above, "")
    tree.need_free(db, parent, name, path)
    entry_id = entry_id or copy.entry or tree.new_id()
    if read.find_id(db, entry_id) is not None:
        raise Exists(f"the entry {entry_id} is there already")
    if copy.state == "Linked" and read.at_key(db, copy.store, copy.key) is not None:
        raise Conflict(f"'{copy.key}' in store {copy.store} belongs to another entry")
    content = (copy.size, mtime or now, sha256, copy.version)
    entry = Entry(entry_id, parent, name, "File", *content, created=now)
    tree.insert(db, entry, live=True, due=now)
    aside.write_copy(db, entry_id, copy)
    _record_put(db, now, entry, [copy])
    return entry


def put_copies(db: DB, now: int, copies: Sequence[Copy], due: int, was: Sequence[Copy | None] | None = None) -> None:
    """Writes what is known of copies."""
    for number, copy in enumerate(copies):
        if not db.execute("SELECT 1 FROM entry WHERE id = ?", (copy.entry,)).fetchone():
            continue
        row = db.execute(
            f"SELECT {read.COPY} FROM copy WHERE entry = ? AND store = ?",  # noqa: S608
            (copy.entry, copy.store),
        ).fetchone()
        old = to_copy(row) if row else None
        if old == copy or (was is not None and old != was[number]):
            continue
        aside.write_copy(db, copy.entry, copy)
        place = (copy.key, copy.tag, copy.version)
        if copy.state == "Whole" and (old is None or (old.key, old.tag, old.version) != place):
            tree.record(db, now, records.copied(copy))
        if due:
            tree.rouse(db, copy.entry, due)


def set_digest(db: DB, now: int, entry_id: str, version: int, sha256: str) -> None:
    """Keeps a digest that wasn't known."""
    change = db.execute(
        "UPDATE entry SET sha256 = ? WHERE id = ? AND version = ? AND sha256 = '' AND dir = 0",
        (sha256, entry_id, version),
    )
    row = read.find_id(db, entry_id)
    if change.rowcount and row is not None:
        _record_put(db, now, to_entry(row), _whole(db, entry_id))


def drop_copy(db: DB, now: int, entry_id: str, store: str, was: Copy | None = None) -> None:
    """A copy is gone."""
    if was is not None and was not in read.copies(db, entry_id):
        return
    link = link_of(read.copies(db, entry_id))
    linked = link is not None and link.store == store
    if linked and db.execute("SELECT 1 FROM intent WHERE entry = ? AND kind = 'Put'", (entry_id,)).fetchone():
        raise Conflict(f"the link {entry_id} is being written over")
    if db.execute("DELETE FROM copy WHERE entry = ? AND store = ?", (entry_id, store)).rowcount:
        row = read.find_id(db, entry_id)
        if row is not None and linked and not read.trashed(db, entry_id):
            _end_entry(db, now, entry_id)
            return
        if row is not None and read.trashed(db, entry_id) and not _in_use(db, entry_id):
            _end(db, now, row, [entry_id])


def purge(db: DB, now: int, entry_id: str) -> None:
    """Ends something in the trash that holds nothing any more; if it still does, the mover looks again later."""
    row = read.find_id(db, entry_id)
    if row is None or entry_id == ROOT or not read.trashed(db, entry_id):
        return
    ends = _empty_below(db, entry_id)
    if ends is None:
        db.execute("UPDATE entry SET due = ?, pending = 1 WHERE id = ?", (now + AGAIN, entry_id))
    else:
        _end(db, now, row, ends)


def _end(db: DB, now: int, row: Row, ends: Sequence[str]) -> None:
    """Ends entries, the lowest last, and the directories above that are empty with them."""
    for entry_id in reversed(ends):
        _end_entry(db, now, entry_id)
    above = row[1]
    while above != TRASH and read.child_id_any(db, above) is None and not _in_use(db, above):
        found = read.find_id(db, above)
        _end_entry(db, now, above)
        above = found[1] if found else TRASH


def _in_use(db: DB, entry_id: str) -> bool:
    """Whether a copy or an open intent needs the entry, the latter perhaps as the directory of a new file."""
    return bool(
        db.execute("SELECT 1 FROM copy WHERE entry = ? LIMIT 1", (entry_id,)).fetchone()
        or db.execute("SELECT 1 FROM intent WHERE entry = ? AND kind <> 'Delete'", (entry_id,)).fetchone()
        or db.execute("SELECT 1 FROM intent WHERE directory <> '' AND directory = ? LIMIT 1", (entry_id,)).fetchone()
    )


def _empty_below(db: DB, entry_id: str) -> list[str] | None:
    """An entry and the directories below it, from above; None if there are files below, or something is in use."""
    found = [entry_id]
    for directory in found:
        if _in_use(db, directory):
            return None
        rows = db.execute("SELECT id, dir FROM entry WHERE parent = ?", (directory,))
        for child, is_directory in rows:
            if not is_directory:
                return None
            found.append(child)
    return found


def _end_entry(db: DB, now: int, entry_id: str) -> None:
    db.execute("DELETE FROM entry WHERE id = ?", (entry_id,))
    db.execute("DELETE FROM trash WHERE id = ?", (entry_id,))
    db.execute("DELETE FROM visit WHERE dir = ?", (entry_id,))
    # its older contents go with it
    db.execute("UPDATE trash SET at = ? WHERE origin = ? AND origin <> ''", (OVER, entry_id))
    aside.rouse(db, now, entry_id)
    tree.record(db, now, records.purged(entry_id))


def looked(db: DB, now: int, entry_id: str, version: int, due: int, pending: bool, stamp: int) -> None:
    """The mover looked; whatever changed since it read keeps the file due."""
    if 0 < due <= now:
        # a wish to have it looked at, which another look that is under way must not undo
        db.execute(
            "UPDATE entry SET due = ?1, pending = 1, stamp = stamp + 1 "
            "WHERE id = ?2 AND version = ?3 AND (?4 = 0 OR stamp = ?4)",
            (due, entry_id, version, stamp),
        )
        return
    db.execute(
        "UPDATE entry SET due = ?1, pending = ?5 WHERE id = ?2 AND version = ?3 AND (?4 = 0 OR stamp = ?4)",
        (due, entry_id, version, stamp, pending),
    )


def load(db: DB, entries: Iterable[Entry], copies: Iterable[Copy], due: int) -> None:
    """Writes entries and copies as they are, for a rebuild; `finish_load` brings the rest."""
    check_empty(db)
    # millions of rows: indexes are sorted once, and sums counted once
    kinds = "type IN ('index', 'trigger') AND tbl_name IN ('entry', 'copy') AND sql IS NOT NULL"
    parts = db.execute(f"SELECT type, name, sql FROM sqlite_master WHERE {kinds}").fetchall()  # noqa: S608
    for kind, name, _ in parts:
        db.execute(f"DROP {kind} {name}")
    db.executemany(tree.INSERT, (loaded(entry, due) for entry in entries))
    db.executemany(INSERT_COPY, map(values_of, copies))
    # a key that two have is refused by its index
    for text in [text for kind, _, text in parts if kind == "index"]:
        db.execute(text)
    end_load(db)
    for text in [text for kind, _, text in parts if kind == "trigger"]:
        db.execute(text)


def check_empty(db: DB) -> None:
    """Whether the catalogue can be filled.

    Raises:
        Conflict: It isn't empty.
    """
    if db.execute("SELECT 1 FROM entry WHERE id <> ? UNION ALL SELECT 1 FROM intent LIMIT 1", (ROOT,)).fetchone():
        raise Conflict("the catalogue isn't empty")


def loaded(entry: Entry, due: int) -> Row:
    """Row of an entry that is loaded."""
    gone = entry.parent == TRASH
    row = replace(entry, name=entry.id) if gone else entry
    return tree.row_of(row, live=not gone, due=due if gone or entry.kind == "File" else 0)


def values_of(copy: Copy) -> Row:
    """Row of a copy."""
    where, seen = (copy.entry, copy.store, copy.key), (copy.size, copy.verified, copy.scrubbed, copy.error)
    return (*where, copy.version, copy.state, copy.tag, *seen)


def end_load(db: DB) -> None:
    """After all rows are written, while nothing counts them."""
    # whatever lies below something in the trash is there too; known only when all are written
    db.execute(
        "WITH RECURSIVE gone (id) AS (SELECT id FROM entry WHERE parent = ? UNION ALL "
        "SELECT e.id FROM entry e JOIN gone g ON e.parent = g.id) "
        "UPDATE entry SET live = 0 WHERE live = 1 AND id IN (SELECT id FROM gone)",
        (TRASH,),
    )
    db.execute(
        "UPDATE sums SET (files, directories, bytes, pending) = (SELECT coalesce(sum(live * (1 - dir)), 0), "
        "coalesce(sum(live * dir), 0), coalesce(sum(live * size), 0), coalesce(sum(pending), 0) FROM entry)"
    )
    db.execute("DELETE FROM held")
    db.execute("INSERT INTO held SELECT store, state, count(*), sum(size) FROM copy GROUP BY store, state")


def finish_load(db: DB, now: int, trashed: Iterable[tuple[str, str, int, str]], seq: int, fresh: Iterable[str]) -> int:
    """What is in the trash, and records of what the journal doesn't speak of; gives the number of the last one."""
    db.executemany("INSERT INTO trash VALUES (?, ?, ?, ?)", trashed)
    paths: dict[str, str] = {ROOT: ""}
    ids = iter(fresh)
    while some := list(islice(ids, read.MARKS)):
        told = []
        held = read.copies_of(db, some)
        for entry in map(to_entry, read.entries_of(db, some)):
            if len(paths) > KEPT:
                paths = {ROOT: ""}
            if entry.parent not in paths:
                above, thing = ("", "") if entry.parent == TRASH else read.place(db, entry.parent)
                # what lies in the trash has no path
                paths[entry.parent] = TRASH if thing or entry.parent == TRASH else above
            above = paths[entry.parent]
            path = "" if above == TRASH else f"{above}/{entry.name}" if above else entry.name
            whole = [copy for copy in held.get(entry.id, ()) if copy.state == "Whole"]
            told.append(records.put(entry, path, whole) if entry.kind == "File" else records.mkdir(entry, path))
        lines = [(seq + n, now, tree.line(body)) for n, body in enumerate(told, start=1)]
        db.executemany("INSERT INTO journal VALUES (?, ?, ?)", lines)
        seq += len(told)
    return seq
