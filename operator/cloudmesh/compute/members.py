"""A cluster's machines as the plan reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cloudmesh.policy.model import Offer, Price

Truth = Literal["True", "False", "Unknown"]

QUOTA = "QuotaExceeded"
CAPACITY = frozenset({"CapacityUnavailable", QUOTA})
"""Reasons that are definite: the next offer is tried at once."""

GAVE_UP = "Failed"
"""Reason of a machine that the cloud gave up after it had run."""


@dataclass(frozen=True, slots=True)
class Member:
    """One VirtualMachine of a pool.

    Args:
        name: Its name.
        uid: Its uid.
        pool: Its pool.
        ordinal: Its place in the pool.
        attempt: How often this place was filled, from 1.
        counts_as: Units that it counts for.
        alternative: Alternative of the pool that it was made of.
        offer: What it was made of, with the price that it was made at.
        created_at: When the object was made, by the API server's clock; serves to order machines only.
        template: Hash of what the pool asked for, empty for an adopted machine.
        adopted: The cloud's id that it was adopted by, empty if it was made.
        deleting: Its end was asked for.
        ready: Whether it works.
        ready_since: When that last changed, in seconds since 1970; 0 if it never did.
        asked_at: When the cloud was first asked for it; 0 for never.
        was_up: It was seen to work before; False if that isn't known.
        made: The cloud has it.
        billed: It runs, and costs by the hour at the moment.
        resting: It is stopped, and only its disk costs.
        failed: Reason why it can't work any more, empty otherwise.
        message: The same in a sentence.
        clash: What has its name, or one that it needs, in words; it is made as soon as that is gone.
        gone: The cloud has it no longer.
        preempted: The cloud took it away.
        power: powerState that it was told.
        power_since: When it was last told another one; 0 for never.
        at_rest: It is stopped or suspended as asked.
        failures: Failures in a row of its place before it.
        drift: What differs from what was asked, in words.
        price_now: What its offer costs now, None if that is what it was made at, or nobody knows.
    """

    name: str
    uid: str
    pool: str
    ordinal: int
    attempt: int
    counts_as: int
    alternative: str
    offer: Offer
    created_at: int
    template: str = ""
    adopted: str = ""
    deleting: bool = False
    ready: Truth = "False"
    ready_since: int = 0
    asked_at: int = 0
    was_up: bool = False
    made: bool = False
    billed: bool = False
    resting: bool = False
    failed: str = ""
    message: str = ""
    clash: str = ""
    gone: bool = False
    preempted: bool = False
    power: str = "Running"
    power_since: int = 0
    at_rest: bool = False
    failures: int = 0
    drift: tuple[str, ...] = ()
    price_now: Price | None = None

    @property
    def refused(self) -> bool:
        """Whether it failed before there was a machine."""
        return bool(self.failed) and not self.gone and not self.preempted and self.failed != GAVE_UP

    @property
    def nanos(self) -> int | None:
        """Its price per hour with its disk, None if nobody knows it."""
        return self.offer.price.nanos if self.offer.price is not None else None

    @property
    def running(self) -> Price | None:
        """What an hour of it costs at the moment: as spot what the market asks, and never more than it was made at."""
        made, now = self.offer.price, self.price_now
        if self.resting and made is not None:
            return replace(made, nanos=made.disk)
        if self.offer.purchase != "Spot" or made is None or now is None or made.currency != now.currency:
            return made
        return min(made, now, key=lambda price: price.nanos)


def units(members: tuple[Member, ...] | list[Member]) -> int:
    """What several machines count for."""
    return sum(m.counts_as for m in members)
