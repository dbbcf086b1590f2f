"""Quantities are read exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest

from cloudmesh.api.quantity import parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        (2, 2),
        ("100m", Fraction(1, 10)),
        ("0.1", Fraction(1, 10)),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("1k", 1000),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1e-3", Fraction(1, 1000)),
        ("5n", Fraction(5, 10**9)),
        ("7u", Fraction(7, 10**6)),
        ("2Ei", 2**61),
    ],
)
def test_values(text: str | int, value: int | Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "-1", "1gi", "1\n", ".5", "1e", "1e100", "\u0661"])
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="must be a quantity"):
        parse_quantity(text)
