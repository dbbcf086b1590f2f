"""The memory cloud's bill: what each machine cost by the second; the oracle for every figure of cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Line:
    """One machine on the bill.

    Args:
        id: Machine.
        token: Its create token.
        tags: Tags that it was made with.
        started: Seconds since the epoch.
        since: When the present rate began.
        rate: Nano-units an hour at present, 0 while nothing is charged.
        nanos: Charged up to `since`.
        ended: When it was gone; None while it is there.
    """

    id: str
    token: str
    tags: Mapping[str, str]
    started: float
    since: float
    rate: int
    nanos: int = 0
    ended: float | None = None

    def charged(self, now: float) -> int:
        """Nano-units up to now; a second that has begun counts whole."""
        return self.nanos + (math.ceil(max(0.0, now - self.since)) * self.rate // 3600 if self.rate else 0)


class Meter:
    """All machines that ever were."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}

    def start(self, node_id: str, token: str, tags: Mapping[str, str], now: float, rate: int) -> None:
        """A machine is made."""
        self.lines[node_id] = Line(node_id, token, dict(tags), now, now, rate)

    def change(self, node_id: str, now: float, rate: int) -> None:
        """It costs something else from now on."""
        line = self.lines[node_id]
        if line.rate != rate:
            line.nanos, line.since, line.rate = line.charged(now), now, rate

    def end(self, node_id: str, now: float) -> None:
        """It is gone."""
        self.change(node_id, now, 0)
        self.lines[node_id].ended = now

    def total(self, now: float) -> int:
        """Nano-units of all machines."""
        return sum(line.charged(now) for line in self.lines.values())

    def by_tag(self, key: str, now: float) -> dict[str, int]:
        """Nano-units by the value of a tag."""
        found: Counter[str] = Counter()
        for line in self.lines.values():
            found[line.tags.get(key, "")] += line.charged(now)
        return dict(found)

    def billed_now(self) -> int:
        """Nano-units an hour that are being charged."""
        return sum(line.rate for line in self.lines.values() if line.ended is None)

    def made(self, key: str) -> Counter[str]:
        """How many machines were ever made, by the value of a tag."""
        return Counter(line.tags.get(key, "") for line in self.lines.values())

    def twice(self) -> list[str]:
        """Create tokens for which more than one machine was ever made."""
        return [
            token for token, count in Counter(line.token for line in self.lines.values()).items() if token and count > 1
        ]
