# ruff: noqa
"""Results that are tuples of fixed length."""

from typing import NamedTuple, Optional


class Position(NamedTuple):
    x: int
    y: int = 0


def pair(x: tuple[int, str]) -> tuple[int, str]:
    return x


def position(p: Position) -> Position:
    return p


def positions(ps: list[Position]) -> list[Position]:
    return ps


def optional_pair(x: Optional[tuple[int, float]] = None) -> Optional[tuple[int, float]]:
    return x


def nothing_in_it() -> tuple[()]:
    return ()


def nested(x: tuple[int, tuple[str, bool]]) -> tuple[tuple[str, bool], int]:
    return x[1], x[0]
