"""Clusters under any mixture of wishes, failing clouds, a failing API server and restarts."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.unit.compute.cluster_scene import Scene

from cloudmesh.compute.kinds import VIRTUAL_CLUSTER
from cloudmesh.compute.providers.memory import Fault
from cloudmesh.testing import Faults, FaultyTransport, run_virtual


@pytest.mark.parametrize("action", ["lose", "drop", "answer"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "GET"])
def test_an_api_server_that_fails_at_times(action: str, method: str) -> None:
    async def main() -> None:
        s = Scene()
        s.add_account()
        s.cluster(replicas=3)
        faults = Faults()
        rule = {"path": "virtual(machines|clusters)", "times": 6, "skip": 1}
        faults.add(action, method=method, **rule)  # type: ignore[arg-type]
        async with s.operator(transport=FaultyTransport(s.api, faults)):
            await s.until(lambda: s.said() == ("True", "AsSpecified"), 600)
            faults.add(action, method=method, **rule)  # type: ignore[arg-type]
            s.edit(replicas=1)
            await s.until(lambda: len(s.living()) == 1 and s.said() == ("True", "AsSpecified"), 900)
            faults.add(action, method=method, **rule)  # type: ignore[arg-type]
            await s.delete(VIRTUAL_CLUSTER, "lab")
            await s.until(lambda: not s.is_there(VIRTUAL_CLUSTER, "lab"), 900)
        assert s.living() == []
        assert len(s.cloud.meter.lines) == 3
        s.once()

    run_virtual(main())


class Weather:
    """Changes wishes and clouds at random, and everything back to fair."""

    def __init__(self, s: Scene, seed: int) -> None:
        self.s = s
        self.rng = random.Random(seed)
        self.replicas = 3
        self.image = ""

    def blow(self) -> None:
        s, rng = self.s, self.rng
        living = [i for i in s.living() if i.state in ("Pending", "Running")]
        match rng.randrange(11):
            case 0 | 1:
                self.replicas = rng.randrange(6)
                s.edit(replicas=self.replicas)
            case 2:
                self.image = rng.choice(["debian-12", "ubuntu-24.04"])
                s.edit_pool(image={"name": self.image})
            case 3 if living:
                s.cloud.vanish(rng.choice(living).id)
            case 4 if living:
                s.cloud.terminate(rng.choice(living).id)
            case 5:
                s.cloud.set_free(rng.randrange(3), late=rng.random() < 0.5, zone=rng.choice(["", "region-1a"]))
            case 6:
                s.cloud.faults.add(
                    Fault(rng.choice(["lose", "drop", "fail-after"]), rng.choice(["RunInstance", "Terminate*"]))
                )
            case 7:
                s.cloud.faults.add(Fault("drop", "List*", times=rng.randrange(1, 8)))
            case 8:
                s.cloud.faults.add(Fault("refuse", "*", code="TooManyRequests", retry_after=3.0, times=3))
            case 9:
                state = rng.choice(["Suspended", "Running"])
                s.edit(lifecycle={"state": state})
            case _:
                s.cloud.set_free(None)

    def clear(self) -> None:
        self.s.cloud.faults.rules.clear()
        self.s.cloud.set_free(None)
        self.s.edit(lifecycle={"state": "Running"})


@pytest.mark.parametrize("seed", range(10))
def test_any_weather(seed: int) -> None:
    async def main() -> None:
        s = Scene(native=seed % 2 == 0, powers=seed % 3 != 0, grace=0 if seed % 2 == 0 else 3)
        s.add_account()
        s.cluster()
        weather = Weather(s, seed)
        rng = weather.rng
        for _ in range(3):
            async with s.operator():
                for _ in range(6):
                    await asyncio.sleep(rng.choice([0.1, 1.0, 5.0, 30.0, 130.0]))
                    weather.blow()
                    assert len(s.living()) <= 2 * 6 + 2, "far more machines than anybody asked for"
        weather.clear()
        async with s.operator():
            await s.until(
                lambda: (
                    s.said() == ("True", "AsSpecified")
                    and len(s.living()) == weather.replicas
                    and s.cluster_status()["observedGeneration"]
                    == s.get(VIRTUAL_CLUSTER, "lab")["metadata"]["generation"]
                ),
                9000,
            )
            await s.settle()
            assert len(s.living()) == weather.replicas
            if weather.image:
                assert {i.image for i in s.living()} <= {weather.image}
            s.no_orphans()
            s.once()
            await s.delete(VIRTUAL_CLUSTER, "lab")
            await s.until(lambda: not s.is_there(VIRTUAL_CLUSTER, "lab"), 900)
        assert s.living() == []
        assert s.machines() == []
        assert s.hourly() == 0

    run_virtual(main(), seed=seed)
