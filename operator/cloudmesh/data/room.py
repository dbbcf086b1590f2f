"""What a write takes of its stores until they count it: at once where its size is known, else as its content comes."""

from __future__ import annotations

from collections.abc import Collection

from cloudmesh.data.errors import Full
from cloudmesh.data.mesh import Member


class Room:
    """One write's part of what its stores have room for; to be released.

    Args:
        size: Bytes, -1 where unknown.
        spare: Bytes that a store has more when the write is done, where the old content makes room.
        holding: Stores of which that is so.
    """

    def __init__(self, size: int, spare: int, holding: Collection[str]) -> None:
        self._size = size
        self._spare = spare
        self._holding = holding
        self._taken: dict[str, tuple[Member, int]] = {}

    def _grown(self, member: Member, size: int) -> int:
        return size - (self._spare if member.name in self._holding else 0)

    def enter(self, member: Member) -> None:
        """It is written to."""
        self._take(member, max(0, self._size))

    def _take(self, member: Member, size: int) -> None:
        _, before = self._taken.get(member.name, (member, 0))
        self._taken[member.name] = member, size
        member.reserved += size - before

    def grow(self, member: Member, size: int) -> None:
        """The content has so many bytes by now.

        Raises:
            Full: The store has no room for them.
        """
        _, before = self._taken.get(member.name, (member, 0))
        if size <= before:
            return
        others, grown = member.reserved - before, self._grown(member, size)
        if size > member.store.info.max_size:
            raise Full(f"store {member.name} takes no files over {member.store.info.max_size} bytes")
        capacity = member.config.capacity
        if capacity is not None and grown > 0 and member.bytes + others + grown > capacity:
            raise Full(f"the capacity of store {member.name}, {capacity} bytes, is used up")
        if member.used_free is not None and grown > member.used_free[1] - others:
            raise Full(f"store {member.name} has {max(0, member.used_free[1] - others)} bytes left")
        self._take(member, size)

    def release(self, whole: Collection[str] = ()) -> None:
        """The write has ended; twice is fine.

        Args:
            whole: Stores that hold the content now: they are counted anew only a while later.
        """
        taken, self._taken = self._taken, {}
        for name, (member, size) in taken.items():
            member.reserved -= size
            if name in whole:
                grown = self._grown(member, size)
                member.bytes = max(0, member.bytes + grown)
                if member.used_free is not None:
                    used, free = member.used_free
                    member.used_free = max(0, used + grown), max(0, free - grown)
