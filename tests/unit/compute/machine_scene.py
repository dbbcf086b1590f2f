"""Machines on a memory API server and a memory cloud, on one virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from cloudmesh.compute.account_controller import AccountReconciler
from cloudmesh.compute.accounts import Accounts, shared
from cloudmesh.compute.choices import PriceSheetReconciler
from cloudmesh.compute.kinds import BUDGET, CLOUD_ACCOUNT, PRICE_SHEET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_controller import MachineReconciler
from cloudmesh.compute.ports import ProviderInfo
from cloudmesh.compute.providers.memory import MemoryCloud, MemoryProvider
from cloudmesh.compute.providers.memory.powers import POWERS
from cloudmesh.compute.providers.registry import Context
from cloudmesh.engine import SECRET, Engine, Obj, Resource
from cloudmesh.engine.reconciler import Reconciler
from cloudmesh.testing import CrashPoint, World, run_virtual, tick

BASE = 1_790_000_000.0
NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False)
KINDS = (VIRTUAL_MACHINE, VIRTUAL_CLUSTER, CLOUD_ACCOUNT, PRICE_SHEET, BUDGET, SECRET)
FULL = type("FullProvider", (*POWERS.values(), MemoryProvider), {})


def wall() -> float:
    """Seconds since the epoch, on the loop's clock."""
    return BASE + asyncio.get_running_loop().time()


def now() -> str:
    """The same as RFC 3339."""
    return datetime.datetime.fromtimestamp(wall(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


S = TypeVar("S")


class Owner:
    """A reconciler of VirtualCluster that only notes when it was woken."""

    resource = VIRTUAL_CLUSTER
    owns = ()

    def __init__(self) -> None:
        self.woken: list[float] = []

    async def reconcile(self, key: Any, obj: Obj) -> Any:
        from cloudmesh.engine import Done

        self.woken.append(asyncio.get_running_loop().time())
        return Done()

    def forget(self, key: Any) -> None:
        """Nothing to forget."""


class Scene:
    """One world with one cloud.

    Args:
        native: The cloud has create tokens.
        powers: Whether the provider has all optional powers.
        grace: Seconds after which a listing may prove absence.
        ssh: Whether machines are logged in to.
    """

    def __init__(
        self, *, native: bool = True, powers: bool = True, grace: int = 0, ssh: bool = False, poll: float = 2.0
    ) -> None:
        self.world = World(KINDS)
        self.api = self.world.api
        self.cloud = MemoryCloud("test", clock=wall)
        self.cloud.habits.native_tokens = native
        self.clouds: dict[str, MemoryCloud] = {}
        self.powers = powers
        self.info = ProviderInfo(
            kind="memory", grace_seconds=grace, create_seconds=10, native_tokens=native, ssh=ssh, poll_seconds=poll
        )
        self.owner = Owner()
        self.contexts: list[Context] = []
        self.api.put(NAMESPACES, {"metadata": {"name": "kube-system"}})

    def use(self, **declared: Any) -> None:
        """Changes what the provider declares; before the first operator."""
        self.info = dataclasses.replace(self.info, **declared)
        self.cloud.habits.native_tokens = self.info.native_tokens

    # -- objects -------------------------------------------------------------------------------------------------

    def add_account(self, name: str = "lab", **spec: Any) -> Obj:
        """Makes a CloudAccount."""
        return self._put(CLOUD_ACCOUNT, name, {"memory": {}, **spec})

    def add_cloud(self, account: str) -> MemoryCloud:
        """Makes a cloud of its own, with its CloudAccount."""
        cloud = self.clouds[account] = MemoryCloud(account, clock=wall)
        self.add_account(account)
        return cloud

    def add_cluster(self, name: str = "c", **spec: Any) -> Obj:
        """Makes a VirtualCluster."""
        return self._put(VIRTUAL_CLUSTER, name, {"bootstrap": {"ssh": {}}, **spec})

    def add_machine(
        self, name: str = "m", *, cluster: Obj | None = None, account: str = "lab", annotations: Any = None, **spec: Any
    ) -> Obj:
        """Makes a VirtualMachine, owned by a cluster if one is given."""
        place = next(iter(self.cloud.stock.rows.values()))
        offer = {"type": place.type, "region": place.region, "zone": place.zone, "purchase": "OnDemand"}
        body = {"accountRef": {"name": account}, "offer": offer, "attempt": 1, "powerState": "Running", **spec}
        metadata: dict[str, Any] = {"annotations": annotations} if annotations else {}
        if cluster is not None:
            from cloudmesh.engine import own

            body |= {"clusterRef": {"name": cluster["metadata"]["name"]}, "pool": "p"}
            owned = own({"metadata": {}}, cluster)["metadata"]
            metadata |= {"labels": owned["labels"], "ownerReferences": owned["ownerReferences"]}
        return self._put(VIRTUAL_MACHINE, name, body, metadata)

    def _put(self, resource: Resource, name: str, spec: Obj, metadata: Obj | None = None) -> Obj:
        obj = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": "ns", **(metadata or {})},
            "spec": spec,
        }
        self.api.put(resource, obj)
        return self.get(resource, name)

    def get(self, resource: Resource, name: str) -> Obj:
        """An object that must be there."""
        found = self.api.get(resource, "ns", name)
        assert found is not None, f"{resource.kind} {name} isn't there"
        return found

    def change(self, resource: Resource, name: str, change: Callable[[Obj], None]) -> None:
        """Changes an object as a user would."""
        obj = self.get(resource, name)
        change(obj)
        self.api.put(resource, obj)

    def annotate(self, resource: Resource, name: str, **annotations: str) -> None:
        """Sets annotations; `_` in their names stands for `-`."""

        def change(obj: Obj) -> None:
            held = obj["metadata"].setdefault("annotations", {})
            held.update({f"cloudmesh.org/{key.replace('_', '-')}": value for key, value in annotations.items()})

        self.change(resource, name, change)

    async def delete(self, resource: Resource, name: str) -> None:
        """Deletes an object as a user would."""
        from cloudmesh.engine import Kube

        await Kube(self.api).delete(resource, "ns", name)

    async def let_go(self, name: str) -> None:
        """Gives up the VirtualMachine of a name, deletes it, and waits until it is gone; the machine runs on."""
        self.annotate(VIRTUAL_MACHINE, name, abandon=self.get(VIRTUAL_MACHINE, name)["metadata"]["uid"])
        await self.delete(VIRTUAL_MACHINE, name)
        await self.until(lambda: not self.is_there(VIRTUAL_MACHINE, name))

    # -- what is seen ----------------------------------------------------------------------------------------------

    def status(self, name: str = "m") -> Obj:
        """Status of a VirtualMachine."""
        return dict(self.get(VIRTUAL_MACHINE, name).get("status") or {})

    def condition(self, type_: str = "Ready", name: str = "m", resource: Resource = VIRTUAL_MACHINE) -> tuple[str, str]:
        """Status and reason of a condition."""
        conditions = (self.get(resource, name).get("status") or {}).get("conditions") or []
        found = next((c for c in conditions if c["type"] == type_), {"status": "-", "reason": "-"})
        return found["status"], found["reason"]

    def is_there(self, resource: Resource, name: str) -> bool:
        """Whether an object exists."""
        return self.api.get(resource, "ns", name) is not None

    def living(self) -> list[Any]:
        """Machines in the cloud that have not ended."""
        return self.cloud.living()

    def events(self) -> list[tuple[str, str]]:
        """Reason and note of all Events."""
        from cloudmesh.engine import EVENT

        return [(event["reason"], event["note"]) for event in self.api.all(EVENT)]

    def writes(self, resource: Resource = VIRTUAL_MACHINE) -> int:
        """How often objects of a kind were stored."""
        return sum(1 for _, kind, _ in self.api.store.writes if kind == resource)

    # -- operators ---------------------------------------------------------------------------------------------------

    def maker(self, crash: CrashPoint | None) -> Callable[[str], Any]:
        """Finds the maker of providers, wrapped by the crash point."""

        def make(context: Context) -> Any:
            self.contexts.append(context)
            kind = FULL if self.powers else MemoryProvider
            key = context.credentials.get("key", b"").decode()
            provider = kind(context.name, self.clouds.get(context.name, self.cloud), key=key, info=self.info)
            return Crashing.of(provider, crash) if crash is not None else provider

        return lambda kind: make

    @contextlib.asynccontextmanager
    async def operator(self, crash: CrashPoint | None = None, **options: Any) -> AsyncIterator[tuple[Engine, Accounts]]:
        """An operator that runs inside the block."""
        probe = options.pop("probe", None)
        bootstrap = options.pop("bootstrap", None)
        made: list[Accounts] = []

        def accounts(engine: Engine) -> Accounts:
            found = shared(engine, now=now, maker=self.maker(crash))
            made.append(found)
            return found

        def machines(engine: Engine) -> Reconciler:
            from cloudmesh.compute.probes import Probes

            probes = Probes(engine.enqueue, probe) if probe is not None else None
            return MachineReconciler(engine, accounts(engine), probes=probes, bootstrap=bootstrap)

        async with self.world.engine(
            lambda engine: AccountReconciler(engine, accounts(engine)),
            lambda engine: PriceSheetReconciler(engine, accounts(engine)),
            machines,
            lambda engine: self.owner,
            crash=crash,
            **options,
        ) as engine:
            yield engine, made[0]

    async def until(self, holds: Callable[[], bool], seconds: float = 600.0) -> None:
        """Waits until something holds."""
        end = asyncio.get_running_loop().time() + seconds
        while not holds():
            assert asyncio.get_running_loop().time() < end, f"not within {seconds:g} s: {self.told()}"
            await tick(0.25)

    def told(self) -> str:
        """What the conditions of all machines and accounts say."""
        return "; ".join(
            f"{obj['kind']} {obj['metadata']['name']}: {c['type']}={c['status']} {c['reason']} {c['message']}"
            for kind in (CLOUD_ACCOUNT, VIRTUAL_MACHINE)
            for obj in self.api.all(kind)
            for c in (obj.get("status") or {}).get("conditions") or ()
        )

    def is_ready(self, name: str = "m") -> bool:
        """Whether a VirtualMachine is ready."""
        return self.is_there(VIRTUAL_MACHINE, name) and self.condition(name=name)[0] == "True"

    async def settle(self, seconds: float = 600.0, quiet: float = 8.0) -> None:
        """Waits until nothing is written any more."""
        await self.world.settle(seconds=seconds, quiet_seconds=quiet)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """All that is logged, with tracebacks and whatever is given beside the message."""
    told: list[str] = []

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(f"{self.format(record)} {vars(record)}")

    root, handler, level = logging.getLogger(), Teller(logging.DEBUG), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield told
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class Crashing:
    """Wraps a provider so that its calls are counted, and may crash, while it still has its powers."""

    @staticmethod
    def of(provider: MemoryProvider, crash: CrashPoint) -> Any:
        """The wrapped provider."""
        kind = type(provider)
        inner = crash.wrap(provider)

        def forward(name: str) -> Any:
            async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
                return await getattr(inner, name)(*args, **kwargs)

            return call

        names = [n for n in dir(kind) if not n.startswith("_") and asyncio.iscoroutinefunction(getattr(kind, n))]
        wrapped = type("Crashing", (), {n: forward(n) for n in names if n != "call"})()
        wrapped.info = provider.info
        return wrapped


def runs_in(make: Callable[[], S]) -> Callable[[Callable[[S], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Makes a decorator that runs a test on a virtual loop with a fresh scene, made on that loop."""

    def decorate(test: Callable[[S], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def run() -> None:
            async def main() -> None:
                await test(make())

            run_virtual(main())

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


scene = runs_in(Scene)
