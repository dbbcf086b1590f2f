"""Cases of the conformance suite: what each one is called, what it needs, and what it stands on."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cloudmesh.compute.ports import TRAITS, ClusterSpec, Complete, Listing, Node, NodeSpec, Provider, traits_of
from cloudmesh.compute.tokens import TAG_CLUSTER, TAG_MACHINE, TAG_TOKEN, TAG_UID, Scope, make_token
from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.policy.model import Offer
from cloudmesh.testing.providers.harness import KEY, NEEDED_TRAITS, NEEDS, Harness, Injection, Operation, Seen

T = TypeVar("T")
E = TypeVar("E", bound=CloudmeshError)


class CaseFailed(AssertionError):
    """A provider doesn't do what the case asks for; the message says what was seen."""


def need(condition: object, message: str) -> None:
    """Fails the case unless the condition holds.

    Raises:
        CaseFailed: It doesn't.
    """
    if not condition:
        raise CaseFailed(message)


class Bench:
    """One case's view: a provider, its back end, and a scope of its own.

    Args:
        harness: The back end, open.
        scope: Whose machines.
        provider: The provider under test.
    """

    def __init__(self, harness: Harness, scope: Scope, provider: Provider) -> None:
        self.harness = harness
        self.scope = scope
        self.provider = provider
        self._offers: list[Offer] = []
        self._count = 0

    async def offers(self, purchase: str = "OnDemand") -> list[Offer]:
        """Offers that machines may be made of."""
        if not self._offers:
            self._offers = list(await self.harness.pick(await self.provider.offers()))
        found = [offer for offer in self._offers if offer.purchase == purchase]
        need(found, f"there is no offer {purchase}")
        return found

    async def spec(self, *, offer: Offer | None = None, **changes: Any) -> NodeSpec:
        """A machine that nobody has asked for yet; each call gives another token."""
        self._count += 1
        offer = offer if offer is not None else (await self.offers())[0]
        uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.scope.installation}/{self._count}"))
        token = make_token(uid, "workers", self._count, 1, offer.id)
        name = f"suite-workers-{self._count}"
        tags = {
            **self.scope.tags(), TAG_TOKEN: token, TAG_UID: uid, TAG_CLUSTER: "suite", TAG_MACHINE: name,
        }  # fmt: skip
        spec = NodeSpec(
            token=token, name=name, scope=self.scope, cluster="suite", uid=uid, offer=offer, image=self.harness.image,
            access=self.harness.access, tags=tags,
        )  # fmt: skip
        return replace(spec, **changes)

    def cluster(self, name: str = "suite", **changes: Any) -> ClusterSpec:
        """A cluster of this scope."""
        uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.scope.installation}/cluster/{name}"))
        return replace(ClusterSpec(self.scope, name, uid, source_ranges=("192.0.2.0/24",), public_key=KEY), **changes)

    def has(self, trait: str) -> bool:
        """Whether the provider's cloud has a trait, as it declares."""
        return trait in traits_of(self.provider)

    async def inject(
        self, what: str, operation: Operation = "any", *, times: int | None = 1, seconds: float = 0.0, number: int = 0
    ) -> None:
        """Breaks something until it has acted so often, or until `heal`."""
        await self.harness.inject(Injection(what, operation, times, seconds, number))

    async def truth(self, token: str | None = None) -> list[Seen]:
        """Machines by the back end's own account: of a token, or all with one of this case's tokens."""
        return [seen for seen in await self.harness.machines() if (seen.token == token if token else seen.token)]

    async def one(self, token: str) -> Seen:
        """The machine of a token, of which there must be one, ended ones counted."""
        found = await self.truth(token)
        need(len(found) == 1, f"{len(found)} machines were made for one token, not 1")
        return found[0]

    async def none(self, token: str) -> None:
        """Nothing was made for a token."""
        found = await self.truth(token)
        need(not found, f"{len(found)} machines were made, where none should be")

    async def until(self, what: str, ready: Callable[[], Awaitable[T | None]], seconds: float = 0.0) -> T:
        """Waits for something, for the harness's settling time if not told otherwise.

        Raises:
            CaseFailed: It didn't come.
        """
        left = seconds or self.harness.settle_seconds
        pause = 0.05
        while True:
            found = await ready()
            if found:
                return found
            need(left > 0, f"{what}: not within {seconds or self.harness.settle_seconds:g} s")
            await self.harness.wait(min(pause, left))
            left -= pause
            pause = min(2 * pause, 1.0)

    async def in_state(self, spec: NodeSpec, *states: str) -> Node:
        """Waits until the node of a spec is found in one of some states."""

        async def ready() -> Node | None:
            node = await self.provider.find_node(spec)
            return node if node is not None and node.state in states else None

        return await self.until(f"the machine is {' or '.join(states)}", ready)

    async def running(self, spec: NodeSpec | None = None) -> tuple[NodeSpec, Node]:
        """Makes a machine and waits until it runs."""
        spec = spec if spec is not None else await self.spec()
        await self.provider.ensure_node(spec)
        return spec, await self.in_state(spec, "Running")

    async def ended(self, token: str) -> None:
        """Waits until the back end says that the machine of a token is gone."""

        async def ready() -> bool:
            return all(seen.ended for seen in await self.truth(token))

        await self.until("the machine is gone", ready)

    async def listed(self, provider: Provider | None = None) -> tuple[Node, ...]:
        """A listing, which must be complete."""
        listing = await (provider or self.provider).list_nodes(self.scope)
        need(isinstance(listing, Complete), f"the listing is {listing!r:.200}, not complete")
        return listing.nodes

    async def listed_tokens(self, *expected: str) -> None:
        """Waits until a complete listing holds exactly these tokens, each once, what ended left out."""

        async def ready() -> bool:
            tokens = [node.token for node in await self.listed() if node.state != "Deleted"]
            return sorted(tokens) == sorted(expected)

        await self.until(f"a listing with these {len(expected)} machines", ready)


async def refused(kind: type[E] | tuple[type[E], ...], call: Awaitable[object], what: str) -> E:
    """The error of a call, which must be of this kind.

    Raises:
        CaseFailed: It succeeded, or failed in another way.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join(each.__name__ for each in kinds)
    try:
        result = await call
    except kinds as error:
        need(str(error).strip() or type(error).__name__ == "RateLimited", f"{what}: the error has no words")
        return error
    except Exception as error:
        raise CaseFailed(f"{what}: {type(error).__name__} instead of {expected}: {error}") from error
    raise CaseFailed(f"{what}: {_short(result)} instead of {expected}")


def _short(result: object) -> str:
    if isinstance(result, Listing):
        return f"{type(result).__name__} with {len(result.nodes)} machines"
    return f"{result!r:.120}"


Run = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Args:
        id: Stable name, `group/words`.
        title: What must hold, one sentence.
        run: Does it; returning is passing.
        power: Optional power or hint that it is about, empty for the core port.
        needs: What is done to the back end, of `NEEDS`.
        traits: What the cloud must have, of `TRAITS`; for `needs` too.
        native_tokens: Whether it is about clouds that keep create tokens themselves.
    """

    id: str
    title: str
    run: Run
    power: str = ""
    needs: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    native_tokens: bool = False


CASES: dict[str, Case] = {}
"""All cases by id, filled when `cloudmesh.testing.providers` is imported."""


def case(
    id_: str,
    title: str,
    *,
    power: str = "",
    needs: Sequence[str] = (),
    traits: Sequence[str] = (),
    native_tokens: bool = False,
) -> Callable[[Run], Run]:
    """Registers a case.

    Raises:
        ValueError: The id is there already, or a need is unknown.
    """
    if id_ in CASES:
        raise ValueError(f"there are two cases {id_!r}")
    if unknown := [name for name in needs if name not in NEEDS]:
        raise ValueError(f"{id_}: unknown needs {', '.join(unknown)}")
    if unknown := [name for name in traits if name not in TRAITS]:
        raise ValueError(f"{id_}: unknown traits {', '.join(unknown)}")
    taken = dict.fromkeys((*traits, *(NEEDED_TRAITS[name] for name in needs if name in NEEDED_TRAITS)))

    def keep(run: Run) -> Run:
        CASES[id_] = Case(id_, title, run, power, tuple(needs), tuple(taken), native_tokens)
        return run

    return keep
