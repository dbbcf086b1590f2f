"""Money in words."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from cloudmesh.policy.model import NANO


def say_money(nanos: int, currency: str) -> str:
    """An hourly price for people, such as `0.0464 USD/h`.

    Args:
        nanos: Nano-units per hour.
        currency: ISO 4217 code.
    """
    whole, rest = divmod(abs(nanos), NANO)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{whole}.{digits} {currency}/h"


def read_nanos(text: str) -> int:
    """Nano-units of a decimal such as `0.25`.

    Raises:
        ValueError: It isn't a number, or negative.
    """
    try:
        value = Decimal(text) * NANO
        if value >= 0 and value == value.to_integral_value():
            return int(value)
    except (InvalidOperation, OverflowError):
        pass
    raise ValueError(f"'{text}' must be an amount such as '0.25'")
