"""Harness of the memory provider: also the example for other harnesses, since all can be broken here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from cloudmesh.compute.ports import Provider
from cloudmesh.compute.providers import memory
from cloudmesh.compute.providers.memory import Fault, Habits, MemoryCloud, Stock
from cloudmesh.compute.providers.memory.faults import Action
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.tokens import PREFIX, TAG_TOKEN, Scope
from cloudmesh.testing.providers.harness import BaseHarness, Injection, Operation, Seen

GOOD, BAD = "suite-good-key-9f3e61c0", "suite-bad-key-77aa02d4"
CALLS: Mapping[Operation, str] = {
    "create": "RunInstance",
    "find": "FindInstances",
    "list": "ListInstances",
    "delete": "TerminateInstance",
    "offers": "ListStock",
    "check": "List*",
    "any": "*",
}
ACTIONS: Mapping[str, Action] = {
    "fail": "refuse", "fail-after": "fail-after", "drop": "drop", "lose": "lose", "hang": "hang", "twice": "twice",
}  # fmt: skip
_numbers = itertools.count(1)


class MemoryHarness(BaseHarness):
    """A fresh memory cloud a case; give it a virtual event loop.

    Args:
        powers: Powers to declare, as the setting of that name.
        native_tokens: Whether the cloud keeps create tokens.
    """

    kind = "memory"
    secrets = (GOOD, BAD)
    image = "debian-12"
    many = 40
    settle_seconds = 60.0
    call_seconds = 30.0
    case_seconds = 3600.0

    def __init__(self, *, name: str = "memory", powers: str = "", native_tokens: bool = True) -> None:
        self.name = name
        self._powers = powers
        self._native_tokens = native_tokens
        self.cloud = MemoryCloud()
        self._scope = Scope("", "", "")
        self._providers: list[Provider] = []
        self._healthy = Habits()

    async def open(self, scope: Scope) -> None:
        """A fresh cloud."""
        self._scope = scope
        self._healthy = Habits(native_tokens=self._native_tokens)
        stock = Stock(types=4)
        next(iter(stock.rows.values())).told = False
        self.cloud = MemoryCloud(f"suite-{next(_numbers)}", stock=stock, key=GOOD)
        await self.heal()
        memory.cloud(self.cloud.name, self.cloud)

    async def shut(self) -> None:
        """The cloud is dropped."""
        for provider in self._providers:
            await provider.close()
        self._providers.clear()
        memory.forget(self.cloud.name)

    async def provider(self, *, bad_credentials: bool = False) -> Provider:
        """A new provider on the same cloud."""
        settings = {"cloud": self.cloud.name, "powers": self._powers, "graceSeconds": "30"}
        key = (BAD if bad_credentials else GOOD).encode()
        context = Context(
            self._scope.namespace, self._scope.account, "uid", {"settings": settings}, credentials={"key": key}
        )
        self._providers.append(memory.make(context))
        return self._providers[-1]

    async def inject(self, injection: Injection) -> None:
        """All of it."""
        cloud, what = self.cloud, injection.what
        call = CALLS[injection.operation]
        if what in ACTIONS:
            cloud.faults.add(Fault(ACTIONS[what], call, times=injection.times))
        elif what == "delay":
            cloud.faults.add(Fault(None, call, times=injection.times, answer_seconds=injection.seconds))
        elif what == "limit":
            wait = injection.seconds or None
            cloud.faults.add(Fault("refuse", call, "TooManyRequests", retry_after=wait, times=injection.times))
        else:
            self._change(injection)

    def _change(self, injection: Injection) -> None:
        cloud, faults = self.cloud, self.cloud.faults
        match injection.what:
            case "capacity" | "capacity-late":
                cloud.set_free(0, late=injection.what == "capacity-late")
            case "quota":
                for row in cloud.stock.rows.values():
                    cloud.quotas[(row.region, row.quota)] = 0
            case "revoked":
                cloud.key = "another-key-entirely"
            case "lag":
                cloud.habits.list_lag_seconds = injection.seconds
            case "stale":
                cloud.freeze_listings()
            case "pages":
                cloud.habits.page_size = injection.number
            case "page-fails":
                cloud.habits.page_size, faults.failing_page = 2, injection.number
            case "partial":
                faults.unreachable_zone = next(iter(cloud.stock.rows.values())).zone
            case "repeats":
                cloud.habits.page_size, faults.listing_repeats = 2, True
            case "filter":
                faults.filters_ignored = True
            case "slow-delete":
                cloud.habits.delete_seconds = injection.seconds
            case "unpriced":
                pass  # the first row of the stock always is
            case unknown:
                raise NotImplementedError(unknown)

    async def heal(self) -> None:
        """All is well again."""
        self.cloud.faults.clear()
        self.cloud.thaw_listings()
        self.cloud.habits = Habits(native_tokens=self._native_tokens)
        self.cloud.quotas.clear()
        self.cloud.set_free(None)
        self.cloud.key = GOOD

    async def machines(self) -> Sequence[Seen]:
        """What the cloud has, whether it shows it or not."""
        return [
            Seen(
                id=each.id,
                token=each.tags.get(TAG_TOKEN, "") if self._scope.holds(each.tags) else "",
                ended=each.ended is not None,
                name=each.name,
                type=each.type,
                image=each.image,
                purchase=each.purchase,
                disk_gib=each.disk_gib,
                authorized_keys=each.authorized_keys,
                host_key=each.host_key,
                resting=each.state in ("Stopped", "Suspended"),
            )
            for each in self.cloud.instances()
        ]

    async def stranger(self, *, name: str = "stranger", tags: Mapping[str, str] | None = None) -> str:
        """A machine made by hand, in the first row of the stock."""
        made = self.cloud.make_by_hand(name=name, tags=tags)
        if token := (tags or {}).get(TAG_TOKEN):
            self.cloud.change(made.id, client_token=token)
        return made.id

    async def meddle(self, what: str, node_id: str) -> None:
        """All of it."""
        cloud, instance = self.cloud, self.cloud.get_instance(node_id)
        match what:
            case "stop":
                cloud.change_power(node_id, ("Running",), "Stopping")
            case "end":
                cloud.terminate(node_id)
            case "resize":
                other = next(name for name in cloud.stock.types() if name != instance.type)
                cloud.change(node_id, type=other)
            case "image":
                cloud.change(node_id, image="ubuntu-24.04")
            case "grow":
                cloud.change(node_id, disk_gib=41)
            case "untag":
                cloud.change_tags(node_id, {}, [key for key in instance.tags if key.startswith(PREFIX)])
            case "reclaim":
                cloud.reclaim(node_id)
            case unknown:
                raise NotImplementedError(unknown)

    async def requests(self, operation: Operation) -> int:
        """Counted by the cloud."""
        return self.cloud.calls[CALLS[operation]]

    async def billed(self) -> int:
        """By the cloud's meter."""
        self.cloud.advance()
        return self.cloud.meter.billed_now()
