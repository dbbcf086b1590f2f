"""The API server fails, the cloud fails, two operators lead: one machine, and none left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.unit.compute.machine_scene import Scene, scene

from cloudmesh.compute.flights import AT_ONCE
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.providers.memory import Fault, MemoryCloud
from cloudmesh.engine import Elector
from cloudmesh.testing import Faults, FaultyTransport, run_virtual

CALLS = ["RunInstance", "ListInstances", "ListStock", "FindInstances", "GetInstance", "TerminateInstance",
         "PutGroup", "DeleteGroup"]  # fmt: skip
WRITES = [("PATCH", "virtualmachines/m/status"), ("PATCH", "virtualmachines/m"), ("GET", "virtualclusters/c"),
          ("PATCH", "cloudaccounts/lab"), ("GET", "namespaces/kube-system")]  # fmt: skip


def once(s: Scene) -> None:
    """No token made two machines, and nothing lives."""
    tokens = Counter(line.token for line in s.cloud.meter.lines.values())
    assert max(tokens.values(), default=1) == 1
    assert s.living() == []
    assert s.cloud.resources.groups == {}


async def live_and_die(s: Scene) -> None:
    """A machine's whole life."""
    await s.until(s.is_ready)
    await s.delete(VIRTUAL_MACHINE, "m")
    await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
    once(s)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("action", ["drop", "lose", "hang", "refuse"])
@pytest.mark.parametrize("operation", CALLS)
def test_the_cloud_fails_at_each_call(operation: str, action: str, native: bool) -> None:
    async def main() -> None:
        s = Scene(native=native)
        s.cloud.faults.add(Fault(action, operation, times=3))  # type: ignore[arg-type]
        s.add_account()
        s.add_machine(cluster=s.add_cluster())
        async with s.operator():
            await s.until(lambda: bool(s.api.get(CLOUD_ACCOUNT, "ns", "lab")))
            await live_and_die(s)

    run_virtual(main())


@pytest.mark.parametrize("action", ["answer", "drop", "lose", "hang"])
@pytest.mark.parametrize(("method", "path"), WRITES)
def test_the_api_server_fails_at_each_phase(method: str, path: str, action: str) -> None:
    async def main() -> None:
        s = Scene(native=False)
        faults = Faults()
        faults.add(action, method=method, path=path + r"(\?|$)", times=3, status=500)  # type: ignore[arg-type]
        s.add_account()
        s.add_machine(cluster=s.add_cluster())
        async with s.operator(transport=FaultyTransport(s.api, faults)):
            await live_and_die(s)
        assert faults.rules[0].hits >= 1

    run_virtual(main())


@pytest.mark.parametrize("phase", ["create", "running", "delete"])
def test_the_api_server_is_away_for_minutes(phase: str) -> None:
    async def main() -> None:
        s = Scene()
        faults = Faults()
        s.add_account()
        s.add_machine()
        async with s.operator(transport=FaultyTransport(s.api, faults)):
            if phase != "create":
                await s.until(s.is_ready)
            if phase == "delete":
                await s.delete(VIRTUAL_MACHINE, "m")
            faults.add("answer", status=503, times=None)
            await asyncio.sleep(300.0)
            living = len(s.living())
            assert living == 1 if phase == "running" else living <= 1
            faults.clear()
            if phase == "delete":
                await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
                once(s)
            else:
                await live_and_die(s)

    run_virtual(main())


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_two_leaders_make_one_machine(seed: int, native: bool) -> None:
    async def main() -> None:
        s = Scene(native=native, grace=4)
        # the worst that a lease allows: two at once, and a cloud without tokens whose names are unique
        s.cloud.habits.unique_names = not native
        s.cloud.habits.latency_seconds = 0.2
        s.cloud.habits.list_lag_seconds = s.cloud.habits.find_lag_seconds = 3.0
        s.add_account()
        for number in range(4):
            s.add_machine(f"m{number}")
        # they see the cloud at other moments and undo each other's statuses: a call takes its time, as in life
        slow = Faults()
        slow.add(None, delay_seconds=0.1, times=None)
        transport = FaultyTransport(s.api, slow)
        async with s.operator(transport=transport), s.operator(transport=transport):
            await s.until(lambda: all(s.is_ready(f"m{n}") for n in range(4)))
            await asyncio.sleep(60.0)
            assert len(s.cloud.meter.lines) == 4
            for number in range(4):
                await s.delete(VIRTUAL_MACHINE, f"m{number}")
            await s.until(lambda: s.api.all(VIRTUAL_MACHINE) == [])
            once(s)

    run_virtual(main(), seed=seed)


@pytest.mark.parametrize("native", [True, False])
def test_a_leader_that_loses_its_lease_in_mid_call_leaves_one_machine(native: bool) -> None:
    async def main() -> None:
        s = Scene(native=native)
        s.cloud.faults.add(Fault(None, "RunInstance", answer_seconds=9.0))
        s.add_account()
        s.add_machine()

        def elector(name: str):
            return lambda kube: Elector(kube, "ns", "lease", name)

        faults = Faults()
        first = FaultyTransport(s.api, faults)
        async with s.operator(elector=elector("b")):
            pass
        async with s.operator(transport=first, elector=elector("a")):
            await s.until(lambda: s.cloud.calls["RunInstance"] == 1)
            faults.add("drop", times=None)  # cut off from the API server while the call is under way
            async with s.operator(elector=elector("b")):
                await s.until(s.is_ready, 300.0)
                await asyncio.sleep(60.0)
                assert len(s.cloud.meter.lines) == 1
                await live_and_die(s)

    run_virtual(main())


@scene
async def test_a_create_needs_enough_of_the_lease(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    faults = Faults()

    async with s.operator(
        transport=FaultyTransport(s.api, faults), elector=lambda kube: Elector(kube, "ns", "lease", "a")
    ) as (engine, _):
        await s.until(lambda: s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True")
        await s.until(s.is_ready)
        assert engine.elector is not None
        # renewals fail: the lease runs out, and in its last six seconds nothing is begun
        faults.add("drop", path="leases", times=None)
        while engine.elector.is_valid(6.0):
            await asyncio.sleep(0.1)
        calls = s.cloud.calls["RunInstance"]
        s.add_machine("late")
        await asyncio.sleep(30.0)
        assert s.cloud.calls["RunInstance"] == calls
        assert len(s.living()) == 1


@scene
async def test_a_thousand_machines_cost_one_listing_a_round(s: Scene) -> None:
    s.add_account()
    for number in range(60):
        s.add_machine(f"m{number}")
    async with s.operator():
        await s.until(lambda: all(s.is_ready(f"m{n}") for n in range(60)))
        await s.settle()
        before = s.cloud.calls.copy()
        await asyncio.sleep(600.0)
        calls = s.cloud.calls - before
        assert calls["ListInstances"] <= 600 / 20 + 1
        assert set(calls) <= {"ListInstances", "ListGroups"}


@scene
async def test_the_rate_of_an_account_is_kept(s: Scene) -> None:
    s.add_account(limits={"requestsPerSecond": 2})
    s.cloud.habits.calls_per_second = 12
    async with s.operator():
        await s.until(lambda: s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True")
        await asyncio.sleep(10.0)
        begin, before = asyncio.get_running_loop().time(), s.cloud.calls.total()
        for number in range(20):
            s.add_machine(f"m{number}")
        await s.until(lambda: all(s.is_ready(f"m{n}") for n in range(20)))
        seconds = asyncio.get_running_loop().time() - begin
        assert s.cloud.calls.total() - before <= 2 * seconds + 12
        assert len(s.cloud.meter.lines) == 20


@scene
async def test_a_cloud_that_hangs_holds_up_no_other_and_no_end(s: Scene) -> None:
    hanging = MemoryCloud("hanging", clock=s.cloud.now)
    hanging.faults.add(Fault("hang", "RunInstance", times=None, skip=1))
    find, well = s.maker, s.cloud

    def maker(crash: Any) -> Any:
        def make(context: Any) -> Any:
            s.cloud = hanging if context.name == "hangs" else well
            provider = find(crash)("memory")(context)
            s.cloud = well
            return provider

        return lambda kind: make

    s.maker = maker  # type: ignore[method-assign]
    s.use(create_seconds=600)
    s.add_account()
    s.add_account("hangs")
    s.add_machine("first", account="hangs")
    async with s.operator():
        await s.until(lambda: s.is_ready("first"))
        for number in range(AT_ONCE + 4):
            s.add_machine(f"h-{number}", account="hangs")
        await s.until(lambda: hanging.calls["RunInstance"] > AT_ONCE)
        s.add_machine("m")
        await s.until(lambda: s.is_ready("m"), 60.0)
        await s.delete(VIRTUAL_MACHINE, "first")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "first"), 60.0)
