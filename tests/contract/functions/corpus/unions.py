# ruff: noqa
"""Optional, Union and Literal."""

import typing as t
from datetime import date, datetime
from typing import Literal, Optional, Union
from uuid import UUID


def optional_int(x: Optional[int] = None) -> Optional[int]:
    return x


def optional_required(x: Optional[int]) -> Optional[int]:
    return x


def optional_str(x: str | None = None) -> str | None:
    return x


def optional_float_default(x: t.Optional[float] = 1.5) -> float | None:
    return x


def optional_date(x: date | None = None) -> date | None:
    return x


def int_or_str(x: Union[int, str]) -> Union[int, str]:
    return x


def int_or_float(x: int | float) -> float:
    return x


def int_or_bool(x: int | bool) -> int | bool:
    return x


def datetime_or_str(x: datetime | str) -> str:
    return type(x).__name__


def uuid_or_str(x: str | UUID) -> str:
    return type(x).__name__


def date_or_datetime(x: date | datetime) -> str:
    return type(x).__name__


def three_kinds(x: int | str | None = None) -> int | str | None:
    return x


def nested(x: Union[int, Union[str, None]] = 0) -> str:
    return str(x)


def list_or_int(x: list[int] | int) -> list[int]:
    return x if isinstance(x, list) else [x]


def two_lists(x: list[int] | list[str]) -> int:
    return len(x)


def literal_str(x: Literal["fast", "slow"]) -> Literal["fast", "slow"]:
    return x


def literal_int(x: Literal[1, 2, 3] = 2) -> int:
    return x


def literal_mixed(x: Literal["auto", 0, 1]) -> str:
    return str(x)


def literal_bool(x: Literal[True]) -> bool:
    return x


def literal_none(x: Literal["a", None] = None) -> str | None:
    return x


def literal_nested(x: Literal["a", Literal["b", "c"]]) -> str:
    return x


def literal_single(x: Literal["only"] = "only") -> str:
    return x


def optional_literal(x: Optional[Literal["a", "b"]] = None) -> Optional[str]:
    return x


def same_union_again(x: t.List[Union[str, int]], y: t.List[Union[int, str]]) -> int:
    """Python's typing caches give the second annotation the order of the first."""
    return len(x) + len(y)
