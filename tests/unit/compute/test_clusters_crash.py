"""The operator dies before and after every call of a cluster's life: no second machine, and none is left behind."""

from __future__ import annotations

import pytest
from tests.unit.compute import cluster_scene
from tests.unit.compute.cluster_scene import Act, Scene

from cloudmesh.compute.kinds import VIRTUAL_CLUSTER
from cloudmesh.testing.crash import MOMENTS, Moment


def survive(
    before: Act | None, act: Act, then: Act, *, at_least: int, native: bool = True, moment: Moment = "after"
) -> None:
    """Lives a first life in which the act is carried out and that crashes, then a second one, and looks at the end."""

    async def begin(s: Scene) -> None:
        if before is not None:
            await before(s)
            async with s.operator():
                await s.settle(quiet=3.0)
        await act(s)

    async def end(s: Scene) -> None:
        await s.settle(quiet=6.0)
        await then(s)

    cluster_scene.survive(begin, end, at_least=at_least, moments=(moment,), native=native)


async def make(s: Scene) -> None:
    s.cluster(replicas=2)


async def two_work(s: Scene) -> None:
    assert s.said() == ("True", "AsSpecified"), s.message()
    assert s.names() == ["lab-workers-0", "lab-workers-1"]
    assert len(s.living()) == 2
    assert len(s.cloud.meter.lines) == 2  # never a third


@pytest.mark.parametrize("moment", MOMENTS)
def test_birth(moment: Moment) -> None:
    survive(None, make, two_work, at_least=14, moment=moment)


def test_birth_without_tokens_of_the_cloud() -> None:
    survive(None, make, two_work, at_least=20, native=False)


def test_end() -> None:
    async def delete(s: Scene) -> None:
        await s.delete(VIRTUAL_CLUSTER, "lab")

    async def nothing(s: Scene) -> None:
        assert not s.is_there(VIRTUAL_CLUSTER, "lab")
        assert s.machines() == []
        assert s.living() == []

    survive(make, delete, nothing, at_least=10)


def test_a_machine_that_went_is_replaced_once() -> None:
    async def strike(s: Scene) -> None:
        s.cloud.vanish(s.living()[0].id)

    async def replaced(s: Scene) -> None:
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 300)
        await s.settle(quiet=6.0)
        assert len(s.living()) == 2
        assert len(s.machines()) == 2
        assert len(s.cloud.meter.lines) == 3

    survive(make, strike, replaced, at_least=10)


def test_an_offer_that_fails_is_left_for_the_next() -> None:
    async def full(s: Scene) -> None:
        rows = [row for row in s.cloud.stock.rows.values() if row.purchase == "OnDemand"]
        kind = min(rows, key=lambda row: row.hourly_nanos).type
        for row in rows:
            if row.type == kind and row.zone.endswith("a"):
                row.free, row.tell_free = 0, False
        s.cluster(replicas=1)

    async def one_works(s: Scene) -> None:
        assert s.said() == ("True", "AsSpecified"), s.message()
        assert len(s.living()) == 1
        assert len(s.machines()) == 1

    survive(None, full, one_works, at_least=10)


def test_a_roll_out() -> None:
    async def change(s: Scene) -> None:
        s.edit_pool(image={"name": "ubuntu-24.04"})

    async def rolled(s: Scene) -> None:
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 300)
        await s.settle(quiet=6.0)
        assert {i.image for i in s.living()} == {"ubuntu-24.04"}
        assert len(s.living()) == 2

    survive(make, change, rolled, at_least=20)
