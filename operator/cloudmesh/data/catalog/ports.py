"""The port to a catalogue. Every method is one transaction: all of it is durable when it returns, or nothing is.

Adjacency (parent, name): a directory's rename and deletion are one row. Paths are clean (see `names.clean_path`): no
leading or trailing slash, NFC, `""` for the root. What must outlive the catalogue is kept as journal records in the
same transaction, and written to a store by the `Journal`, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cloudmesh.data.model import Copy, Entry, Intent, IntentKind, Target, Totals, Trashed, Work

ANY = -1
"""As `if_version`: whatever is there."""
ABSENT = 0
"""As `if_version`: nothing may be there."""
ALL = 1 << 62
"""As the time of `intents`: those on which somebody works too."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal.

    Args:
        seq: Rises by one.
        at: Microseconds.
        body: What happened, as JSON: `op` is `move`, `delete`, `restore`, `purge`, `mkdir`, `tags`, `put`, `copy`,
            `keep` or `expire`.
    """

    seq: int
    at: int
    body: Mapping[str, Any]


Check = Callable[[Totals], None]
"""Called within a change's transaction with the sums before it, perhaps in another thread, and perhaps again where the
database was lost meanwhile; what it raises is raised, and nothing is changed."""


@dataclass(frozen=True, slots=True)
class Located:
    """An entry with its path and copies."""

    path: str
    entry: Entry
    copies: tuple[Copy, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for; what is left out matches all.

    Args:
        name: Pattern of the last part of the path with `*` and `?`, case ignored.
        under: Directory to search in.
        tags: Tags that it must have; an empty value matches any.
        min_size: Bytes at least.
        max_size: Bytes at most, None for no limit.
        newer: Changed after this time in microseconds.
        older: Changed before, 0 for no limit.
    """

    name: str = "*"
    under: str = ""
    tags: Mapping[str, str] | None = None
    min_size: int = 0
    max_size: int | None = None
    newer: int = 0
    older: int = 0


class Catalog(Protocol):
    """The catalogue of one directory.

    Raises (all methods):
        Transient: It doesn't answer; whether a change was made is unknown.
    """

    # -- reading

    async def entry(self, path: str) -> Entry | None:
        """What is at the path; the root is always there."""

    async def by_id(self, entry_id: str) -> Located | None:
        """The entry with path (empty in the trash) and copies."""

    async def copies(self, entry_id: str) -> tuple[Copy, ...]:
        """Its copies, by store."""

    async def at_key(self, store: str, key: str) -> Copy | None:
        """The copy that lies at a key, or is meant to: no two entries share one."""

    async def moving(self, entry_id: str, store: str) -> bool:
        """Whether somebody makes or removes a copy of the entry in a store: a Copy or Delete whose time isn't over."""

    async def held(self, store: str, *, after: str = "", limit: int = 1000) -> list[Copy]:
        """Copies on record in a store, whatever their state, by key (as UTF-8 bytes), those after the key `after`."""

    async def children(self, path: str, *, after: str = "", limit: int = 1000, copies: bool = False) -> list[Located]:
        """Entries of a directory by name, those after the name `after`.

        Raises:
            Missing: There is no such directory.
        """

    async def walk(self, path: str, *, after: str = "", limit: int = 1000, copies: bool = False) -> list[Located]:
        """Everything below a directory in the order of the paths' parts, those after the path `after`."""

    async def search(self, query: Query, *, after: str = "", limit: int = 1000) -> list[Located]:
        """What matches, in the order of `walk`."""

    async def trash(self, *, after: str = "", limit: int = 1000, versions: bool = False) -> list[Trashed]:
        """What was deleted by name or as a directory, by entry id; with `versions` older contents of files too."""

    async def thrown(self, entry_id: str) -> Trashed | None:
        """What was deleted by name or as a directory, or is an older content of a file; None for anything else, and for
        what lies in a deleted directory."""

    async def versions(self, entry_id: str, *, over: bool = False) -> list[Trashed]:
        """Older contents of a file that are kept, the newest first; what is `OVER` is among them only if asked for."""

    async def totals(self) -> Totals:
        """Sums, without counting."""

    async def weigh(self, entry_id: str) -> tuple[int, int]:
        """Files at and below an entry, wherever it is, and their bytes, counted; (0, 0) if there is none."""

    async def get(self, name: str) -> str:
        """A text kept under a name, empty if there is none: marks of listings, the installation and the like."""

    async def set(self, name: str, value: str) -> None:
        """Keeps a text."""

    # -- changing the tree

    async def mkdir(self, path: str, *, parents: bool = False) -> Entry:
        """Makes a directory; an existing one is fine with `parents`.

        Raises:
            Exists: Something has the name.
            Missing: The parent isn't there, or is a file (InvalidName).
        """

    async def begin(self, intent: Intent, *, if_version: int = ANY) -> None:
        """Commits an intent before its first byte. A put into directories that are missing makes them; a copy that is
        to be deleted becomes `Deleting`, if it still has the tag that the target expects. A Put on which nobody works
        any more (`until` 0) stands in no other's way.

        Raises:
            Changed: The entry isn't of `if_version` or is as new as the intent, was moved or deleted, or the name now
                belongs to another entry than the intent's.
            Conflict: Another Put of the same entry or name is open; for other kinds: any intent of the entry is. A Put
                doesn't wait for the mover: what that writes meanwhile fits no version any more, and it takes it back.
                Or the key of a target belongs to another entry, or another intent is at work there: for a Put a Copy or
                Delete whose time isn't over, for other kinds any intent of another entry; or a Put is to go over an
                object (`expect`) and the whole copy in that store lies at another key by now.
            Missing: There is no such entry (kinds other than Put).
            InvalidName: A part of the path is a file, or the path itself a directory.
        """

    async def aim(self, intent_id: str, targets: Sequence[Target]) -> None:
        """An open Put gets further targets, before their first byte, in stores that it has none in.

        Raises:
            Missing: There is no such intent (it was given up).
            Conflict: As at `begin`.
        """

    async def renew(self, intent_id: str, until: int) -> None:
        """Whoever works on it lives.

        Raises:
            Missing: There is no such intent (it was given up).
        """

    async def commit_put(
        self,
        intent_id: str,
        *,
        size: int,
        sha256: str,
        whole: Sequence[Copy],
        failed: Mapping[str, str],
        due: int,
        keep: bool = False,
        check: Check | None = None,
    ) -> Entry:
        """The content is there: the entry gets its version, size and digest; `whole` are its copies, copies that hold
        an older version become Stale; copies in `failed` are Stale with the error, of version 0 if there was none,
        since whether something was written there is unknown. The intent ends. The file is due at `due`.

        A link ceases to be one: its object is forgotten and stays.

        A copy that isn't whole and lies at another key than the target in its store is left to the mover, as at `end`;
        so is what may lie at the target's key where that failed.

        A file that lies in the trash by then, itself or with a directory above it, has the content there; the entry is
        given with `TRASH` as its parent, and the write is none to acknowledge.

        With `keep`, the whole copies of the content so far become those of a new entry in the trash, which is an older
        version of this one (`Trashed.of`) and due; but not those at the key of a target, which were written over. No
        entry without copies is made. Without `keep` only copies in a target's store at another key than the target's
        do, and the entry is `OVER`. All versions of the file are due then, since the mover counts them.

        Raises:
            Missing: There is no such intent (it was given up), the file has a content of that version or a newer one,
                or its name belongs to something else meanwhile.
            Conflict: Somebody writes the file while this is the intent of a process that has ended.
        """

    async def end(self, intent_id: str, *, left: Sequence[Copy] = ()) -> None:
        """Gives an intent up, or ends one of another kind than Put; an absent one is fine.

        `left` are objects that it made, or may have made, and that nobody wants: they become the copies (`Deleting`) of
        a new entry in the trash that is `OVER`, so that the mover removes them. Those at the key of a copy on record
        are left out.
        """

    async def intents(self, *, until: int) -> list[Intent]:
        """Open intents on which nobody works any more at that time."""

    async def move(self, source: str, target: str, *, overwrite: bool = False, if_version: int = ANY) -> Entry:
        """Renames a file or directory; keys of objects stay as they are until they are settled.

        Raises:
            Missing: There is no source, or the target's directory isn't there.
            Exists: There is a target, and `overwrite` is False, or it is a directory that isn't empty.
            InvalidName: Into itself.
            Changed: The source isn't of `if_version`.
        """

    async def delete(self, path: str, *, recursive: bool = False, if_version: int = ANY) -> Entry | None:
        """Moves it to the trash; None if there was nothing.

        Raises:
            Exists: A directory that isn't empty, and `recursive` is False.
            Changed: It isn't of `if_version`.
        """

    async def expire(self, entry_id: str) -> None:
        """What lies in the trash, deleted or an older version, is `OVER` and due from now on; below a directory
        that goes in steps. The end of a file (`purge`, `drop_copy`) does the same with its older versions.

        Raises:
            Missing: It isn't in the trash.
        """

    async def restore(self, entry_id: str, path: str = "", *, check: Check | None = None) -> Entry:
        """Brings something back from the trash to where it was, or to `path`; directories are made.

        Raises:
            Missing: It isn't in the trash, or is an older version of a file.
            Exists: The name is taken.
        """

    async def set_tags(self, path: str, tags: Mapping[str, str]) -> Entry:
        """Replaces the tags.

        Raises:
            Missing: There is no such entry.
        """

    async def adopt(
        self,
        path: str,
        copy: Copy,
        *,
        mtime: int,
        sha256: str = "",
        entry_id: str = "",
        check: Check | None = None,
    ) -> Entry:
        """Takes a file that a store already holds into the tree; directories are made. With a copy that is `Linked` the
        entry is a link.

        Raises:
            Exists: The path is taken.
            Conflict: The key is another entry's copy, or of a link's: somebody is about to write there.
        """

    async def relink(self, copy: Copy, *, was: Copy, mtime: int) -> bool:
        """The linked object has another content: tag and size are `copy`'s, its digest isn't known. The entry gets a
        version of its own and is due. False, and nothing is changed, if the record isn't `was` any more or a Put of the
        entry is open.
        """

    # -- copies, and the mover's work

    async def put_copies(
        self, copies: Sequence[Copy], *, due: int = 0, was: Sequence[Copy | None] | None = None
    ) -> None:
        """Writes what is known of copies, each only while its entry is there; counters follow. With `due` the mover
        has to look at those that change. With `was` a copy is written only if its record is still as given there, in
        the same order (None: there was none).

        Raises:
            Conflict: A key belongs to another entry's copy.
        """

    async def rekey(self, copy: Copy, *, was: Copy) -> bool:
        """The copy lies at another key of its store now. False, and nothing is changed, if its record isn't `was` any
        more, the other key belongs to another entry's copy, or a Put of the entry is open.
        """

    async def set_digest(self, entry_id: str, version: int, sha256: str) -> None:
        """Keeps the digest of a content whose digest wasn't known, if it is still of that version."""

    async def drop_copy(self, entry_id: str, store: str, *, was: Copy | None = None) -> None:
        """The copy is surely gone (with `was`, only if its record is still this one); an entry in the trash without
        copies ends with its last one (and without any at once when the mover asks), an empty trashed directory too. A
        link ends with its linked object, wherever it is.

        Raises:
            Conflict: It is a link over which somebody writes.
        """

    async def purge(self, entry_id: str) -> None:
        """Ends a trashed entry that has no copies; a trashed directory when nothing is left in it."""

    async def work(self, now: int, *, limit: int = 100) -> list[Work]:
        """Files that are due, the longest waiting first; and directories, but only those that lie in the trash as
        what was deleted: `purge` ends them when their files are gone."""

    async def next_due(self) -> int:
        """When the next file is due; 0 if none ever is."""

    async def looked(self, entry_id: str, version: int, due: int, *, pending: bool = False, stamp: int = 0) -> None:
        """The mover looked at this version; it wants to look again at `due` (0: when something changes). If the entry
        changed since (content, name, tags, trash, `wake`: pass the `stamp` of the Work), it stays due. A `due` that is
        over makes it due at once.

        Args:
            entry_id: The entry.
            version: As it was in the Work.
            due: When to look again.
            pending: Whether work is left, for the sums.
            stamp: As it was in the Work; 0 to go by the version alone.
        """

    async def wake(self, *, store: str = "", due: int) -> int:
        """Makes all files due (those with a copy in a store, if one is named), since policy or stores changed.
        Gives how many; other changes may come in between."""

    # -- the journal

    async def unwritten(self, *, limit: int = 10000) -> list[Record]:
        """Records that aren't in a store yet, in their order."""

    async def written(self, seq: int) -> None:
        """Records up to this one are in a store: they are forgotten here."""

    async def seq(self) -> int:
        """Number of the last record, 0 if there never was one."""

    async def rows(self, *, after: str = "", limit: int = 1000) -> list[Located]:
        """All entries but the root by id, those in the trash too, with copies: to write down the whole catalogue."""

    async def load(
        self,
        entries: Iterable[Entry],
        copies: Iterable[Copy],
        trashed: Iterable[Trashed],
        *,
        due: int,
        seq: int = 0,
        fresh: Iterable[str] = (),
    ) -> None:
        """Fills an empty catalogue, for a rebuild: ids, versions and times are kept as given. The parents of all
        entries must be among them (but the root), in any order; what lies in the trash as deleted is in `entries` with
        the parent `TRASH`, and in `trashed`. Each is read once, one after the other, perhaps in another thread, and
        none is kept in memory: they may be millions.

        Args:
            entries: Files and directories.
            copies: Their copies.
            trashed: What was deleted.
            due: When files are due.
            seq: The next record of the journal is `seq + 1`.
            fresh: Ids of entries that no journal record speaks of: records are made.

        Raises:
            Conflict: It isn't empty.
        """

    async def clear(self, keep: Sequence[str] = ()) -> None:
        """Throws everything away, as if it were new, also where it is damaged; texts whose names begin with one of
        `keep` stay. Whoever is at work with it gets a Transient or finds nothing."""

    @property
    def shared(self) -> bool:
        """Other processes may have it open: an intent is over when its time is, not since this process is new."""

    @property
    def stale(self) -> str:
        """Why the process has to be started again, since what it knows of it is wrong; empty if it needn't."""

    async def alone(self, duty: str, seconds: float) -> bool:
        """Whether this process has a duty that one process at a time may have. It keeps it for so long, longer when it
        asks again, and gives it up with 0."""

    async def close(self) -> None:
        """Ends; twice is fine."""


async def at_work(catalog: Catalog, entry_id: str, *, kind: IntentKind | None = None) -> bool:
    """Whether an intent of an entry is open, of one kind or of any, through whichever gateway of the directory."""
    return any(i.entry == entry_id and kind in (None, i.kind) for i in await catalog.intents(until=ALL))
