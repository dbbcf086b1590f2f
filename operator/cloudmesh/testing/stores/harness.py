"""What the conformance suite needs of the one who wrote a store: a back end that can be looked into and broken.

A harness stands between the suite and one back end. The suite writes through the store, breaks the back end through the
harness, and asks the harness, never the store, what is really there and what is left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cloudmesh.data.stores.ports import Store

Operation = Literal["publish", "part", "read", "stat", "list", "delete", "any"]
"""Which calls to the back end are meant: those that make a content visible, those that bring parts of it before, those
of `read`, `stat`, `list`, `delete`, or all."""

NEEDS: Mapping[str, str] = {
    # faults of a call, for `inject`
    "drop": "the connection breaks before the back end has acted",
    "lose": "the connection breaks after the back end has acted",
    "hang": "no answer, no action; the connection stays open",
    "fail": "an answer of the 500s; the back end has not acted",
    "limit": "429 or what the back end has for it, with `seconds` to wait, or without when 0",
    "garbage": "a page of HTML comes instead of an answer, with `status`; the back end has not acted",
    # states of the back end, for `inject`
    "full": "there is no more room",
    "read-only": "it takes no writes",
    "lag": "listings show changes after `seconds`",
    # what is asked for otherwise
    "network": "there is a connection between the store and the back end, and contents go over it in parts",
    "process": "another process can make the same store, and be killed",
    "credentials": "whoever has wrong credentials is refused",
    "place": "the place in which objects lie can be missing",
    "leftovers": "an interrupted write could leave something behind",
}
"""All that a harness does, by name; it says in `lacks` what it can't, and why."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault or state of the back end, until `heal` or until it has acted so often.

    Args:
        what: A name of `NEEDS`.
        operation: The calls that are meant; of no meaning for a state.
        times: How often it acts, None until `heal`.
        seconds: As `NEEDS` says.
        status: As `NEEDS` says.
    """

    what: str
    operation: Operation = "any"
    times: int | None = 1
    seconds: float = 0.0
    status: int = 200


class Harness(Protocol):
    """One back end in the hands of the suite. `BaseHarness` has defaults for some of it."""

    @property
    def name(self) -> str:
        """Column of the table."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """By name of `NEEDS`, why it can't be done, as a sentence."""

    @property
    def secrets(self) -> Sequence[str]:
        """Texts that no error may show."""

    @property
    def part(self) -> int:
        """Bytes of one part of a large object, or of a piece where there are no parts."""

    @property
    def case_seconds(self) -> float:
        """Time within which a case must end."""

    async def open(self) -> None:
        """Prepares for one case: nothing hinders, and there is no object."""

    async def shut(self) -> None:
        """Heals all, closes all stores."""

    async def store(self, *, bad_credentials: bool = False, bad_place: bool = False, **limits: int) -> Store:
        """A new store on the same back end, as another process would make it."""

    def recipe(self) -> Mapping[str, Any]:
        """What another process makes the same store of: arguments of `StoreContext`, and `kind`."""

    async def inject(self, injection: Injection) -> None:
        """Breaks something. Injections add up; the first one that matches a call acts."""

    async def heal(self) -> None:
        """Takes all injections back."""

    async def truth(self) -> Mapping[str, bytes]:
        """All objects that somebody else would see there, by key."""

    async def leftovers(self) -> int:
        """What interrupted writes have left: open uploads, temporary files."""

    async def meddle(self, key: str, content: bytes | None) -> None:
        """Writes or removes an object behind the store's back."""


class BaseHarness:
    """Defaults for a harness."""

    name = ""
    lacks: Mapping[str, str] = {}
    secrets: Sequence[str] = ()
    part = 1 << 20
    case_seconds = 60.0

    def recipe(self) -> Mapping[str, Any]:
        """No other process, unless the harness says how."""
        raise NotImplementedError(f"{self.name} has no recipe")

    async def inject(self, injection: Injection) -> None:
        """Nothing can be broken, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't inject {injection.what!r}")

    async def heal(self) -> None:
        """Nothing was broken."""

    async def leftovers(self) -> int:
        """None, where there can be none."""
        return 0
