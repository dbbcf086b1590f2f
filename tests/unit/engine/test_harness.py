"""The fault tools themselves: a tool that lets a bug through is worse than none."""

from __future__ import annotations

import asyncio

import pytest

from cloudmesh.engine import CONFIG_MAP, Done, Engine, Key, Kube, Obj, Resource
from cloudmesh.testing import Crash, CrashPoint, MemoryApi, World, for_every_crash, run_virtual, tick
from cloudmesh.testing.virtualtime import Deadlock

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")


class Cloud:
    """Creates machines; without tokens a lost answer makes a second one."""

    def __init__(self) -> None:
        self.machines: list[str] = []

    async def create(self, token: str) -> None:
        await asyncio.sleep(1)
        self.machines.append(token)

    async def find(self, token: str) -> bool:
        return token in self.machines


def test_virtual_time_costs_none() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(86_400))
        return loop.time() - begin

    assert run_virtual(main()) == pytest.approx(86_400)


def test_who_looks_again_and_again_sees_what_others_do_at_once_and_looks_seldom_while_they_sleep() -> None:
    async def main() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        begin, looks, done = loop.time(), 0, False

        async def work() -> None:
            nonlocal done
            await asyncio.sleep(3600)
            await asyncio.sleep(0)
            for _ in range(3):
                await asyncio.sleep(0.01)
            done = True

        task = asyncio.create_task(work())
        while not done:
            looks += 1
            await tick(0.05, 10.0)
        await task
        return loop.time() - begin, looks

    took, looks = run_virtual(main())
    assert 3600.03 <= took <= 3600.11 and 360 <= looks < 370


def test_a_deadlock_is_told() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(main())


def test_a_seed_gives_another_order_and_the_same_again() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def step(number: int) -> None:
            await asyncio.sleep(1)
            order.append(number)

        await asyncio.gather(*(step(number) for number in range(12)))
        return order

    orders = [run_virtual(main(), seed=seed) for seed in range(6)]
    assert len({tuple(order) for order in orders}) > 1
    assert orders == [run_virtual(main(), seed=seed) for seed in range(6)]


def test_every_call_is_tried_before_and_after() -> None:
    tried: list[tuple[int | None, str, int]] = []

    async def scenario(point: CrashPoint) -> None:
        cloud = Cloud()
        port = point.wrap(cloud)

        async def life() -> None:
            for number in range(3):
                await port.create(f"m{number}")

        crashed = await point.until_crash(life())
        assert crashed == point.crashed
        tried.append((point.at, point.moment, len(cloud.machines)))

    async def main() -> None:
        assert await for_every_crash(scenario) == 6

    run_virtual(main())
    assert tried == [
        (1, "before", 0), (2, "before", 1), (3, "before", 2), (4, "before", 3),
        (1, "after", 1), (2, "after", 2), (3, "after", 3), (4, "after", 3),
    ]  # fmt: skip


def test_calls_that_are_spared_are_not_died_at() -> None:
    tried: list[tuple[int | None, int, list[str]]] = []

    async def scenario(point: CrashPoint) -> None:
        cloud = Cloud()
        port = point.wrap(cloud)

        async def life() -> None:
            await port.find("x")
            await port.create("x")
            await port.find("y")
            await port.create("y")

        await point.until_crash(life())
        tried.append((point.at, len(cloud.machines), point.calls))

    assert run_virtual(for_every_crash(scenario, moments=("after",), spares=frozenset({"find"}))) == 2
    calls = ["find", "create", "find", "create"]
    assert tried == [(1, 1, calls[:2]), (2, 2, calls), (3, 2, calls)]


def test_it_finds_a_create_that_isn_t_idempotent() -> None:
    def scenario(*, careful: bool) -> object:
        async def run(point: CrashPoint) -> None:
            cloud = Cloud()

            async def life(port: Cloud) -> None:
                if not careful or not await port.find("t"):
                    await port.create("t")
                if not careful:
                    await port.create("second")

            if await point.until_crash(life(point.wrap(cloud))):
                await life(cloud)
            assert len(cloud.machines) == len(set(cloud.machines)), "a machine twice"

        return run

    async def main(*, careful: bool) -> int:
        return await for_every_crash(scenario(careful=careful))

    assert run_virtual(main(careful=True)) == 4
    with pytest.raises(AssertionError, match="twice") as caught:
        run_virtual(main(careful=False))
    assert any("crash" in note and "create" in note for note in caught.value.__notes__)


def test_the_dead_do_nothing() -> None:
    async def main() -> None:
        point, cloud = CrashPoint(1, "after"), Cloud()
        port = point.wrap(cloud)
        slow = asyncio.create_task(port.create("in flight"))
        await asyncio.sleep(0.5)
        with pytest.raises(Crash):
            await slow
        with pytest.raises(Crash):
            await port.create("later")
        assert cloud.machines == ["in flight"]

    run_virtual(main())


def test_a_loop_without_end_is_told() -> None:
    async def scenario(point: CrashPoint) -> None:
        port = point.wrap(Cloud())

        async def life() -> None:
            while True:
                await port.find("x")

        await point.until_crash(life())

    with pytest.raises(AssertionError, match="loop without end"):
        run_virtual(for_every_crash(scenario, limit=20))


def test_settling_tells_of_objects_that_fight() -> None:
    class Fighter:
        resource = WIDGET
        owns = (CONFIG_MAP,)

        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.turn = 0

        async def reconcile(self, key: Key, obj: Obj) -> Done:
            self.turn += 1
            await self.engine.status.write(WIDGET, obj, {"turn": self.turn})
            return Done(requeue_after=0.5)

        def forget(self, key: Key) -> None:
            """Nothing is held."""

    async def main() -> None:
        world = World([WIDGET])
        world.api.put(WIDGET, {"metadata": {"name": "a"}})
        async with world.engine(Fighter):
            with pytest.raises(AssertionError, match="no rest within 30 s"):
                await world.settle(seconds=30)

    run_virtual(main())


def test_the_memory_server_keeps_generation_and_status_apart() -> None:
    async def main() -> None:
        api = MemoryApi([WIDGET])
        kube = Kube(api)
        made = await kube.create(
            WIDGET, {"metadata": {"name": "a", "namespace": "default"}, "spec": {"x": 1}, "status": {}}
        )
        assert made["metadata"]["generation"] == 1
        assert "status" not in made
        await kube.apply(
            WIDGET, {"metadata": {"name": "a", "namespace": "default"}, "status": {"s": 1}}, subresource="status"
        )
        both = await kube.patch(WIDGET, "default", "a", {"spec": {"x": 2}, "status": {"s": 9}})
        assert (both["spec"]["x"], both["status"]["s"], both["metadata"]["generation"]) == (2, 1, 2)
        labelled = await kube.patch(WIDGET, "default", "a", {"metadata": {"labels": {"l": "1"}}})
        assert labelled["metadata"]["generation"] == 2

    run_virtual(main())


def test_the_memory_server_minds_field_managers() -> None:
    async def main() -> None:
        api = MemoryApi([WIDGET])
        kube = Kube(api)
        base: Obj = {"metadata": {"name": "a", "namespace": "default"}}
        await kube.apply(CONFIG_MAP, base | {"data": {"x": "1"}})
        api.store.owned[api.get(CONFIG_MAP, "default", "a")["metadata"]["uid"]]["other"] = {("data", "y")}
        api.put(CONFIG_MAP, base | {"data": {"x": "1", "y": "1"}})
        from cloudmesh.engine import Conflict

        with pytest.raises(Conflict, match='conflict with "other"'):
            await kube.apply(CONFIG_MAP, base | {"data": {"y": "2"}}, force=False)
        assert (await kube.apply(CONFIG_MAP, base | {"data": {"y": "2"}}))["data"] == {"y": "2"}

    run_virtual(main())
