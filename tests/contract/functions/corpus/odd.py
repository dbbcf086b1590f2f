# ruff: noqa
"""Odd but legal sources."""

from __future__ import annotations

import datetime as dt
import functools
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NewType, Union, overload

if TYPE_CHECKING:
    from collections import OrderedDict  # noqa: F401

UserId = NewType("UserId", int)
Vector = list[float]
Matrix = list[Vector]
Number = Union[int, float]
Quoted = "Vector"

LIMIT = 10


def _decorate(function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapped


def _hidden(x: int) -> int:
    return x


@_decorate
def decorated(x: int, y: int = 1) -> int:
    return x


@functools.lru_cache
def cached(x: int) -> int:
    return x


def alias(x: Vector) -> Matrix:
    return [x]


def number(x: Number) -> Number:
    return x


def user(x: UserId) -> UserId:
    return x


def quoted(x: "dt.date", y: "list['Quoted']" = ()) -> "dt.date":
    return x


def annotated(x: Annotated[int, "any metadata"], y: Annotated[str, {"a": 1}] = "y") -> Annotated[int, 3]:
    return x


def constant_default(x: int = LIMIT) -> int:
    return x


def computed_default(x: dt.date = dt.date(2026, 1, 1)) -> dt.date:
    return x


def fraction(x: Fraction) -> Fraction:
    return x


def path(x: Path) -> Path:
    return x


def address(x: IPv4Address | IPv6Address) -> str:
    return str(x)


def complex_number(x: complex) -> complex:
    return x


def dumped(x: dict) -> str:
    return dumps(sorted(x))


def generated(n: bool) -> Iterator[int]:
    yield 1
    if n:
        yield 2


async def generated_async(n: bool) -> AsyncIterator[str]:
    yield "a"
    if n:
        yield "b"


@overload
def overloaded(x: int) -> int: ...
@overload
def overloaded(x: str) -> str: ...
def overloaded(x: int | str) -> int | str:
    return x


if sys.version_info >= (3, 8):

    def under_condition(x: int) -> int:
        return x


try:
    import nothing_of_this_name as maybe
except ImportError:
    maybe = None


def lambda_inside(x: str) -> str:
    return (lambda y: y)(x)


def nested_function(x: int) -> int:
    def inner(y: int) -> int:
        return y

    return inner(x)


@dataclass
class Settings:
    """With a default that is no literal."""

    at: dt.date = dt.date(2026, 1, 1)
    limit: int = LIMIT
    note: str | None = None


def with_settings(s: Settings) -> Settings:
    return s


def docs_with_specials(x: str = "-"):
    """Summary: with a colon, "quotes" and a \\ backslash.

    Text with *stars*, a URL http://localhost/, and

    * a list
    * of two

    :param x: a: b
    :raises ValueError: never
    """
    return x


if __name__ == "__main__":
    print("not run")
