# ruff: noqa
"""Lists, sets, tuples and dicts."""

import collections.abc
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Dict, FrozenSet, List, Optional, Set, Tuple
from uuid import UUID


def mean(values: list[float], trim: float = 0.0) -> float:
    """Mean of values.

    :param values: the numbers
    :param trim: share cut at each end
    """
    cut = int(len(values) * trim) if 0 <= trim < 0.5 else 0
    kept = sorted(values)[cut : len(values) - cut]
    return sum(value / len(kept) for value in kept) if kept else 0.0


def ints(x: list[int]) -> list[int]:
    return x


def strings(x: List[str]) -> List[str]:
    return x


def bare_list(x: list) -> list:
    return x


def bare_typing_list(x: List) -> int:
    return len(x)


def optional_list(x: list[int] | None = None) -> list[int]:
    return x or []


def default_list(x: list[int] = [1, 2]) -> list[int]:  # noqa: B006
    return x


def default_tuple(x: tuple[int, ...] = (1, 2)) -> tuple[int, ...]:
    return x


def optional_items(x: list[Optional[int]]) -> list[Optional[int]]:
    return x


def nested_lists(x: list[list[float]]) -> list[list[float]]:
    return x


def int_set(x: set[int]) -> int:
    return len(x)


def typing_set(x: Set[str]) -> int:
    return len(x)


def frozen(x: frozenset[str]) -> int:
    return len(x)


def typing_frozen(x: FrozenSet[int]) -> int:
    return len(x)


def give_set(n: bool) -> set[int]:
    return {1, 2} if n else set()


def typing_pair(x: Tuple[float, float]) -> float:
    return x[0]


def any_tuple(x: tuple) -> int:
    return len(x)


def empty_tuple(x: tuple[()]) -> int:
    return len(x)


def many(x: tuple[int, ...]) -> int:
    return len(x)


def nested_pairs(x: list[tuple[str, int]]) -> dict[str, int]:
    return dict(x)


def string_dict(x: dict[str, int]) -> dict[str, int]:
    return x


def bare_dict(x: dict) -> dict:
    return x


def typing_dict(x: Dict[str, Any]) -> Dict[str, Any]:
    return x


def int_keys(x: dict[int, str]) -> int:
    return len(x)


def date_keys(x: dict[date, int]) -> int:
    return len(x)


def uuid_keys(x: dict[UUID, int]) -> int:
    return len(x)


def deep(x: dict[str, list[dict[str, list[int]]]]) -> int:
    return len(x)


def sequence(x: Sequence[int]) -> int:
    return len(x)


def iterable(x: Iterable[str]) -> list[str]:
    return list(x)


def mapping(x: Mapping[str, float]) -> int:
    return len(x)


def abstract_set(x: collections.abc.Set[int]) -> int:
    return len(x)


def decimals(x: list[Decimal]) -> list[Decimal]:
    return x


def dates(x: list[date]) -> list[date]:
    return x


def blobs(x: list[bytes]) -> list[bytes]:
    return x


def dict_default(x: dict[str, int] = {"a": 1}) -> dict[str, int]:  # noqa: B006
    return x


def list_and_scalar(x: list[int], y: str = "a") -> str:
    return y * min(len(x), 3)
