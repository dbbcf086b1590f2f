"""The plain case of a new file in few statements, since each costs a way to the database and back.

Only what surely ends well is done here: the file is new, its directory is there, nobody else is about it. In any other
case nothing is changed, and the statements of `sql_files` tell what is the matter.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from cloudmesh.data.catalog import records
from cloudmesh.data.catalog.sql_read import Row, dumps, loads, parts_of
from cloudmesh.data.errors import InvalidName
from cloudmesh.data.model import ROOT, TRASH, Copy, Entry, Intent

T = TypeVar("T")


class Otherwise:
    """It isn't the plain case."""


OTHERWISE: Final = Otherwise()
Steps = Generator[tuple[str, Sequence[Any]], Row | None, T | Otherwise]
"""Statements, to each of which the first row of its result is given."""

DOWN: Final = (
    'down (n, id) AS (SELECT 0, ?2 COLLATE "C" UNION ALL SELECT d.n + 1, e.id FROM down d '
    "JOIN entry e ON e.parent = d.id AND e.name = (?1::text[])[d.n + 1] WHERE d.n < ?3)"
)
"""Ids on the way from the root down the parts of a path."""
_BEGIN: Final = (
    f"WITH RECURSIVE {DOWN}, "  # noqa: S608
    "wish (n, store, key, expect) AS (SELECT row_number() OVER () - 1, * FROM "
    "unnest(?4::text[], ?5::text[], ?6::text[])), "
    "fine AS (SELECT e.id FROM down d JOIN entry e ON e.id = d.id WHERE d.n = ?3 AND e.dir = 1 "
    "AND NOT EXISTS (SELECT 1 FROM entry WHERE id = ?7) "
    "AND NOT EXISTS (SELECT 1 FROM entry f WHERE f.parent = e.id AND f.name = ?8) "
    "AND NOT EXISTS (SELECT 1 FROM intent i WHERE i.directory <> '' AND i.directory = e.id AND i.name = ?8) "
    "AND NOT EXISTS (SELECT 1 FROM intent WHERE id = ?9) AND NOT EXISTS (SELECT 1 FROM intent WHERE entry = ?7) "
    "AND NOT EXISTS (SELECT 1 FROM wish w JOIN copy c ON c.store = w.store AND c.key = w.key) "
    "AND NOT EXISTS (SELECT 1 FROM wish w JOIN target t ON t.store = w.store AND t.key = w.key)), "
    "made AS (INSERT INTO intent SELECT ?9, 'Put', ?7, ?10, ?8, ?11, ?12, ?13, ?14, ?15, ?16, ?17, id FROM fine "
    "RETURNING id), "
    "targets AS (INSERT INTO target SELECT m.id, w.n, w.store, w.key, w.expect FROM made m, wish w) "
    "SELECT 1 FROM made"
)
_OPEN: Final = (
    "WITH RECURSIVE mine AS (SELECT * FROM intent WHERE id = ?1), "
    "up (n, id, parent, name) AS (SELECT 1, e.id, e.parent, e.name FROM entry e JOIN mine m ON e.id = m.directory "
    "UNION ALL SELECT u.n + 1, e.id, e.parent, e.name FROM up u JOIN entry e ON e.id = u.parent) "
    "SELECT m.kind, m.entry, m.name, m.version, m.until, m.mtime, m.content_type, m.tags, m.directory, "
    "(SELECT string_agg(u.name, '/' ORDER BY u.n DESC) FROM up u WHERE u.parent <> ''), "
    "(SELECT u.id FROM up u ORDER BY u.n DESC LIMIT 1), EXISTS (SELECT 1 FROM entry e WHERE e.id = m.entry) FROM mine m"
)
_COMMIT: Final = (
    "WITH made AS (INSERT INTO entry VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?12, 1)), "
    "held AS (INSERT INTO copy SELECT * FROM unnest(?13::text[], ?14::text[], ?15::text[], ?16::bigint[], ?17::text[], "
    "?18::text[], ?19::bigint[], ?20::bigint[], ?21::bigint[], ?22::text[])), "
    "targets AS (DELETE FROM target WHERE intent = ?23), ended AS (DELETE FROM intent WHERE id = ?23) "
    "INSERT INTO journal (at, body) VALUES (?24, ?25) RETURNING 1"
)


def begin(intent: Intent, if_version: int) -> Steps[None]:
    """See `Catalog.begin`."""
    if intent.kind != "Put" or if_version > 0 or not intent.name or "/" in intent.name:
        return OTHERWISE
    try:
        parts = parts_of(intent.parent)
    except InvalidName:
        return OTHERWISE
    targets = [[t.store for t in intent.targets], [t.key for t in intent.targets], [t.expect for t in intent.targets]]
    content = (intent.sha256, intent.size, intent.mtime, intent.content_type, dumps(intent.tags))
    what = (intent.entry, intent.name, intent.id, intent.parent, intent.version, intent.until)
    row = yield _BEGIN, (parts, ROOT, len(parts), *targets, *what, *content)
    return None if row else OTHERWISE


def commit_put(
    now: int, intent_id: str, size: int, sha256: str, whole: Sequence[Copy], failed: Mapping[str, str], due: int
) -> Steps[Entry]:
    """See `Catalog.commit_put`."""
    if failed:
        return OTHERWISE
    row = yield _OPEN, (intent_id,)
    if row is None:
        return OTHERWISE
    kind, entry_id, name, version, until, mtime, content_type, tags, directory, above, top, there = row
    if kind != "Put" or until == 0 or there or top != ROOT or directory == TRASH:
        return OTHERWISE
    content = (size, mtime or now, sha256, version, content_type)
    entry = Entry(entry_id, directory, name, "File", *content, loads(tags), now)
    path = f"{above}/{name}" if above else name
    body = json.dumps(records.put(entry, path, whole), ensure_ascii=False, separators=(",", ":"))
    copies = [replace(copy, entry=entry_id) for copy in whole]
    columns = [
        [getattr(copy, column) for copy in copies]
        for column in ("entry", "store", "key", "version", "state", "tag", "size", "verified", "scrubbed", "error")
    ]
    yield (
        _COMMIT,
        (entry_id, directory, name, *content, tags, now, due, 0 < due <= now, *columns, intent_id, now, body),
    )
    return entry
