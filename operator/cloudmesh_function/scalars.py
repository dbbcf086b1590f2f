"""Scalars that msgspec doesn't carry, or carries too freely: from JSON values to Python's."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, Final

from cloudmesh_function.schema import COMPLEX, DECIMAL, FRACTION

_DECIMAL: Final = re.compile(DECIMAL)
_COMPLEX: Final = re.compile(COMPLEX)
_FRACTION: Final = re.compile(FRACTION)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _decimal(value: Any) -> Any:
    from decimal import Decimal

    if _is_number(value):
        return Decimal(repr(value))
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return Decimal(value)
    raise ValueError(f"Expected a decimal number, got {value!r:.60}")


def _complex(value: Any) -> complex:
    if _is_number(value):
        return complex(value)
    if isinstance(value, str) and _COMPLEX.fullmatch(value):
        return complex(value)
    raise ValueError(f'Expected a complex number such as "1+2j", got {value!r:.60}')


def _fraction(value: Any) -> Any:
    from fractions import Fraction

    if isinstance(value, str) and _FRACTION.fullmatch(value):
        return Fraction(value)
    raise ValueError(f'Expected a fraction such as "1/3", got {value!r:.60}')


def _path(value: Any) -> Any:
    from pathlib import Path

    if isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError(f"Expected a path, got {value!r:.60}")


def _ipv4(value: Any) -> Any:
    import ipaddress

    if isinstance(value, str):
        return ipaddress.IPv4Address(value)
    raise ValueError(f"Expected an IPv4 address, got {value!r:.60}")


def _ipv6(value: Any) -> Any:
    import ipaddress

    if isinstance(value, str):
        return ipaddress.IPv6Address(value)
    raise ValueError(f"Expected an IPv6 address, got {value!r:.60}")


def _ndarray(value: Any) -> Any:
    import numpy

    if not isinstance(value, list):
        raise ValueError("Expected `array`")  # noqa: TRY004 - a value of the caller, not of a programmer
    found = numpy.array(value)
    if found.dtype == object:
        raise ValueError("Expected an array of numbers, with rows of one length")
    return found


def _array(value: Any) -> Any:
    import array

    if isinstance(value, list) and all(map(_is_number, value)):
        return array.array("d", value)
    raise ValueError("Expected an array of numbers")


PARSERS: Final[dict[str, Callable[[Any], Any]]] = {
    "decimal": _decimal,
    "complex": _complex,
    "fraction": _fraction,
    "path": _path,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "ndarray": _ndarray,
    "array": _array,
}


def textual() -> tuple[type, ...]:
    """Types, among the modules that are loaded, whose JSON is their text."""
    found: list[type] = []
    for module, names in (
        ("pathlib", ("PurePath",)),
        ("fractions", ("Fraction",)),
        ("ipaddress", ("IPv4Address", "IPv6Address")),
    ):
        loaded = sys.modules.get(module)
        if loaded is not None:
            found += [getattr(loaded, name) for name in names]
    return tuple(found)
