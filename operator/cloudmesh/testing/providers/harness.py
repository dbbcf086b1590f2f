"""What the conformance suite needs of the one who wrote a provider: a back end that can be broken on purpose.

A harness stands between the suite and one back end: an emulator, a proxy in front of it, a test cluster, a fake. The
suite makes machines through the provider, breaks the back end through the harness, and asks the harness, never the
provider, how many machines there really are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cloudmesh.compute.ports import Provider
from cloudmesh.compute.tokens import Scope
from cloudmesh.policy.model import Offer

Operation = Literal["create", "find", "list", "delete", "offers", "check", "any"]
"""Which calls to the back end are meant: those that the provider makes in `ensure_node` to create (and no others), in
`find_node`, in `list_nodes`, in `delete_node` to delete, in `offers`, in `check`, or all."""

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
    "capacity": "no room for a new machine, said at the create call",
    "capacity-late": "no room for a new machine, said after the create call has succeeded",
    "quota": "the account's limit is reached",
    "revoked": "the credentials of all providers stop being valid",
    "lag": "a new machine is missing in listings for `seconds`",
    "stale": "listings show this moment until `heal`",
    "pages": "listings come in pages of `number` machines",
    "page-fails": "listings come in pages of 2, and the request for page `number` fails each time",
    "partial": "listings leave a zone or region out and say so in a success",
    "repeats": "listings come in pages of 2, and a machine of one page comes again on the next",
    "filter": "the back end takes filters of listings and answers with everything",
    "slow-delete": "a machine that is told to end takes `seconds` for it",
    # things done behind the product's back, for `meddle`
    "stop": "the machine is stopped",
    "end": "the machine is ended",
    "resize": "the machine has another type",
    "image": "the machine has another image",
    "grow": "the machine has a disk of 41 GiB",
    "untag": "the machine has lost our tags",
    "reclaim": "the machine, a spot one, is taken away",
    # what the back end has at all
    "bad-credentials": "there are credentials to be wrong",
    "stranger": "there can be machines that the product didn't make",
    "spot": "there are spot offers",
    "unpriced": "an offer can be without a price",
    "priced": "offers carry prices",
    "types": "there are machine types to be unknown",
    "regions": "there are regions to be unknown",
    "zones": "there are zones to be unknown",
    "images": "there are images to be unknown",
    "disk": "the size of the disk can be chosen",
    "own-address": "each machine has an address of its own",
    "public-address": "machines can have an address of the internet",
    "logins": "the keys for logins can be read off the back end",
    "host-key": "the host key can be read off the back end",
    "requests": "calls that reach the back end can be counted",
    "meter": "the back end knows what is billed at this moment",
    "two-types": "there are two offers that differ in type",
}
"""Everything that a case may need, by name. What a back end doesn't have stands in `Harness.absent` with the reason."""


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
        authorized_keys: Public keys that may log in, where the harness declares `logins`.
        host_key: Public host key, where the harness declares `host-key`.
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


class Harness(Protocol):
    """One back end in the hands of the suite. `BaseHarness` has defaults for most of it."""

    @property
    def name(self) -> str:
        """Column of the table, such as `aws`."""

    @property
    def kind(self) -> str:
        """Member of CloudAccount.spec; `provider.info.kind` must be the same."""

    @property
    def absent(self) -> Mapping[str, str]:
        """What of `NEEDS` this back end doesn't have, and why: `{"spot": "Pods are not sold as spot"}`.

        The sentence stands in the table. All else the harness must be able to do, or the case fails.
        """

    @property
    def secrets(self) -> Sequence[str]:
        """Texts that must never be seen outside, such as the secret keys of the good and the bad credentials."""

    @property
    def image(self) -> str:
        """An image that works."""

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
    """Defaults for a harness: real time, nothing absent, all offers."""

    name = ""
    kind = ""
    absent: Mapping[str, str] = {}
    secrets: Sequence[str] = ()
    image = ""
    many = 12
    settle_seconds = 60.0
    call_seconds = 30.0
    case_seconds = 300.0

    async def inject(self, injection: Injection) -> None:
        """Nothing can be broken, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't inject {injection.what!r} and doesn't declare it absent")

    async def heal(self) -> None:
        """Nothing was broken."""

    async def stranger(self, *, name: str = "stranger", tags: Mapping[str, str] | None = None) -> str:
        """No strangers, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't make a stranger and doesn't declare it absent")

    async def meddle(self, what: str, node_id: str) -> None:
        """No meddling, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't meddle by {what!r} and doesn't declare it absent")

    async def requests(self, operation: Operation) -> int:
        """No counting, unless the harness says how."""
        raise NotImplementedError(f"{self.name} can't count {operation!r} and doesn't declare `requests` absent")

    async def billed(self) -> int:
        """No bill, unless the harness says how."""
        raise NotImplementedError(f"{self.name} has no meter and doesn't declare it absent")

    async def wait(self, seconds: float) -> None:
        """Real time passes."""
        await asyncio.sleep(seconds)

    async def pick(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """All of them."""
        return offers


MakeHarness = Callable[[], Awaitable[Harness]]
"""Makes a harness once for a run of the suite; cases call `open` and `shut` one after the other."""
