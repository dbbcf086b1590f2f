"""The memory cloud: its habits, its bill, its settings; what every provider must do is in tests/contract/compute."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from cloudmesh.compute.ports import POWERS, Complete, NodeSpec, powers_of
from cloudmesh.compute.providers import memory
from cloudmesh.compute.providers.memory import Fault, Habits, MemoryCloud, MemoryProvider, Stock
from cloudmesh.compute.providers.memory.settings import SETTINGS
from cloudmesh.compute.providers.registry import Context, find_maker
from cloudmesh.compute.tokens import TAG_TOKEN, TAG_UID, Scope
from cloudmesh.engine.errors import InvalidRequest, RateLimited, Transient
from cloudmesh.testing.virtualtime import run_virtual

PAGE = Path(__file__).resolve().parents[4] / "docs/reference/account-memory.md"
SCOPE = Scope("installation-1", "lab", "mem")


def provider_of(cloud: MemoryCloud, **settings: str) -> MemoryProvider:
    memory.cloud(cloud.name, cloud)
    return memory.make(Context("lab", "mem", "uid-1", {"settings": {"cloud": cloud.name, **settings}}))


async def spec_of(provider: MemoryProvider, number: int = 1) -> NodeSpec:
    offer = (await provider.offers())[0]
    tags = {**SCOPE.tags(), TAG_UID: f"uid-{number}"}
    return NodeSpec(f"cm-{number:08d}", f"lab-w-{number}", SCOPE, "lab", f"uid-{number}", offer, "", tags=tags)


def test_the_registry_knows_it() -> None:
    assert find_maker("memory") is memory.make


def test_one_machine_from_create_to_its_end_with_its_bill() -> None:
    async def main() -> None:
        cloud = MemoryCloud("life", habits=Habits(boot_seconds=5, delete_seconds=3, ended_seconds=30))
        provider = provider_of(cloud)
        spec = await spec_of(provider)
        node = await provider.ensure_node(spec)
        assert node.state == "Pending" and node.tags[TAG_TOKEN] == spec.token
        await asyncio.sleep(6)
        found = await provider.find_node(spec)
        assert found is not None and found.state == "Running" and found.host == found.private_address
        await asyncio.sleep(94)
        await provider.delete_node(node.id, SCOPE)
        await asyncio.sleep(4)
        listing = await provider.list_nodes(SCOPE)
        assert isinstance(listing, Complete) and [each.state for each in listing.nodes] == ["Deleted"]
        rate = spec.offer.price.nanos if spec.offer.price else 0
        await asyncio.sleep(1000)
        # 100 s until the delete and 3 s of dying, each a whole second that has begun
        assert cloud.meter.total(cloud.now()) in (103 * rate // 3600, 100 * rate // 3600 + 3 * rate // 3600)
        assert cloud.meter.by_tag(TAG_UID, cloud.now()) == {"uid-1": cloud.meter.total(cloud.now())}
        listing = await provider.list_nodes(SCOPE)
        assert isinstance(listing, Complete) and listing.nodes == ()
        assert cloud.meter.billed_now() == 0

    run_virtual(main())


def test_a_stopped_machine_is_not_billed_and_starts_as_another_boot() -> None:
    async def main() -> None:
        cloud = MemoryCloud("stop")
        provider = provider_of(cloud)
        node = await provider.ensure_node(await spec_of(provider))
        await asyncio.sleep(3)
        before = cloud.instances()[0].boot_id
        await provider.stop_node(node.id)  # type: ignore[attr-defined]
        await asyncio.sleep(2)
        await provider.list_nodes(SCOPE)
        assert cloud.instances()[0].state == "Stopped" and cloud.meter.billed_now() == 0
        await provider.start_node(node.id)  # type: ignore[attr-defined]
        await asyncio.sleep(3)
        assert cloud.instances()[0].state == "Running" and cloud.instances()[0].boot_id != before
        assert cloud.meter.billed_now() > 0

    run_virtual(main())


def test_spot_reclaim_is_told() -> None:
    async def main() -> None:
        cloud = MemoryCloud("spot")
        provider = provider_of(cloud)
        node = await provider.ensure_node(await spec_of(provider))
        cloud.reclaim(node.id)
        await asyncio.sleep(2)
        listing = await provider.list_nodes(SCOPE)
        assert [(each.state, each.details) for each in listing.nodes] == [("Deleted", {"preempted": "true"})]

    run_virtual(main())


def test_too_many_calls_are_refused_with_a_time() -> None:
    async def main() -> None:
        provider = provider_of(MemoryCloud("busy", habits=Habits(calls_per_second=2), clock=lambda: 1000.0))
        await provider.offers()
        await provider.offers()
        with pytest.raises(RateLimited) as caught:
            await provider.offers()
        assert caught.value.retry_after == 1.0

    run_virtual(main())


def test_powers_are_chosen_by_setting() -> None:
    every = provider_of(MemoryCloud("all"))
    assert powers_of(every) == tuple(POWERS)
    assert powers_of(provider_of(MemoryCloud("none"), powers="none")) == ()
    assert powers_of(provider_of(MemoryCloud("two"), powers="Reboot, StartStop")) == ("StartStop", "Reboot")


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"bootSeconds": "soon"}, "settings.bootSeconds"),
        ({"pageSize": "-1"}, "settings.pageSize"),
        ({"latencySeconds": "nan"}, "settings.latencySeconds"),
        ({"latencySeconds": "1e300"}, "settings.latencySeconds"),
        ({"powers": "Fly"}, "settings.powers"),
        ({"spot": "perhaps"}, "settings.spot"),
        ({"types": "0"}, "settings.types"),
        ({"types": "9999", "regions": "999"}, "over 200000"),
        ({"bootseconds": "3"}, "unknown bootseconds"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], path: str) -> None:
    with pytest.raises(InvalidRequest, match=path):
        memory.make(Context("lab", "mem", f"uid-{path}", {"settings": settings}))


def test_the_page_of_the_account_has_all_settings_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert {name: (default, words) for name, default, words in rows} == SETTINGS


def test_settings_make_the_cloud() -> None:
    async def main() -> None:
        settings = {"types": "3", "regions": "1", "zones": "1", "capacity": "2", "bootSeconds": "0", "spot": "false"}
        provider = memory.make(Context("lab", "mem", "uid-settings", {"settings": settings}))
        offers = await provider.offers()
        assert [(offer.purchase, offer.free) for offer in offers] == [("OnDemand", 2)] * 3
        assert (await provider.ensure_node(await spec_of(provider))).state == "Running"
        again = memory.make(Context("lab", "mem", "uid-settings", {"settings": settings}))
        assert again.cloud is provider.cloud

    run_virtual(main())


def test_the_same_seed_draws_the_same_catalogue() -> None:
    one, two, other = Stock(seed=7), Stock(seed=7), Stock(seed=8)
    assert one.rows == two.rows != other.rows
    assert len(Stock(types=100, regions=10, zones=3).rows) == 100 * 10 * 3 * 2


def test_a_hang_ends() -> None:
    async def main() -> None:
        cloud = MemoryCloud("hang")
        provider = provider_of(cloud)
        spec = await spec_of(provider)
        cloud.faults.add(Fault("hang-after", "RunInstance"))
        with pytest.raises(Transient):
            await provider.ensure_node(spec)
        assert (await provider.ensure_node(spec)).id == cloud.instances()[0].id
        assert len(cloud.instances()) == 1

    run_virtual(main())


def test_ten_thousand_machines_are_listed_in_little_time() -> None:
    async def main() -> float:
        cloud = MemoryCloud("large")
        provider = provider_of(cloud)
        spec = await spec_of(provider)
        for number in range(10_000):
            tags = {**SCOPE.tags(), TAG_TOKEN: f"cm-{number}"}
            cloud.make_by_hand(name=f"n-{number}", tags=tags)
        assert spec.scope == SCOPE
        await asyncio.sleep(5)
        assert len((await provider.list_nodes(SCOPE)).nodes) == 10_000
        begin = time.process_time()
        for _ in range(10):
            await provider.list_nodes(SCOPE)
        return (time.process_time() - begin) / 10

    # Generous, since a busy machine is slow; a listing that isn't indexed takes seconds.
    assert run_virtual(main()) < 0.5
