"""From swept arguments to runs: `lr=[0.1,0.2]`, `run-[001-100]`, `[a,g-h,x-z]`, and all combinations of several. Pure.

Inside brackets stand values with commas between. A value that is two whole numbers with a dash between is a range, and
keeps leading zeros; so are two letters of the same case. Everything else stands for itself, as does all text outside
brackets.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from cloudmesh.api.clusterjob import MAX_RUNS

_PARTS = re.compile(r"\[([^\[\]]*)\]")
_NUMBERS = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_LETTERS = re.compile(r"([a-z])-([a-z])|([A-Z])-([A-Z])")


class SweepError(ValueError):
    """An argument can't be expanded; the message begins with the field's path."""


def expand_runs(arguments: Sequence[str], *, limit: int = MAX_RUNS) -> list[tuple[str, ...]]:
    """The arguments of each run: all combinations, those of the last argument next to each other.

    Raises:
        SweepError: An argument is wrong, or there are more than `limit` runs.
    """
    swept = []
    count = 1
    for index, argument in enumerate(arguments):
        path = f"spec.arguments[{index}]"
        values = expand(argument, limit=limit, path=path)
        count *= len(values)
        if count > limit:
            raise SweepError(f"{path}: `spec.arguments` give more than {limit} runs")
        swept.append(values)
    return list(itertools.product(*swept))


def expand(argument: str, *, limit: int = MAX_RUNS, path: str = "argument") -> list[str]:
    """All values of one argument; itself where it has no brackets.

    Raises:
        SweepError: It is wrong, or has more than `limit` values.
    """
    pieces = _PARTS.split(argument)
    if any("[" in piece or "]" in piece for piece in pieces[::2]):
        raise SweepError(f"{path}: {argument!r} has a bracket without its partner")
    choices: list[list[str]] = []
    count = 1
    for number, piece in enumerate(pieces):
        values = [piece] if number % 2 == 0 else _values(piece, limit, path)
        count *= len(values)
        if count > limit:
            raise SweepError(f"{path}: {argument!r} has more than {limit} values")
        choices.append(values)
    return ["".join(parts) for parts in itertools.product(*choices)]


def _values(inside: str, limit: int, path: str) -> list[str]:
    values: list[str] = []
    for item in (text.strip() for text in inside.split(",")):
        if not item:
            raise SweepError(f"{path}: '[{inside}]' has an empty value")
        if found := _NUMBERS.fullmatch(item):
            values += _numbers(found[1], found[2], item, limit, path)
        elif found := _LETTERS.fullmatch(item):
            first, last = (ord(letter) for letter in found.groups() if letter)
            if first > last:
                raise SweepError(f"{path}: the range '{item}' runs backwards")
            values += [chr(code) for code in range(first, last + 1)]
        else:
            values.append(item)
    return values


def _numbers(first: str, last: str, item: str, limit: int, path: str) -> list[str]:
    if int(first) > int(last):
        raise SweepError(f"{path}: the range '{item}' runs backwards")
    if int(last) - int(first) >= limit:
        raise SweepError(f"{path}: the range '{item}' has more than {limit} values")
    # as hostlists have it: a leading zero at the first end gives all numbers that width
    width = len(first) if first.startswith("0") else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
