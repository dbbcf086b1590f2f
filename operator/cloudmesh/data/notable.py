"""What of a gateway's summary is an Event, since a person has to look at it: not all the time, like ones together, and
without paths, which rules by path may hide from whoever sees Events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cloudmesh.api import conditions as c
from cloudmesh.data.config import Summary

PAUSE_SECONDS: Final = 300.0
"""Between Events of one reason about one directory; what happens meanwhile is told with the next."""
CONFLICT: Final = "ConflictFile"
BEYOND_REPAIR: Final = "LastCopyDamaged"


@dataclass(slots=True)
class Notable:
    """What was told of one directory.

    Args:
        at: By reason, when it was told last, in seconds of the loop's clock.
        conflicts: Conflicts that the process of the gateway had when they were told last; None before it was heard.
        broken: Files that were beyond repair then.
        shrunk: By store, why its listing wasn't believed.
    """

    at: dict[str, float] = field(default_factory=dict)
    conflicts: int | None = None
    broken: int = 0
    shrunk: dict[str, str] = field(default_factory=dict)

    def news(self, summary: Summary, clock: float) -> list[tuple[str, str]]:
        """Reasons and messages of what is to be told now; it counts as told."""
        told = []
        if (words := self._conflicts(summary)) and self._may(CONFLICT, clock):
            self.conflicts = summary.done.conflicts
            told.append((CONFLICT, words))
        if summary.beyond_repair < self.broken:
            self.broken = summary.beyond_repair
        if summary.beyond_repair > self.broken and self._may(BEYOND_REPAIR, clock):
            self.broken = summary.beyond_repair
            told.append((
                BEYOND_REPAIR,
                f"{self.broken} files have no whole copy any more, but a damaged one: bring a good copy back into a"
                " store, restore an older version, or write them anew",
            ))  # fmt: skip
        shrunk = {s.name: s.message for s in summary.stores if s.shrunk}
        for store, why in shrunk.items():
            if self.shrunk.get(store) != why and self._may(f"{c.REASON_SUSPICIOUS_SHRINK} {store}", clock):
                self.shrunk[store] = why
                told.append((c.REASON_SUSPICIOUS_SHRINK, f"{store}: {why}"))
        self.shrunk = {store: why for store, why in self.shrunk.items() if store in shrunk}
        return told

    def _conflicts(self, summary: Summary) -> str:
        number = summary.done.conflicts
        if self.conflicts is None:
            # what was before this process of the operator was told by the one before it
            self.conflicts = number
        if number < self.conflicts:
            # the gateway began anew
            self.conflicts = 0
        new = number - self.conflicts
        return (
            # whoever sees Events may not see the files: who may finds them by this
            f"somebody else wrote over copies in stores: {new} files hold that now; `cms vdir search '*(conflict *'`"
            " lists those beside others"
            if new
            else ""
        )

    def _may(self, reason: str, clock: float) -> bool:
        if clock < self.at.get(reason, float("-inf")) + PAUSE_SECONDS:
            return False
        self.at[reason] = clock
        return True
