"""Machines made and deleted by an operator that dies at every call: never a second machine, never one left behind.

A `Trial` has a memory API server, a memory cloud, a user who makes machines and deletes them again, and operators that
live one after the other: each but the last dies at a call of its own, to the API server or to the cloud, before the
call was sent or after it was done. In the end the cloud's own books are compared with what was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cloudmesh.compute.account_controller import AccountReconciler
from cloudmesh.compute.accounts import Accounts
from cloudmesh.compute.kinds import BUDGET, CLOUD_ACCOUNT, PRICE_SHEET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_controller import MachineReconciler
from cloudmesh.compute.ports import ProviderInfo
from cloudmesh.compute.providers.memory import Fault, Habits, MemoryCloud, MemoryProvider, Stock
from cloudmesh.compute.providers.registry import Context, Maker
from cloudmesh.compute.tokens import TAG_UID
from cloudmesh.engine import SECRET, Engine, Obj, Resource
from cloudmesh.testing.crash import Crash, CrashPoint, Moment
from cloudmesh.testing.virtualtime import run_virtual
from cloudmesh.testing.world import World

BASE = 1_790_000_000.0
NAMESPACE = "trial"
NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False)
LOOK_SECONDS = 0.25
LIMIT_SECONDS = 3600.0
LIFE_SECONDS = 600.0
RIVAL_SECONDS = 15.0
CALL_SECONDS = 0.01
CALLS = ("ensure_node", "find_node", "list_nodes", "delete_node", "check", "offers", "close")

Death = tuple[int, Moment]
"""Number of the call at which an operator dies, and whether before it or after it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One trial.

    Args:
        machines: How many machines the user makes, each deleted when it is ready or at a moment before.
        deaths: Where the operators die, one after the other.
        native_tokens: Whether the cloud keeps create tokens.
        troubles: Calls to the cloud that go wrong, drawn by the seed.
        late_create: Whether the first create breaks and arrives seconds later.
        rival: Whether another operator, that believes to lead too, is at work for a while.
        seed: Draws moments of deletes, troubles, and the order of what happens at the same time.
    """

    machines: int = 1
    deaths: tuple[Death, ...] = ()
    native_tokens: bool = True
    troubles: int = 0
    late_create: bool = False
    rival: bool = False
    seed: int = 1


@dataclass(slots=True)
class Tally:
    """What came of it.

    Args:
        cycles: Machines that were asked for and deleted again.
        made: Machines that the cloud made.
        crashes: Operators that died.
        calls: Calls that the last counted operator made until its end.
        duplicates: Machines that were made besides the one of their VirtualMachine.
        orphans: Machines that live, or are billed, when their VirtualMachine is gone.
        stuck: VirtualMachines that never went.
        notes: The trials in which something was wrong.
    """

    cycles: int = 0
    made: int = 0
    crashes: int = 0
    calls: int = 0
    duplicates: int = 0
    orphans: int = 0
    stuck: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Sums up."""
        for name in ("cycles", "made", "crashes", "duplicates", "orphans", "stuck"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.calls = max(self.calls, other.calls)
        self.notes += other.notes

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.duplicates or self.orphans or self.stuck)


Wrap = Callable[[MemoryProvider], Any]
"""Puts something around each provider that an operator gets."""


def run_trial(plan: Plan, *, wrap: Wrap | None = None) -> Tally:
    """Runs a trial on a virtual clock of its own."""
    return run_virtual(_run(plan, wrap), seed=plan.seed)


def sweep(plan: Plan, *, moments: Sequence[Moment] = ("before", "after"), limit: int = 5000) -> Tally:
    """Runs a plan with a death at call 1, 2, 3 … until an operator lives to the end, before and after each call.

    Args:
        plan: What is done; its own deaths come after the one that moves.
        moments: Before the call, after it.
        limit: More calls than an operator should need.

    Raises:
        RuntimeError: The limit was reached: the operator doesn't come to rest.
    """
    tally = Tally()
    for moment in moments:
        for number in range(1, limit + 1):
            found = run_trial(replace(plan, deaths=((number, moment), *plan.deaths)))
            tally.add(found)
            if not found.crashes:
                break
        else:
            raise RuntimeError(f"an operator still makes call {limit}: {plan}")
    return tally


def draw_plan(rng: random.Random, *, machines: int = 20) -> Plan:
    """A plan with several deaths and troubles."""
    native = rng.random() < 0.6
    deaths: list[Death] = [
        (rng.randrange(1, 12 * machines), rng.choice(("before", "after"))) for _ in range(rng.randrange(1, 4))
    ]
    return Plan(
        machines=machines,
        deaths=tuple(deaths),
        native_tokens=native,
        troubles=rng.randrange(0, 7),
        rival=native and rng.random() < 0.3,
        seed=rng.randrange(1 << 30),
    )


class Trial:
    """One world.

    Args:
        plan: What is done.
        wrap: Put around providers.
    """

    def __init__(self, plan: Plan, wrap: Wrap | None = None) -> None:
        self.plan = plan
        self._wrap = wrap
        self.rng = random.Random(plan.seed)  # noqa: S311 - a repeatable trial
        self.world = World((VIRTUAL_MACHINE, VIRTUAL_CLUSTER, CLOUD_ACCOUNT, PRICE_SHEET, BUDGET, SECRET))
        self.world.api.latency_seconds = CALL_SECONDS
        self.cloud = MemoryCloud(
            "trial",
            stock=Stock(types=1, regions=1, zones=1, spot=False),
            habits=Habits(
                native_tokens=plan.native_tokens,
                latency_seconds=0.02,
                list_lag_seconds=self.rng.choice((0.0, 3.0)),
                page_size=self.rng.choice((2, 1000)),
            ),
            clock=_wall,
        )
        if plan.late_create:
            self.cloud.faults.add(Fault("late", "RunInstance", delay_seconds=self.rng.uniform(1.0, 9.0)))
        for _ in range(plan.troubles):
            self.cloud.faults.add(self._trouble())
        self.over = asyncio.Event()
        self.crashes = 0
        self.calls = 0

    def _trouble(self) -> Fault:
        action = self.rng.choice(("lose", "drop", "fail-after", "late", "late", "refuse", "hang", "hang-after"))
        operation = self.rng.choice(("RunInstance", "TerminateInstance", "ListInstances", "FindInstances", "*"))
        late = self.rng.uniform(0.0, 9.0) if action == "late" else 0.0
        skip, times = self.rng.randrange(12), self.rng.randrange(1, 3)
        return Fault(action, operation, skip=skip, times=times, delay_seconds=late)  # type: ignore[arg-type]

    def maker(self, point: CrashPoint | None) -> Callable[[str], Maker]:
        """Makes providers of this cloud, whose calls count for the death."""
        info = ProviderInfo(
            kind="memory",
            grace_seconds=4,
            create_seconds=10,
            native_tokens=self.plan.native_tokens,
            ssh=False,
            poll_seconds=2.0,
        )

        def make(context: Context) -> Any:
            made = MemoryProvider(context.name, self.cloud, key="", info=info)
            provider = made if self._wrap is None else self._wrap(made)
            return provider if point is None else _counted(provider, point)

        return lambda kind: make

    async def operators(self) -> None:
        """Operators, one after the other; the last one lives."""
        if self.plan.rival:
            await asyncio.gather(self._rival(), self._mortals())
        else:
            await self._mortals()

    async def _rival(self) -> None:
        """A leader that doesn't know yet that it isn't one any more."""
        await asyncio.sleep(self.rng.uniform(0.0, 4.0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RIVAL_SECONDS):
                await self._life(None)

    async def _mortals(self) -> None:
        for number, moment in self.plan.deaths:
            point = CrashPoint(number, moment)
            died = await point.until_crash(self._life(point))
            self.calls = max(self.calls, len(point.calls))
            self.crashes += died
            if not died:
                return
        await self._life(None)

    async def _life(self, point: CrashPoint | None) -> None:
        made: dict[str, Accounts] = {}

        def accounts(engine: Engine) -> Accounts:
            """The same for both reconcilers, and gone with the trial."""
            if not made:
                made["accounts"] = Accounts(engine, now=_now, maker=self.maker(point))
            return made["accounts"]

        async with self.world.engine(
            lambda engine: AccountReconciler(engine, accounts(engine)),
            lambda engine: MachineReconciler(engine, accounts(engine)),
            crash=point,
        ):
            await self.over.wait()

    async def user(self) -> None:
        """Makes machines and deletes each when it is ready, or before."""
        api = self.world.api
        api.put(NAMESPACES, {"metadata": {"name": "kube-system"}})
        api.put(CLOUD_ACCOUNT, _named("account", {"memory": {}}))
        row = next(iter(self.cloud.stock.rows.values()))
        offer = {"type": row.type, "region": row.region, "zone": row.zone, "purchase": row.purchase}
        spec = {"accountRef": {"name": "account"}, "offer": offer, "attempt": 1, "powerState": "Running"}
        moments: dict[str, float | None] = {}
        begun = asyncio.get_running_loop().time()
        for number in range(self.plan.machines):
            name = f"machine-{number}"
            api.put(VIRTUAL_MACHINE, _named(name, dict(spec)))
            moments[name] = None if number % 2 == 0 else begun + self.rng.uniform(0.0, 8.0)
        while moments:
            await asyncio.sleep(LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            for name, moment in list(moments.items()):
                late = now > begun + LIFE_SECONDS
                if late or (self._is_ready(name) if moment is None else now >= moment):
                    api.remove(VIRTUAL_MACHINE, NAMESPACE, name)
                    del moments[name]
        for _ in range(round(LIMIT_SECONDS / LOOK_SECONDS)):
            if not self.left():
                return
            await asyncio.sleep(LOOK_SECONDS)

    def left(self) -> list[Obj]:
        """VirtualMachines that are still there."""
        return list(self.world.api.store.objects.get(VIRTUAL_MACHINE, {}).values())

    def _is_ready(self, name: str) -> bool:
        obj = self.world.api.store.objects[VIRTUAL_MACHINE][(NAMESPACE, name)]
        conditions = (obj.get("status") or {}).get("conditions") or ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def tally(self) -> Tally:
        """Compares the cloud's books with what was asked for."""
        stuck = len(self.left())
        living = self.cloud.living()
        # a machine of a VirtualMachine that is still there isn't an orphan
        uids = {obj["metadata"]["uid"] for obj in self.left()}
        orphans = [each for each in living if each.tags.get(TAG_UID) not in uids]
        made = self.cloud.meter.made(TAG_UID)
        found = Tally(
            cycles=self.plan.machines - stuck,
            made=sum(made.values()),
            crashes=self.crashes,
            calls=self.calls,
            duplicates=sum(count - 1 for count in made.values()),
            orphans=len(orphans) + (not living and self.cloud.meter.billed_now() != 0),
            stuck=stuck,
        )
        if not found.clean:
            told = f"{found.duplicates} duplicates, {found.orphans} orphans, {found.stuck} stuck"
            found.notes.append(f"{told}: {self.plan}")
        return found


async def _run(plan: Plan, wrap: Wrap | None) -> Tally:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell)
    trial = Trial(plan, wrap)
    operators = asyncio.ensure_future(trial.operators())
    try:
        await trial.user()
        found = trial.tally()
    finally:
        trial.over.set()
        await operators
    found.crashes, found.calls = trial.crashes, trial.calls
    return found


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tells of errors that nobody waits for, but not that the dead are dead."""
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)


def _counted(provider: MemoryProvider, point: CrashPoint) -> Any:
    """A provider whose calls count; made of a class, so that its powers are still told by its methods."""
    inner = point.wrap(provider)

    def forward(name: str) -> Any:
        async def call(self: Any, *arguments: Any) -> Any:
            return await getattr(inner, name)(*arguments)

        return call

    made = type("Counted", (), {name: forward(name) for name in CALLS})()
    made.info = provider.info
    return made


def _named(name: str, spec: Obj) -> Obj:
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def _wall() -> float:
    return BASE + asyncio.get_running_loop().time()


def _now() -> str:
    return datetime.datetime.fromtimestamp(_wall(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
