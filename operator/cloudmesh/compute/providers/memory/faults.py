"""What can go wrong at the memory cloud's door, as rules that match calls."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal

Action = Literal["refuse", "drop", "lose", "fail-after", "late", "hang", "hang-after", "twice"]


@dataclass(slots=True)
class Fault:
    """One rule; the first that matches a call and isn't used up acts.

    Args:
        action: `refuse` with an error code; `drop` the connection before the call is done; `lose` the answer of a call
            that was done; `fail-after`: it was done, and the answer is an error; `late`: the connection breaks,
            and the call arrives `delay_seconds` later; `hang` before it or after it; deliver it `twice`. None only
            delays.
        operation: Shell pattern of the operation, such as `RunInstance` or `List*`.
        code: Error code of `refuse`.
        message: Its words.
        retry_after: Seconds, told with `refuse`.
        times: How often the rule acts; None for ever.
        skip: Matching calls to let through first.
        delay_seconds: Passes before the call is done.
        answer_seconds: Passes after it is done.
    """

    action: Action | None = None
    operation: str = "*"
    code: str = "InternalError"
    message: str = "injected"
    retry_after: float | None = None
    times: int | None = 1
    skip: int = 0
    delay_seconds: float = 0.0
    answer_seconds: float = 0.0
    hits: int = 0
    """How often it acted."""


class Faults:
    """The rules of one cloud, and switches for listings that aren't what they should be."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self.filters_ignored = False
        """The cloud takes filters of listings and answers with everything."""
        self.listing_repeats = False
        """Each page of a listing begins with the last machine of the page before."""
        self.failing_page = 0
        """The request for this page of a listing, counted from 1, fails."""
        self.unreachable_zone = ""
        """A listing leaves this zone out and says so."""

    def add(self, *rules: Fault) -> Fault:
        """Adds rules after those that are there; returns the last."""
        self.rules.extend(rules)
        return rules[-1]

    def clear(self) -> None:
        """All is well again."""
        self.rules.clear()
        self.filters_ignored = self.listing_repeats = False
        self.failing_page = 0
        self.unreachable_zone = ""

    def take(self, operation: str) -> Fault | None:
        """The rule for this call, counted."""
        for rule in self.rules:
            if (rule.times is not None and rule.hits >= rule.times) or not fnmatch.fnmatchcase(
                operation, rule.operation
            ):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            rule.hits += 1
            return rule
        return None
