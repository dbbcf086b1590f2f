"""The harness of the store in the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloudmesh.data.stores import memory
from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.memory import MemoryStore, Moment, Place
from cloudmesh.data.stores.ports import Conditional, Store
from cloudmesh.engine.errors import RateLimited, Transient
from cloudmesh.testing.stores.harness import BaseHarness, Injection, Operation

MEANT: Final[Mapping[memory.Operation, Operation]] = {
    "probe": "any", "stat": "stat", "list": "list", "read": "read", "publish": "publish", "delete": "delete",
    "copy": "publish",
}  # fmt: skip


class MemoryHarness(BaseHarness):
    """A place of its own for each case.

    Args:
        name: Column of the table.
        conditional: What writes can be tied to.
    """

    lacks: Mapping[str, str] = {
        "hang": "a call in the process always ends",
        "garbage": "the store is asked in the process, and answers nobody else",
        "network": "the store is in the process",
        "process": "the store is in the process",
        "credentials": "it has no credentials",
        "place": "whoever names a place makes it",
        "leftovers": "nothing is written before the end",
    }

    def __init__(self, name: str = "memory", conditional: Conditional = "Full") -> None:
        self.name = name
        self._conditional = conditional
        self.place = Place()
        self._faults: list[Injection] = []
        self._left: dict[int, int] = {}

    async def open(self) -> None:
        """A fresh place."""
        self.place = Place()
        await self.heal()

    async def shut(self) -> None:
        """Nothing is held."""

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """Another store on the place."""
        return MemoryStore(self.place, conditional=self._conditional, limits=Limits(**limits))

    async def inject(self, injection: Injection) -> None:
        """All but what it lacks."""
        match injection.what:
            case "full":
                self.place.room = self.place.used
            case "read-only":
                self.place.read_only = True
            case "lag":
                self.place.lag = injection.seconds
            case "drop" | "lose" | "fail" | "limit":
                self._left[len(self._faults)] = -1 if injection.times is None else injection.times
                self._faults.append(injection)
                self.place.hook = self._hook
            case unknown:
                raise NotImplementedError(unknown)

    async def _hook(self, moment: Moment, operation: memory.Operation, key: str) -> None:
        for number, fault in enumerate(self._faults):
            fits = fault.operation in ("any", MEANT[operation]) and (fault.what == "lose") == (moment == "after")
            if not fits or not self._left[number]:
                continue
            self._left[number] -= 1
            if fault.what == "limit":
                raise RateLimited("fewer calls, please", fault.seconds or None)
            raise Transient(f"{operation} {key}: the connection broke")

    async def heal(self) -> None:
        """All is well again."""
        self._faults.clear()
        self._left.clear()
        self.place.hook, self.place.room, self.place.read_only, self.place.lag = None, None, False, 0.0

    async def truth(self) -> Mapping[str, bytes]:
        """What the place has."""
        return {key: held.content for key, held in self.place.objects.items()}

    async def meddle(self, key: str, content: bytes | None) -> None:
        """By hand."""
        if content is None:
            self.place.remove(key)
        else:
            self.place.put(key, content)
