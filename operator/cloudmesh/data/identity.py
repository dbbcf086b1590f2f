"""Whether a store is the one it was: each prefix carries a marker, which is compared with the one on record."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.data.errors import Exists, Missing, Suspicious
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, Transient

if TYPE_CHECKING:
    from cloudmesh.data.mesh import Member

log = logging.getLogger(__name__)

HIDDEN: Final = ".cloudmesh/"
"""Part of each prefix that is ours: no path of a user lies in it."""
MARKER: Final = HIDDEN + "store.json"
PROBE_LIMIT: Final = 10.0


class Marker(msgspec.Struct, frozen=True):
    """Identity of one prefix of a store."""

    id: str
    installation: str
    namespace: str
    name: str
    uid: str


class Identity:
    """Of the stores of one directory.

    Args:
        catalog: Keeps which store is which.
        config: Gives the directory.
        members: Gives its stores.
    """

    def __init__(
        self, catalog: Catalog, config: Callable[[], DirectoryConfig], members: Callable[[], Iterable[Member]]
    ) -> None:
        self._catalog = catalog
        self._config = config
        self._members = members
        self._naming = asyncio.Lock()

    async def is_same(self, member: Member) -> bool:
        """Whether a store still has the marker on record."""
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                known, found = await self._catalog.get(f"store/{member.name}"), await self._marker(member)
        except (CloudmeshError, TimeoutError) as error:
            member.doubt(error if isinstance(error, CloudmeshError) else Transient("no answer"))
            return False
        if found is None and not known and member.config.access == "ReadOnly":
            return True
        if found is None or found.id != known:
            member.doubt(Suspicious(f"the marker {member.key(MARKER)} is missing or another one's"))
            return False
        return True

    async def state_of(self, member: Member) -> tuple[Literal["Up", "Claimed", "Suspicious"], str]:
        """Compares the marker with the one on record; writes it where the store is new to us."""
        known = await self._catalog.get(f"store/{member.name}")
        found = await self._marker(member)
        if found is None:
            if known:
                return "Suspicious", (
                    f"the marker {member.key(MARKER)} is missing: is this the right place, and is it mounted?"
                )
            if member.config.access == "ReadOnly":
                return "Up", ""
            if above := await self._above(member):
                return "Claimed", above
            found = await self._claim(member)
        if known and found.id != known:
            return "Suspicious", f"the marker {member.key(MARKER)} is another one's: this isn't the place it was"
        config = self._config()
        if (found.installation, found.namespace, found.name) != (config.installation, config.namespace, config.name):
            return "Claimed", (
                f"the prefix '{member.config.prefix}' belongs to the directory {found.namespace}/{found.name}"
                f" of installation {found.installation}: give this directory another `prefix`"
            )
        if not known:
            # one after the other: two that are looked at side by side may be one
            async with self._naming:
                for other in self._members():
                    if other is not member and await self._catalog.get(f"store/{other.name}") == found.id:
                        return "Claimed", f"it is the same place as store {other.name}: its copies wouldn't be two"
                await self._catalog.set(f"store/{member.name}", found.id)
        return "Up", ""

    async def _marker(self, member: Member, prefix: str | None = None) -> Marker | None:
        key = member.key(MARKER) if prefix is None else prefix + MARKER
        try:
            text = b"".join([chunk async for chunk in member.store.read(key, length=4096)])
        except Missing:
            return None
        try:
            return msgspec.json.decode(text, type=Marker)
        except msgspec.DecodeError as error:
            raise Suspicious(f"the marker {key} can't be read: {error}") from error

    async def _above(self, member: Member) -> str:
        """Why the prefix can't be had, since it lies within another directory's; empty if it doesn't."""
        prefix, config = member.config.prefix, self._config()
        for above in dict.fromkeys(prefix[: at + 1] for at in (-1, *_slashes(prefix[:-1])) if prefix):
            try:
                found = await self._marker(member, above)
            except AuthFailed:
                # keys that reach no further than the prefix
                continue
            if found is None or (found.installation, found.namespace, found.name) == (
                config.installation, config.namespace, config.name,
            ):  # fmt: skip
                continue
            return (
                f"the prefix '{prefix}' lies within '{above}', which belongs to the directory"
                f" {found.namespace}/{found.name} of installation {found.installation}: give this directory another"
                " `prefix`"
            )
        return ""

    async def _claim(self, member: Member) -> Marker:
        config = self._config()
        marker = Marker(secrets.token_hex(16), config.installation, config.namespace, config.name, config.uid)
        try:
            await member.store.write(member.key(MARKER), once(msgspec.json.encode(marker)), if_absent=True)
            member.claimed = True
        except Exists:
            log.info("store %s: somebody else claimed the prefix first", member.name)
        found = await self._marker(member)
        if found is None:
            raise Transient(f"the marker {member.key(MARKER)} was written and can't be read")
        return found


async def once(content: bytes) -> AsyncIterator[bytes]:
    """A content that is in memory, as chunks."""
    if content:
        yield content


def _slashes(text: str) -> list[int]:
    return [at for at, character in enumerate(text) if character == "/"]
