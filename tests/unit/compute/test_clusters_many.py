"""Many clusters at once on one operator, with lost answers and an operator that dies between: each machine once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.unit.compute.cluster_scene import Scene

from cloudmesh.compute.kinds import VIRTUAL_CLUSTER
from cloudmesh.compute.providers.memory import Fault
from cloudmesh.compute.tokens import TAG_UID
from cloudmesh.testing import CrashPoint, run_virtual

CLUSTERS, EACH = 200, 2
MACHINES = CLUSTERS * EACH
DIES_AT = 2000
"""The call of the first operator that it dies at."""


def test_two_hundred_clusters_come_and_go() -> None:
    async def main() -> None:
        s = Scene(native=False, grace=3)
        s.cloud.habits.boot_seconds = 0.5
        s.cloud.habits.list_lag_seconds = 2.0
        # one create in twenty is carried out, and its answer lost or an error
        lost = [
            s.cloud.faults.add(Fault(("lose", "fail-after")[n % 2], "RunInstance", skip=19 * n))
            for n in range(1, MACHINES // 20)
        ]
        s.add_account()
        names = [f"c{n:03}" for n in range(CLUSTERS)]
        for name in names:
            s.cluster(name, EACH)

        def ready() -> int:
            return sum(s.said(name=name) == ("True", "AsSpecified") for name in names)

        async def until(holds: Callable[[], bool]) -> None:
            for _second in range(600):  # a look costs more than a second of this clock
                if holds():
                    return
                await asyncio.sleep(1.0)
            raise AssertionError(f"{ready()} of {CLUSTERS} are Ready, {len(s.machines())} machines are there")

        crash = CrashPoint(DIES_AT)

        async def first() -> None:
            async with s.operator(crash):
                await until(lambda: ready() == CLUSTERS)

        assert await crash.until_crash(first())
        assert 0 < len(s.cloud.meter.lines) < MACHINES, "it died in the middle"
        async with s.operator():
            await until(lambda: ready() == CLUSTERS)
            assert [fault.hits for fault in lost] == [1] * len(lost)
            made = [i.tags[TAG_UID] for i in s.living()]
            assert len(made) == len(set(made)) == MACHINES
            assert set(made) == {m["metadata"]["uid"] for m in s.machines()}
            assert len(s.cloud.meter.lines) == MACHINES, "none was made twice, or in vain"
            for name in names:
                await s.delete(VIRTUAL_CLUSTER, name)
            await until(lambda: not s.api.all(VIRTUAL_CLUSTER))
        assert s.machines() == []
        assert s.living() == []
        assert len(s.cloud.meter.lines) == MACHINES
        s.once()

    run_virtual(main())
