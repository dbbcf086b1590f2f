"""Locks of WebDAV, and the `If` header that shows them. They bind whoever comes, by WebDAV or REST.

One gateway serves a directory, so they live in its memory; the catalogue keeps them as texts, for its next process.
While a new version begins there may be two: neither writes over what the other kept.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import msgspec

from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.model import MICROS, Entry
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest

BUCKETS = 16
"""Texts that the locks are spread over, so that each change writes a part of them."""
MOST = 4096
MOST_OF_USER = 1024
MAX_SECONDS = 3600
DEFAULT_SECONDS = 600
MAX_LISTS = 64
"""Lists of an `If` header, each of which may ask the catalogue."""
_LIST = re.compile(r"\s*(?:<([^<>\s]*)>\s*)?\(([^()]*)\)\s*")
_CONDITION = re.compile(r'\s*(?:(not)\s*)?(?:<([^<>\s]+)>|\[((?:W/)?"[^"\]]*")\])\s*', re.IGNORECASE)
_TIMEOUT = re.compile(r"second-([0-9]{1,18})", re.IGNORECASE)


class Locked(CloudmeshError):
    """Somebody has locked it, and shows no token."""

    reason = "Locked"


class TooManyLocks(CloudmeshError):
    """There is no room for another lock."""

    reason = "TooManyLocks"


class Lock(msgspec.Struct, frozen=True):
    """One lock.

    Args:
        token: What whoever has it shows.
        path: What it was made for.
        deep: All below it too.
        shared: Others may have one too.
        user: Whose it is.
        owner: What its owner says of themselves, XML.
        seconds: How long it lasts when it is renewed.
        until: When it ends, microseconds.
    """

    token: str
    path: str
    deep: bool
    shared: bool
    user: str
    owner: str
    seconds: int
    until: int


_TEXTS = msgspec.json.Decoder(list[Lock])


class Locks:
    """All locks of one directory.

    Args:
        catalog: Keeps them.
        now: Microseconds.
    """

    def __init__(self, catalog: Catalog, now: Callable[[], int]) -> None:
        self._catalog = catalog
        self._now = now
        self._held: dict[str, Lock] = {}
        self._paths: dict[str, set[str]] = {}
        self._ending: set[str] = set()
        """Tokens of locks that are given back, while the catalogue still has them."""
        self._loaded = False
        self._loading = asyncio.Lock()
        self._writing = [asyncio.Lock() for _ in range(BUCKETS)]

    async def load(self) -> None:
        """Reads what an earlier process kept; once."""
        if not self._loaded:
            await self._load()

    async def _load(self) -> None:
        async with self._loading:
            if self._loaded:
                return
            for bucket in range(BUCKETS):
                for lock in _TEXTS.decode(await self._catalog.get(_name(bucket)) or "[]"):
                    self._put(lock)
            self._loaded = True

    def _put(self, lock: Lock) -> None:
        self._held[lock.token] = lock
        self._paths.setdefault(lock.path, set()).add(lock.token)

    def _drop(self, lock: Lock) -> None:
        self._held.pop(lock.token, None)
        tokens = self._paths.get(lock.path)
        if tokens is not None:
            tokens.discard(lock.token)
            if not tokens:
                del self._paths[lock.path]

    @property
    def any(self) -> bool:
        """Whether there may be one."""
        return bool(self._held)

    def at(self, path: str) -> list[Lock]:
        """Locks made for just this path."""
        found = [self._held[token] for token in sorted(self._paths.get(path, ()))]
        for lock in found:
            if lock.until <= self._now():
                self._drop(lock)
        return [lock for lock in found if lock.until > self._now()]

    def covering(self, path: str) -> list[Lock]:
        """Locks that a change of this path, without its place in the directory, meets."""
        if not self._held:
            return []
        found = self.at(path)
        while path:
            path = path.rpartition("/")[0]
            found += [lock for lock in self.at(path) if lock.deep]
        return found

    def below(self, path: str) -> list[Lock]:
        """Locks of what lies below."""
        inside = f"{path}/" if path else ""
        return [lock for place in list(self._paths) if place.startswith(inside) and place != path
                for lock in self.at(place)]  # fmt: skip

    def closed(
        self, tokens: frozenset[str], user: str | None, path: str, *, member: bool = False, below: bool = False
    ) -> list[Lock]:
        """Locks that a change meets and that aren't opened by a token shown by the lock's owner.

        Args:
            tokens: What is shown.
            user: Who changes something; None for whoever.
            path: What changes.
            member: Whether the directory that it lies in does too, by one name more or less.
            below: Whether all below changes.
        """
        met = {lock.token: lock for lock in self.covering(path)}
        if member and path:
            met |= {lock.token: lock for lock in self.at(path.rpartition("/")[0])}
        if below:
            met |= {lock.token: lock for lock in self.below(path)}
        opened = {lock.path for lock in met.values() if lock.token in tokens and user in (None, lock.user)}
        return sorted((lock for lock in met.values() if lock.path not in opened), key=lambda lock: lock.path)

    def by_token(self, token: str) -> Lock | None:
        """The lock, while it lasts."""
        lock = self._held.get(token)
        if lock is None or lock.until > self._now():
            return lock
        self._drop(lock)
        return None

    async def add(self, path: str, *, deep: bool, shared: bool, user: str, owner: str, seconds: int) -> Lock:
        """Makes one; whether another stands against it was asked before, with nothing waited for since.

        Raises:
            TooManyLocks: There are too many.
        """
        if len(self._held) >= MOST:
            for place in list(self._paths):
                self.at(place)
        if len(self._held) >= MOST or sum(lock.user == user for lock in self._held.values()) >= MOST_OF_USER:
            raise TooManyLocks(f"there are {MOST} locks, or {MOST_OF_USER} of this user: give some back")
        token = uuid.UUID(bytes=secrets.token_bytes(16), version=4).urn
        lock = Lock(token, path, deep, shared, user, owner, seconds, self._now() + seconds * MICROS)
        self._put(lock)
        try:
            await self._keep([lock])
        except BaseException:
            # nobody was told its token
            self._drop(lock)
            raise
        return lock

    async def renew(self, lock: Lock, seconds: int) -> Lock:
        """Lets one last longer."""
        renewed = msgspec.structs.replace(lock, seconds=seconds, until=self._now() + seconds * MICROS)
        self._put(renewed)
        await self._keep([renewed])
        return renewed

    async def remove(self, locks: Iterable[Lock]) -> None:
        """Ends some."""
        gone = list(locks)
        tokens = {lock.token for lock in gone}
        for lock in gone:
            self._drop(lock)
        self._ending |= tokens
        try:
            await self._keep(gone)
        finally:
            self._ending -= tokens

    async def _keep(self, changed: Iterable[Lock]) -> None:
        for bucket in sorted({_bucket(lock.token) for lock in changed}):
            async with self._writing[bucket]:
                # another gateway, while a new version begins, may have written there: its locks stay, and bind here too
                for lock in _TEXTS.decode(await self._catalog.get(_name(bucket)) or "[]"):
                    ours = self._held.get(lock.token)
                    lasts = self._now() if ours is None else ours.until
                    if lock.token not in self._ending and lock.until > lasts:
                        self._put(lock)
                kept = [lock for lock in self._held.values() if _bucket(lock.token) == bucket]
                kept = [lock for lock in kept if lock.until > self._now()]
                await self._catalog.set(_name(bucket), msgspec.json.encode(kept).decode() if kept else "")


def _bucket(token: str) -> int:
    return int(token[-1], 16) % BUCKETS


def _name(bucket: int) -> str:
    return f"webdav.locks.{bucket}"


def seconds_of(header: str) -> int:
    """How long a lock is to last, by the `Timeout` header."""
    for wish in header.split(","):
        if wish.strip().lower() == "infinite":
            return MAX_SECONDS
        if found := _TIMEOUT.fullmatch(wish.strip()):
            return min(max(int(found[1]), 1), MAX_SECONDS)
    return DEFAULT_SECONDS


# -- the If header


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: a state token or an entity tag that the resource must have, or must not."""

    negated: bool
    token: str
    etag: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """An `If` header.

    Args:
        lists: The resource that each is about (empty for the request's own), and what must hold together.
    """

    lists: tuple[tuple[str, tuple[Condition, ...]], ...] = ()

    @property
    def tokens(self) -> frozenset[str]:
        """All tokens that it shows."""
        return frozenset(c.token for _, found in self.lists for c in found if c.token)

    @property
    def etags(self) -> bool:
        """Whether it asks for an entity tag."""
        return any(c.etag for _, found in self.lists for c in found)

    async def hold(
        self,
        path: str,
        path_of: Callable[[str], str | None],
        entry_at: Callable[[str], Awaitable[Entry | None]],
        covering: Callable[[str], list[Lock]],
    ) -> bool:
        """Whether one of the lists holds.

        Args:
            path: Of the request.
            path_of: Path of an address; None if it isn't here.
            entry_at: Says what is there.
            covering: Locks that a change there meets.
        """
        for address, found in self.lists:
            place = path_of(address) if address else path
            if place is None:
                entry, tokens = None, frozenset[str]()
            else:
                entry = await entry_at(place)
                tokens = frozenset(lock.token for lock in covering(place))
            etag = entry.etag if entry is not None and entry.kind == "File" else ""
            if all((c.token in tokens if c.token else c.etag == etag) != c.negated for c in found):
                return True
        return False


def conditions(header: str | None) -> Conditions | None:
    """Reads an `If` header; None if there is none.

    Raises:
        InvalidRequest: It isn't one.
    """
    if header is None:
        return None
    lists: list[tuple[str, tuple[Condition, ...]]] = []
    at, about = 0, ""
    while at < len(header):
        found = _LIST.match(header, at)
        if found is None or len(lists) == MAX_LISTS:
            raise InvalidRequest(f"the If header must be lists in parentheses, {MAX_LISTS} at most: {header[:80]!r}")
        about = found[1] if found[1] is not None else about
        lists.append((about, _conditions(found[2])))
        at = found.end()
    if not lists:
        raise InvalidRequest("the If header is empty")
    return Conditions(tuple(lists))


def _conditions(text: str) -> tuple[Condition, ...]:
    found: list[Condition] = []
    at = 0
    while at < len(text):
        one = _CONDITION.match(text, at)
        if one is None:
            raise InvalidRequest(f"the If header has a list that can't be read: ({text[:80]})")
        found.append(Condition(one[1] is not None, one[2] or "", one[3] or ""))
        at = one.end()
    if not found:
        raise InvalidRequest("the If header has an empty list")
    return tuple(found)
