"""Clusters on Pods when something is in the way: names, quotas, disks, strangers; each hits nobody but itself."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from tests.unit.compute.machine_scene import wall
from tests.unit.compute.pod_scene import POD, SERVICE, SMALL, PodScene, pod_scene

from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.tokens import TAG_ACCOUNT
from cloudmesh.engine import CONFIG_MAP, SECRET, Resource
from cloudmesh.engine.kube import Request

NAME_SECONDS = 20.0
"""Within so long a name that became free is taken."""


@pod_scene
async def test_a_cluster_on_pods_works(s: PodScene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        assert s.types() == {"small"}
        await s.settle()


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "name"),
    [(SERVICE, "lab-vc"), (POD, "lab-workers-0"), (SECRET, "lab-vc-ssh")],
    ids=["Service", "Pod", "Secret"],
)
def test_a_foreign_object_of_its_name_is_told_and_waited_for(resource: Resource, name: str) -> None:
    @pod_scene
    async def story(s: PodScene) -> None:
        s.foreign(resource, name)
        s.cluster()
        async with s.operator():
            await s.until(lambda: s.said() == ("False", "NameConflict"))
            s.cluster("other")
            await s.until(lambda: s.said(name="other") == ("True", "AsSpecified"))
            for _minute in range(20):  # longer than a machine may take to start
                await asyncio.sleep(60.0)
                assert s.said() == ("False", "NameConflict")
                assert s.said("Stalled") == ("True", "NameConflict")
            assert f"{resource.kind} '{name}' exists" in s.message()
            assert s.types() == {"small"}
            assert s.failures() == []
            assert len(s.told("NameConflict")) <= 2
            await s.settle()
            s.remove(resource, name)
            await s.until(lambda: s.said() == ("True", "AsSpecified"), NAME_SECONDS + 10.0)
            assert s.types() == {"small"}
            assert set(s.names()) == {"lab-workers-0", "other-workers-0"}
            await s.settle()

    story()


@pod_scene
async def test_a_foreign_inventory_is_told_and_waited_for(s: PodScene) -> None:
    s.foreign(CONFIG_MAP, "lab-vc-inventory")
    s.cluster(access={"outputs": ["InventoryConfigMap", "SSHConfigSecret"]})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NameConflict"))
        await asyncio.sleep(300.0)
        assert s.said() == ("False", "NameConflict")
        assert "ConfigMap 'lab-vc-inventory' exists" in s.message()
        s.remove(CONFIG_MAP, "lab-vc-inventory")
        await s.until(lambda: s.said() == ("True", "AsSpecified"), NAME_SECONDS)
        assert "hosts" in s.data(CONFIG_MAP, "lab-vc-inventory")
        await s.settle()


@pod_scene
async def test_a_cluster_in_conflict_can_be_deleted(s: PodScene) -> None:
    s.foreign(POD, "lab-workers-0")
    s.cluster()
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NameConflict"))
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.until(lambda: not s.is_there(VIRTUAL_CLUSTER, "lab"), 60.0)
        assert s.api.get(POD, "ns", "lab-workers-0") is not None
        assert s.names() == []


# -- what one cluster asks for, and nobody else --------------------------------------------------------------------


async def has_left_others_alone(s: PodScene) -> None:
    """Another cluster gets the cheapest machine at once, and the account remembers nothing."""
    assert s.failures() == []
    s.cluster("other")
    await s.until(lambda: s.said(name="other") == ("True", "AsSpecified"), 30.0)
    assert {m["spec"]["offer"]["type"] for m in s.machines() if "other" in m["metadata"]["name"]} == {"small"}


@pod_scene
async def test_public_addresses_fall_at_a_filter_before_anything_is_made(s: PodScene) -> None:
    s.cluster(network={"mode": "PublicAddress"})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NoFeasibleOffer"))
        begin = "pool workers: 1 of 1 can't be placed; none of 3 offers fits: 3 at PublicAddress, such as pods/small"
        assert s.message().startswith(begin)
        (fell,) = s.cluster_status()["placement"]["rejected"]
        assert "`spec.network.mode`" in fell["example"]
        assert s.machines() == []
        await has_left_others_alone(s)
        s.edit(network={"mode": "SameNetwork"})
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 30.0)
        await s.settle()


@pod_scene
async def test_a_disk_beyond_what_the_account_gives_falls_at_a_filter(s: PodScene) -> None:
    s.cluster(machine={**SMALL, "disk": {"size": "10Ti"}})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NoFeasibleOffer"))
        (fell,) = s.cluster_status()["placement"]["rejected"]
        assert (fell["filter"], fell["count"]) == ("Disk", 3)
        assert "disk of at most 1024 GiB" in fell["example"]
        assert s.machines() == []
        await has_left_others_alone(s)


@pod_scene
async def test_a_disk_that_no_node_has_is_that_clusters_own_trouble(s: PodScene) -> None:
    s.cluster(machine={**SMALL, "disk": {"size": "200Gi"}})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NoFeasibleOffer"), 300.0)
        assert "no node has room for a disk of 200Gi" in s.message()
        await has_left_others_alone(s)
        pods = len(s.machines())
        await asyncio.sleep(120.0)
        assert s.said() == ("False", "NoFeasibleOffer")
        assert len(s.machines()) == pods
        # another disk is another request: it is tried at once, on the cheapest offer
        s.edit_pool(alternatives=[{"name": "any", "machine": {**SMALL, "disk": {"size": "20Gi"}}}])
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 30.0)
        assert s.types() == {"small"}
        await s.settle()


# -- quotas ----------------------------------------------------------------------------------------------------------


@pod_scene
async def test_a_quota_that_is_lifted_holds_nobody_up_for_long(s: PodScene) -> None:
    s.quota = 0
    s.cluster()
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "QuotaExceeded"))
        assert "exceeded quota: few" in s.message()
        assert "until 2026-" in s.message()
        await s.until(lambda: len(s.failures()) == 1, 2.0)
        (failure,) = s.failures()
        assert failure["class"] == "QuotaExceeded"
        await asyncio.sleep(1800.0)
        assert s.said() == ("False", "QuotaExceeded")
        assert 8 < s.made() < 30
        s.quota = None
        took = await s.until(lambda: s.said() == ("True", "AsSpecified"), 200.0)
        assert took < 170.0
        assert s.types() == {"small"}
        assert s.failures() == []
        await s.settle()


async def quota_that_is_lifted(s: PodScene) -> None:
    """A cluster was refused for so long that it waits for more than a minute, and then there is room."""
    s.quota = 0
    s.cluster()
    await s.until(lambda: s.said() == ("False", "QuotaExceeded"))
    await asyncio.sleep(600.0)
    await s.until(lambda: "until" in s.message() and s.waits() > 60.0)
    s.quota = None


@pod_scene
async def test_an_annotation_tries_again_what_failed(s: PodScene) -> None:
    async with s.operator():
        await quota_that_is_lifted(s)
        s.annotate(CLOUD_ACCOUNT, "pods", retry_requested="1")
        assert await s.until(lambda: s.said() == ("True", "AsSpecified")) < 45.0
    # a new operator finds the annotation, which was acted on
    s.quota = 1
    s.cluster("other")
    async with s.operator():
        await s.until(lambda: s.said(name="other") == ("False", "QuotaExceeded"))
        await s.until(lambda: len(s.failures()) == 1, 2.0)


@pod_scene
async def test_an_annotation_that_came_while_nobody_led_is_acted_on(s: PodScene) -> None:
    s.quota = 0
    s.cluster()
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "QuotaExceeded"))
        await asyncio.sleep(600.0)
        await s.until(lambda: "until" in s.message() and s.waits() > 60.0)
    s.quota = None
    value = "x" * 300
    s.annotate(CLOUD_ACCOUNT, "pods", retry_requested=value)
    async with s.operator():
        assert await s.until(lambda: s.said() == ("True", "AsSpecified")) < 45.0
        assert s.get(CLOUD_ACCOUNT, "pods")["status"]["retriedBy"] == value[:253]
    # once is enough
    s.quota = 1
    s.cluster("other")
    async with s.operator():
        await s.until(lambda: s.said(name="other") == ("False", "QuotaExceeded"))
        await s.until(lambda: len(s.failures()) == 1, 2.0)
    async with s.operator():
        await asyncio.sleep(5.0)
        assert len(s.failures()) == 1


@pod_scene
async def test_another_spec_of_the_account_tries_again_what_failed(s: PodScene) -> None:
    async with s.operator():
        await quota_that_is_lifted(s)
        s.change(CLOUD_ACCOUNT, "pods", lambda obj: obj["spec"]["kubernetes"].update(maxDisk="10Gi"))
        assert await s.until(lambda: s.said() == ("True", "AsSpecified")) < 45.0


@pod_scene
async def test_a_machine_that_stands_alone_says_until_when_a_quota_holds(s: PodScene) -> None:
    s.quota = 0
    s._put(
        VIRTUAL_MACHINE, "m",
        {"accountRef": {"name": "pods"}, "offer": {"type": "small"}, "attempt": 1, "powerState": "Running"},
    )  # fmt: skip
    async with s.operator():
        await s.until(lambda: s.condition() == ("False", "QuotaExceeded"))
        ready = next(x for x in s.status()["conditions"] if x["type"] == "Ready")
        assert "exceeded quota: few" in ready["message"]
        assert "tried again after 2026-" in ready["message"]
        s.quota = None
        assert await s.until(s.is_ready, 60.0) < 30.0


# -- what somebody takes away ----------------------------------------------------------------------------------------


@pod_scene
async def test_what_somebody_deletes_comes_back_within_a_minute(s: PodScene) -> None:
    s.cluster(access={"outputs": ["InventoryConfigMap", "SSHConfigSecret"]})
    s.cluster("plain")
    async with s.operator():
        for name in ("lab", "plain"):
            await s.until(lambda name=name: s.said(name=name) == ("True", "AsSpecified"))  # type: ignore[misc]
        await s.settle()
        keys = s.data(SECRET, "lab-vc-ssh")
        things = [
            (SERVICE, "lab-vc"), (SECRET, "lab-vc-ssh"), (CONFIG_MAP, "lab-vc-inventory"),
            (SERVICE, "plain-vc"), (SECRET, "plain-vc-ssh"),
        ]  # fmt: skip
        for resource, name in things:
            s.remove(resource, name)
            await s.until(lambda r=resource, n=name: s.is_there(r, n), 60.0)  # type: ignore[misc]
        assert s.data(SECRET, "lab-vc-ssh") == keys
        assert s.api.get(SERVICE, "ns", "lab-vc")["spec"]["clusterIP"] == "None"  # type: ignore[index]
        assert {m["metadata"]["name"] for m in s.machines()} == {"lab-workers-0", "plain-workers-0"}
        await s.settle()


@pod_scene
async def test_what_somebody_else_puts_in_its_place_is_told(s: PodScene) -> None:
    s.cluster()
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        s.remove(SERVICE, "lab-vc")
        s.foreign(SERVICE, "lab-vc")
        await s.until(lambda: bool(s.told("NameConflict")), 60.0)
        s.remove(SERVICE, "lab-vc")
        await s.until(lambda: "clusterIP" in (s.api.get(SERVICE, "ns", "lab-vc") or {"spec": {}})["spec"], 60.0)


# -- what happens to Pods behind our back ------------------------------------------------------------------------------

NOTICED_SECONDS = 8.0
"""Two listings prove that a Pod is gone; the first is begun at once."""


@pod_scene
async def test_a_pod_that_is_lost_is_noticed_within_seconds(s: PodScene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await s.settle()
        for seconds in (60.0, 65.3, 70.6, 75.9):  # at any moment between two of the seldom listings
            await asyncio.sleep(seconds)
            (name, *_) = [name for name in s.names() if s.condition(name=name)[0] == "True"]
            s.remove(POD, name)
            assert await s.until(lambda n=name: not s.is_ready(n)) < NOTICED_SECONDS  # type: ignore[misc]
            assert any(note.startswith(f"{name}/") for note in s.told("Gone"))
            await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await s.settle()


@pod_scene
async def test_a_pod_that_is_evicted_is_noticed_within_seconds(s: PodScene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await s.settle()
        evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
        s.api.set_status(POD, "ns", "lab-workers-1", evicted)
        took = await s.until(lambda: not s.is_ready("lab-workers-1"))
        assert took < NOTICED_SECONDS / 2


@pod_scene
async def test_news_of_pods_make_no_more_listings_than_a_change_does(s: PodScene) -> None:
    listings: list[str] = []
    plain = s.api.handle

    def handle(request: Request) -> object:
        query = request.query or {}
        if request.path.endswith("/pods") and request.method == "GET" and TAG_ACCOUNT in query.get("labelSelector", ""):
            listings.append(request.path)
        return plain(request)

    s.api.handle = handle  # type: ignore[method-assign, assignment]
    s.cluster(replicas=2)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await s.settle()
        begun = len(listings)
        await asyncio.sleep(600.0)
        assert 15 <= len(listings) - begun <= 25  # quiet: each half minute
        begun = len(listings)
        for n in range(600):
            s.annotate(POD, "lab-workers-0", note=str(n))
            await asyncio.sleep(0.1)
        assert 15 <= len(listings) - begun <= 22  # a minute of news: each 3 s


@pod_scene
async def test_a_container_that_ran_out_of_memory_is_told(s: PodScene) -> None:
    s.cluster()
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await s.settle()
        status = s.get(POD, "lab-workers-0")["status"]
        (container,) = status["containerStatuses"]
        container |= {"containerID": "containerd://again", "restartCount": 1}
        container["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
        s.api.set_status(POD, "ns", "lab-workers-0", status)
        took = await s.until(lambda: bool(s.told("Restarted")))
        assert took < NOTICED_SECONDS / 2
        assert s.told("Restarted") == ["the machine has started anew: OOMKilled, exit code 137"]
        assert s.status("lab-workers-0")["lastEnd"] == "OOMKilled, exit code 137"
        await s.settle()


# -- cost ------------------------------------------------------------------------------------------------------------


@pod_scene
async def test_a_pod_that_waits_for_a_node_costs_nothing(s: PodScene) -> None:
    s.held = True
    s.cluster()
    async with s.operator():
        await s.until(lambda: len(s.api.all(POD)) == 1)
        await asyncio.sleep(300.0)
        assert s.status("lab-workers-0")["state"] == "Pending"
        assert "startedAt" not in s.status("lab-workers-0")
        assert s.cluster_status()["cost"]["hourly"] == "0"
        s.held, begin = False, wall()
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        started = datetime.datetime.fromisoformat(s.status("lab-workers-0")["startedAt"]).timestamp()
        assert begin - 1.0 <= started <= begin + 2.0
        await s.settle()


@pod_scene
async def test_pods_that_found_no_node_are_not_charged(s: PodScene) -> None:
    s.cluster(machine={**SMALL, "disk": {"size": "200Gi"}})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NoFeasibleOffer"), 300.0)
        await asyncio.sleep(600.0)
        assert all("startedAt" not in (m.get("status") or {}) for m in s.machines())
        assert s.cluster_status()["cost"].get("accrued", "0") == "0"


# -- machines that can't be taken over -------------------------------------------------------------------------------


@pod_scene
async def test_an_account_that_cannot_take_machines_over_says_so(s: PodScene) -> None:
    s.cluster(pool={"adopt": [{"accountRef": {"name": "pods"}, "providerID": "their-pod/1234"}]})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "Unsupported"))
        assert s.said("Stalled") == ("True", "Unsupported")
        assert "'their-pod/1234' can't be taken over from CloudAccount 'pods'" in s.message()
        await asyncio.sleep(900.0)
        assert s.said() == ("False", "Unsupported")
        assert s.api.all(POD) == []
        await s.settle()
        s.edit_pool(adopt=[])
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 30.0)
        assert len(s.names()) == 1
        await s.settle()
