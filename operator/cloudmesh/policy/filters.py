"""What an offer must pass, by name, and how many fell where.

| filter | an offer falls because |
|---|---|
| Account | its account isn't asked for |
| Type, Arch, Vcpu, Memory, Gpu, Disk | the machine isn't what an alternative needs |
| Image | the image can't be had with it |
| PublicAddress | machines of its account can't have addresses of the internet |
| Region, Zone, Purchase | the pool wants other ones |
| Policy… | the policy's filter of that name excludes it, see `rules` |
| Network | machines must reach each other, and its network isn't known or isn't the one chosen |
| Priced, Currency | there is a limit, and its price isn't known or is in another currency |
| Blocked | it failed a moment ago |
| Free, AccountLimit, Quota | there is no room |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from cloudmesh.policy import bits
from cloudmesh.policy.bits import Bits, pack
from cloudmesh.policy.blocks import QUOTA, blocked_rows, still_held
from cloudmesh.policy.model import Alternative, Block, Needs, Offer, PoolRequest, Rejection, Request, say_id
from cloudmesh.policy.offers import UNKNOWN_COST, UNPRICED, Ints, Longs, Mask, OfferTable, Rows
from cloudmesh.policy.rules import rule_mask

ROOM = ("Blocked", "Free", "AccountLimit", "Quota")
"""Filters that say there is no room now; what falls at an earlier one can't ever serve."""


NAMED = 3
"""Names that a reason lists at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """One filter as it applies to a pool: the rows that pass (None: all), and what to say of one that doesn't."""

    name: str
    passes: Bits | None
    says: Callable[[Offer], str]


@dataclass(frozen=True, slots=True)
class Sifted:
    """What is left of the offers for a pool.

    Args:
        pool: The pool.
        rows: Rows of the table that serve, in its order.
        units: What a machine of each counts as.
        alternative: Index of the alternative that each serves: the one that counts most, then the user's first.
        rejected: Where the others fell.
        wanted: Offers that are what the pool needs, whether or not there is room.
        over_quota: Whether some of these fell because of a quota or an account's limit.
    """

    pool: PoolRequest
    rows: Rows
    units: Ints
    alternative: Ints
    rejected: tuple[Rejection, ...]
    wanted: int
    over_quota: bool

    def costs(self, table: OfferTable, currency: str, picked: Rows | None = None) -> Longs:
        """Nano-units per hour of a machine of each row with its disk, see `OfferTable.costs`.

        Args:
            table: The table.
            currency: Currency to compare in.
            picked: Indexes of the rows that are asked for; None for all.
        """
        rows = self.rows if picked is None else self.rows[picked]
        bare = table.costs(currency)[rows]
        if not self.with_disks(table):
            return bare
        sizes = np.array([alternative.needs.disk_gib for alternative in self.pool.alternatives], dtype=np.int64)
        gib = sizes[self.alternative if picked is None else self.alternative[picked]]
        return np.where(bare == UNKNOWN_COST, bare, bare + table.disk_costs(rows, gib))

    def with_disks(self, table: OfferTable) -> bool:
        """Whether disks count in its costs."""
        return table.bills_disks and any(alternative.needs.disk_gib for alternative in self.pool.alternatives)

    def in_order(self, table: OfferTable) -> bool:
        """Whether its rows are in order of the cost."""
        if not table.one_currency:
            return False
        sizes = {alternative.needs.disk_gib for alternative in self.pool.alternatives}
        return not self.with_disks(table) or (len(sizes) == 1 and table.one_disk_price)


class Sieve:
    """Filters the offers of a table for the pools of a request; equal filters are computed once."""

    def __init__(self, request: Request, table: OfferTable, now: str = "") -> None:
        self._request = request
        self._table = table
        self._blocks: list[tuple[Block, Rows]] = [
            (block, blocked_rows(table, block)) for block in still_held(request.blocks, now)
        ]
        self._sets: dict[Hashable, Bits | None] = {}
        self._all = pack(np.ones(len(table), dtype=np.bool_))
        self._over_quota = pack(self._rows_of(b for b in self._blocks if b[0].error == QUOTA))
        limited = request.max_hourly_nanos is not None
        self._before = [self._step("Account", _in_accounts, lambda o: f"account {o.account}")]
        self._rules = [
            Step(f"Policy{name}", self._by_rules(name), _is_excluded)
            for name in dict.fromkeys(rule.name for rule in request.policy.filters)
        ]
        self._after = [
            *([self._step("Network", _networked, lambda o: "its network isn't known")] if request.same_network else []),
            *([self._step("Priced", _priced, lambda o: "its price isn't known")] if limited else []),
            *([self._step("Currency", _in_currency, _says_currency)] if limited else []),
            Step("Blocked", self._not_blocked(), self._says_block),
            self._step("Free", _with_room, lambda o: "no machine more fits"),
            self._step("AccountLimit", _in_limits, lambda o: f"account {o.account} is at its limit of machines"),
        ]

    def sift(self, pool: PoolRequest) -> Sifted:
        """Filters for one pool and says what fell where: each offer once, at the furthest filter that it reached."""
        chains = [self._steps(pool, alternative) for alternative in pool.alternatives]
        size = len(self._table)
        rejected: list[Rejection] = []
        alive: list[Bits | None] = [None] * len(chains)
        count, wanted, over_quota, before = size, -1, False, None
        for steps in zip(*chains, strict=True):
            name = steps[0].name
            if name == ROOM[0]:
                wanted = count
            if all(step.passes is None for step in steps):
                continue
            reached, alive = alive, [_both(now, step.passes) for now, step in zip(alive, steps, strict=True)]
            after = _any(alive)
            left = size if after is None else bits.count(after)
            if left < count and after is not None:
                fallen = (self._all if before is None else before) & ~after
                row = bits.first(fallen)
                example = self._table.offer(row)
                step = next(s for s, held in zip(steps, reached, strict=True) if held is None or bits.has(held, row))
                rejected.append(Rejection(pool.name, name, count - left, f"{say_id(example.id)}: {step.says(example)}"))
                over_quota = over_quota or name == "AccountLimit" or (
                    name == "Blocked" and bool((fallen & self._over_quota).any())
                )  # fmt: skip
            before, count = after, left
        rows = np.arange(size) if before is None else np.flatnonzero(bits.unpack(before, size))
        if not chains:
            rows = rows[:0]
        units, alternative = _best_alternative(pool, alive, rows, size)
        return Sifted(pool, rows, units, alternative, tuple(rejected), wanted, over_quota)

    def _steps(self, pool: PoolRequest, alternative: Alternative) -> list[Step]:
        return [*self._before, *self._machine(alternative.needs), *self._place(pool), *self._rules, *self._after]

    def _machine(self, needs: Needs) -> list[Step]:
        table = self._table
        gpu = (needs.gpu_model.lower(), needs.gpu_count, bool(needs.type))
        return [
            Step("Type", self._memo(("Type", needs.type), lambda: _one_of(table, "type", (needs.type,))),
                 lambda o: f"type {o.type}, not {needs.type}"),
            Step("Arch", self._memo(("Arch", needs.arch), lambda: _one_of(table, "arch", needs.arch)),
                 lambda o: f"architecture {o.arch}{_not(needs.arch)}"),
            Step("Vcpu", self._memo(("Vcpu", needs.vcpu), lambda: _between(table.milli_vcpu, *needs.vcpu)),
                 lambda o: f"{o.milli_vcpu / 1000:g} virtual CPUs{_asked(needs.vcpu, 1000)}"),
            Step("Memory",
                 self._memo(("Memory", needs.memory_mib), lambda: _between(table.memory_mib, *needs.memory_mib)),
                 lambda o: f"{o.memory_mib} MiB of memory{_asked(needs.memory_mib)}"),
            Step("Gpu", self._memo(("Gpu", gpu), lambda: _with_gpu(table, *gpu)),
                 lambda o: f"{_gpus(o.gpu_count, o.gpu_model)}, {_gpus_asked(needs)}"),
            Step("Disk", self._memo(("Disk", needs.disk_gib), lambda: self._with_disk(needs.disk_gib)),
                 self._says_disk),
        ]  # fmt: skip

    def _place(self, pool: PoolRequest) -> list[Step]:
        table, kinds = self._table, purchases(pool)
        return [
            Step("Image", self._memo(("Image", pool.image), lambda: _with_image(table, pool.image)),
                 lambda o: _says_image(pool.image, o)),
            Step("PublicAddress", self._memo(("PublicAddress", pool.public_address), lambda: self._public(pool)),
                 lambda o: f"account {o.account} has no addresses of the internet: see `spec.network.mode`"),
            Step("Region", self._memo(("Region", pool.regions), lambda: _one_of(table, "region", pool.regions)),
                 lambda o: (f"region {o.region}" if o.region else "no region") + _not(pool.regions)),
            Step("Zone", self._memo(("Zone", pool.zones), lambda: _one_of(table, "zone", pool.zones)),
                 lambda o: (f"zone {o.zone}" if o.zone else "no zone") + _not(pool.zones)),
            Step("Purchase", self._memo(("Purchase", kinds), lambda: _paid(table, kinds)),
                 lambda o: f"{o.purchase}{_not(kinds)}"),
        ]  # fmt: skip

    def _step(
        self, name: str, mask: Callable[[Request, OfferTable], Mask | None], says: Callable[[Offer], str]
    ) -> Step:
        return Step(name, _packed(mask(self._request, self._table)), says)

    def _memo(self, key: Hashable, make: Callable[[], Mask | None]) -> Bits | None:
        if key not in self._sets:
            self._sets[key] = _packed(make())
        return self._sets[key]

    def _with_disk(self, gib: int) -> Mask | None:
        mask = _with_disk(self._table, gib)
        small = {account for account, most in self._request.max_disks.items() if most < gib}
        if mask is None or not small:
            return mask
        return mask & self._table.account.where(lambda account: account not in small)

    def _says_disk(self, offer: Offer) -> str:
        if offer.disk_gib or offer.account not in self._request.max_disks:
            return f"disk of {offer.disk_gib} GiB"
        return f"disk of at most {self._request.max_disks[offer.account]} GiB"

    def _public(self, pool: PoolRequest) -> Mask | None:
        lacking = self._request.no_public
        if not pool.public_address or not lacking:
            return None
        return self._table.account.where(lambda account: account not in lacking)

    def _by_rules(self, name: str) -> Bits | None:
        """All of the policy's filters of one name."""
        found: Bits | None = None
        for rule in self._request.policy.filters:
            if rule.name == name:
                found = _both(found, pack(rule_mask(rule, self._table)))
        return found

    def _not_blocked(self) -> Bits | None:
        blocked = self._rows_of(self._blocks)
        return pack(~blocked) if blocked.any() else None

    def _rows_of(self, blocks: Iterable[tuple[Block, Rows]]) -> Mask:
        mask = np.zeros(len(self._table), dtype=np.bool_)
        for _, rows in blocks:
            mask[rows] = True
        return mask

    def _says_block(self, offer: Offer) -> str:
        row = self._table.row(offer)
        held = next(block for block, rows in self._blocks if row in rows)
        return f"{held.error} until {held.until}" + (f": {held.message}" if held.message else "")


def purchases(pool: PoolRequest) -> tuple[str, ...]:
    """How machines of a pool may be paid."""
    kinds = []
    if pool.above_base != "Spot" or pool.base_on_demand > 0:
        kinds.append("OnDemand")
    if pool.above_base != "OnDemand" and pool.replicas > pool.base_on_demand:
        kinds.append("Spot")
    return tuple(kinds)


def _packed(mask: Mask | None) -> Bits | None:
    return None if mask is None else pack(mask)


def _both(first: Bits | None, second: Bits | None) -> Bits | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _any(sets: list[Bits | None]) -> Bits | None:
    first = sets[0]
    for mask in sets[1:]:
        if first is None or mask is None:
            return None
        first = first | mask
    return first


def _best_alternative(pool: PoolRequest, alive: list[Bits | None], rows: Rows, size: int) -> tuple[Ints, Ints]:
    if len(alive) == 1:
        return np.full(len(rows), pool.alternatives[0].counts_as, dtype=np.int32), np.zeros(len(rows), dtype=np.int32)
    units = np.zeros(len(rows), dtype=np.int32)
    chosen = np.zeros(len(rows), dtype=np.int32)
    for index, (alternative, mask) in enumerate(zip(pool.alternatives, alive, strict=True)):
        better = units < alternative.counts_as
        if mask is not None:
            better &= bits.unpack(mask, size)[rows]
        units[better] = alternative.counts_as
        chosen[better] = index
    return units, chosen


def _not(allowed: tuple[str, ...]) -> str:
    """What would have passed, such as `, not r1, r2 or 3 more`."""
    more = [f"{len(allowed) - NAMED} more"] if len(allowed) > NAMED else []
    *names, last = [*allowed[:NAMED], *more]
    return f", not {', '.join(names)} or {last}" if names else f", not {last}"


def _asked(bounds: tuple[int, int | None], scale: int = 1) -> str:
    """The bounds, such as `, at least 4 asked for`."""
    least, most = bounds
    parts = [f"at least {least / scale:g}"] if least > 0 or most is None else []
    parts += [f"at most {most / scale:g}"] if most is not None else []
    return f", {' and '.join(parts)} asked for"


def _gpus(count: int, model: str) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}{' ' + model if model else ''}"


def _gpus_asked(needs: Needs) -> str:
    if not needs.gpu_model and not needs.gpu_count:
        return "none asked for"
    return f"at least {_gpus(max(1, needs.gpu_count), needs.gpu_model)} asked for"


def _is_excluded(offer: Offer) -> str:
    return "the policy excludes it"


def _says_currency(offer: Offer) -> str:
    return f"its price is in {offer.price.currency}" if offer.price else "its price isn't known"


def _in_accounts(request: Request, table: OfferTable) -> Mask | None:
    mask = table.account.where(set(request.accounts).__contains__)
    return None if mask.all() else mask


def _networked(request: Request, table: OfferTable) -> Mask:
    return table.network.where(bool)


def _priced(request: Request, table: OfferTable) -> Mask:
    mask: Mask = table.nanos != UNPRICED
    return mask


def _in_currency(request: Request, table: OfferTable) -> Mask:
    return table.currency.where(lambda currency: currency == request.currency)


def _with_room(request: Request, table: OfferTable) -> Mask:
    return table.free > 0


def _in_limits(request: Request, table: OfferTable) -> Mask | None:
    full = {account for account, left in request.account_limits.items() if left <= 0}
    return table.account.where(lambda account: account not in full) if full else None


def _one_of(table: OfferTable, column: str, allowed: tuple[str, ...]) -> Mask | None:
    if not any(allowed):
        return None
    mask: Mask = getattr(table, column).where(set(allowed).__contains__)
    return mask


def _between(column: Ints, least: int, most: int | None) -> Mask | None:
    if most is None:
        return column >= least if least > 0 else None
    return (column >= least) & (column <= most)


def _with_gpu(table: OfferTable, model: str, count: int, by_type: bool) -> Mask | None:
    if not model and count == 0:
        return None if by_type else table.gpu_count == 0
    mask = table.gpu_count >= max(1, count)
    return mask & table.gpu_model.where(lambda name: name == model) if model else mask


def _with_disk(table: OfferTable, gib: int) -> Mask | None:
    return (table.disk_gib == 0) | (table.disk_gib >= gib) if gib else None


def _with_image(table: OfferTable, image: str) -> Mask | None:
    return table.images.where(lambda images: images is None or image in images)


def _says_image(image: str, offer: Offer) -> str:
    known = ", ".join(sorted(filter(None, offer.images or ())))
    there = f"account {offer.account} has {known or 'no image'} for {offer.arch}"
    return (
        f"image {image} can't be had: {there}" if image else f"the pool names no image, and there's no default: {there}"
    )


def _paid(table: OfferTable, kinds: tuple[str, ...]) -> Mask | None:
    if len(kinds) == 2:
        return None
    return table.spot if kinds == ("Spot",) else ~table.spot
