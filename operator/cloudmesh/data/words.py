"""Numbers and times in the words of a status. Pure."""

from __future__ import annotations

import datetime

from cloudmesh.policy.amounts import to_text

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def size_text(count: int) -> str:
    """Bytes for people, such as `1.5Gi`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    text = f"{value:.1f}" if value < 10 and unit else f"{value:.0f}"
    return text.removesuffix(".0") + _UNITS[unit]


def amount_text(nanos: int) -> str:
    """An amount of money for a status: rounded up to a millionth."""
    return to_text(-(-nanos // 1000) * 1000)


def time_text(micros: int) -> str:
    """Microseconds since 1970 as Kubernetes writes times."""
    return datetime.datetime.fromtimestamp(micros // 1_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def apart(new: int, old: int) -> bool:
    """Whether a counter changed by over 1 %."""
    return abs(new - old) * 100 > max(abs(old), abs(new)) if new != old else False
