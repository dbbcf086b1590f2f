"""List and watch: nothing is lost, whatever the API server does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from cloudmesh.engine import CONFIG_MAP, Cache, Kube, Metrics, Obj
from cloudmesh.engine.backoff import Backoff
from cloudmesh.engine.cache import Change
from cloudmesh.engine.informer import CacheSink, Informer
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi, run_virtual


@dataclass
class Setting:
    api: MemoryApi
    faults: Faults
    cache: Cache
    informer: Informer
    metrics: Metrics
    changes: list[Change] = field(default_factory=list)

    def told(self) -> list[str]:
        """`+name` for what is there, `-name` for what went, in order."""
        return [
            f"+{change.new['metadata']['name']}" if change.new else f"-{change.old['metadata']['name']}"
            for change in self.changes
        ]

    def in_step(self) -> bool:
        held = {(obj["metadata"]["name"], obj["metadata"]["resourceVersion"]) for obj in self.cache.list(CONFIG_MAP)}
        return held == {(o["metadata"]["name"], o["metadata"]["resourceVersion"]) for o in self.api.all(CONFIG_MAP)}


@contextlib.asynccontextmanager
async def running(**options: object) -> AsyncIterator[Setting]:
    api, faults, cache, metrics = MemoryApi(), Faults(), Cache(), Metrics()
    kube = Kube(FaultyTransport(api, faults))
    changes: list[Change] = []
    sink = CacheSink(cache, CONFIG_MAP, None, changes.append)
    informer = Informer(
        kube, CONFIG_MAP, sink, metrics=metrics, rng=random.Random(1), backoff=Backoff(0.5, 8.0), **options
    )
    setting = Setting(api, faults, cache, informer, metrics, changes)
    put(setting, "first")
    task = asyncio.create_task(informer.run())
    try:
        yield setting
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def put(setting: Setting, name: str, **data: str) -> Obj:
    return setting.api.put(CONFIG_MAP, {"metadata": {"name": name, "namespace": "default"}, "data": data})


def remove(setting: Setting, name: str) -> None:
    setting.api.remove(CONFIG_MAP, "default", name)


def test_lists_then_watches() -> None:
    async def main() -> None:
        async with running() as s:
            await s.informer.synced.wait()
            put(s, "second")
            put(s, "first", x="1")
            remove(s, "second")
            await asyncio.sleep(1)
            assert s.told() == ["+first", "+second", "+first", "-second"]
            assert s.in_step()
            assert s.faults.count("watch=true") == 1

    run_virtual(main())


def test_a_quiet_watch_goes_on_by_bookmarks_and_without_a_list() -> None:
    async def main() -> None:
        async with running() as s:
            await asyncio.sleep(1500)
            put(s, "late")
            await asyncio.sleep(1)
            assert s.in_step()
            assert s.faults.count("limit=") == 1, "one list in all"
            assert 4 <= s.faults.count("watch=true") <= 7, "each watch lasts 290 to 310 s"
            assert s.informer.silence_seconds < 120
            assert 'watch_restarts_total{kind="ConfigMap",reason="ended"}' in s.metrics.text().decode()

    run_virtual(main())


def test_a_410_lists_again_and_makes_up_deletes() -> None:
    async def main() -> None:
        async with running() as s:
            await s.informer.synced.wait()
            put(s, "goes")
            put(s, "stays")
            await asyncio.sleep(1)
            s.faults.add("drop", times=4)
            s.api.store.close_watches()
            await asyncio.sleep(0.01)
            remove(s, "goes")
            put(s, "comes")
            s.api.store.compact()
            await asyncio.sleep(60)
            assert s.in_step()
            assert s.told().count("-goes") == 1
            assert 'watch_restarts_total{kind="ConfigMap",reason="expired"} 1.0' in s.metrics.text().decode()

    run_virtual(main())


def test_a_silent_watch_is_given_up() -> None:
    async def main() -> None:
        async with running(inactivity_seconds=75.0) as s:
            s.faults.add("hang", path="watch=true", times=1)
            await s.informer.synced.wait()
            put(s, "unseen")
            await asyncio.sleep(70)
            assert not s.in_step()
            await asyncio.sleep(10)
            assert s.in_step()
            assert 'reason="inactive"} 1.0' in s.metrics.text().decode()

    run_virtual(main())


def test_a_broken_list_starts_over_and_tells_no_deletes() -> None:
    async def main() -> None:
        api, faults, cache = MemoryApi(), Faults(), Cache()
        for number in range(1200):
            api.put(CONFIG_MAP, {"metadata": {"name": f"c{number:04}", "namespace": "default"}})
        faults.add("answer", path="continue=", status=500, times=3)
        faults.add("answer", path="continue=", status=410, times=1)
        faults.add("answer", path="limit=", status=429, retry_after=20, times=1)
        changes: list[Change] = []
        sink = CacheSink(cache, CONFIG_MAP, None, changes.append)
        informer = Informer(Kube(FaultyTransport(api, faults)), CONFIG_MAP, sink, rng=random.Random(2))
        task = asyncio.create_task(informer.run())
        await informer.synced.wait()
        assert asyncio.get_running_loop().time() >= 1020, "Retry-After is kept to"
        assert cache.count(CONFIG_MAP) == 1200
        assert all(change.new is not None for change in changes)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(main())


def test_a_server_that_ends_every_watch_is_not_hammered() -> None:
    async def main() -> None:
        async with running() as s:
            await asyncio.sleep(5)
            s.faults.add("answer", path="watch=true", status=500, times=None)
            s.api.store.close_watches()
            await asyncio.sleep(120)
            assert 12 <= s.faults.count("watch=true") <= 40
            s.faults.clear()
            put(s, "after")
            await asyncio.sleep(10)
            assert s.in_step()

    run_virtual(main())


def test_metadata_only_and_selectors_are_asked_for() -> None:
    async def main() -> None:
        async with running(metadata_only=True, label_selector="team=red") as s:
            await s.informer.synced.wait()
            labelled = {
                "metadata": {"name": "r", "namespace": "default", "labels": {"team": "red"}},
                "data": {"x": "1"},
            }
            s.api.put(CONFIG_MAP, labelled)
            await asyncio.sleep(1)
            held = s.cache.list(CONFIG_MAP)
            assert [obj["metadata"]["name"] for obj in held] == ["r"]
            assert "data" not in held[0]
            labelled["metadata"]["labels"] = {"team": "blue"}
            s.api.put(CONFIG_MAP, labelled)
            await asyncio.sleep(1)
            assert s.told() == ["+r", "-r"], "what leaves the selection is gone"

    run_virtual(main())


def test_storms_of_faults_lose_nothing() -> None:
    async def main(seed: int) -> None:
        rng = random.Random(seed)
        async with running() as s:
            for number in range(60):
                act = rng.random()
                if act < 0.35:
                    put(s, f"c{rng.randrange(12)}", x=str(number))
                elif act < 0.55 and (present := s.api.all(CONFIG_MAP)):
                    remove(s, rng.choice(present)["metadata"]["name"])
                elif act < 0.65:
                    s.api.store.close_watches()
                elif act < 0.7:
                    s.api.store.compact()
                    s.api.store.close_watches()
                else:
                    s.faults.add(rng.choice(["drop", "answer", "cut", "expire", "lose"]), events=rng.randrange(3))
                await asyncio.sleep(rng.random() * 3)
            s.faults.clear()
            await asyncio.sleep(120)
            assert s.in_step()

    for seed in range(8):
        run_virtual(main(seed), seed=seed)
