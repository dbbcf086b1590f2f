# ruff: noqa
"""One function for each scalar type, required, optional and with a default."""

import datetime
import decimal
import uuid
from datetime import date, time, timedelta
from typing import Any


def take_int(x: int) -> int:
    """Gives a whole number back.

    :param x: the number
    :return: the same number
    """
    return x


def take_float(x: float) -> float:
    """Gives a number back.

    Args:
        x: the number

    Returns:
        the same number
    """
    return x


def take_bool(x: bool) -> bool:
    """Gives a truth value back.

    Parameters
    ----------
    x : bool
        the truth value

    Returns
    -------
    bool
        the same
    """
    return x


def take_str(x: str) -> str:
    return x


def take_bytes(x: bytes) -> bytes:
    return x


def take_bytearray(x: bytearray) -> bytearray:
    return x


def take_datetime(x: datetime.datetime) -> datetime.datetime:
    return x


def take_date(x: date) -> date:
    return x


def take_time(x: time) -> time:
    return x


def take_timedelta(x: timedelta) -> timedelta:
    return x


def take_uuid(x: uuid.UUID) -> uuid.UUID:
    return x


def take_decimal(x: decimal.Decimal) -> decimal.Decimal:
    return x


def take_any(x: Any) -> Any:
    return x


def take_object(x: object) -> object:
    return x


def take_none(x: None) -> None:
    return x


def default_int(x: int = 3) -> int:
    return x


def default_negative(x: int = -3) -> int:
    return x


def default_float(x: float = 0.5) -> float:
    return x


def default_bool(x: bool = True) -> bool:
    return x


def default_str(x: str = "a b&c=ü") -> str:
    return x


def default_expression(x: int = 2 * 3) -> int:
    return x


def default_bytes(x: bytes = b"ab") -> bytes:
    return x


def default_date(x: date = date(2026, 1, 2)) -> date:
    return x


def default_none_without_optional(x: int = None) -> int | None:
    return x


def nothing() -> None:
    """Does nothing."""


def constant() -> str:
    return "constant"


def several(a: int, b: float, c: str, d: bool = False, e: str = "e") -> str:
    return f"{a} {b} {c} {d} {e}"


async def asynchronous(x: int, y: int = 1) -> int:
    return x + y
