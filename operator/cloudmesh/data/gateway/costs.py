"""What the directory costs: the copies in its stores by the month, and what is read from them through the gateway."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.config import StoreSummary, Summary
from cloudmesh.data.hands import Done
from cloudmesh.data.mesh import Member, Mesh
from cloudmesh.data.model import MICROS, Totals
from cloudmesh.data.money import confidence, egress_nanos, monthly_nanos
from cloudmesh.data.prices import price_status
from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.policy.amounts import to_text

log = logging.getLogger(__name__)

EGRESS, VERIFIED = "egress", "verified"
"""Settings of the catalogue."""
KEPT_SECONDS = 60
"""How often what was read is written down; so much of it a crash may lose."""


class _Read(msgspec.Struct):
    """What was read in a month: bytes by store."""

    month: str
    stores: dict[str, int] = {}


class Meter:
    """Counts what is read from stores since the month began, in UTC, and when a copy was last found whole.

    Args:
        catalog: Keeps it over restarts.
        mesh: The stores.
        done: What the mover did.
        now: Microseconds.
    """

    def __init__(self, catalog: Catalog, mesh: Mesh, done: Done, now: Callable[[], int]) -> None:
        self._catalog, self._mesh, self._done, self._now = catalog, mesh, done, now
        self._seen: WeakKeyDictionary[Member, int] = WeakKeyDictionary()
        self._read: _Read | None = None
        self._scrubbed = 0
        self._kept_at = 0
        self.verified_at = 0

    async def tick(self) -> None:
        """Takes up what was read and verified since.

        Raises:
            CloudmeshError: The catalogue can't be asked; nothing is lost by that.
        """
        now = self._now()
        month = datetime.datetime.fromtimestamp(now // MICROS, datetime.UTC).strftime("%Y-%m")
        if self._read is None:
            read = _Read(month)
            with contextlib.suppress(msgspec.DecodeError):
                read = msgspec.json.decode(await self._catalog.get(EGRESS) or "{}", type=_Read)
            verified = await self._catalog.get(VERIFIED)
            self._read, self.verified_at = read, int(verified) if verified.isdigit() else 0
        if self._read.month != month:
            self._read = _Read(month)
        for member in self._mesh.members.values():
            more = member.sent - self._seen.get(member, 0)
            self._seen[member] = member.sent
            if more:
                self._read.stores[member.name] = self._read.stores.get(member.name, 0) + more
        scrubbed = self._done.scrubbed
        if now - self._kept_at < KEPT_SECONDS * MICROS and not (scrubbed and not self.verified_at):
            return
        self._kept_at = now
        text = msgspec.json.encode(self._read, order="sorted").decode()
        if text != await self._catalog.get(EGRESS):
            await self._catalog.set(EGRESS, text)
        if scrubbed > self._scrubbed:
            self._scrubbed, self.verified_at = scrubbed, now
            await self._catalog.set(VERIFIED, str(now))

    async def close(self) -> None:
        """Writes down what isn't yet."""
        self._kept_at = 0
        try:
            await self.tick()
        except CloudmeshError as error:
            log.warning("what was read last isn't counted: %s", error)

    def bytes_of(self, store: str) -> int:
        """Bytes that were read from a store since the month began."""
        return self._read.stores.get(store, 0) if self._read is not None else 0

    def store(self, member: Member, told: StoreSummary) -> StoreSummary:
        """A store's summary with what it costs."""
        prices, read = member.config.prices, self.bytes_of(member.name)
        return msgspec.structs.replace(
            told, monthly_nanos=monthly_nanos(prices, told.bytes), egress_bytes=read,
            egress_nanos=egress_nanos(prices, read),
        )  # fmt: skip

    def directory(self, told: Summary, totals: Totals) -> Summary:
        """The directory's summary with what it costs; unknown where a store with copies has no price."""
        config = self._mesh.config
        known = confidence(config.stores, totals.stores)
        return msgspec.structs.replace(
            told, monthly_nanos=_sum(store.monthly_nanos for store in told.stores if store.bytes or store.files),
            egress_nanos=_sum(store.egress_nanos for store in told.stores if store.egress_bytes),
            confidence=known, currency=config.currency, verified_at=self.verified_at,
        )  # fmt: skip


def _sum(amounts: Any) -> int | None:
    """Their sum, None if one isn't known."""
    total = 0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total


def cost_of(summary: Summary, prices: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """What `GET /v1/cost` tells.

    Args:
        summary: Of the directory.
        prices: By store.
        limit: `maxMonthlyCost` in nano-units, None without.
    """
    body: dict[str, Any] = {"currency": summary.currency, "confidence": summary.confidence}
    body |= _told("monthly", summary.monthly_nanos) | _told("egress", summary.egress_nanos) | _told("limit", limit)
    stores = []
    for store in summary.stores:
        one: dict[str, Any] = {"store": store.name, "files": store.files, "bytes": store.bytes}
        one |= _told("monthly", store.monthly_nanos) | {"egressBytes": store.egress_bytes}
        one |= _told("egress", store.egress_nanos)
        stores.append(one | ({"price": price} if (price := price_status(prices[store.name])) else {}))
    return body | {"stores": stores}


def _told(name: str, nanos: int | None) -> dict[str, str]:
    return {} if nanos is None else {name: to_text(nanos)}
