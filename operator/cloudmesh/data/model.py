"""What the data wing speaks of: entries of the tree, their copies in stores, what is under way. Pure.

Times are whole microseconds since 1970 in UTC, sizes bytes, money whole nano-units of a currency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["File", "Directory"]
CopyState = Literal["Writing", "Whole", "Stale", "Missing", "Corrupt", "Deleting", "Linked"]
"""`Writing`: an intent names it; `Whole`: the store confirmed it with the digest on record; `Stale`: an older content
than the entry's; `Missing`: it was there and isn't; `Corrupt`: read back, it had another digest; `Deleting`: not wanted
any more, and not yet confirmed gone; `Linked`: somebody else's object, which is read where it lies and never written,
moved or removed. The entry is a link then, and has no whole copy beside it."""
IntentKind = Literal["Put", "Copy", "Delete", "Settle"]

ROOT = "0" * 16
"""Id of the directory `/`."""
TRASH = "f" * 16
"""Id of the directory of deleted things: to delete is to move there, whatever the size; the mover does the rest."""
MICROS = 1_000_000
OVER = 1
"""As a time of deletion: what lies in the trash with it can't be restored any more, its copies are being removed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory of the tree.

    Args:
        id: 16 hexadecimal digits, for ever the same.
        parent: Id of the directory it lies in; the root's own is empty.
        name: Last part of its path, NFC; the root's is empty.
        kind: What it is.
        size: Bytes; 0 for directories.
        mtime: When its content was changed, as whoever wrote it says.
        sha256: Hexadecimal digest of the content; empty while nobody has read an adopted file.
        version: Rises with each change of the content, from 1; the entity tag is made of it.
        content_type: Media type, empty if unknown.
        tags: Words of users.
        created: When it was first seen.
    """

    id: str
    parent: str
    name: str
    kind: Kind
    size: int = 0
    mtime: int = 0
    sha256: str = ""
    version: int = 1
    content_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    created: int = 0

    @property
    def etag(self) -> str:
        """Entity tag of its content, with quotes."""
        return f'"{self.id}-{self.version}"'


@dataclass(frozen=True, slots=True)
class Copy:
    """One entry's content in one store.

    Args:
        entry: Id of the entry.
        store: Name of the store.
        key: The object's key in the store, with the directory's prefix: what it *is*, which after a rename isn't what
            it would be called today.
        version: Version of the entry that it holds.
        state: What is known of it.
        tag: The store's entity tag; a read that finds another one isn't this copy.
        size: Bytes.
        verified: When its presence was last confirmed by the store; 0 for never.
        scrubbed: When its bytes were last read and compared; 0 for never.
        error: The store's words of what went wrong last, empty if nothing did.
    """

    entry: str
    store: str
    key: str
    version: int
    state: CopyState
    tag: str = ""
    size: int = 0
    verified: int = 0
    scrubbed: int = 0
    error: str = ""


def link_of(copies: Iterable[Copy]) -> Copy | None:
    """The linked object among an entry's copies; None if it is no link."""
    return next((copy for copy in copies if copy.state == "Linked"), None)


@dataclass(frozen=True, slots=True)
class Target:
    """Where an intent writes or deletes.

    Args:
        store: Name of the store.
        key: Key of the object.
        expect: Entity tag that the object must have, empty if there must be none.
    """

    store: str
    key: str
    expect: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be done to stores, committed before it begins, so that a crash can be replayed or taken back.

    Args:
        id: 16 hexadecimal digits; stored with each object that the intent writes (attribute `write`).
        kind: What is done.
        entry: Id of the entry; that of a new file is chosen here.
        parent: Path of the directory that the file lies in; missing ones are made with it.
        name: Last part of its path.
        version: Version that the entry will have.
        targets: Where.
        until: Time after which nobody works on it any more; 0 in a process that has ended.
        sha256: Digest, where known before the bytes.
        size: Bytes, -1 where unknown.
        mtime: Of the new content.
        content_type: Of the new content.
        tags: Of a new file.
    """

    id: str
    kind: IntentKind
    entry: str
    parent: str
    name: str
    version: int
    targets: tuple[Target, ...]
    until: int
    sha256: str = ""
    size: int = -1
    mtime: int = 0
    content_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Path of the file, as it was when this began."""
        return f"{self.parent}/{self.name}".strip("/")


@dataclass(frozen=True, slots=True)
class Trashed:
    """What was deleted and can still be restored.

    Args:
        entry: The file or directory, its parent being `TRASH`.
        path: Where it was.
        at: When it was deleted or replaced; `OVER` for what can't be restored any more.
        of: Id of the file whose older content it is; empty for what was deleted.
    """

    entry: Entry
    path: str
    at: int
    of: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """A file that the mover has to look at.

    Args:
        entry: The file.
        path: Its path; empty in the trash.
        copies: Its copies.
        trashed: When it, or a directory above it, was deleted; 0 if it wasn't.
        due: Since when it waits.
        stamp: Rises whenever something changes that the mover has to look at.
        of: Id of the file whose older content it is, in the trash; else empty.
        was: Path by which it is placed in the trash, where somebody asked for it; else empty.
    """

    entry: Entry
    path: str
    copies: tuple[Copy, ...]
    trashed: int
    due: int
    stamp: int = 0
    of: str = ""
    was: str = ""

    @property
    def where(self) -> str:
        """What it is called, for people."""
        return self.path or self.was or self.entry.id


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums that are kept, never counted."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    stores: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By store: whole copies, and their bytes."""
    pending: int = 0
    """Entries that the mover still has work with."""
    states: Mapping[str, int] = field(default_factory=dict)
    """Copies by state other than Whole."""
    held: Mapping[str, int] = field(default_factory=dict)
    """By store: copies on record, whatever their state."""
    moving: bool = False
    """Not all below directories that were deleted or restored is in `files` and `bytes` yet, or no more."""
    waking: bool = False
    """Not all that was made due is in `pending` yet."""
