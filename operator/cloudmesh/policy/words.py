"""Reasons in words: why an offer was chosen, and why something is missing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from cloudmesh.policy.choose import Choice
from cloudmesh.policy.filters import Sifted
from cloudmesh.policy.model import Rejection, Request, say_id, with_disk
from cloudmesh.policy.modes import MODES
from cloudmesh.policy.money import say_money
from cloudmesh.policy.offers import UNPRICED, OfferTable
from cloudmesh.policy.problem import Item, Task, take

_FALLS = {
    "Priced": ("has no known price", "have no known price"),
    "Currency": ("is priced in another currency", "are priced in another currency"),
    "Blocked": ("is blocked after a failure", "are blocked after failures"),
    "Free": ("has no room left", "have no room left"),
}
"""What an offer lacks, of one and of many, where the filter's name doesn't tell."""


def _cheaper(request: Request, table: OfferTable, sifted: Sifted, task: Task, item: Item) -> int:
    """Offers that serve the pool at a lower cost of a unit."""
    if len(task.sizes) == 1 and table.one_currency and not sifted.with_disks(table):
        return bisect_left(sifted.rows, item.cost, key=table.costs(request.currency).__getitem__)
    return int(np.count_nonzero(sifted.costs(table, request.currency) / sifted.units < item.cost / item.units))


def say_why(request: Request, table: OfferTable, choice: Choice, number: int, n: int) -> str:
    """Why an offer was chosen.

    Args:
        request: The request.
        table: The table.
        choice: The choice.
        number: Which pool.
        n: Which item of its task.
    """
    task, sifted = choice.tasks[number], choice.sifted[number]
    item, pool = task.items[n], task.pool
    nanos, offer = int(table.nanos[item.row]), table.offer(item.row)
    price = say_money(nanos, offer.price.currency) if offer.price and nanos != UNPRICED else "no known price"
    many = f"of {len(sifted.rows)}"
    if offer.price and nanos != UNPRICED and (gib := pool.alternatives[item.alternative].needs.disk_gib):
        disk = (with_disk(offer, gib).price or offer.price).disk
        if disk:
            price += f" and {say_money(disk, offer.price.currency)} for the disk"
        elif offer.price.gib_month is None:
            price += ", disk not counted"
    if request.policy.mode == "Cheapest" or choice.by_price:
        cheaper = _cheaper(request, table, sifted, task, item)
        rank = f"cheapest {many}" if not cheaper else f"cheapest but {cheaper} {many}"
    else:
        rank = f"{MODES[request.policy.mode].words} {many}"
        if request.policy.mode == "Fastest":
            start = int(table.start_seconds[item.row])
            rank += f", ready in {start} s" if start >= 0 else ", time to Ready not known"
    parts = [f"{rank}: {price}"]
    if item.units > 1:
        parts.append(f"counts as {item.units}")
    if pool.above_base != "OnDemand" and not item.spot:
        parts.append("on demand, of the base" if task.base else "on demand instead of spot")
    if pool.spread != "None":
        parts.append(f"spread over {'zones' if pool.spread == 'Zone' else 'accounts'}")
    if pool.colocate != "None":
        parts.append(f"all in one {pool.colocate.lower()}")
    if choice.network:
        parts.append(f"network {choice.network}")
    if choice.by_price:
        parts.append(f"by price, since mode {request.policy.mode} doesn't fit")
    return "; ".join(parts)


def in_words(machines: Sequence[tuple[str, int]]) -> str:
    """Machines by offer in a line, such as `8 x aws/m5.large/us-east-1/a/Spot`."""
    parts = [f"{count} x {say_id(name)}" for name, count in machines[:4]]
    return ", ".join(parts) + (f" and {len(machines) - 4} more" if len(machines) > 4 else "")


def explain(request: Request, table: OfferTable, choice: Choice, held: int | None) -> tuple[str, str]:
    """Reason and message of what is missing, both empty if nothing is.

    Args:
        request: The request.
        table: The table.
        choice: The choice.
        held: Cost of what is pinned, None if not known.
    """
    if not choice.missing:
        return "", ""
    if choice.over is not None:
        return "OverMaxHourlyCost", _over(request, choice, held)
    number, fill = next((n, fill) for n, fill in enumerate(choice.fills) if fill.missing)
    task, sifted = choice.tasks[number], choice.sifted[number]
    reason = _reason(choice, task, sifted)
    text = f"pool {task.pool.name}: {fill.missing} of {task.pool.replicas} can't be placed; "
    if not len(sifted.rows):
        return reason, text + f"none of {len(table)} offers fits" + _falls(sifted.rejected)
    text += f"{len(sifted.rows)} of {len(table)} offers fit"
    if fill.missing and task.base and not any(not item.spot for item in task.items):
        return reason, text + f", but none on demand, and {task.base} must be"
    if task.pool.colocate != "None":
        return reason, text + f", but no single {task.pool.colocate.lower()} has room for all"
    what = "quotas and limits of accounts leave" if reason == "QuotaExceeded" else "their free capacity leaves"
    return reason, text + f", but {what} no room for more"


def _falls(rejected: Sequence[Rejection]) -> str:
    """How many offers fell where, such as `: 2 at Vcpu, 1 has no known price, such as …`; the example is the last's."""
    if not rejected:
        return ""
    said = []
    for r in rejected:
        one, many = _FALLS.get(r.filter, (f"at {r.filter}",) * 2)
        said.append(f"{r.count} {one if r.count == 1 else many}")
    return f": {', '.join(said)}, such as {rejected[-1].example}"


def all_rejections(table: OfferTable, sifted: Sequence[Sifted], choice: Choice) -> tuple[Rejection, ...]:
    """Where offers fell, those outside the chosen network included.

    Args:
        table: The table.
        sifted: Offers that serve each pool, in all networks.
        choice: The choice.
    """
    found: list[Rejection] = []
    for whole, inside in zip(sifted, choice.sifted, strict=True):
        outside = len(whole.rows) - len(inside.rows)
        if not outside:
            found.extend(whole.rejected)
            continue
        before = sum(r.count for r in whole.rejected if r.filter == "Network")
        found.extend(r for r in whole.rejected if r.filter != "Network")
        elsewhere = table.network.codes[whole.rows] != table.network.code(choice.network)
        row = int(whole.rows[elsewhere.argmax()])
        network = table.network.values[table.network.codes[row]]
        example = f"{say_id(table.ids[row])}: " + (f"network {network}" if network else "no network that is known")
        chosen = f", the one chosen is {choice.network}" if choice.network else ""
        found.append(Rejection(whole.pool.name, "Network", outside + before, example + chosen))
    return tuple(found)


def _over(request: Request, choice: Choice, held: int | None) -> str:
    limit = say_money(request.max_hourly_nanos or 0, request.currency)
    lacks = _lacks([(t.pool.name, f.missing) for t, f in zip(choice.tasks, choice.fills, strict=True) if f.missing])
    if held is None:
        return f"the limit is {limit}, and what a machine costs that runs already isn't known; {lacks}"
    whole = say_money((choice.over or 0) + held, request.currency)
    return f"the cheapest that was found costs {whole}, the limit is {limit}; {lacks}"


def _lacks(missing: Sequence[tuple[str, int]]) -> str:
    """What is missing, such as `2 replicas of pool a and 1 of pool b are missing`."""
    (pool, count), *others = missing
    parts = [f"{count} {'replica' if count == 1 else 'replicas'} of pool {pool}"]
    parts += [f"{count} of pool {pool}" for pool, count in others]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{text} {'is' if len(parts) == 1 and count == 1 else 'are'} missing"


def _reason(choice: Choice, task: Task, sifted: Sifted) -> str:
    if not len(sifted.rows):
        if sifted.wanted == 0:
            return "NoFeasibleOffer"
        return "QuotaExceeded" if sifted.over_quota else "CapacityUnavailable"
    if task.base and all(item.spot for item in task.items):
        return "NoFeasibleOffer"
    left, kinds = _left(choice), choice.resources.kinds()
    for item in task.items:
        empty = {kinds[r] for r, amount in item.uses if left[r] < amount}
        if empty and "free" not in empty:
            return "QuotaExceeded"
    return "CapacityUnavailable"


def _left(choice: Choice) -> list[int]:
    left = list(choice.resources.left)
    for task, fill in zip(choice.tasks, choice.fills, strict=True):
        for n, count in fill.counts.items():
            take(task.items[n], count, left)
    return left
