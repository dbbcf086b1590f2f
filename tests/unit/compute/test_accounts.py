"""CloudAccounts on the memory cloud: credentials, prices, finalizers, orphans, status."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from tests.unit.compute.machine_scene import NAMESPACES, Scene, logged, now, scene

from cloudmesh.compute.account_controller import ensure_default_account
from cloudmesh.compute.accounts import Account
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, PRICE_SHEET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.providers.aws.core import AwsCore
from cloudmesh.compute.providers.aws.session import Session
from cloudmesh.compute.providers.kubernetes.core import INFO as KUBERNETES
from cloudmesh.compute.providers.memory import Fault, MemoryCloud, make
from cloudmesh.compute.providers.registry import DEFAULT_ACCOUNT_NAME, Context
from cloudmesh.compute.providers.ssh.core import INFO as SSH
from cloudmesh.compute.surveyor import USABLE
from cloudmesh.compute.tokens import TAG_ACCOUNT, TAG_INSTALLATION, TAG_MACHINE, TAG_NAMESPACE, TAG_TOKEN, TAG_UID
from cloudmesh.engine import SECRET
from cloudmesh.testing import Faults, FaultyTransport

KEY = "s3cret-key-of-the-memory-cloud"
IN_USE = "cloudmesh.org/in-use"
CREDENTIALS = {"aws_access_key_id": b"AKIAEXAMPLE", "aws_secret_access_key": b"another"}


def put_secret(s: Scene, key: str = KEY, *, type_: str = "cloudmesh.org/credentials", hosts: str = "") -> None:
    data = {"key": key, "hosts": hosts}
    old = s.api.get(SECRET, "ns", "login")
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**(old or {}).get("metadata", {}), "name": "login", "namespace": "ns"},
        "type": type_,
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }
    s.api.put(SECRET, body)


def with_key(s: Scene, **spec: Any) -> None:
    s.cloud.key = KEY
    s.add_account(credentials={"secretRef": {"name": "login"}}, **spec)


def ready(s: Scene, name: str = "lab") -> tuple[str, str]:
    return s.condition("Ready", name, CLOUD_ACCOUNT)


def finalizers(s: Scene, resource: Any, name: str) -> list[str]:
    return list(s.get(resource, name)["metadata"].get("finalizers") or ())


# -- credentials ---------------------------------------------------------------------------------------------------


@scene
async def test_credentials_come_from_a_secret_of_the_right_type(s: Scene) -> None:
    with_key(s)
    async with s.operator():
        await s.until(lambda: ready(s) == ("False", "AuthFailed"))
        put_secret(s, type_="Opaque")
        await s.settle()
        assert ready(s) == ("False", "AuthFailed")
        await s.delete(SECRET, "login")
        put_secret(s)
        await s.until(lambda: ready(s) == ("True", "Checked"))


@scene
async def test_a_rotated_secret_clears_what_was_refused(s: Scene) -> None:
    put_secret(s, "wrong")
    with_key(s)
    s.add_machine()
    async with s.operator() as (_, accounts):
        await s.until(lambda: ready(s) == ("False", "AuthFailed"))
        account = accounts.get("ns", "lab")
        assert account is not None
        assert [block.key for block in account.blocks()] == ["lab"]
        assert s.condition() == ("Unknown", "AuthFailed")
        put_secret(s)
        await s.until(s.is_ready, 30.0)
        assert accounts.get("ns", "lab") is account
        assert account.blocks() == ()
        put_secret(s, "wrong again")
        await s.until(lambda: ready(s) == ("False", "AuthFailed"), 60.0)
        await asyncio.sleep(600.0)
        assert s.condition() == ("Unknown", "CloudUnavailable")
        put_secret(s)
        await s.until(s.is_ready, 120.0)
        assert len(s.cloud.meter.lines) == 1


@scene
async def test_credentials_go_only_to_hosts_that_the_secret_names(s: Scene) -> None:
    put_secret(s, hosts="api.example.org")
    with_key(s, aws={"region": "us-east-1", "endpoint": "https://cloud.example.org:5000/v3"})
    async with s.operator():
        await s.until(lambda: ready(s) == ("False", "InvalidRequest"))
        assert s.contexts == []
        put_secret(s, hosts="api.example.org\n*.example.org")
        await s.until(lambda: ready(s) == ("True", "Checked"))


@scene
async def test_endpoints_of_this_cluster_are_refused(s: Scene) -> None:
    put_secret(s, hosts="*")
    s.cloud.key = KEY
    hosts = ("127.0.0.1", "localhost", "169.254.169.254", "2130706433", "[::1]", "[::ffff:127.0.0.1]",
             "kubernetes.default.svc", "0x7f.1")  # fmt: skip
    for number, host in enumerate(hosts):
        member = {"region": "us-east-1", "endpoint": f"http://{host}:8080/"}
        s.add_account(f"a{number}", aws=member, credentials={"secretRef": {"name": "login"}})
    async with s.operator():
        await s.settle()
        assert [ready(s, f"a{n}") for n in range(len(hosts))] == [("False", "InvalidRequest")] * len(hosts)
        assert s.contexts == []


@scene
async def test_no_secret_is_ever_told(s: Scene) -> None:
    put_secret(s)
    with_key(s)
    s.cloud.faults.add(Fault("refuse", "RunInstance", code="InternalError", message=f"bad key {KEY}", times=1))
    s.cloud.faults.add(Fault("refuse", "RunInstance", code="InvalidParameter", message=f"bad key {KEY}", times=1))
    s.add_machine(cluster=s.add_cluster())
    s.cloud.faults.add(Fault("refuse", "Terminate*", code="InvalidParameter", message=f"bad key {KEY}", times=1))
    strand(s, 1)
    with logged() as logs:
        async with s.operator() as (engine, accounts):
            await s.until(lambda: s.condition()[1] == "InvalidRequest")
            await s.until(lambda: any("an orphan can't be collected" in line for line in logs))
            await s.settle()
        assert "[redacted]" in str(logs)
        assert not [line for line in logs if KEY in line or base64.b64encode(KEY.encode()).decode() in line]
        everything = json.dumps([s.api.all(kind) for kind in (VIRTUAL_MACHINE, CLOUD_ACCOUNT)]) + str(s.events())
        assert "[redacted]" in everything
        assert KEY not in everything
        assert KEY not in repr(accounts.get("ns", "lab"))
        assert KEY.encode() not in engine.metrics.text()


# -- finalizers ----------------------------------------------------------------------------------------------------


@scene
async def test_account_and_secret_stay_while_a_machine_needs_them(s: Scene) -> None:
    put_secret(s)
    with_key(s)
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        assert IN_USE in finalizers(s, CLOUD_ACCOUNT, "lab")
        assert IN_USE in finalizers(s, SECRET, "login")
        await s.delete(CLOUD_ACCOUNT, "lab")
        await s.delete(SECRET, "login")
        await s.settle()
        assert ready(s) == ("False", "Deleting")
        s.add_machine("late")
        await s.settle()
        assert len(s.living()) == 1
        await s.delete(VIRTUAL_MACHINE, "late")
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: not s.is_there(CLOUD_ACCOUNT, "lab"))
        assert not s.is_there(SECRET, "login")
        assert s.living() == []


@scene
async def test_a_new_leader_can_still_clean_up_in_an_account_that_goes(s: Scene) -> None:
    put_secret(s)
    with_key(s)
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
    await s.delete(CLOUD_ACCOUNT, "lab")
    await s.delete(SECRET, "login")
    await s.delete(VIRTUAL_MACHINE, "m")
    async with s.operator():
        await s.until(lambda: not s.is_there(CLOUD_ACCOUNT, "lab"))
        assert not s.is_there(SECRET, "login")
        assert s.living() == []


@scene
async def test_the_finalizer_goes_when_nobody_needs_the_account_any_more(s: Scene) -> None:
    put_secret(s)
    with_key(s)
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: finalizers(s, CLOUD_ACCOUNT, "lab") == [], 200.0)
        assert finalizers(s, SECRET, "login") == []
        s.add_machine("again")
        await s.until(lambda: s.is_ready("again"))
        assert IN_USE in finalizers(s, SECRET, "login")


@scene
async def test_another_secret_is_kept_and_the_old_one_let_go(s: Scene) -> None:
    put_secret(s)
    with_key(s)
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        other = s.get(SECRET, "login")
        other["metadata"] = {"name": "other", "namespace": "ns"}
        s.api.put(SECRET, other)
        s.change(CLOUD_ACCOUNT, "lab", lambda obj: obj["spec"].update(credentials={"secretRef": {"name": "other"}}))
        await s.until(lambda: IN_USE in finalizers(s, SECRET, "other"))
        await s.settle()
        assert finalizers(s, SECRET, "login") == []
        assert s.is_ready()


@scene
async def test_deleting_the_namespace_strands_nothing(s: Scene) -> None:
    put_secret(s)
    with_key(s)
    cluster = s.add_cluster()
    for number in range(3):
        s.add_machine(f"m{number}", cluster=cluster)
    async with s.operator():
        await s.until(lambda: all(s.is_ready(f"m{n}") for n in range(3)))
        for resource, name in ((SECRET, "login"), (CLOUD_ACCOUNT, "lab"), (VIRTUAL_CLUSTER, "c")):
            await s.delete(resource, name)
        for number in range(3):
            if s.is_there(VIRTUAL_MACHINE, f"m{number}"):
                await s.delete(VIRTUAL_MACHINE, f"m{number}")
        await s.until(lambda: not s.is_there(CLOUD_ACCOUNT, "lab") and not s.is_there(SECRET, "login"))
        assert s.living() == []
        assert s.api.all(VIRTUAL_MACHINE) == []
        assert s.cloud.resources.groups == {}


@scene
async def test_an_abandoned_account_goes_and_names_what_it_leaves(s: Scene) -> None:
    put_secret(s)
    with_key(s)
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        await s.delete(CLOUD_ACCOUNT, "lab")
        s.annotate(CLOUD_ACCOUNT, "lab", abandon=s.get(CLOUD_ACCOUNT, "lab")["metadata"]["uid"])
        await s.until(lambda: not s.is_there(CLOUD_ACCOUNT, "lab"))
        await s.settle()
        assert any(reason == "Abandoned" and note.endswith(": m") for reason, note in s.events())
        assert finalizers(s, SECRET, "login") == []


# -- offers and status ---------------------------------------------------------------------------------------------


@scene
async def test_offers_survive_a_cloud_that_is_down(s: Scene) -> None:
    s.add_account()
    async with s.operator() as (_, accounts):
        await s.until(lambda: ready(s) == ("True", "Checked"))
        account = accounts.get("ns", "lab")
        assert account is not None
        count = len(account.offers)
        assert count == len(s.cloud.stock.rows)
        assert len(accounts.table("ns", ["lab"])) == count
        assert accounts.table("ns", ["lab"]) is accounts.table("ns", ["lab"])
        s.cloud.faults.add(Fault("drop", "*", times=None))
        await asyncio.sleep(4 * 3600.0)
        assert len(account.offers) == count
        assert s.condition("PricesFresh", "lab", CLOUD_ACCOUNT) == ("False", "Stale")
        assert s.condition("InventoryComplete", "lab", CLOUD_ACCOUNT) == ("Unknown", "Partial")
        s.cloud.faults.clear()
        await s.until(lambda: s.condition("PricesFresh", "lab", CLOUD_ACCOUNT) == ("True", "Fresh"), 4000.0)


@scene
async def test_a_price_sheet_wins_at_once(s: Scene) -> None:
    s.add_account(priceSheetRef={"name": "campus"})
    item = {"match": {"type": "*"}, "hourly": "0.5"}
    async with s.operator() as (_, accounts):
        await s.until(lambda: ready(s) == ("True", "Checked"))
        account = accounts.get("ns", "lab")
        assert account is not None
        s._put(PRICE_SHEET, "campus", {"currency": "USD", "items": [item]})

        def sources() -> set[str]:
            return {offer.price.source for offer in account.offers if offer.price is not None}

        await s.until(lambda: sources() == {"PriceSheet/campus"}, 60.0)
        assert s.condition("Ready", "campus", PRICE_SHEET) == ("True", "AsSpecified")

        def has_age() -> bool:
            return "pricesAsOf" in s.get(CLOUD_ACCOUNT, "lab")["status"]

        await s.until(lambda: not has_age(), 600.0)  # what is declared gets no older
        await s.delete(PRICE_SHEET, "campus")
        await s.until(lambda: sources() == {"memory/test"}, 60.0)
        await s.until(has_age, 600.0)


@scene
async def test_failures_outlive_the_process(s: Scene) -> None:
    s.cloud.set_free(0)
    s.add_account()
    s.add_machine(cluster=s.add_cluster())
    async with s.operator():
        await s.until(lambda: s.condition()[1] == "CapacityUnavailable")
        await s.settle()
    calls = s.cloud.calls["RunInstance"]
    s.add_machine("m2", cluster=s.get(VIRTUAL_CLUSTER, "c"))
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.condition(name="m2")[1] == "CapacityUnavailable")
        assert s.cloud.calls["RunInstance"] == calls
        account = accounts.get("ns", "lab")
        assert isinstance(account, Account)
        assert account.blocks()[0].until > now()


@scene
async def test_status_of_an_account_is_written_seldom(s: Scene) -> None:
    s.add_account()
    async with s.operator():
        await s.settle()
        before, begin = s.writes(CLOUD_ACCOUNT), asyncio.get_running_loop().time()
        for number in range(40):
            s.add_machine(f"m{number}")
            await asyncio.sleep(5.0)
        await s.until(lambda: all(s.is_ready(f"m{n}") for n in range(40)))
        minutes = (asyncio.get_running_loop().time() - begin) / 300.0
        # the finalizer once; counters at most twice in 300 s, start times with them
        assert s.writes(CLOUD_ACCOUNT) - before <= 2 + 2 * minutes
        await asyncio.sleep(400.0)
        status = s.get(CLOUD_ACCOUNT, "lab")["status"]
        assert status["running"] == 40
        assert float(status["hourly"]) > 0
        assert status["startSeconds"][0]["seconds"] >= 2
        assert status["kind"] == "memory"
        assert "StartStop" in status["powers"]


@scene
async def test_an_account_that_cant_be_used_says_why(s: Scene) -> None:
    s.cloud.stock.rows.clear()
    s.add_account()
    async with s.operator():
        await s.until(lambda: ready(s) == ("False", "CheckFailed"))
        message = next(
            c["message"] for c in s.get(CLOUD_ACCOUNT, "lab")["status"]["conditions"] if c["type"] == "Ready"
        )
        assert "sells nothing" in message
        findings = s.get(CLOUD_ACCOUNT, "lab")["status"]["findings"]
        assert {"subject": "offers", "result": "Failed"}.items() <= next(
            f for f in findings if f["subject"] == "offers"
        ).items()


@scene
async def test_a_part_that_fails_leaves_the_rest_usable(s: Scene) -> None:
    s.add_account()
    async with s.operator() as (_, accounts):
        await s.until(lambda: ready(s) == ("True", "Checked"))
        account = accounts.get("ns", "lab")
        assert account is not None
        s.cloud.faults.add(Fault("drop", "ListInstances", times=None))
        account.survey_wanted.set()
        await s.until(lambda: account.message != USABLE)
        assert account.ready and "but for machines: machines can't be listed" in account.message
        await asyncio.sleep(600)
        assert [f["result"] for f in s.get(CLOUD_ACCOUNT, "lab")["status"]["findings"]].count("Failed") == 1
        assert ready(s) == ("True", "Checked")
        s.cloud.faults.clear()
        await s.until(lambda: account.message == USABLE, 301)
        s.cloud.faults.add(Fault("refuse", "ListInstances", code="InvalidParameter", times=None))
        account.survey_wanted.set()
        await s.until(lambda: ready(s) == ("False", "CheckFailed"))


@scene
async def test_the_default_account_is_made_once(s: Scene) -> None:
    async with s.operator() as (engine, _):
        for _ in range(3):
            assert await ensure_default_account(engine, "ns") == DEFAULT_ACCOUNT_NAME
        spec = s.get(CLOUD_ACCOUNT, DEFAULT_ACCOUNT_NAME)["spec"]
        assert spec == {"kubernetes": {}}
        s.change(CLOUD_ACCOUNT, DEFAULT_ACCOUNT_NAME, lambda obj: obj["spec"].update(limits={"machines": 3}))
        await ensure_default_account(engine, "ns")
        assert s.get(CLOUD_ACCOUNT, DEFAULT_ACCOUNT_NAME)["spec"]["limits"] == {"machines": 3}


@scene
async def test_a_cloud_that_nobody_knows_is_told(s: Scene) -> None:
    s._put(CLOUD_ACCOUNT, "lab", {"nonsense": {}})
    async with s.operator():
        await s.until(lambda: ready(s) == ("False", "Unsupported"))


# -- another account of the cloud ------------------------------------------------------------------------------------


@scene
async def test_credentials_of_another_account_make_no_orphans(s: Scene) -> None:
    mine, other = s.cloud, MemoryCloud("other", clock=s.cloud.now)
    other.key = "other-key"
    find = s.maker

    def maker(crash: Any) -> Any:
        def make(context: Any) -> Any:
            s.cloud = other if context.credentials.get("key") == b"other-key" else mine
            provider = find(crash)("memory")(context)
            s.cloud = mine
            return provider

        return lambda kind: make

    s.maker = maker  # type: ignore[method-assign]
    put_secret(s)
    with_key(s)
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        await s.until(lambda: s.get(CLOUD_ACCOUNT, "lab")["status"].get("identity") == "test")
        put_secret(s, "other-key")
        await s.until(lambda: ready(s) == ("False", "AnotherAccount"), 30.0)
        s.add_machine("m2")
        await asyncio.sleep(900.0)
        # it isn't told gone, none is made in its stead, and its object stays until its end was seen
        assert s.condition()[0] == "Unknown"
        await s.delete(VIRTUAL_MACHINE, "m")
        await asyncio.sleep(900.0)
        assert s.is_there(VIRTUAL_MACHINE, "m")
        assert len(mine.living()) == 1
        assert other.living() == []
        assert s.get(CLOUD_ACCOUNT, "lab")["status"]["identity"] == "test"
    async with s.operator():  # nor by a new leader
        await asyncio.sleep(900.0)
        assert (len(mine.living()), other.living()) == (1, [])
        assert ready(s) == ("False", "AnotherAccount")
        put_secret(s)
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"), 300.0)
        await s.until(lambda: s.is_ready("m2"))
        assert len(mine.living()) == 1
        await s.delete(VIRTUAL_MACHINE, "m2")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m2"), 300.0)
        assert mine.living() == []
        # with no machine left, it may be another account
        put_secret(s, "other-key")
        s.add_machine("m3")
        await s.until(lambda: s.is_ready("m3"), 900.0)
        assert (mine.living(), len(other.living())) == ([], 1)


# -- orphans -------------------------------------------------------------------------------------------------------


def strand(s: Scene, number: int, *, uid: str = "", name: str = "") -> str:
    """A machine with our tags, and nobody to own it."""
    installation = s.api.get(NAMESPACES, "", "kube-system")["metadata"]["uid"]  # type: ignore[index]
    tags = {
        TAG_INSTALLATION: installation,
        TAG_NAMESPACE: "ns",
        TAG_ACCOUNT: "lab",
        TAG_TOKEN: f"cm-{number}",
        TAG_MACHINE: name or f"gone-{number}",
        TAG_UID: uid or f"uid-{number}",
    }
    return s.cloud.make_by_hand(tags=tags).id


@scene
async def test_orphans_are_collected_slowly(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    stranger = s.cloud.make_by_hand(tags={"theirs": "yes"}).id
    async with s.operator():
        await s.until(s.is_ready)
        for number in range(3):
            strand(s, number)
        begin = asyncio.get_running_loop().time()
        seen = []
        while len(s.living()) > 2:
            seen.append(len(s.living()))
            await asyncio.sleep(1.0)
            assert asyncio.get_running_loop().time() - begin < 300.0
        # one a round
        assert seen.count(4) >= 2
        assert seen.count(3) >= 2
        assert asyncio.get_running_loop().time() - begin > 10.0
        assert {machine.id for machine in s.living()} == {s.status()["providerID"], stranger}
        await s.settle()
        assert [reason for reason, _ in s.events()].count("OrphanCollected") == 3


@scene
async def test_a_machine_of_an_earlier_object_of_that_name_is_an_orphan(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        strand(s, 1, name="m")
        await s.until(lambda: len(s.living()) == 1, 300.0)
        assert s.living()[0].id == s.status()["providerID"]


def test_nothing_is_collected_while_our_own_records_cant_be_read() -> None:
    @scene
    async def test(s: Scene) -> None:
        faults = Faults()
        faults.add("answer", method="GET", path=r"virtualmachines/gone", status=500, times=None)
        s.add_account()
        async with s.operator(transport=FaultyTransport(s.api, faults)):
            strand(s, 1)
            await asyncio.sleep(600.0)
            assert len(s.living()) == 1
            assert faults.count("virtualmachines/gone") > 2
            faults.clear()
            await s.until(lambda: s.living() == [], 300.0)

    test()


@scene
async def test_an_orphan_isnt_collected_on_partial_listings(s: Scene) -> None:
    s.add_account()
    async with s.operator():
        zone = next(iter(s.cloud.stock.rows.values())).zone
        s.cloud.faults.unreachable_zone = next(row.zone for row in s.cloud.stock.rows.values() if row.zone != zone)
        strand(s, 1)
        await asyncio.sleep(600.0)
        assert len(s.living()) == 1


@scene
async def test_machines_of_another_installation_are_never_touched(s: Scene) -> None:
    s.add_account()
    async with s.operator():
        node = strand(s, 1)
        tags = dict(s.living()[0].tags) | {TAG_INSTALLATION: "another"}
        s.cloud.change_tags(node, tags)
        s.cloud.faults.filters_ignored = True
        await asyncio.sleep(600.0)
        assert len(s.living()) == 1


@scene
async def test_an_adopted_machine_that_lost_its_object_is_given_back_not_ended(s: Scene) -> None:
    theirs = s.cloud.make_by_hand(tags={"theirs": "yes"}).id
    s.add_account()
    s.add_machine(adopt={"providerID": theirs})
    async with s.operator():
        await s.until(s.is_ready)
        s.change(VIRTUAL_MACHINE, "m", lambda obj: obj["metadata"].update(finalizers=[]))
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: dict(s.living()[0].tags) == {"theirs": "yes"}, 300.0)
        await asyncio.sleep(600.0)
        assert [machine.id for machine in s.living()] == [theirs]


@scene
async def test_a_machine_whose_tags_name_no_object_is_left_alone(s: Scene) -> None:
    s.add_account()
    async with s.operator():
        node = strand(s, 1)
        s.cloud.change_tags(node, {}, [TAG_MACHINE])
        await asyncio.sleep(600.0)
        assert len(s.living()) == 1


@scene
async def test_an_account_that_names_no_rate_has_its_providers(s: Scene) -> None:
    s.use(requests_per_second=7.0)
    s.add_account("plain")
    s.add_account("own", limits={"requestsPerSecond": 3})
    async with s.operator() as (_, accounts):
        await s.until(lambda: ready(s, "plain")[0] == ready(s, "own")[0] == "True")
        rates = {account.name: account.bucket.rate for account in accounts.all()}
        assert rates == {"plain": 7.0, "own": 3}
        s.change(CLOUD_ACCOUNT, "own", lambda obj: obj["spec"].pop("limits"))
        await s.until(lambda: {account.bucket.rate for account in accounts.all()} == {7.0})


def test_every_cloud_but_the_one_in_memory_has_a_rate() -> None:
    assert AwsCore(Session("us-east-1", CREDENTIALS), "aws", {}, 1).info.requests_per_second == 20
    assert (KUBERNETES.requests_per_second, SSH.requests_per_second) == (50, 50)
    assert make(Context("ns", "lab", "uid", {})).info.requests_per_second is None


@scene
async def test_a_plug_in_that_is_not_installed_is_told(s: Scene) -> None:
    s._put(CLOUD_ACCOUNT, "lab", {"plugin": {"name": "nowhere"}})
    async with s.operator():
        await s.until(lambda: ready(s) == ("False", "Unsupported"))
        message = s.get(CLOUD_ACCOUNT, "lab")["status"]["conditions"][0]["message"]
        assert message == "`spec.plugin.name`: there is no plug-in 'nowhere' in this operator: none is installed"
        assert s.contexts == []
