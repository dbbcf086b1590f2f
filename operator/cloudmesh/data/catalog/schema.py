"""The tables of the SQLite catalogue, and how a connection to them is opened.

Sums are kept by triggers in the same transaction: nothing is ever counted. Text is compared by its UTF-8 bytes, which
is the order of code points.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cloudmesh.data.model import ROOT
from cloudmesh.engine.errors import InvalidRequest

VERSION: Final = 4
"""Of the schema, kept as the file's `user_version`."""

TABLES: Final = """
CREATE TABLE entry (
    id TEXT PRIMARY KEY,
    parent TEXT NOT NULL,
    name TEXT NOT NULL,              -- in the trash its own id, so that names never clash there
    dir INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    version INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    tags TEXT NOT NULL,              -- JSON, or empty
    created INTEGER NOT NULL,
    live INTEGER NOT NULL,           -- 1 where the sums hold it: neither root nor trash; follows by visits
    due INTEGER NOT NULL,            -- 0 for never
    pending INTEGER NOT NULL,        -- 1 while the mover has work with it
    stamp INTEGER NOT NULL           -- rises whenever the mover has to look again
) WITHOUT ROWID;
CREATE UNIQUE INDEX entry_name ON entry (parent, name);
CREATE INDEX entry_due ON entry (due) WHERE due > 0;

CREATE TABLE copy (
    entry TEXT NOT NULL,
    store TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    tag TEXT NOT NULL,
    size INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    scrubbed INTEGER NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (entry, store)
) WITHOUT ROWID;
CREATE UNIQUE INDEX copy_key ON copy (store, key);

CREATE TABLE intent (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    entry TEXT NOT NULL,
    parent TEXT NOT NULL,            -- path, as it was at the beginning
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    until INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    tags TEXT NOT NULL,
    directory TEXT NOT NULL          -- of an entry that isn't there yet, whose name is held for it; else empty
) WITHOUT ROWID;
CREATE INDEX intent_entry ON intent (entry);
CREATE UNIQUE INDEX intent_name ON intent (directory, name) WHERE directory <> '';

CREATE TABLE target (
    intent TEXT NOT NULL,
    position INTEGER NOT NULL,
    store TEXT NOT NULL,
    key TEXT NOT NULL,
    expect TEXT NOT NULL,
    PRIMARY KEY (intent, position)
) WITHOUT ROWID;
CREATE INDEX target_key ON target (store, key);

CREATE TABLE trash (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    at INTEGER NOT NULL,
    origin TEXT NOT NULL DEFAULT ''  -- the file whose older content it is; empty for what was deleted
) WITHOUT ROWID;
CREATE INDEX trash_origin ON trash (origin) WHERE origin <> '';
CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- what is left to do in the background: directories that moved with all below them; files to make due
CREATE TABLE visit (n INTEGER PRIMARY KEY, dir TEXT NOT NULL, mark TEXT NOT NULL);
CREATE TABLE waking (n INTEGER PRIMARY KEY, store TEXT NOT NULL, mark TEXT NOT NULL, due INTEGER NOT NULL);

CREATE TABLE sums (
    files INTEGER NOT NULL, directories INTEGER NOT NULL, bytes INTEGER NOT NULL, pending INTEGER NOT NULL
);
CREATE TABLE held (
    store TEXT NOT NULL,
    state TEXT NOT NULL,
    copies INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (store, state)
) WITHOUT ROWID;

CREATE TRIGGER entry_insert AFTER INSERT ON entry BEGIN
    UPDATE sums SET files = files + NEW.live * (1 - NEW.dir), directories = directories + NEW.live * NEW.dir,
        bytes = bytes + NEW.live * NEW.size, pending = pending + NEW.pending;
END;
CREATE TRIGGER entry_delete AFTER DELETE ON entry BEGIN
    UPDATE sums SET files = files - OLD.live * (1 - OLD.dir), directories = directories - OLD.live * OLD.dir,
        bytes = bytes - OLD.live * OLD.size, pending = pending - OLD.pending;
END;
CREATE TRIGGER entry_update AFTER UPDATE OF size, live, pending ON entry
    WHEN NEW.size <> OLD.size OR NEW.live <> OLD.live OR NEW.pending <> OLD.pending
BEGIN
    UPDATE sums SET files = files + (NEW.live - OLD.live) * (1 - NEW.dir),
        directories = directories + (NEW.live - OLD.live) * NEW.dir,
        bytes = bytes + NEW.live * NEW.size - OLD.live * OLD.size, pending = pending + NEW.pending - OLD.pending;
END;
CREATE TRIGGER copy_insert AFTER INSERT ON copy BEGIN
    INSERT INTO held VALUES (NEW.store, NEW.state, 1, NEW.size)
        ON CONFLICT (store, state) DO UPDATE SET copies = copies + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER copy_delete AFTER DELETE ON copy BEGIN
    UPDATE held SET copies = copies - 1, bytes = bytes - OLD.size WHERE store = OLD.store AND state = OLD.state;
END;
CREATE TRIGGER copy_update AFTER UPDATE OF state, size ON copy
    WHEN NEW.state <> OLD.state OR NEW.size <> OLD.size
BEGIN
    UPDATE held SET copies = copies - 1, bytes = bytes - OLD.size WHERE store = OLD.store AND state = OLD.state;
    INSERT INTO held VALUES (NEW.store, NEW.state, 1, NEW.size)
        ON CONFLICT (store, state) DO UPDATE SET copies = copies + 1, bytes = bytes + NEW.size;
END;
"""

CHANGES: Final = {
    2: """
ALTER TABLE trash ADD COLUMN origin TEXT NOT NULL DEFAULT '';
CREATE INDEX trash_origin ON trash (origin) WHERE origin <> '';
""",
    3: """
ALTER TABLE target DROP COLUMN session;
""",
    # links: the tables are the same, but a gateway that doesn't know the state would remove the objects
    4: "",
}
"""What each version of the schema brought to the one before it."""


def connect(path: Path, *, write: bool, busy_seconds: float = 30) -> sqlite3.Connection:
    """A connection for one thread; transactions are begun by hand.

    Raises:
        sqlite3.Error: It can't be opened.
    """
    # readers are closed by another thread than their own, when that one has ended
    db = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, cached_statements=256, check_same_thread=write
    )
    db.execute("PRAGMA cache_size = -65536" if write else "PRAGMA cache_size = -16384")
    if write:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
    else:
        db.execute("PRAGMA query_only = 1")
    return db


def prepare(db: sqlite3.Connection, now: int) -> None:
    """Makes the tables in an empty file, and takes over from a process that has ended.

    Raises:
        InvalidRequest: A later version made the file.
    """
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise InvalidRequest(f"the catalogue has schema {version}, this gateway knows up to {VERSION}: use a newer one")
    if version < VERSION:
        texts = [CHANGES[later] for later in range(version + 1, VERSION + 1)] if version else [TABLES]
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements("".join(texts)):
                db.execute(statement)
            if not version:
                db.execute("INSERT INTO entry VALUES (?, '', '', 1, 0, 0, '', 1, '', '', ?, 0, 0, 0, 0)", (ROOT, now))
                db.execute("INSERT INTO sums VALUES (0, 0, 0, 0)")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
    # there is one process at a time: whoever worked on an intent has ended
    db.execute("UPDATE intent SET until = 0 WHERE until > 0")


def _statements(text: str) -> Iterator[str]:
    found = ""
    for line in text.splitlines(keepends=True):
        found += line
        if sqlite3.complete_statement(found):
            yield found
            found = ""
