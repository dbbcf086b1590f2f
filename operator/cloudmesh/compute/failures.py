"""What failed a moment ago in an account and isn't tried again yet: bounded, and kept in the account's status.

| class | key | waits |
|---|---|---|
| CapacityUnavailable and others | account/type/zone/purchase | 3 min, doubled each time, up to 1 h |
| QuotaExceeded | account/region/quota | 15 min |
| AuthFailed | account | until the Secret changes |
| RateLimited | none: the account's own rate only, never an offer | |
| InvalidRequest, Unsupported, Conflict | none: what is wrong with one request says nothing of the offer | |

A provider may name a shorter time for quotas, which grows then: that of a namespace is lifted at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    Unsupported,
)
from cloudmesh.policy.blocks import offer_key, quota_key
from cloudmesh.policy.model import Block, Offer

MAX_ENTRIES = 256
FIRST_SECONDS = 180
LONGEST_SECONDS = 3600
QUOTA_SECONDS = 900
FAR = "9999-12-31T23:59:59Z"
"""Stands for "until somebody changes it"."""
MESSAGE_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry.

    Args:
        key: What failed.
        error: Reason of the taxonomy.
        until: RFC 3339 time.
        message: The cloud's words.
        times: How often in a row; each time waits twice as long.
    """

    key: str
    error: str
    until: str
    message: str = ""
    times: int = 1


class FailureMemory:
    """The failures of one account, at most 256.

    Args:
        entries: What the status held.
    """

    def __init__(self, entries: Iterable[Failure] = ()) -> None:
        self._entries: dict[tuple[str, str], Failure] = {(e.key, e.error): e for e in entries}

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> FailureMemory:
        """Reads `CloudAccount.status.failures`; entries that can't be read are left out."""
        entries = []
        for item in status.get("failures") or ():
            try:
                to_seconds(item["until"])
                entries.append(
                    Failure(
                        item["key"],
                        item["class"],
                        item["until"],
                        item.get("message", ""),
                        int(item.get("failures", 1)),
                    )
                )
            except (KeyError, TypeError, ValueError):
                continue
        return cls(entries)

    def to_status(self, now: str) -> list[dict[str, Any]]:
        """What the status shall hold: entries that still wait, or whose next wait is longer for them."""
        self._expire(now)
        return [
            {"key": e.key, "class": e.error, "until": e.until, "failures": e.times}
            | ({"message": e.message} if e.message else {})
            for e in sorted(self._entries.values(), key=lambda e: (e.key, e.error))
        ]

    def remember(
        self, offer: Offer, error: CloudmeshError, now: str, *, quota: tuple[int, int] = (QUOTA_SECONDS, QUOTA_SECONDS)
    ) -> bool:
        """Takes a failure in; gives whether it changed anything.

        Args:
            offer: What was tried.
            error: What the cloud said.
            now: RFC 3339 time.
            quota: Seconds that a quota which was hit waits, at first and at most.
        """
        if isinstance(error, RateLimited | InvalidRequest | Unsupported | Conflict):
            return False
        if isinstance(error, AuthFailed):
            return self.refuse(offer.account, error)
        if isinstance(error, QuotaExceeded):
            return self._note(quota_key(offer), error.reason, str(error), now, *quota)
        return self._note(offer_key(offer), error.reason, str(error), now, FIRST_SECONDS, LONGEST_SECONDS)

    def refused(self, offer: Offer, error: str, message: str, now: str) -> bool:
        """Takes in that one cluster's request was refused; such a memory is that cluster's own."""
        return self._note(offer_key(offer), error, message, now, FIRST_SECONDS, LONGEST_SECONDS)

    def _note(self, key: str, reason: str, text: str, now: str, first: int, longest: int) -> bool:
        old = self._entries.get((key, reason))
        if old is not None and to_seconds(old.until) > to_seconds(now):
            return False  # several machines failed at once: that is one failure
        times = old.times + 1 if old is not None else 1
        seconds = min(first * 2 ** min(times - 1, 10), longest)
        until = to_time(to_seconds(now) + seconds)
        self._entries[(key, reason)] = Failure(key, reason, until, _cut(text), times)
        self._bound()
        return True

    def refuse(self, account: str, error: AuthFailed) -> bool:
        """The account's credentials are refused, until somebody changes them."""
        name = (account, error.reason)
        if name in self._entries:
            return False
        self._entries[name] = Failure(account, error.reason, FAR, _cut(str(error)))
        self._bound()
        return True

    def forget(self, offer: Offer) -> bool:
        """An offer worked: its own entries go; gives whether there were any."""
        keys = {offer_key(offer), quota_key(offer)}
        gone = [name for name in self._entries if name[0] in keys and name[1] != AuthFailed.reason]
        for name in gone:
            del self._entries[name]
        return bool(gone)

    def clear(self) -> bool:
        """All is tried again at once, but refused credentials; gives whether there was anything."""
        gone = [name for name in self._entries if name[1] != AuthFailed.reason]
        for name in gone:
            del self._entries[name]
        return bool(gone)

    def accept(self) -> bool:
        """The credentials work, or are others: AuthFailed goes; gives whether it was there."""
        gone = [name for name in self._entries if name[1] == AuthFailed.reason]
        for name in gone:
            del self._entries[name]
        return bool(gone)

    def blocks(self, now: str) -> tuple[Block, ...]:
        """What mustn't be tried now."""
        moment = to_seconds(now)
        return tuple(
            Block(e.key, e.error, e.until, e.message) for e in self._entries.values() if to_seconds(e.until) > moment
        )

    def blocked(self, offer: Offer, now: str) -> Block | None:
        """Why this offer mustn't be tried now, None if it may be."""
        keys = {offer.account, offer_key(offer), quota_key(offer)}
        return next((block for block in self.blocks(now) if block.key in keys), None)

    def _expire(self, now: str) -> None:
        moment = to_seconds(now)
        for name, e in list(self._entries.items()):
            if to_seconds(e.until) + LONGEST_SECONDS <= moment:
                del self._entries[name]

    def _bound(self) -> None:
        while len(self._entries) > MAX_ENTRIES:
            soonest = min(self._entries.values(), key=lambda e: e.until)
            del self._entries[(soonest.key, soonest.error)]


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"
