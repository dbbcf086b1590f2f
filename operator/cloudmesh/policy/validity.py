"""Prices that somebody declares: which item of a PriceSheet fits a name, and whether it holds now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from cloudmesh.policy.moments import to_seconds


@lru_cache(maxsize=4096)
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern), re.DOTALL)


def matches(pattern: str, value: str) -> bool:
    """Whether a value fits a pattern with `*` and `?`; the empty pattern fits all."""
    return not pattern or _compile(pattern).fullmatch(value) is not None


def is_valid(item: Mapping[str, Any], now: str) -> bool:
    """Whether an item holds at a moment: from `validFrom` on, until before `validTo`."""
    moment = to_seconds(now)
    begin, end = item.get("validFrom"), item.get("validTo")
    return (not begin or to_seconds(begin) <= moment) and (not end or moment < to_seconds(end))


def prices_in(sheet: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All prices of a sheet: of machines, then of stores."""
    spec = sheet.get("spec") or {}
    yield from spec.get("items") or ()
    yield from spec.get("stores") or ()


def next_change(sheets: Iterable[Mapping[str, Any]], now: str) -> str:
    """When a price begins or ceases to hold next, as RFC 3339; empty if none does."""
    moment = to_seconds(now)
    times = [
        time
        for sheet in sheets
        for item in prices_in(sheet)
        for time in (item.get("validFrom"), item.get("validTo"))
        if time and to_seconds(time) > moment
    ]
    return min(times, key=to_seconds, default="")
