"""What Swift says in headers and listings, and what it is told: attributes, parts of objects, times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cloudmesh.engine.errors import Transient

MOST_VALUE: Final = 256
"""Bytes of one header's value in Swift, unless configured otherwise."""
META: Final = "x-object-meta-"
MORE: Final = f"{META}cloudmesh."
"""Of headers with what doesn't fit into one: `x-object-meta-cloudmesh.2.NAME`."""
_RANGE: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")


def packed(texts: Mapping[str, str]) -> dict[str, str]:
    """Attributes as headers, values in pieces that one header holds and that neither begin nor end with a space."""
    found = {}
    for name, value in texts.items():
        pieces, rest = [], value
        while len(rest) > MOST_VALUE:
            at = MOST_VALUE
            while " " in rest[at - 1 : at + 1]:
                at -= 1
            pieces.append(rest[:at])
            rest = rest[at:]
        for number, piece in enumerate([*pieces, rest], 1):
            found[META + name if number == 1 else f"{MORE}{number}.{name}"] = piece
    return found


def unpacked(headers: Mapping[str, str]) -> dict[str, str]:
    """Attributes of an object, by the headers that came with it."""
    small = {name.lower(): value for name, value in headers.items()}
    found = {}
    for header, value in small.items():
        name = header.removeprefix(META)
        if name == header or "." in name:
            continue
        pieces = [value]
        while (more := small.get(f"{MORE}{len(pieces) + 1}.{name}")) is not None:
            pieces.append(more)
        found[name] = "".join(pieces)
    return found


def part_of(key: str, headers: Mapping[str, str], status: int, position: int, end: int | None) -> tuple[str, int]:
    """Tag of the object that an answer is of, and where what comes ends.

    Raises:
        Transient: It isn't what was asked for.
    """
    tag, size = headers.get("Etag", "").strip('"'), headers.get("Content-Length", "")
    if not tag:
        raise Transient(f"{key}: the answer has no entity tag")
    if status == 200 and position == 0 and end is None and size.isdigit():
        return tag, int(size)
    found = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if status != 206 or found is None or int(found[1]) != position:
        raise Transient(f"{key}: the answer isn't the range that was asked for")
    whole = int(found[3])
    return tag, whole if end is None else min(end, whole)


def micros(timestamp: str) -> int:
    """Microseconds of a time as `X-Timestamp` tells it; 0 where it can't be read."""
    try:
        return round(float(timestamp) * 1_000_000)
    except ValueError:
        return 0


def moment(text: str) -> int:
    """Microseconds of a time as listings tell it, in UTC without saying so."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)
