"""Money as whole nano-units of a currency, and its exact text; no float anywhere."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from cloudmesh.policy.model import HOURS_A_MONTH, NANO

__all__ = ["HOUR", "HOURS_A_MONTH", "MoneyError", "cost", "from_list", "rounded", "to_nanos", "to_text"]

HOUR: int = 3600

_MAX_DIGITS = 40
_PLAIN = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


class MoneyError(ValueError):
    """A text isn't an amount of money; the message says what it must be."""


def to_nanos(text: str) -> int:
    """The amount of a decimal text such as `0.0464`, exactly.

    Raises:
        MoneyError: Not a plain decimal number of at most nine places, or negative.
    """
    if _PLAIN.fullmatch(text) is None:
        raise MoneyError(f"'{text[:40]}' must be an amount such as '0.0464', with at most nine decimal places")
    whole, _, part = text.partition(".")
    return int(whole) * NANO + int(part.ljust(9, "0") or "0")


def from_list(value: str | Decimal) -> int | None:
    """The amount that a price list tells, rounded to a nano-unit; None for what can't be a price: NaN, zero, less.

    Args:
        value: The text in the list, or a Decimal made of it; never a float.
    """
    try:
        number = Decimal(value) if isinstance(value, str) else value
    except InvalidOperation:
        return None
    if not number.is_finite() or number <= 0 or number.adjusted() > _MAX_DIGITS:
        return None
    nanos = int((number * NANO).to_integral_value(rounding=ROUND_HALF_EVEN))
    return nanos or None


def to_text(nanos: int) -> str:
    """The exact amount as text, without zeros at the end: `0.0464`, `12.5`, `-3`."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    whole, part = divmod(nanos, NANO)
    decimals = f"{part:09d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def rounded(nanos: int, places: int = 4) -> str:
    """The amount for people, half up to so many places: `0.0464`, `12.5000`."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    unit = 10 ** (9 - places)
    whole, part = divmod((nanos + unit // 2) // unit, 10**places)
    text = f"{whole}.{part:0{places}d}" if places else str(whole)
    return f"{sign}{text}" if nanos >= unit - unit // 2 else text


def cost(hourly_nanos: int, seconds: int) -> int:
    """What so many seconds cost at a price per hour, rounded up to a nano-unit; nothing for negative ones."""
    return -(-hourly_nanos * seconds // HOUR) if seconds > 0 else 0
