"""What the conformance suite needs of the one who wrote a provider: a back end that can be broken on purpose.

A harness stands between the suite and one back end: an emulator, a proxy in front of it, a test cluster, a fake. The
suite makes machines through the provider, breaks the back end through the harness, and asks the harness, never the
provider, how many machines there really are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from cloudmesh.compute.ports import Access, Provider
from cloudmesh.compute.tokens import Scope
from cloudmesh.policy.model import Offer

Operation = Literal["create", "find", "list", "delete", "offers", "check", "any"]
"""Which calls to the back end are meant: those that the provider makes in `ensure_node` to create (and no others), in
`find_node`, in `list_nodes`, in `delete_node` to delete, in `offers`, in `check`, or all."""

T = TypeVar("T")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0v5Zk1d7mXcYb0kq1W2uJw3s0bq3m8w3c2h1n4s5T6 suite@example"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nc3VpdGUgaG9zdCBrZXk\n-----END OPENSSH PRIVATE KEY-----\n"
CALL_FAULTS = ("fail", "fail-after", "drop", "lose", "hang", "delay", "limit", "twice")
"""What `Injections.call` does to a call."""
REFUSALS = ("fail", "limit", "capacity", "quota")
"""Those at which the back end says no before it has acted."""

NEEDS: Mapping[str, str] = {
    # faults of a call, for `inject`
    "fail": "an answer of the 500s; the back end has not acted",
    "fail-after": "an answer of the 500s although the back end has acted",
    "drop": "the connection breaks before the back end has acted",
    "lose": "the connection breaks after the back end has acted",
    "hang": "no answer, no action; the connection stays open",
    "delay": "the back end acts at once, its answer comes `seconds` late",
    "limit": "429 or what the back end has for it, with `seconds` to wait, or without when 0",
    "twice": "the request is delivered two times, the second answer is the one that comes",
    # states of the back end, for `inject`
    "capacity": "no room for a new machine, said at the create call, or later by a back end that only does so",
    "capacity-late": "no room for a new machine, said after the create call has succeeded",
    "quota": "the account's limit is reached",
    "revoked": "the credentials of all providers stop being valid",
    "lag": "a new machine is missing in listings for `seconds`",
    "stale": "listings show this moment until `heal`",
    "pages": "listings come in pages of `number` machines",
    "page-fails": "listings come in pages of 2, and the request for page `number` fails each time",
    "partial": "listings leave a zone or region out and say so in a success",
    "repeats": "listings come in pages of 2, and a machine of one page comes again on the next",
    "filter": "the back end takes filters of listings and answers with everything, as one without filters does anyway",
    "slow-delete": "a machine that is told to end takes `seconds` for it",
    "unpriced": "an offer is without a price, if none is anyway",
    # things done behind the product's back, for `meddle`
    "stop": "the machine is stopped",
    "end": "the machine is ended",
    "resize": "the machine has another type",
    "image": "the machine has another image",
    "grow": "the machine has a disk of 41 GiB",
    "untag": "the machine has lost our tags",
    "reclaim": "the machine, a spot one, is taken away",
}
"""All that is done to a back end, by name. A harness does all of it but what needs a trait that its provider lacks."""
NEEDED_TRAITS: Mapping[str, str] = {
    "limit": "RateLimits",
    "capacity-late": "LateFailures",
    "quota": "Quotas",
    "revoked": "Credentials",
    "lag": "DelayedListings",
    "stale": "DelayedListings",
    "pages": "Pages",
    "page-fails": "Pages",
    "partial": "PartialListings",
    "repeats": "RepeatingPages",
    "slow-delete": "SlowEnds",
    "stop": "Stops",
    "resize": "TypeChanges",
    "image": "ImageChanges",
    "grow": "DiskChanges",
    "reclaim": "Spot",
}
"""The trait of the cloud that it takes to be able to do so."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault or state of the back end, until `heal` or until it has acted so often.

    Args:
        what: A name of `NEEDS`.
        operation: The calls that are meant; of no meaning for a state.
        times: How often it acts, None until `heal`.
        seconds: As `NEEDS` says.
        number: As `NEEDS` says.
    """

    what: str
    operation: Operation = "any"
    times: int | None = 1
    seconds: float = 0.0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine as the back end itself has it.

    Args:
        id: The id by which the provider knows it.
        token: Create token that it was made with, empty for a stranger.
        ended: Whether it is gone and costs nothing.
        name: Its name.
        type: Machine type.
        image: Image.
        purchase: OnDemand or Spot.
        disk_gib: Disk, 0 where it can't be told.
        authorized_keys: Public keys that may log in.
        host_key: Public host key.
        resting: It is stopped, and isn't billed as one that runs.
    """

    id: str
    token: str
    ended: bool
    name: str = ""
    type: str = ""
    image: str = ""
    purchase: str = "OnDemand"
    disk_gib: int = 0
    authorized_keys: tuple[str, ...] = ()
    host_key: str = ""
    resting: bool = False


class Injections:
    """Faults of calls that wait for their call, and what each of them does to it; for harnesses."""

    def __init__(self) -> None:
        self._left: list[tuple[Injection, int | None]] = []

    def add(self, injection: Injection) -> None:
        """One more; the first that matches a call acts."""
        self._left.append((injection, injection.times))

    def clear(self) -> None:
        """All is well again."""
        self._left.clear()

    def take(self, operation: Operation) -> Injection | None:
        """The fault for a call, one use less."""
        for index, (injection, left) in enumerate(self._left):
            if injection.operation in ("any", operation) and left != 0:
                self._left[index] = (injection, None if left is None else left - 1)
                return injection
        return None

    async def call(
        self,
        operation: Operation,
        work: Callable[[], Awaitable[T]],
        *,
        refuse: Callable[[Injection], T],
        broken: Callable[[str], Exception],
    ) -> T:
        """A call as the fault for it lets it be.

        Args:
            operation: Which call it is.
            work: Does it.
            refuse: What the back end answers when it says no; may raise.
            broken: The error of a connection that breaks.
        """
        fault = self.take(operation)
        match fault.what if fault is not None else "":
            case "hang":
                await asyncio.Event().wait()
            case "drop":
                raise broken("the connection was refused")
            case what if fault is not None and what in REFUSALS:
                return refuse(fault)
            case _:
                pass
        done = await work()
        match fault.what if fault is not None else "":
            case "lose":
                raise broken("the connection broke before the answer")
            case "twice":
                return await work()
            case "delay" if fault is not None:
                await asyncio.sleep(fault.seconds)
            case "fail-after" if fault is not None:
                return refuse(fault)
            case _:
                pass
        return done


class Harness(Protocol):
    """One back end in the hands of the suite. `BaseHarness` has defaults for most of it."""

    @property
    def name(self) -> str:
        """Column of the table, such as `aws`."""

    @property
    def kind(self) -> str:
        """Member of CloudAccount.spec; `provider.info.kind` must be the same."""

    @property
    def secrets(self) -> Sequence[str]:
        """Texts that must never be seen outside, such as the secret keys of the good and the bad credentials."""

    @property
    def image(self) -> str:
        """An image that works."""

    @property
    def access(self) -> Access:
        """Logins of the machines that the suite asks for."""

    @property
    def many(self) -> int:
        """How many machines a case may make at once."""

    @property
    def settle_seconds(self) -> float:
        """Time within which a machine runs, stops or is gone, if nothing hinders it."""

    @property
    def call_seconds(self) -> float:
        """Time within which any call but a create must answer or give up."""

    @property
    def case_seconds(self) -> float:
        """Time within which a case must end."""

    async def open(self, scope: Scope) -> None:
        """Prepares for one case: nothing of earlier cases hinders, and no machine of this scope is there."""

    async def shut(self) -> None:
        """Ends all that the case made, heals all, closes all providers."""

    async def provider(self, *, bad_credentials: bool = False) -> Provider:
        """A new provider on the same back end, as another process would make it."""

    async def inject(self, injection: Injection) -> None:
        """Breaks something. Injections add up; the first one that matches a call acts."""

    async def heal(self) -> None:
        """Takes all injections back. Machines stay as they are."""

    async def machines(self) -> Sequence[Seen]:
        """All machines of the back end by its own account, not through the provider; ended ones if it shows them."""

    async def stranger(self, *, name: str = "stranger", tags: Mapping[str, str] | None = None) -> str:
        """Makes a machine without the provider, with these tags written as the provider would write them; its id."""

    async def meddle(self, what: str, node_id: str) -> None:
        """Does something to a machine behind the provider's back; a name of `NEEDS`."""

    async def requests(self, operation: Operation) -> int:
        """How many such calls have reached the back end since `open`."""

    async def billed(self) -> int:
        """Nano-units an hour that the back end charges at this moment for machines of this case."""

    async def wait(self, seconds: float) -> None:
        """Lets time pass, for the provider and the back end."""

    async def pick(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Those offers that the suite may make machines of, the best first; at least one on demand."""


class BaseHarness:
    """Defaults for a harness: real time, all offers, and machines that cost something as long as they don't rest."""

    name = ""
    kind = ""
    secrets: Sequence[str] = ()
    image = ""
    access = Access(authorized_keys=(KEY,), host_key=PRIVATE, host_public_key=KEY)
    many = 12
    settle_seconds = 60.0
    call_seconds = 30.0
    case_seconds = 300.0

    async def inject(self, injection: Injection) -> None:
        """Nothing can be broken, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't inject {injection.what!r}")

    async def heal(self) -> None:
        """Nothing was broken."""

    async def stranger(self, *, name: str = "stranger", tags: Mapping[str, str] | None = None) -> str:
        """No strangers, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't make a stranger")

    async def meddle(self, what: str, node_id: str) -> None:
        """No meddling, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't meddle by {what!r}")

    async def requests(self, operation: Operation) -> int:
        """No counting, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't count {operation!r}")

    async def billed(self) -> int:
        """One unit for each machine of this case that is there and doesn't rest, where the back end has no meter."""
        seen = await self.machines()
        return sum(10**9 for each in seen if each.token and not each.ended and not each.resting)

    async def machines(self) -> Sequence[Seen]:
        """Only the harness knows."""
        raise NotImplementedError(f"{self.name} doesn't say which machines there are")

    async def wait(self, seconds: float) -> None:
        """Real time passes."""
        await asyncio.sleep(seconds)

    async def pick(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """All of them."""
        return offers


MakeHarness = Callable[[], Awaitable[Harness]]
"""Makes a harness once for a run of the suite; cases call `open` and `shut` one after the other."""
