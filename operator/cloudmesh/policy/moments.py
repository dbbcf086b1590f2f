"""RFC 3339 times as whole seconds, and the months of UTC."""

from __future__ import annotations

import datetime
from functools import lru_cache


@lru_cache(maxsize=65_536)
def to_seconds(text: str) -> int:
    """Seconds since 1970 of an RFC 3339 time, fractions cut off; one without an offset is UTC.

    Raises:
        ValueError: Not such a time.
    """
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp() // 1)


def to_time(seconds: int) -> str:
    """The RFC 3339 time in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def month_of(seconds: int) -> tuple[int, int]:
    """First second of the month that a moment lies in, and of the next one."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = (first + datetime.timedelta(days=32)).replace(day=1)
    return int(first.timestamp()), int(after.timestamp())


def to_month(seconds: int) -> str:
    """The month of UTC that a moment lies in, such as `2026-11`."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m")
