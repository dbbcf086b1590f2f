"""The stores of one directory as they live: whether each answers, whether it is the one it was, how full it is.

A store that doesn't answer is never taken for an empty one. Each prefix carries an identity marker; a store without its
marker, or with another one, isn't believed: nothing is read from it, written to it or concluded from its listings.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Literal

from cloudmesh.data import names
from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.config import DirectoryConfig, StoreConfig
from cloudmesh.data.errors import InvalidName, Suspicious
from cloudmesh.data.identity import HIDDEN, MARKER, PROBE_LIMIT, Identity, Marker, once
from cloudmesh.data.model import MICROS
from cloudmesh.data.placement import StoreView
from cloudmesh.data.placing import placing
from cloudmesh.data.plugins import score
from cloudmesh.data.stores.clouds import identity_token
from cloudmesh.data.stores.ports import Capacity, Object, Store
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, RateLimited, Transient, Unsupported

__all__ = ["HIDDEN", "KEPT", "MARKER", "Marker", "Member", "Mesh", "State", "make", "once", "own_path", "strongest"]

log = logging.getLogger(__name__)

State = Literal["Up", "Unknown", "Gone", "Claimed", "Suspicious"]
Shown = Literal["Up", "Slow", "Unknown", "Gone", "Claimed", "Suspicious"]

GONE_SECONDS: Final = 60.0
"""A store that hasn't answered for so long is given up: its files are copied elsewhere."""
KEPT: Final = HIDDEN + "kept/"
"""Below it lie objects of what is in the trash, where their own keys were needed."""
PROBE_SECONDS: Final = (1.0, 10.0)
"""Between looks at a store that doesn't answer, and at one that does."""
CAPACITY_SECONDS: Final = 300.0
SLOW_MS: Final = 2000
"""Time of a small call from which on a store is slow."""
SLOW_LOOKS: Final = 3
"""Looks in a row that must have shown so, or the contrary."""
AHEAD_MS: Final = 3_600_000
"""A clock that is further ahead of a store's isn't believed: nothing is removed for its age by it."""
BACK_SECONDS: Final = 30
"""A clock that goes back by more had put work off."""
MISSED: Final = 10_000
"""Files that are kept in mind while a store doesn't answer; all of the store's, if there are more."""
LEAVING_SECONDS: Final = (60.0, 3600.0)
"""A store that was opened anew is closed after the first, when nobody uses it any more, or after the second."""


class Member:
    """One store of the directory.

    Args:
        config: As it was asked for.
        store: The store itself.
        clock: Seconds, monotonic.
    """

    def __init__(self, config: StoreConfig, store: Store, clock: Callable[[], float]) -> None:
        self.config = config
        self.store = store
        self._clock = clock
        self.state: State = "Unknown"
        self.message = "not looked at yet"
        self.latency_ms = 0
        self.their_time: tuple[int, float] | None = None
        """Its clock's time in microseconds, and ours of `clock` then; None where it tells no time."""
        self.slow = False
        self._slower = 0
        """Looks in a row that showed otherwise than `slow`."""
        self.noted = False
        """The catalogue says that it is silent."""
        self.missed: set[str] = set()
        """Files that were looked at while nobody knew whether the store is away."""
        self.unanswered = False
        """It came or went, and not all that this makes due is due yet."""
        self.caught_up = float("-inf")
        """When these were looked at again last, of `clock`."""
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self.used_free: tuple[int, int] | None = None
        self.files, self.bytes = 0, 0
        self.reserved = 0
        """Bytes of uploads that are under way."""
        self.sent = 0
        """Bytes that were read from it: of files, by users and for copies and proofs, and of the journal."""
        self._since = clock()
        self.shrunk = ""
        """Why its listing isn't believed, empty if it is; single objects are read and written all the same."""
        self.claimed = False
        """The prefix was nobody's until this process came: nothing of the directory was in it before."""
        self.looked = asyncio.Event()
        self.doubted = asyncio.Event()
        self.identify: Callable[[], Awaitable[bool]] | None = None
        """Looks at the marker."""

    async def absence_counts(self) -> bool:
        """Whether what the store doesn't have is surely not there: it still has its marker. An unmounted volume and an
        emptied or exchanged bucket answer too."""
        if self.identify is not None and not await self.identify():
            self.doubted.set()
            return False
        return self.up

    @property
    def name(self) -> str:
        """Name of the DataStore."""
        return self.config.name

    @property
    def up(self) -> bool:
        """It answers and is believed."""
        return self.state == "Up"

    @property
    def behind(self) -> bool:
        """Files have to be looked at since it came, went or was silent, and aren't all due yet. One that doesn't answer
        isn't, as long as it isn't given up."""
        return self.state != "Unknown" and (self.unanswered or bool(self.missed))

    @property
    def shown(self) -> Shown:
        """The state for people."""
        if self.state == "Up" and self.shrunk:
            return "Suspicious"
        return "Slow" if self.state == "Up" and self.slow else self.state

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Somebody reads or writes for longer than a call takes: a store that is opened anew is closed after that."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def unused(self) -> None:
        """Returns when nobody does."""
        await self._unused.wait()

    def miss(self, entry_id: str) -> None:
        """A file was looked at while the store didn't answer: it is looked at again when it does."""
        if self.state == "Unknown" and len(self.missed) < MISSED:
            self.missed.add(entry_id)

    def timed(self, latency_ms: int) -> None:
        """Takes how long a small call took."""
        self.latency_ms = latency_ms
        self._slower = self._slower + 1 if (latency_ms >= SLOW_MS) is not self.slow else 0
        if self._slower >= SLOW_LOOKS:
            self.slow, self._slower = not self.slow, 0
            log.warning("store %s is %s: a small call takes %d ms", self.name, self.shown, latency_ms)

    def follow(self, old: Member) -> None:
        """Takes over from a member of the same store that was opened with other credentials or limits."""
        self.state, self.message, self._since = old.state, old.message, old._since
        self.latency_ms, self.their_time, self.slow = old.latency_ms, old.their_time, old.slow
        self.used_free, self.files, self.bytes = old.used_free, old.files, old.bytes
        self.claimed, self.missed, self.noted, self.shrunk = old.claimed, old.missed, old.noted, old.shrunk
        self.unanswered = old.unanswered
        if old.looked.is_set():
            self.looked.set()

    def view(self) -> StoreView:
        """What placement sees of it."""
        free = None if self.used_free is None else max(0, self.used_free[1] - self.reserved)
        return StoreView(
            self.config, self.store.info, self.up, self.bytes + self.reserved, free, self.latency_ms, ask=score
        )

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the store reads, counted as `sent`."""
        async for chunk in self.store.read(key, start=start, length=length, if_tag=if_tag):
            self.sent += len(chunk)
            yield chunk

    def key(self, name: str) -> str:
        """Key of something of ours in it, such as the marker."""
        return self.config.prefix + name

    def told(self, state: State, message: str) -> bool:
        """Takes a result of a look; says whether the state changed."""
        now = self._clock()
        given_up = self.state == "Gone" or (self.state == "Unknown" and now - self._since >= GONE_SECONDS)
        if state == "Unknown" and given_up:
            state = "Gone"
        changed = state != self.state
        if changed:
            self._since, self.unanswered = now, True
            log.log(logging.INFO if state == "Up" else logging.WARNING, "store %s is %s: %s", self.name, state, message)
        self.state, self.message = state, message
        self.looked.set()
        return changed

    async def look(self, key: str) -> Object | None:
        """What lies at a key; None where surely nothing does.

        Raises:
            Suspicious: The store shows nothing, and isn't believed: `absence_counts`.
            CloudmeshError: The store failed, and is doubted.
        """
        try:
            seen = await self.store.stat(key)
        except CloudmeshError as error:
            self.doubt(error)
            raise
        if seen is None and not await self.absence_counts():
            raise Suspicious(f"store {self.name} isn't believed: {self.message}")
        return seen

    def doubt(self, error: CloudmeshError) -> None:
        """A call failed as calls fail when a store is away: look at it at once; until then others are asked first."""
        away = isinstance(error, Transient | Suspicious | AuthFailed) and not isinstance(error, RateLimited)
        if self.state == "Up" and away:
            # what failed may name a file: whoever sees the status of a store may not see that
            log.warning("a call of store %s failed: %s: %s", self.name, error.reason, error)
            self.told("Unknown", f"{error.reason}: a call failed (the gateway's log tells which)")
            self.doubted.set()


class Mesh:
    """All stores of a directory.

    Args:
        config: The directory.
        catalog: Keeps the identities of stores.
        clock: Seconds, monotonic.
        on_change: Called when a store comes or goes, with its name; not when it only was silent for a moment.
        on_blip: Called when it answers again after such a moment, with its name and the files that were missed.
        now: Microseconds.
    """

    def __init__(
        self,
        config: DirectoryConfig,
        catalog: Catalog,
        *,
        clock: Callable[[], float],
        on_change: Callable[[str], Awaitable[None]] | None = None,
        on_blip: Callable[[str, Sequence[str]], Awaitable[None]] | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._on_change = on_change
        self._on_blip = on_blip
        self._now = now
        self._was_ahead = False
        self._offset: int | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._guard = Guard()
        self.config = config
        self.members: dict[str, Member] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._identity = Identity(catalog, lambda: self.config, lambda: self.members.values())
        self._untold = False
        self._telling = 0

    async def use(self, config: DirectoryConfig) -> None:
        """Takes a configuration: stores that are as before go on, others are opened anew. Who reads or writes by a
        store that was opened otherwise comes to an end by that one.

        Raises:
            InvalidRequest: A store's settings can't be used: all stays as it was.
        """
        wanted = {store.name: store for store in config.stores}
        kept = {n for n, member in self.members.items() if n in wanted and _opened(wanted[n]) == _opened(member.config)}
        # also for stores that go on
        self._guard.become(config.forbidden, inside=config.allow_private)
        made = {
            name: Member(store_config, make(store_config, self._guard), self._clock)
            for name, store_config in wanted.items()
            if name not in kept
        }
        self.config = config
        for name in kept:
            member = self.members[name]
            if member.config != wanted[name]:
                member.config = wanted[name]
                member.doubted.set()
        for name in [n for n in self.members if n not in kept]:
            old = await self._remove(name)
            if name in made and _place(old.config) == _place(wanted[name]):
                made[name].follow(old)
            leaving = asyncio.create_task(self._leave(old), name=f"leaving {name}")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        for name, member in made.items():
            member.identify = partial(self._identity.is_same, member)
            self.members[name] = member
            self._tasks[name] = asyncio.create_task(self._watch(member), name=f"store {name}")
        # the user's order
        self.members = {name: self.members[name] for name in wanted}
        await self._tell(config)

    async def _tell(self, config: DirectoryConfig) -> None:
        """All files are due where files are placed otherwise than this catalogue last heard, perhaps from a process
        that ended before it could act."""
        mark = placing(config)
        self._telling += 1
        try:
            if await self._catalog.get("placing") != mark:
                await self._catalog.wake(due=1)
                await self._catalog.set("placing", mark)
            self._untold = False
        except CloudmeshError as error:
            log.warning("that files are placed otherwise can't be acted upon yet: %s", error)
            self._untold = True
        finally:
            self._telling -= 1

    async def close(self) -> None:
        """Ends all."""
        for task in list(self._leaving):
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for name in list(self.members):
            await (await self._remove(name)).store.close()

    async def _remove(self, name: str) -> Member:
        member, task = self.members.pop(name), self._tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return member

    async def _leave(self, member: Member) -> None:
        """Closes a store when its last user is done."""
        soonest, latest = LEAVING_SECONDS
        try:
            # short calls aren't counted
            await asyncio.sleep(soonest)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(latest - soonest):
                    await member.unused()
        finally:
            await member.store.close()

    def ahead_ms(self) -> int:
        """How far our clock is ahead of that of a store, if so far that it isn't believed; else 0."""
        now, clock = self._now(), self._clock()
        told = [member.their_time for member in self.members.values() if member.their_time is not None]
        # from when they were asked they have gone on like the clock that nobody sets
        ahead = max((now - theirs - int((clock - then) * MICROS) for theirs, then in told), default=0) // 1000
        return ahead if ahead > AHEAD_MS else 0

    def bounded(self, now: int) -> int:
        """A time that is no later than the stores' own, by which it is decided what is old enough to be removed.

        Args:
            now: Microseconds.
        """
        return now - self.ahead_ms() * 1000

    def views(self) -> list[StoreView]:
        """What placement sees."""
        return [member.view() for member in self.members.values()]

    def missed(self, entry_id: str) -> None:
        """A file was placed or looked at: again, when a store answers of which nobody knows just now."""
        for member in self.members.values():
            member.miss(entry_id)

    def up(self) -> list[Member]:
        """Stores that answer."""
        return [member for member in self.members.values() if member.up]

    @property
    def behind(self) -> bool:
        """Stores came, went or are to be used otherwise, and not all files that this concerns are due yet."""
        return self._untold or self._telling > 0 or any(member.behind for member in self.members.values())

    async def settled(self, seconds: float = PROBE_LIMIT + 1) -> None:
        """Waits until each store was looked at once, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(member.looked.wait() for member in self.members.values()))

    def count(self, stores: Mapping[str, tuple[int, int]]) -> None:
        """Takes the catalogue's counters: files and bytes of each store."""
        for name, member in self.members.items():
            member.files, member.bytes = stores.get(name, (0, 0))

    async def _watch(self, member: Member) -> None:
        asked_room, tell, unsure = -CAPACITY_SECONDS, False, False
        while True:
            silent = not member.up and member.looked.is_set()
            room = self._clock() - asked_room >= CAPACITY_SECONDS
            first = not member.looked.is_set()
            state, message = await self._look(member, room)
            if room and state == "Up":
                asked_room = self._clock()
            # with a store that was opened anew, what its member before it wasn't done with
            changed = member.told(state, message) or member.unanswered
            if silent or not member.up:
                # after the look, which others wait for
                await self._note(member, silent=True)
            try:
                # what it was when this process, or the one before it, last knew: a moment of silence is no change
                seen = await self._catalog.get(f"seen/{member.name}") if first or changed else member.state
                if first and await self._catalog.get(f"silent/{member.name}"):
                    # what the process before this one missed of it nobody knows
                    unsure = member.noted = True
                tell = (tell or unsure or member.state != seen) and member.state != "Unknown"
                if self._untold and not self._telling:
                    await self._tell(self.config)
                await self._after_wrong_clock()
                if tell and self._on_change is not None:
                    await self._on_change(member.name)
                    member.missed.clear()
                    unsure = False
                if tell and member.state != seen:
                    await self._catalog.set(f"seen/{member.name}", member.state)
                tell = False
                await self._after_blip(member)
                member.unanswered = False
                if member.up:
                    await self._note(member, silent=False)
            except CloudmeshError as error:
                tell = member.unanswered = True
                log.warning("that store %s is %s can't be acted upon yet: %s", member.name, member.state, error)
            member.doubted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS[member.up and not member.missed]):
                    await member.doubted.wait()

    async def _note(self, member: Member, *, silent: bool) -> None:
        """Whether it is silent, for a process that comes after this one."""
        if member.noted is not silent:
            with contextlib.suppress(CloudmeshError):
                await self._catalog.set(f"silent/{member.name}", "yes" if silent else "")
                member.noted = silent

    async def _after_wrong_clock(self) -> None:
        """What was put off by a clock that was far ahead, or was set back, would be due when that comes."""
        offset = self._now() - int(self._clock() * MICROS)
        if self._offset is not None and offset < self._offset - BACK_SECONDS * MICROS:
            log.warning("our clock went back by %d s: all files are looked at", (self._offset - offset) // MICROS)
            await self._catalog.wake(due=1)
        self._offset = offset
        was, ahead = self._was_ahead, self.ahead_ms()
        self._was_ahead = ahead > 0
        if ahead and not was:
            log.warning("our clock is %d s ahead of a store's: nothing is removed for its age", ahead // 1000)
        if was and not self._was_ahead:
            self._was_ahead = True
            await self._catalog.wake(due=1)
            self._was_ahead = False

    async def _after_blip(self, member: Member) -> None:
        """It was silent for a moment: what was missed meanwhile is looked at again."""
        now = self._clock()
        if not member.missed or member.state == "Unknown" or now - member.caught_up < PROBE_SECONDS[False]:
            # one that answers and yet fails at the same call again and again isn't tried all the time
            return
        member.caught_up, member.unanswered = now, True
        missed, member.missed = member.missed, set()
        if len(missed) >= MISSED:
            await self._catalog.wake(store=member.name, due=1)
        elif self._on_blip is not None:
            await self._on_blip(member.name, sorted(missed))

    async def _look(self, member: Member, room: bool) -> tuple[State, str]:
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                probe = await member.store.probe()
                member.timed(probe.latency_ms)
                if probe.skew_ms is not None:
                    member.their_time = self._now() + probe.skew_ms * 1000, self._clock()
                state, message = await self._identity.state_of(member)
                if state == "Up" and room and isinstance(member.store, Capacity):
                    with contextlib.suppress(Unsupported):  # not all servers of a kind know
                        member.used_free = await member.store.capacity()
                return state, message or probe.message
        except TimeoutError:
            return "Unknown", f"no answer within {PROBE_LIMIT:g} s"
        except CloudmeshError as error:
            return "Unknown", f"{error.reason}: {error}"
        except Exception as error:
            log.exception("looking at store %s failed unexpectedly", member.name)
            return "Unknown", f"{type(error).__name__}: {error}"


def _place(config: StoreConfig) -> object:
    """Which place a store is: what is known of it stays so, whatever else changes."""
    return config.kind, config.settings, config.prefix, config.mount, config.uid


def _opened(config: StoreConfig) -> object:
    """By what a store was opened."""
    return _place(config), config.credentials, config.identity, config.requests_per_second, config.bytes_per_second


def make(config: StoreConfig, guard: Guard) -> Store:
    """Opens a store whose connections go where the guard lets them.

    Raises:
        InvalidRequest: Its settings can't be used.
    """
    context = StoreContext(
        config.name,
        config.settings,
        {key: base64.b64decode(value) for key, value in config.credentials.items()},
        config.requests_per_second,
        config.bytes_per_second,
        config.mount,
        guard.inside,
        guard,
        {**config.identity, "tokenFile": identity_token(config.identity["audience"])} if config.identity else {},
    )
    return maker(config.kind)(context)


def own_path(path: str) -> str:
    """The clean path of something that a user may change.

    Raises:
        InvalidName: It is the root, lies in our own folder, or can't be held.
    """
    clean = names.clean_path(path)
    if not clean:
        raise InvalidName("the root can't be changed: name something in it")
    if clean == HIDDEN[:-1] or clean.startswith(HIDDEN):
        raise InvalidName(f"'{HIDDEN}' is Cloudmesh's own: choose another name")
    return clean


def strongest(members: Sequence[Member]) -> list[Member]:
    """Stores that the journal may be written to, in the user's order: strong ones that take writes."""
    return [m for m in members if m.up and m.store.info.strong and m.config.access == "ReadWrite"]
