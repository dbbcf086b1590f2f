"""What all stores do alike: limits, sizes, attributes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping

from cloudmesh.data.errors import Changed, Exists
from cloudmesh.engine.endpoints import HOSTS_KEY
from cloudmesh.engine.errors import AuthFailed, InvalidRequest

MAX_ATTRIBUTES = 1024
"""Bytes of all names and values."""
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
EXPIRATION_KEY = "expiration"
"""Of a Secret with credentials that end: when, as RFC 3339."""
OF_ALL = frozenset({HOSTS_KEY, EXPIRATION_KEY})
"""Keys of a Secret that the operator reads, of whatever store it is."""
BURST = 0.1
"""Seconds' worth that may go at once after a silence."""


def secret_texts(credentials: Mapping[str, bytes], known: Collection[str]) -> dict[str, str]:
    """What a Secret tells a store: values that aren't blank, without those that aren't the store's to read.

    Args:
        credentials: The Secret's data.
        known: Keys that mean something to the store.

    Raises:
        InvalidRequest: It has another key.
    """
    known = {*known, *OF_ALL}
    if strange := sorted(set(credentials) - known):
        raise InvalidRequest(f"the Secret's key {strange[0]!r} isn't used; known are {', '.join(sorted(known))}")
    texts = {name: value.decode("utf-8", "replace").strip() for name, value in credentials.items()}
    return {name: text for name, text in texts.items() if text and name not in OF_ALL}


def needed(texts: Mapping[str, str], *names: str) -> None:
    """Makes sure that a Secret has keys.

    Raises:
        AuthFailed: It lacks one.
    """
    if missing := [name for name in names if name not in texts]:
        raise AuthFailed(f"the Secret lacks the key {missing[0]!r}")


def fits(key: str, tag: str | None, if_tag: str, *, if_absent: bool = False) -> None:
    """Makes sure that what is there is what it must be.

    Args:
        key: For the message.
        tag: Of what is there, None if nothing is.
        if_tag: What it must be, empty for any.
        if_absent: Nothing must be there.

    Raises:
        Changed: There is another one, or none.
        Exists: There is one.
    """
    if if_absent and tag is not None:
        raise Exists(f"there is a {key}")
    if if_tag and tag != if_tag:
        raise Changed(f"{key} is gone" if tag is None else f"{key} has the tag {tag}, not {if_tag}")


class Pace:
    """Hands out turns so that no more than `rate` units a second go by.

    Args:
        rate: Units a second, None for no limit.
    """

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free = 0.0

    async def take(self, units: int = 1) -> None:
        """Waits for a turn; what is taken delays whoever comes next."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        wait = self._free - now - BURST
        self._free = max(self._free, now) + units / self._rate
        if wait > 0:
            await asyncio.sleep(wait)


class Limits:
    """The limits of one store.

    Args:
        requests: A second, None for no limit.
        size: Bytes a second in both directions together, None for no limit.
    """

    def __init__(self, requests: int | None = None, size: int | None = None) -> None:
        self._requests = Pace(requests)
        self._bytes = Pace(size)

    async def request(self) -> None:
        """One request is about to be made."""
        await self._requests.take()

    async def moved(self, count: int) -> None:
        """So many bytes are about to go, or came."""
        await self._bytes.take(count)


async def measured(chunks: AsyncIterable[bytes], size: int | None, most: int, limits: Limits) -> AsyncIterator[bytes]:
    """The chunks that aren't empty, at the pace that is allowed.

    Args:
        chunks: The content.
        size: Bytes that there must be, None where unknown.
        most: Bytes that the store holds at most.
        limits: The store's.

    Raises:
        InvalidRequest: There is another number of bytes, or more than the store holds.
    """
    if size is not None and size > most:
        raise InvalidRequest(f"an object of {size} bytes is larger than the {most} that the store holds")
    seen = 0
    async for chunk in chunks:
        if not chunk:
            continue
        seen += len(chunk)
        if size is not None and seen > size:
            raise InvalidRequest(f"{size} bytes were announced, and there are more")
        if seen > most:
            raise InvalidRequest(f"the object is larger than the {most} bytes that the store holds")
        await limits.moved(len(chunk))
        yield chunk
    if size is not None and seen != size:
        raise InvalidRequest(f"{size} bytes were announced, and there are {seen}")


def checked(attributes: Mapping[str, str] | None) -> dict[str, str]:
    """Attributes that every store can keep.

    Raises:
        InvalidRequest: A name or a value isn't allowed, or they are too long together.
    """
    found = dict(attributes or {})
    for name, value in found.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"the attribute's name {name!r} must be of a-z, 0-9 and '-'")
        if not _VALUE.fullmatch(value) or "  " in value:
            raise InvalidRequest(f"the value of the attribute '{name}' must be printable ASCII without outer spaces")
    if (total := sum(len(name) + len(value) for name, value in found.items())) > MAX_ATTRIBUTES:
        raise InvalidRequest(f"the attributes take {total} bytes: {MAX_ATTRIBUTES} are the most")
    return found
