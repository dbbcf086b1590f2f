"""The port between the directory and a store, and the powers that only some stores have.

A store raises errors of `cloudmesh.engine.errors` and `cloudmesh.data.errors` only. A Transient at a write or delete is
an *unknown outcome*: the caller looks before it believes anything. Libraries that block run in the store's own bounded
threads; the port is asynchronous at its rim.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, runtime_checkable

Conditional = Literal["Full", "Create", "None"]
"""What a write can be tied to: the tag of what is there and absence; absence; nothing."""
Listing = Literal["Strong", "Eventual"]

CHUNK = 1 << 20
"""Bytes of a piece that readers give at most, unless the store's own pieces are larger."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store declares; the contract suite holds it to that.

    Args:
        kind: Member of DataStore.spec that chooses it.
        conditional: What a write can be tied to.
        listing: Whether a listing shows what was just written.
        atomic: Nothing is visible before the last byte, and an aborted write leaves what was there.
        attributes: It keeps small texts with an object.
        tags_are_digests: Kind of digest that the entity tag of a simple object is (`md5`), empty if none.
        max_key: Bytes of a key in UTF-8 at most.
        max_part: Bytes of one part of a key between slashes at most.
        max_size: Bytes of an object at most.
        folds_case: Names that differ only in case are one.
        refuses: Characters that a part of a key can't have (mapped, see `names`).
        refuses_last: Characters that a part of a key can't end with (mapped as well).
        failure_domain: Stores of the same one are lost together, such as a provider's name; empty for the store's own.
        write_holds: Bytes of one write that are in memory at most.
        read_holds: Bytes of one read that are in memory at most.
        holds_for: Bytes of an object up to which `write_holds` is enough, larger ones take more in proportion; 0 for
            any.
    """

    kind: str
    conditional: Conditional
    listing: Listing = "Strong"
    atomic: bool = True
    attributes: bool = True
    tags_are_digests: str = ""
    max_key: int = 1024
    max_part: int = 1024
    max_size: int = 5 << 40
    folds_case: bool = False
    refuses: str = ""
    refuses_last: str = ""
    failure_domain: str = ""
    write_holds: int = 2 << 20
    read_holds: int = 2 << 20
    holds_for: int = 0

    @property
    def strong(self) -> bool:
        """Whether concurrent writers can't undo each other unseen: only such copies count toward `minCopies`."""
        return self.conditional == "Full" and self.atomic


@dataclass(frozen=True, slots=True)
class Object:
    """One object as its store tells it.

    Args:
        key: Its key.
        size: Bytes.
        tag: Entity tag, changes whenever the content does; listings of some stores give none (empty).
        modified: When the store got it, in microseconds.
        attributes: Texts kept with it; empty in listings of stores that don't give them there.
        version: The store's own version id, empty without.
    """

    key: str
    size: int
    tag: str
    modified: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing, ordered by key (bytes of UTF-8).

    Args:
        objects: What is there.
        after: What to ask the next page with; empty at the end.
        complete: False if the store itself can't say that this page left nothing out; then absence proves nothing.
    """

    objects: tuple[Object, ...]
    after: str = ""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Probe:
    """What a look at a store showed.

    Args:
        latency_ms: Time of one small call.
        skew_ms: Its clock minus ours, None where it tells no time.
        writable: False if a trial write was refused; None if not tried.
        message: In words, empty if all is well.
    """

    latency_ms: int
    skew_ms: int | None = None
    writable: bool | None = None
    message: str = ""


class Store(Protocol):
    """One store, bound to one directory's prefix by whoever builds the keys."""

    @property
    def info(self) -> StoreInfo:
        """What it declares."""

    async def probe(self) -> Probe:
        """One cheap call that proves the credentials and the place (bucket, container, path).

        Raises:
            AuthFailed: The credentials are wrong.
            InvalidRequest: There is no such bucket, container or path.
            Transient: No answer.
        """

    async def stat(self, key: str) -> Object | None:
        """The object with its tag and attributes; None only if the store surely says that there is none."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """Objects whose key begins with `prefix`, in the order of keys, after the mark of the last page."""

    def read(self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = "") -> AsyncIterator[bytes]:
        """The bytes from `start`; ends after `length` or at the end.

        Raises:
            Missing: There is no such object.
            Changed: It has another tag than `if_tag` (checked by the store where it can; else before and after).
        """

    async def write(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """Publishes the whole content at once: nothing is visible before the last chunk; an exception of `chunks` or a
        cancellation leaves what was there, and no rest behind.

        Args:
            key: Key of the object.
            chunks: The content.
            size: Bytes, where known before; another number of bytes is InvalidRequest and publishes nothing.
            if_tag: Only over the object of this tag.
            if_absent: Only where there is no object.
            attributes: Texts to keep with it: names `[a-z0-9-]+`, values printable ASCII of 1 KiB together.

        Raises:
            Changed: `if_tag` doesn't fit.
            Exists: `if_absent` doesn't fit.
            Full: No room.
            ReadOnly: It takes no writes.
        """

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """Removes the object; an absent one is fine.

        Raises:
            Changed: It has another tag (a store that can't tie a delete to a tag looks first, as late as it can).
        """

    async def close(self) -> None:
        """Lets go of threads and connections; twice is fine."""


# -- powers: each on its own; a store that hasn't one has no such method -----------------------------------------------


@runtime_checkable
class Copier(Protocol):
    """Copies inside the store, so that no byte passes here."""

    async def copy(
        self,
        source: str,
        target: str,
        *,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """Copies an object of the tag `if_tag`; the target is overwritten. `attributes` replace the source's.

        With `if_absent` nothing is overwritten: as surely as a write tied to absence (`StoreInfo.conditional`), and
        where a store can't tie one, it looks as late as it can.

        Raises:
            Exists: There is a target, and `if_absent`.
        """


@runtime_checkable
class Presigner(Protocol):
    """Gives links that read an object without passing here."""

    async def presign(self, key: str, seconds: int) -> str:
        """A URL for GET that ends by itself."""


Ours = Callable[[str], Awaitable[bool]]
"""Says of a key whether what somebody began to write there may be removed."""

KEYLESS_SECONDS: Final = 3600
"""For which something that is being written may lie unchanged."""


@runtime_checkable
class Sweeper(Protocol):
    """Finds what interrupted writes left."""

    async def sweep(self, prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
        """Removes open upload sessions and temporary objects so old; gives their number.

        Args:
            prefix: Of their keys.
            older_than_seconds: Younger ones are spared.
            ours: Is asked for the key of each; those of others are spared, and what tells no key if it is younger than
                `KEYLESS_SECONDS`.
        """


@runtime_checkable
class Capacity(Protocol):
    """Knows how full it is."""

    async def capacity(self) -> tuple[int, int] | None:
        """Bytes used and free of the whole store; None if nothing limits it."""


@runtime_checkable
class Folders(Protocol):
    """Keeps objects as files in folders: what is a file can't be the beginning of another key, nor the reverse."""

    async def blocked(self, key: str) -> str:
        """The beginning of the key that is no folder, or the key itself where something that is no file has its name;
        empty if nothing is in its way."""


POWERS: Mapping[str, type] = {power.__name__: power for power in (Copier, Presigner, Sweeper, Capacity, Folders)}
