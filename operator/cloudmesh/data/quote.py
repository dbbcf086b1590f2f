"""What another way to place files takes: exact, counted file by file, in memory that doesn't grow with them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from cloudmesh.data.catalog.ports import Located
from cloudmesh.data.config import DirectoryConfig, Prices, Proposal, Quote, StoreConfig, StoreTerms
from cloudmesh.data.model import link_of
from cloudmesh.data.money import egress_nanos, monthly_nanos, read_nanos, write_nanos
from cloudmesh.data.placement import Facts, StoreView, by_way_out, choose

VALID_SECONDS = 900
"""How long a quote is good; then everything is counted anew."""


@dataclass(slots=True)
class _Flow:
    """What goes into a store and comes out of it: objects and bytes."""

    written: int = 0
    written_bytes: int = 0
    read: int = 0
    read_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0


def terms_of(store: StoreConfig) -> StoreTerms:
    """What placement goes by in a store."""
    return StoreTerms(store.name, store.access, store.domain, store.region, store.prices)


@dataclass(slots=True)
class Counting:
    """Counts one proposal.

    Args:
        proposal: How files are to be placed.
        views: All stores, as they are.
        held: By store, files and bytes that lie there.
        config: The directory as it is.
        now: Microseconds.
    """

    proposal: Proposal
    views: Sequence[StoreView]
    held: Mapping[str, tuple[int, int]]
    config: DirectoryConfig
    now: int
    _files: int = 0
    _flows: dict[str, _Flow] = field(default_factory=dict)
    _then: dict[str, StoreView] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = {terms.name: terms for terms in self.proposal.stores}
        for view in self.views:
            self._flows[view.config.name] = _Flow()
            if (terms := wanted.get(view.config.name)) is not None:
                config = msgspec.structs.replace(
                    view.config, access=terms.access, domain=terms.domain, region=terms.region,
                    prices=terms.prices, placed_by=None, awaits_approval=False,
                )  # fmt: skip
                self._then[view.config.name] = replace(view, config=config)

    def add(self, located: Located) -> None:
        """Counts one file of the tree."""
        entry = located.entry
        if entry.kind != "File" or link_of(located.copies) is not None:
            return
        whole = {
            copy.store: copy
            for copy in located.copies
            if copy.state == "Whole" and copy.version == entry.version and copy.store in self._then
        }
        facts = Facts(located.path, entry.size, entry.mtime, entry.content_type, entry.tags)
        views = list(self._then.values())
        chosen = choose(facts, self.proposal.rules, views, self.now, holding=frozenset(whole))
        wanted = [name for name in chosen.stores if name not in whole]
        sources = by_way_out((c for c in whole.values() if self._then[c.store].up), self._then)
        if wanted and not sources:
            return
        if wanted:
            self._files += 1
        for name in wanted:
            source, target = self._flows[sources[0].store], self._flows[name]
            source.read, source.read_bytes = source.read + 1, source.read_bytes + entry.size
            target.written, target.written_bytes = target.written + 1, target.written_bytes + entry.size
            self._fill(name, entry.size)
        short = len(chosen.stores) < chosen.rule.copies
        if not chosen.enough or (short and any(not view.up for view in views)):
            return
        for copy in located.copies:
            view = self._then.get(copy.store)
            if copy.store in chosen.stores or view is None or not view.up or view.config.access == "ReadOnly":
                continue
            flow = self._flows[copy.store]
            flow.removed, flow.removed_bytes = flow.removed + 1, flow.removed_bytes + copy.size
            self._fill(copy.store, -copy.size)

    def _fill(self, name: str, size: int) -> None:
        view = self._then[name]
        free = None if view.free is None else max(0, view.free - size)
        self._then[name] = replace(view, used=max(0, view.used + size), free=free)

    def quote(self) -> Quote:
        """What was counted."""
        flows, currency = self._flows, self.config.currency
        prices = {terms.name: terms.prices for terms in self.proposal.stores}
        held = {view.config.name: self.held.get(view.config.name, (0, 0))[1] for view in self.views}
        asks: list[int | None] = []
        ways: list[int | None] = []
        before: list[int | None] = []
        after: list[int | None] = []
        unpriced = []
        for name, flow in flows.items():
            price, left = prices.get(name, Prices()), held[name] + flow.written_bytes - flow.removed_bytes
            if price.gib_month is None and (held[name] or left or flow.read):
                unpriced.append(name)
            asks += [
                _some(write_nanos(price, flow.written), flow.written),
                _some(read_nanos(price, flow.read), flow.read),
            ]
            ways.append(_some(egress_nanos(price, flow.read_bytes), flow.read_bytes))
            before.append(_some(monthly_nanos(price, held[name]), held[name]))
            after.append(_some(monthly_nanos(price, left), left))
        return Quote(
            question=self.proposal.question, files=self._files, copies=sum(f.written for f in flows.values()),
            bytes=sum(f.written_bytes for f in flows.values()), removed=sum(f.removed for f in flows.values()),
            removed_bytes=sum(f.removed_bytes for f in flows.values()), requests_nanos=_sum(asks),
            egress_nanos=_sum(ways), before_nanos=_sum(before), after_nanos=_sum(after), currency=currency,
            unpriced=tuple(unpriced), seconds=self._seconds(), made_at=self.now,
        )  # fmt: skip

    def _seconds(self) -> int | None:
        """How long the slowest store needs at its limits."""
        needed = []
        for store in self.config.stores:
            flow = self._flows.get(store.name, _Flow())
            if store.bytes_per_second:
                needed.append(-(-(flow.written_bytes + flow.read_bytes) // store.bytes_per_second))
            if store.requests_per_second:
                needed.append(-(-(flow.written + flow.read + flow.removed) // store.requests_per_second))
        return max(needed, default=None)


def _some(amount: int | None, count: int) -> int | None:
    """The amount; nothing where nothing is bought, whoever knows the price."""
    return amount if count else 0


def _sum(amounts: Iterable[int | None]) -> int | None:
    total = 0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total
