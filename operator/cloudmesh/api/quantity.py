"""Kubernetes quantities (`100m`, `1Gi`, `2`): reading and comparing, exact."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

POSITIVE_PATTERN: Final = r"^([0-9]{1,15}(\.[0-9]{1,9})?)([KMGTPE]i|[numkMGTPE]|[eE]-?[0-9]{1,2})?$"
"""What our schemas accept: no sign, bounded digits; every match is a quantity to the API server."""
MAX_LENGTH: Final = 32

_READ = re.compile(r"\A([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGTPE]i|[numkMGTPE]|[eE]-?[0-9]{1,2})?\Z")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse_quantity(text: str | int) -> Fraction:
    """The exact value of a non-negative quantity.

    Raises:
        ValueError: The text isn't a quantity such as `100m`, `1Gi` or `2`.
    """
    match = _READ.match(str(text))
    if match is None:
        raise ValueError(f"'{text}' must be a quantity such as '100m', '1Gi' or '2'")
    number, suffix = Fraction(match.group(1)), match.group(2) or ""
    if suffix in _BINARY:
        return number * Fraction(2 ** _BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return number * Fraction(10**exponent) if exponent >= 0 else number / Fraction(10**-exponent)
