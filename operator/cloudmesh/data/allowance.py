"""What a directory may still take: its quota and its money, shared out among writes that are under way.

A write is granted its part before a byte moves, and holds it until the catalogue counts it: so however many come at
once, they never take more together than there is. Where several processes share a catalogue, each looks again within
the transaction that counts its write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cloudmesh.data.catalog.ports import Catalog, Check
from cloudmesh.data.config import DirectoryConfig, PlacementRule
from cloudmesh.data.errors import Full, OverBudget
from cloudmesh.data.model import Entry, Totals
from cloudmesh.data.money import GIB, monthly_nanos, say
from cloudmesh.data.placement import Chosen

CALM_SECONDS = 5.0
"""How long a write that would be refused waits for others that are just being counted."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What writes take."""

    files: int = 0
    bytes: int = 0
    nanos: int = 0

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.files + other.files, self.bytes + other.bytes, self.nanos + other.nanos)

    def __sub__(self, other: Taken) -> Taken:
        return Taken(self.files - other.files, self.bytes - other.bytes, self.nanos - other.nanos)


@dataclass(slots=True, eq=False)
class Grant:
    """One write's part of what there is; `release` gives it back.

    Args:
        allowance: Whose it is.
        old: Size of what the write replaces, 0 for nothing.
        files: Files that it adds.
        rate: Nano-units that a GiB of the new content costs a month, on all stores together.
        saved: Nano-units a month that go with what it replaces.
        more: Nano-units a month that it costs beside.
        base: What there was in all when it began.
        ended: What all writes before had taken that had ended by then.
        unsure: Some were just being counted then: they may be in both.
        late: The catalogue may sum it up only a while after it has it.
        counted: The catalogue has it.
        size: Bytes so far.
    """

    allowance: Allowance
    old: int = 0
    files: int = 0
    rate: int = 0
    saved: int = 0
    more: int = 0
    base: Taken = field(default_factory=Taken)
    ended: Taken = field(default_factory=Taken)
    unsure: bool = False
    late: bool = False
    counted: bool = False
    size: int = 0

    @property
    def taken(self) -> Taken:
        """By what the directory grows."""
        nanos = -(-self.rate * self.size // GIB) - self.saved + self.more
        return Taken(self.files, max(0, self.size - self.old), max(0, nanos))

    async def grow(self, size: int) -> None:
        """The content has so many bytes by now.

        Raises:
            Full: The quota has no room for it.
            OverBudget: It would cost more than the directory may.
        """
        if size <= self.size:
            return
        before, self.size = self.size, size
        try:
            try:
                self.allowance.check(self)
            except Full:
                # what there was when it began is long ago
                await self.allowance.look_again(self)
        except BaseException:
            self.size = before
            raise

    def release(self, *, kept: bool = False) -> None:
        """The write has ended; twice is fine.

        Args:
            kept: The sums hold it now; else it came to nothing.
        """
        self.allowance.release(self, kept=kept)


@dataclass(slots=True)
class Allowance:
    """Shares out quota and money of one directory.

    Args:
        catalog: Keeps the sums.
        config: What the directory may have.
    """

    catalog: Catalog
    config: Callable[[], DirectoryConfig]
    _grants: set[Grant] = field(default_factory=set)
    _ended: Taken = field(default_factory=Taken)
    _counting: set[Grant] = field(default_factory=set)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _go_on: asyncio.Event = field(default_factory=asyncio.Event)
    _calm: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._go_on.set()
        self._calm.set()

    async def grant(self, old: Entry | None, holding: Collection[str], chosen: Chosen, size: int | None) -> Grant:
        """A part for one write.

        Args:
            old: What it replaces, None for a new file.
            holding: Stores that hold that.
            chosen: Where the new content goes.
            size: Bytes, None where unknown: it grows as they come.

        Raises:
            Full: There is no room.
            OverBudget: There is no money.
        """
        return await self._granted(self._wanted(old, holding, chosen, size))

    def may_refuse(self, old: Entry | None, holding: Collection[str], chosen: Chosen, size: int | None) -> bool:
        """Whether such a write may be refused when it is whole, for what others take meanwhile or a limit that is
        lowered: then it must not go over what was there. For the arguments see `grant`."""
        if not (self.catalog.shared and self.limited):
            return False
        return size is None or self._wanted(old, holding, chosen, size).taken != Taken()

    def _wanted(self, old: Entry | None, holding: Collection[str], chosen: Chosen, size: int | None) -> Grant:
        config = self.config()
        made = Grant(self, old=old.size if old else 0, files=0 if old else 1, size=size or 0)
        if config.max_monthly_nanos is not None:
            made.rate = self._rate(chosen.rule, chosen.stores)
            prices = {store.name: store.prices for store in config.stores}
            if old is not None and not config.versions:
                made.saved = sum(monthly_nanos(prices[s], old.size) or 0 for s in holding if s in prices)
        return made

    async def take(self, files: int, size: int, *, late: bool = False) -> Grant:
        """A part for what comes into the tree otherwise than by a write, and costs no more for that.

        Raises:
            Full: There is no room.
        """
        return await self._granted(Grant(self, files=files, size=size, late=late))

    async def spend(self, nanos: int) -> Grant:
        """A part for copies of what is there already, by what they cost more a month.

        Raises:
            OverBudget: There is no money.
        """
        if nanos <= 0 or self.config().max_monthly_nanos is None:
            return Grant(self)
        return await self._granted(Grant(self, more=nanos))

    async def _granted(self, made: Grant) -> Grant:
        if not self.limited:
            return made
        await self._look(made)
        try:
            self.check(made)
        except Full:
            if not made.unsure:
                raise
            await self.look_again(made)
        self._grants.add(made)
        return made

    @property
    def limited(self) -> bool:
        """Whether there are limits at all."""
        config = self.config()
        return any(limit is not None for limit in (config.max_monthly_nanos, config.quota_bytes, config.quota_files))

    async def _look(self, grant: Grant) -> None:
        """Reads the sums for a grant."""
        ended, counted = self._ended, {one for one in self._grants if one.counted}
        unsure = bool(self._counting - {grant})
        totals = await self.catalog.totals()
        grant.unsure = unsure or bool(self._counting - {grant}) or ended != self._ended
        if not totals.moving:
            for one in counted & self._grants:
                self._grants.discard(one)
                # who began before has it in no sum
                self._ended += one.taken
                ended += one.taken
        grant.base, grant.ended = Taken(totals.files, totals.bytes, known_monthly(self.config(), totals)), ended

    async def look_again(self, grant: Grant) -> None:
        """Checks a grant against sums that are read while nothing else is being counted.

        Raises:
            Full: It doesn't fit.
            OverBudget: It costs too much.
        """
        async with self._looking:
            self._go_on.clear()
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CALM_SECONDS):
                        await self._calm.wait()
                await self._look(grant)
                self.check(grant)
            finally:
                self._go_on.set()

    @asynccontextmanager
    async def counting(self, grant: Grant) -> AsyncGenerator[Check | None, None]:
        """While the catalogue takes up what was granted; then it is released. Gives what the catalogue has to check
        where others share it, since each process knows only its own grants."""
        if grant not in self._grants:
            yield None
            return
        await self._go_on.wait()
        self._counting.add(grant)
        self._calm.clear()
        try:
            yield (lambda totals: self._fits(grant, totals)) if self.catalog.shared else None
        finally:
            self._counting.discard(grant)
            if not self._counting:
                self._calm.set()
        grant.release(kept=True)

    def elsewhere(self, grant: Grant, rule: PlacementRule, stores: Collection[str]) -> None:
        """The content goes to other stores than was granted.

        Raises:
            OverBudget: There is no money for that.
        """
        if self.config().max_monthly_nanos is None:
            return
        before, grant.rate = grant.rate, max(grant.rate, self._rate(rule, stores))
        try:
            self.check(grant)
        except Full:
            grant.rate = before
            raise

    def _rate(self, rule: PlacementRule, stores: Collection[str]) -> int:
        """What a GiB costs there, and on stores that will get the copies that can't be made now; the dearest, to be
        sure."""
        prices = {store.name: store.prices.gib_month or 0 for store in self.config().stores}
        lacking = max(0, rule.copies - len(stores))
        others = sorted(
            (
                prices[store.name]
                for store in self.config().stores
                if store.name not in stores and store.access != "Drain"
                and rule.allows(store.name)
            ),
            reverse=True,
        )  # fmt: skip
        return sum(prices.get(store, 0) for store in stores) + sum(others[:lacking])

    def check(self, grant: Grant) -> None:
        """Whether a write of its present size fits beside all others.

        Raises:
            Full: No, for the quota.
            OverBudget: No, for the money.
        """
        self._check(
            grant, sum((one.taken for one in self._grants if one is not grant), grant.base + self._ended - grant.ended)
        )

    def _fits(self, grant: Grant, totals: Totals) -> None:
        """The same in the catalogue's thread, beside all that is counted."""
        self._check(grant, Taken(totals.files, totals.bytes, known_monthly(self.config(), totals)))

    def _check(self, grant: Grant, there: Taken) -> None:
        config, mine = self.config(), grant.taken
        if config.quota_files is not None and mine.files and there.files + mine.files > config.quota_files:
            raise Full(f"the directory's quota of {config.quota_files} files is used up")
        if config.quota_bytes is not None and mine.bytes and there.bytes + mine.bytes > config.quota_bytes:
            room = max(0, config.quota_bytes - there.bytes) + grant.old
            raise Full(
                f"the directory's quota of {config.quota_bytes} bytes would be exceeded by this file: it has room for"
                f" {room} bytes"
            )
        limit = config.max_monthly_nanos
        if limit is not None and mine.nanos and there.nanos + mine.nanos > limit:
            raise OverBudget(
                f"this file would take the directory to {say(there.nanos + mine.nanos, config.currency)} a month, and"
                f" `maxMonthlyCost` is {say(limit, config.currency)}: what is there stays; delete something, or let it"
                " cost more"
            )

    def release(self, grant: Grant, *, kept: bool) -> None:
        """A write has ended."""
        if grant in self._grants:
            if kept and grant.late:
                grant.counted = True
                return
            if not grant.counted:
                self._grants.discard(grant)
                self._ended += grant.taken if kept else Taken()


def known_monthly(config: DirectoryConfig, totals: Totals) -> int:
    """What all copies cost a month in stores whose price is known."""
    held: Mapping[str, tuple[int, int]] = totals.stores
    return sum(monthly_nanos(store.prices, held.get(store.name, (0, 0))[1]) or 0 for store in config.stores)
