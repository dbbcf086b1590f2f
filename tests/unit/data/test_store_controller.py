"""The controller of DataStore on a memory API server: looks, faults, who uses it, and what stays while it is used."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from tests.unit.data.directory_scene import KEYS, Scene, scene

from cloudmesh.data.kinds import CLAIM, CLOUD_ACCOUNT, DATA_STORE, VIRTUAL_DIRECTORY
from cloudmesh.engine import SECRET, AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient
from cloudmesh.testing import run_virtual

IN_USE = "cloudmesh.org/in-use"


def ready(s: Scene, name: str = "aws", type_: str = "Ready") -> tuple[str, str, str]:
    return s.condition(type_, name, DATA_STORE)


@scene
async def test_a_bucket_is_looked_at(s: Scene) -> None:
    s.secret()
    s.store(capacity="1Gi")
    async with s.operator():
        await s.settle()
    assert ready(s)[:2] == ("True", "Checked")
    status = s.status("aws", DATA_STORE)
    assert (status["kind"], status["strength"], status["latencyMs"], status["objects"]) == ("s3", "Strong", 12, 0)
    assert ready(s, type_="Writable")[0] == "Unknown"
    assert ready(s, type_="IdentityConfirmed")[0] == ""
    assert "claims" not in status
    context = s.probed[0]
    assert (context.settings["bucket"], context.credentials["aws_access_key_id"]) == ("bucket-aws", b"AKIAEXAMPLE")
    with pytest.raises(InvalidRequest, match="API server"):  # it goes out from the operator: by the operator's guard
        context.check("https://kubernetes/")
    assert s.closed == len(s.probed)
    assert s.finalizers(DATA_STORE, "aws") == s.finalizers(SECRET, "keys") == []


@scene
async def test_an_unchanged_store_costs_no_write_and_one_look_a_minute(s: Scene) -> None:
    s.secret()
    s.store()
    async with s.operator():
        await s.settle(30)
        before, looked = s.api.writes(), len(s.probed)
        await s.settle(600)
    assert s.api.writes() == before
    assert len(s.probed) - looked == 10


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (AuthFailed("the key AKIAEXAMPLE is refused"), ("False", "AuthFailed", "the key *** is refused")),
        (InvalidRequest("there is no bucket"), ("False", "InvalidRequest", "there is no bucket")),
        (Transient("very-secret-key timed out"), ("Unknown", "StoreUnavailable", "Transient: *** timed out")),
        (RateLimited("slow down"), ("Unknown", "StoreUnavailable", "RateLimited: slow down")),
    ],
)
def test_faults(fault: CloudmeshError, expected: tuple[str, str, str]) -> None:
    async def main() -> None:
        s = Scene()
        s.secret()
        s.store()
        s.fault = fault
        async with s.operator():
            await s.settle()
            assert ready(s) == expected
            assert (ready(s, type_="Stalled")[0] == "True") == (expected[0] == "False")
            s.fault = None
            await s.settle(15)
            assert ready(s)[0] == "True"
        assert s.closed == len(s.probed)

    run_virtual(main())


@scene
async def test_a_secret_must_be_there_and_of_the_right_type(s: Scene) -> None:
    s.store()
    async with s.operator():
        await s.settle()
        assert ready(s) == ("False", "AuthFailed", "Secret 'keys' isn't there")
        s.secret(type_="Opaque")
        await s.settle()
        assert ready(s)[:2] == ("False", "AuthFailed")
        assert "cloudmesh.org/credentials" in ready(s)[2]
        assert not s.probed
        s.api.remove(SECRET, "ns", "keys")
        s.secret()
        await s.settle()
        assert ready(s)[0] == "True"


@pytest.mark.parametrize(("phase", "expected"), [("Bound", "True"), ("Pending", "Unknown"), ("Lost", "False")])
def test_a_volume(phase: str, expected: str) -> None:
    async def main() -> None:
        s = Scene()
        s.volume(phase=phase)
        async with s.operator():
            await s.settle()
            assert ready(s, "nas")[0] == expected
            assert s.status("nas", DATA_STORE)["strength"] == "Strong"
            s.api.remove(CLAIM, "ns", "nas")
            await s.settle(70)
            assert ready(s, "nas")[:2] == ("False", "StoreUnavailable")

    run_virtual(main())


@scene
async def test_who_uses_it_and_how_full_it_is(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory({"name": "aws", "prefix": "/"})
    async with s.operator():
        await s.settle()
        s.gateway.files = {"aws": 5}
        s.gateway.summary = {"files": 5}
        await s.settle(700)
        status = s.status("aws", DATA_STORE)
        assert status["claims"] == [{"directory": "lab", "state": "Up"}]
        assert (status["objects"], status["bytes"], status["used"]) == (5, 5000, "4.9Ki")
        assert ready(s, type_="IdentityConfirmed")[0] == "True"
        assert ready(s, type_="Writable")[0] == "True"
        s.gateway.states["aws"] = ("Suspicious", "the marker is missing")
        await s.settle(60)
        assert ready(s, type_="IdentityConfirmed") == (
            "False", "Suspicious", "directory lab: the marker is missing"
        )  # fmt: skip


@scene
async def test_its_figures_follow_soon_and_are_written_seldom(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle(40)
        looked, begun = len(s.probed), s.api.writes(DATA_STORE)
        s.gateway.files, s.gateway.summary = {"aws": 1}, {"files": 1}
        await s.settle(20)
        assert s.status("aws", DATA_STORE)["objects"] == 1
        for files in range(1, 101):
            s.gateway.files, s.gateway.summary = {"aws": files * 100}, {"files": files * 100}
            await s.settle(3)
            assert s.status("aws", DATA_STORE)["objects"] >= (files - 13) * 100
        await s.settle(40)
        assert s.status("aws", DATA_STORE)["objects"] == 10000
        assert 10 <= s.api.writes(DATA_STORE) - begun <= 360 / 15
        # to count is not to ask the store
        assert len(s.probed) - looked <= 6


@scene
async def test_a_new_key_is_tried_at_once_though_it_was_looked_at_just_now(s: Scene) -> None:
    s.secret()
    s.store()
    async with s.operator():
        await s.settle(5)
        looked = len(s.probed)
        s.api.remove(SECRET, "ns", "keys")
        s.secret(**(KEYS | {"aws_access_key_id": "AKIAOTHER"}))
        await s.settle(5)
        assert len(s.probed) > looked
        assert s.probed[-1].credentials["aws_access_key_id"] == b"AKIAOTHER"


@scene
async def test_read_only(s: Scene) -> None:
    s.secret()
    s.store(access="ReadOnly")
    s.directory()
    async with s.operator():
        await s.settle()
        assert ready(s, type_="Writable")[:2] == ("False", "ReadOnly")
        assert s.config().stores[0].access == "ReadOnly"
        s.store(access="Drain")
        await s.settle()
        assert s.config().stores[0].access == "Drain"


@scene
async def test_it_stays_while_a_directory_needs_it(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.api.remove(DATA_STORE, "ns", "aws")
        s.api.remove(SECRET, "ns", "keys")
        await s.settle()
        assert ready(s) == ("False", "Deleting", "waits for directories that use it: lab")
        assert s.condition()[0] == "True"
        assert s.condition()[2].startswith("it is served, over 1 store; but DataStore 'aws' waits to be deleted until")
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(15)
        assert s.api.get(DATA_STORE, "ns", "aws") is None
        assert s.api.get(SECRET, "ns", "keys") is None


@scene
async def test_one_that_is_going_takes_no_new_directory(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.api.remove(DATA_STORE, "ns", "aws")
        s.directory({"name": "aws", "prefix": "other/"}, name="other")
        await s.settle()
        assert s.condition(name="other") == ("False", "StoreUnavailable", "DataStore 'aws' is being deleted")


@scene
async def test_one_that_is_given_up_goes(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        found = s.api.get(DATA_STORE, "ns", "aws")
        assert found is not None
        found["metadata"]["annotations"] = {"cloudmesh.org/abandon": found["metadata"]["uid"]}
        s.api.put(DATA_STORE, found)
        s.api.remove(DATA_STORE, "ns", "aws")
        await s.settle()
        assert s.api.get(DATA_STORE, "ns", "aws") is None
        assert s.condition()[:2] == ("False", "StoreUnavailable")


@scene
async def test_another_secret_frees_the_first(s: Scene) -> None:
    s.secret()
    s.secret("others")
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        assert s.finalizers(SECRET, "keys") == [IN_USE]
        s.store(secret="others")
        await s.settle()
        assert s.finalizers(SECRET, "others") == [IN_USE]
        assert s.finalizers(SECRET, "keys") == []


@scene
async def test_a_secret_that_an_account_needs_too_stays(s: Scene) -> None:
    s.secret()
    s.store()
    s.store("twin", s3={"region": "us-east-1", "bucket": "twin"})
    account: dict[str, Any] = {"apiVersion": "cloudmesh.org/v1alpha1", "kind": "CloudAccount"}
    account["metadata"] = {"name": "aws", "namespace": "ns", "finalizers": [IN_USE]}
    account["spec"] = {"aws": {"region": "us-east-1"}, "credentials": {"secretRef": {"name": "keys"}}}
    s.api.put(CLOUD_ACCOUNT, account)
    s.directory("aws", "twin")
    s.watched = (CLOUD_ACCOUNT,)
    async with s.operator():
        await s.settle()
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(15)
        assert s.finalizers(DATA_STORE, "aws") == s.finalizers(DATA_STORE, "twin") == []
        assert s.finalizers(SECRET, "keys") == [IN_USE]


@scene
async def test_paused(s: Scene) -> None:
    s.secret()
    s.store()
    async with s.operator():
        await s.settle()
        found = s.api.get(DATA_STORE, "ns", "aws")
        assert found is not None
        found["metadata"]["annotations"] = {"cloudmesh.org/paused": "true"}
        s.api.put(DATA_STORE, found)
        await s.settle(5)
        looked = len(s.probed)
        await s.settle(200)
        assert ready(s, type_="Paused")[0] == "True"
        assert len(s.probed) == looked


@scene
async def test_credentials_that_end_are_told_before(s: Scene) -> None:
    def ends(time: str) -> None:
        s.secret(**KEYS, expiration=time)

    ends("2099-01-01T00:00:00Z")
    s.store()
    async with s.operator():
        await s.settle()
        told = s.condition("AuthExpiring", "aws", DATA_STORE)
        assert told == ("False", "Valid", "the credentials hold until 2099-01-01T00:00:00Z")
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=23)
        ends(soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
        await s.settle(70)
        assert s.condition("AuthExpiring", "aws", DATA_STORE)[:2] == ("True", "Expiring")
        ends("2020-01-01T00:00:00+01:00")
        await s.settle(70)
        told = s.condition("AuthExpiring", "aws", DATA_STORE)
        assert told[:2] == ("True", "Expired")
        assert "ended at 2019-12-31T23:00:00Z" in told[2]
        ends("tomorrow")
        await s.settle(70)
        assert s.condition("AuthExpiring", "aws", DATA_STORE)[:2] == ("Unknown", "InvalidRequest")
        s.secret()
        await s.settle(70)
        assert s.condition("AuthExpiring", "aws", DATA_STORE) == ("", "", "")
