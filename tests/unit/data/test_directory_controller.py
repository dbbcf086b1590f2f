"""The controller of VirtualDirectory on a memory API server: the whole way, bad input, faults, crashes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data.kinds import CLAIM, DATA_STORE, DEPLOYMENT, SERVICE, VIRTUAL_DIRECTORY
from cloudmesh.engine import EVENT, SECRET
from cloudmesh.engine.endpoints import ENDPOINT_SLICE
from cloudmesh.testing import for_every_crash, run_virtual

IN_USE = "cloudmesh.org/in-use"
CLEANUP = "cloudmesh.org/cleanup"


def pod_spec(s: Scene, name: str = "lab-vdir") -> dict[str, Any]:
    found = s.api.get(DEPLOYMENT, "ns", name)
    assert found is not None
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


@scene
async def test_a_directory_becomes_ready(s: Scene) -> None:
    s.secret()
    s.store()
    s.volume()
    s.directory("aws", "nas")
    async with s.operator():
        await s.settle()
        assert s.condition()[:2] == ("True", "AsSpecified")
    status = s.status()
    assert status["url"] == "http://lab-vdir.ns.svc"
    assert [(x["name"], x["prefix"], x["state"]) for x in status["stores"]] == [
        ("aws", "ns/lab/", "Up"), ("nas", "ns/lab/", "Up")
    ]  # fmt: skip
    assert (status["files"], status["size"], status["pendingCopies"]) == (0, "0", 0)
    assert {t: s.condition(t)[0] for t in ("StoresReady", "Placed", "Verified", "WithinQuota", "Reconciling")} == {
        "StoresReady": "True", "Placed": "True", "Verified": "Unknown", "WithinQuota": "", "Reconciling": ""
    }  # fmt: skip
    config = s.config()
    assert (config.namespace, config.name, [x.name for x in config.stores]) == ("ns", "lab", ["aws", "nas"])
    assert config.stores[0].credentials["aws_secret_access_key"]
    assert config.stores[1].mount == "/stores/nas"
    assert config.rules[0].copies == 2
    for resource in (SECRET, CLAIM, SERVICE, DEPLOYMENT):
        child = s.api.get(resource, "ns", "lab-vdir")
        assert child is not None
        assert child["metadata"]["ownerReferences"][0]["kind"] == "VirtualDirectory"


@scene
async def test_the_gateway_hears_where_the_api_servers_are(s: Scene) -> None:
    """It has no token to ask, and its stores are at none of these addresses."""
    addresses = [{"addresses": ["203.0.113.5"]}, {"addresses": ["203.0.113.4"]}]
    meta = {"name": "kubernetes", "namespace": "default"}
    s.api.put(ENDPOINT_SLICE, {"metadata": meta, "addressType": "IPv4", "endpoints": addresses})
    s.volume()
    s.directory("nas")
    async with s.operator():
        await s.settle()
    assert {"203.0.113.4", "203.0.113.5", "kubernetes.default.svc"} <= set(s.config().forbidden)


@scene
async def test_the_gateway_passes_pod_security_and_holds_no_token(s: Scene) -> None:
    s.secret()
    s.store()
    s.volume()
    s.directory("aws", "nas")
    async with s.operator():
        await s.settle()
    spec = pod_spec(s)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    container = spec["containers"][0]
    assert container["image"] == "cloudmesh.local/operator:1"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounted[next(v["value"] for v in container["env"] if v["name"] == "SQLITE_TMPDIR")] == "catalog"
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert mounts == {"/etc/cloudmesh", "/var/run/cloudmesh/ca", "/var/lib/cloudmesh", "/tmp", "/stores/nas"}
    assert "very-secret-key" not in str(s.api.all(DEPLOYMENT)) + str(s.api.all(VIRTUAL_DIRECTORY))


@scene
async def test_an_unchanged_directory_costs_no_write(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle(30)
        before = s.api.writes()
        await s.settle(600)
        assert s.api.writes() == before
    async with s.operator():
        await s.settle(30)
    assert s.api.writes() == before


@scene
async def test_a_changed_spec_reaches_the_gateway_at_once_and_without_a_restart(s: Scene) -> None:
    s.secret()
    s.store()
    s.store("b2", s3={"region": "us-east-1", "bucket": "second"})
    s.directory()
    async with s.operator():
        await s.settle()
        token = s.config().operator_token
        deployment = s.api.get(DEPLOYMENT, "ns", "lab-vdir")
        s.directory("aws", "b2", quota={"files": 10})
        await s.settle(10)
        assert s.condition()[:2] == ("True", "AsSpecified")
        assert s.gateways.told[-1].quota_files == 10
        assert [x.name for x in s.gateways.told[-1].stores] == ["aws", "b2"]
        assert s.condition("WithinQuota")[0] == "True"
        assert s.config().operator_token == token
        after = s.api.get(DEPLOYMENT, "ns", "lab-vdir")
    assert deployment is not None
    assert after is not None
    assert after["spec"] == deployment["spec"]


@scene
async def test_another_volume_is_mounted(s: Scene) -> None:
    s.volume()
    s.volume("nas2")
    s.directory("nas")
    async with s.operator():
        await s.settle()
        s.directory("nas", "nas2")
        await s.settle()
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod_spec(s)["volumes"] if "persistentVolumeClaim" in v]
    assert sorted(claims) == ["lab-vdir", "nas", "nas2"]


@scene
async def test_rotated_credentials_reach_the_gateway(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        before = s.gateways.told[-1].stores[0].credentials["aws_secret_access_key"]
        s.secret(aws_access_key_id="AKIANEW", aws_secret_access_key="another-key")
        await s.settle(10)
        assert s.gateways.told[-1].stores[0].credentials["aws_secret_access_key"] != before
        assert s.condition()[:2] == ("True", "AsSpecified")


@scene
async def test_a_store_that_is_missing_is_told_and_waited_for(s: Scene) -> None:
    s.directory()
    async with s.operator():
        await s.settle()
        assert s.condition() == ("False", "StoreUnavailable", "DataStore 'aws' isn't there")
        assert s.condition("Stalled")[0] == "True"
        assert s.api.get(DEPLOYMENT, "ns", "lab-vdir") is None
        s.secret()
        s.store()
        await s.settle()
        assert s.condition()[:2] == ("True", "AsSpecified")


@scene
async def test_a_wrong_edit_keeps_what_runs(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        before = s.config()
        s.directory("aws", "missing")
        await s.settle()
        assert s.condition()[:2] == ("False", "StoreUnavailable")
        assert s.config() == before
        assert s.status()["stores"][0]["state"] == "Up"
        s.directory("aws")
        await s.settle(40)
        assert s.condition()[:2] == ("True", "AsSpecified")


@scene
async def test_credentials_go_nowhere_that_their_secret_does_not_name(s: Scene) -> None:
    s.secret()
    s.store(s3={"region": "campus", "bucket": "lab", "endpoint": "https://203.0.113.7:9000"})
    s.directory()
    async with s.operator():
        await s.settle()
        status, reason, message = s.condition()
        assert (status, reason) == ("False", "StoreUnavailable")
        assert "must list 203.0.113.7 under its key `hosts`" in message
        assert s.api.get(SECRET, "ns", "lab-vdir") is None
        assert not s.probed
        s.secret(aws_access_key_id="A", aws_secret_access_key="B", hosts="203.0.113.7")
        await s.settle(40)
        assert s.condition()[0] == "True"


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9000", "http://169.254.169.254", "https://kubernetes.default.svc"]
)
def test_this_machine_is_no_store(endpoint: str) -> None:
    async def main() -> None:
        s = Scene()
        s.secret(aws_access_key_id="A", aws_secret_access_key="B", hosts="*")
        s.store(s3={"region": "campus", "bucket": "lab", "endpoint": endpoint})
        s.directory()
        async with s.operator():
            await s.settle()
            assert s.condition()[:2] == ("False", "StoreUnavailable")
            assert s.condition("Ready", "aws", DATA_STORE)[:2] == ("False", "InvalidRequest")
            assert not s.probed

    run_virtual(main())


@scene
async def test_a_second_directory_on_a_prefix_gets_no_gateway(s: Scene) -> None:
    s.secret()
    s.store()
    s.store("same", s3={"region": "us-east-1", "bucket": "bucket-aws"})
    s.directory({"name": "aws", "prefix": "data/"})
    async with s.operator():
        await s.settle()
        s.directory({"name": "same", "prefix": "data/part/"}, name="other")
        await s.settle()
        status, reason, message = s.condition(name="other")
        assert (status, reason) == ("False", "StoreClaimed")
        assert "'lab'" in message
        assert s.api.get(DEPLOYMENT, "ns", "other-vdir") is None
        assert s.condition()[0] == "True"
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(40)
        assert s.condition(name="other")[0] == "True"


@scene
async def test_two_names_of_one_place_hold_no_two_copies(s: Scene) -> None:
    s.secret()
    s.store()
    s.store("same", s3={"region": "us-east-1", "bucket": "bucket-aws"})
    s.directory("aws", "same")
    async with s.operator():
        await s.settle()
        assert s.condition()[:2] == ("False", "StoreClaimed")
        s.directory({"name": "aws", "prefix": "a/"}, {"name": "same", "prefix": "b/"})
        await s.settle()
        assert s.condition()[0] == "True"


@scene
async def test_a_store_that_is_taken_out_is_emptied_first(s: Scene) -> None:
    s.secret()
    s.store()
    s.volume()
    s.directory("aws", "nas")
    async with s.operator():
        await s.settle()
        s.gateway.files = {"aws": 7, "nas": 7}
        s.directory("nas")
        await s.settle(10)
        left = s.config().stores[-1]
        assert (left.name, left.access, left.prefix) == ("aws", "Drain", "ns/lab/")
        assert [x["name"] for x in s.status()["stores"]] == ["nas", "aws"]
        await s.settle(60)
        assert s.config().stores[-1].name == "aws"
        assert IN_USE in s.finalizers(DATA_STORE, "aws")
        s.gateway.files, s.gateway.needed = {"aws": 0, "nas": 7}, {"aws"}
        await s.settle(90)
        assert len(s.config().stores) == 2, "other copies, open writes and the journal keep it too"
        s.gateway.needed = set()
        await s.settle(90)
        assert [store.name for store in s.config().stores] == ["nas"]
        assert s.finalizers(DATA_STORE, "aws") == []
        assert s.finalizers(SECRET, "keys") == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Unknown", ("Unknown", "StoreUnavailable")),
        ("Gone", ("Unknown", "StoreUnavailable")),
        ("Suspicious", ("Unknown", "SuspiciousShrink")),
        ("Claimed", ("False", "StoreClaimed")),
        ("Slow", ("True", "AsSpecified")),
    ],
)
def test_a_store_that_the_gateway_does_not_believe(state: str, expected: tuple[str, str]) -> None:
    async def main() -> None:
        s = Scene()
        s.secret()
        s.store()
        s.volume()
        s.directory("aws", "nas")
        async with s.operator():
            await s.settle()
            s.gateway.states["aws"] = (state, "words of the store")
            await s.settle(40)
            assert s.condition()[:2] == expected
            if state != "Slow":
                assert "words of the store" in s.condition()[2]
                assert s.status()["stores"][0]["state"] == state
            s.gateway.states.clear()
            await s.settle(40)
            assert s.condition()[0] == "True"

    run_virtual(main())


@scene
async def test_what_the_gateway_counts(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory(quota={"size": "1Ki"})
    async with s.operator():
        await s.settle()
        s.gateway.summary = {"files": 3, "directories": 1, "bytes": 1000, "pending": 2, "entries": 4}
        await s.settle(40)
        assert s.condition()[0] == "True"
        assert s.condition("Placed") == ("False", "Placing", "files are being copied, checked or removed")
        assert (s.status()["files"], s.status()["pendingCopies"], s.status()["size"]) == (3, 2, "1000")
        s.gateway.summary = {"files": 3, "bytes": 1000, "waking": True}
        await s.settle(40)
        assert s.condition("Placed")[:2] == ("False", "Placing")
        s.gateway.summary = {"files": 4, "bytes": 2048, "entries": 5}
        await s.settle(40)
        assert s.condition("Placed")[0] == "True"
        assert s.condition() == ("False", "QuotaExceeded", "2Ki of 1Ki are used")
        s.gateway.summary = {"files": 4, "bytes": 100, "corrupted": 1}
        await s.settle(40)
        assert s.condition()[:2] == ("False", "Repairing")
        assert s.condition("Verified")[0] == "False"


@scene
async def test_counters_alone_are_written_at_most_every_15_seconds(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle(30)
        before = s.api.writes(VIRTUAL_DIRECTORY)
        for files in range(1, 61):
            s.gateway.summary = {"files": files * 100, "bytes": files * 1000}
            await s.settle(10)
        assert 20 <= s.api.writes(VIRTUAL_DIRECTORY) - before <= 600 / 15
        await s.settle(20)
        assert s.status()["files"] == 6000


@scene
async def test_a_gateway_that_goes_silent_is_unknown_and_nothing_is_forgotten(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.gateways.up = False
        await s.settle(30)
        assert s.condition()[:2] == ("Unknown", "GatewayUnavailable")
        assert s.condition("Reconciling")[0] == "True"
        assert s.status()["files"] == 0
        s.gateways.up = True
        await s.settle(10)
        assert s.condition()[0] == "True"


@scene
async def test_why_a_gateway_does_not_come_up(s: Scene) -> None:
    s.gateways.trouble = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no image"}}}
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        assert s.condition() == ("Unknown", "Pending", "the gateway's Pod: ImagePullBackOff: no image")


@scene
async def test_a_configuration_that_the_gateway_refuses(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.gateways.refuses = "a store can't be opened"
        s.directory(quota={"files": 3})
        await s.settle()
        assert s.condition() == ("False", "InvalidRequest", "the gateway: a store can't be opened")
        await s.settle(120)
        before = s.api.writes()
        await s.settle(120)
        assert s.api.writes() == before


@scene
async def test_a_gateway_that_waits_for_its_stores(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.gateway.summary = {"error": "the catalogue is made anew when all stores answer"}
        await s.settle(40)
        status, reason, message = s.condition()
        assert (status, reason) == ("Unknown", "StoreUnavailable")
        assert "made anew" in message


@scene
async def test_a_name_that_is_taken(s: Scene) -> None:
    s.secret()
    s.store()
    stranger = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lab-vdir", "namespace": "ns"}}
    s.api.put(SERVICE, stranger)
    s.directory()
    async with s.operator():
        await s.settle()
        assert s.condition()[:2] == ("False", "NameConflict")
        found = s.api.get(SERVICE, "ns", "lab-vdir")
        assert found is not None
        assert "spec" not in found
        s.api.remove(SERVICE, "ns", "lab-vdir")
        await s.settle(40)
        assert s.condition()[0] == "True"


@scene
async def test_what_somebody_deletes_or_changes_comes_back(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        config = s.config()
        s.api.remove(SERVICE, "ns", "lab-vdir")
        deployment = s.api.get(DEPLOYMENT, "ns", "lab-vdir")
        assert deployment is not None
        deployment["spec"]["replicas"] = 3
        s.api.put(DEPLOYMENT, deployment)
        s.api.remove(SECRET, "ns", "lab-vdir")
        await s.settle(30)
        assert s.api.get(SERVICE, "ns", "lab-vdir") is not None
        after = s.api.get(DEPLOYMENT, "ns", "lab-vdir")
        assert after is not None
        assert after["spec"]["replicas"] == 1
        assert s.config().stores == config.stores
        assert s.condition()[0] == "True"


@scene
async def test_paused(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.directory(annotations={"cloudmesh.org/paused": "true"}, quota={"files": 5})
        await s.settle()
        assert s.condition("Paused")[0] == "True"
        assert s.condition()[0] == "True"
        assert s.config().quota_files is None
        s.directory(quota={"files": 5})
        await s.settle()
        assert s.condition("Paused")[0] == ""
        assert s.config().quota_files == 5


@scene
async def test_retain_leaves_all_objects(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        assert IN_USE in s.finalizers(DATA_STORE, "aws")
        assert IN_USE in s.finalizers(SECRET, "keys")
        assert s.finalizers(VIRTUAL_DIRECTORY, "lab") == []
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(15)
    assert not any(config.emptying for config in s.gateways.told)
    for resource in (SECRET, CLAIM, SERVICE, DEPLOYMENT):
        assert s.api.get(resource, "ns", "lab-vdir") is None
    assert s.finalizers(DATA_STORE, "aws") == []
    assert s.finalizers(SECRET, "keys") == []


@scene
async def test_delete_empties_the_stores_first(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory(deletionPolicy="Delete")
    async with s.operator():
        await s.settle()
        assert s.finalizers(VIRTUAL_DIRECTORY, "lab") == [CLEANUP]
        s.gateway.summary = {"emptied": False}
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(10)
        assert s.gateways.told[-1].emptying
        assert s.condition()[:2] == ("False", "Deleting")
        # a deletion in the foreground takes the gateway away while it is still needed
        for kind in (DEPLOYMENT, SECRET):
            s.api.remove(kind, "ns", "lab-vdir")
        await s.settle(20)
        assert s.config().emptying
        assert s.api.get(DEPLOYMENT, "ns", "lab-vdir") is not None
        s.gateway.summary = {"strangers": 3}
        await s.settle(20)
        assert s.api.get(VIRTUAL_DIRECTORY, "ns", "lab") is None
        assert s.finalizers(DATA_STORE, "aws") == []
        assert "3 objects" in "".join(e["note"] for e in s.api.all(EVENT) if e["reason"] == "StrangersStay")


@scene
async def test_delete_that_is_given_up(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory(deletionPolicy="Delete")
    async with s.operator():
        await s.settle()
        s.gateways.up = False
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(30)
        found = s.api.get(VIRTUAL_DIRECTORY, "ns", "lab")
        assert found is not None
        found["metadata"]["annotations"] = {"cloudmesh.org/abandon": found["metadata"]["uid"]}
        s.api.put(VIRTUAL_DIRECTORY, found)
        await s.settle(10)
        assert s.api.get(VIRTUAL_DIRECTORY, "ns", "lab") is None


@scene
async def test_delete_of_what_never_had_a_gateway(s: Scene) -> None:
    s.directory("missing", deletionPolicy="Delete")
    async with s.operator():
        await s.settle()
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(10)
        assert s.api.get(VIRTUAL_DIRECTORY, "ns", "lab") is None


def test_a_crash_at_any_call_leaves_one_directory_that_works_and_then_nothing() -> None:
    async def live(crash: Any) -> None:
        s = Scene()
        s.secret()
        s.store()
        s.directory(deletionPolicy="Delete")
        for point in (crash, None):
            async with s.operator(point):
                for _ in range(12):
                    await asyncio.sleep(1.0)
                    if point is not None and point.crashed:
                        break
                else:
                    if s.api.get(VIRTUAL_DIRECTORY, "ns", "lab") is not None:
                        assert s.condition()[:2] == ("True", "AsSpecified")
                        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
                        await asyncio.sleep(25.0)
        assert s.api.get(VIRTUAL_DIRECTORY, "ns", "lab") is None
        assert s.finalizers(DATA_STORE, "aws") == []
        assert s.finalizers(SECRET, "keys") == []
        assert all(config.operator_token for config in s.gateways.told)

    async def main() -> None:
        assert await for_every_crash(live) > 20

    run_virtual(main())


@scene
async def test_metrics(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.gateway.summary = {"files": 3, "bytes": 1000, "pending": 2, "corrupted": 1, "unaffordable": 7}
        s.gateway.files = {"aws": 3}
        await s.settle(30)
        metrics = s.world.engines[0].metrics
        text = metrics.text().decode()
        for line in (
            'cloudmesh_directory_files{directory="lab",namespace="ns"} 3.0',
            'cloudmesh_directory_bytes{directory="lab",namespace="ns"} 1000.0',
            'cloudmesh_directory_pending_files{directory="lab",namespace="ns"} 2.0',
            'cloudmesh_directory_corrupted_copies{directory="lab",namespace="ns"} 1.0',
            'cloudmesh_directory_waiting_files{directory="lab",namespace="ns"} 7.0',
            'cloudmesh_directory_store_up{directory="lab",namespace="ns",store="aws"} 1.0',
            'cloudmesh_directory_store_bytes{directory="lab",namespace="ns",store="aws"} 3000.0',
        ):
            assert line in text
        s.gateways.up = False
        await s.settle(30)
        assert "cloudmesh_directory_files{" not in metrics.text().decode()
