"""Hosts of one's own on real sshd: what the suite can't ask, such as what a machine leaves when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.contract.compute.ssh.harness import ADDRESSES, USERS
from tests.contract.compute.ssh.sshd import Sshd, running

from cloudmesh.compute.access import ClusterAccess, make_key_pair
from cloudmesh.compute.bootstrap.activity import in_use
from cloudmesh.compute.bootstrap.equip import equip, make_files
from cloudmesh.compute.bootstrap.hosts import Host, target_of
from cloudmesh.compute.ports import Access, Complete, NodeSpec, Partial, powers_of
from cloudmesh.compute.providers.registry import Context, find_maker
from cloudmesh.compute.providers.ssh.powers import SshProvider
from cloudmesh.compute.runner import install, look, start
from cloudmesh.compute.ssh import SshPool, SshTarget
from cloudmesh.compute.tokens import TAG_CLUSTER, TAG_UID, Scope, make_token
from cloudmesh.engine import AuthFailed, CapacityUnavailable, Conflict, InvalidRequest

SCOPE = Scope("inst", "ns", "hosts")
CLIENT, CLIENT_PUBLIC = make_key_pair("cluster")


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running(USERS, ADDRESSES) as found:
        yield found


@pytest.fixture(autouse=True)
def homes(sshd: Sshd) -> None:
    for user in USERS:
        sshd.reset(user)


def account(sshd: Sshd, **changes: Any) -> Context:
    hosts = [
        {
            "name": user, "address": address, "port": sshd.port, "user": user, "vcpu": "4", "memory": "8Gi",
            "hostKey": " ".join(sshd.host_key.split()[:2]), "zone": "rack", **changes,
        }
        for user, address in zip(USERS, ADDRESSES, strict=True)
    ]  # fmt: skip
    return Context("ns", "hosts", "u", {"hosts": hosts}, credentials={"ssh-privatekey": sshd.client_key.encode()})


@pytest.fixture
async def provider(sshd: Sshd) -> AsyncIterator[SshProvider]:
    made = find_maker("ssh")(account(sshd))
    assert isinstance(made, SshProvider)
    yield made
    await made.close()


async def spec(provider: SshProvider, host: str = "one", number: int = 1, **changes: Any) -> NodeSpec:
    offer = next(o for o in await provider.offers() if o.type == host)
    token = make_token(f"u-{number}", "w", number, 1, offer.id)
    tags = {**SCOPE.tags(), TAG_UID: f"u-{number}", TAG_CLUSTER: "lab"}
    fields: dict[str, Any] = {
        "token": token, "name": f"lab-w-{number}", "scope": SCOPE, "cluster": "lab", "uid": f"u-{number}",
        "offer": offer, "image": "any", "tags": tags, "access": Access(authorized_keys=(CLIENT_PUBLIC,)),
    }  # fmt: skip
    return NodeSpec(**{**fields, **changes})


def login(sshd: Sshd, user: str) -> SshTarget:
    return SshTarget(ADDRESSES[USERS.index(user)], sshd.port, user, CLIENT, (sshd.host_key,), user)


async def test_offers_tell_what_the_hosts_are_and_what_is_free(provider: SshProvider) -> None:
    offers = await provider.offers()
    assert [(o.type, o.milli_vcpu, o.memory_mib, o.free, o.zone, o.network, o.price) for o in offers] == [
        (user, 4000, 8192, 1, "rack", "hosts/rack", None) for user in USERS
    ]
    await provider.ensure_node(await spec(provider))
    assert [o.free for o in await provider.offers()] == [0, 1, 1]
    assert powers_of(provider) == ("Metadata", "Flavors")


async def test_slots_share_a_host(sshd: Sshd) -> None:
    provider = find_maker("ssh")(account(sshd, slots=2, gpu={"model": "A100", "count": 4}))
    assert isinstance(provider, SshProvider)
    offer = (await provider.offers())[0]
    assert (offer.milli_vcpu, offer.memory_mib, offer.gpu_count, offer.free) == (2000, 4096, 2, 2)
    await provider.ensure_node(await spec(provider, number=1))
    await provider.ensure_node(await spec(provider, number=2))
    with pytest.raises(CapacityUnavailable, match="all 2 slots of one are taken"):
        await provider.ensure_node(await spec(provider, number=3))
    await provider.close()


async def test_the_clusters_key_comes_and_goes_and_people_keep_theirs(sshd: Sshd, provider: SshProvider) -> None:
    wanted = await spec(provider)
    file = sshd.home("one") / ".ssh/authorized_keys"
    before = file.read_text()
    pool = SshPool()
    with pytest.raises(AuthFailed):
        await pool.run(login(sshd, "one"), ["true"])
    node = await provider.ensure_node(wanted)
    assert node.host_key.split()[1] == sshd.host_key.split()[1]
    assert (node.host, node.port, node.details["user"]) == ("127.0.0.2", sshd.port, "one")
    assert (await pool.run(login(sshd, "one"), ["echo", "in"])).text == "in"
    for _ in range(2):
        await provider.ensure_node(wanted)
    assert file.read_text() == f"{before}{CLIENT_PUBLIC} cloudmesh-{wanted.token}\n"
    other = make_key_pair("new")[1]
    await provider.ensure_node(replace(wanted, access=Access(authorized_keys=(other,))))
    assert file.read_text() == f"{before}{other} cloudmesh-{wanted.token}\n"
    await provider.delete_node(node.id, SCOPE)
    assert file.read_text() == before
    await pool.close()
    with pytest.raises(AuthFailed):
        await pool.run(login(sshd, "one"), ["true"])


async def test_what_ends_leaves_nothing_behind_for_the_next_one(sshd: Sshd, provider: SshProvider) -> None:
    node = await provider.ensure_node(await spec(provider))
    pool, target = SshPool(), login(sshd, "one")
    home = sshd.home("one")
    (home / ".ssh/config").write_text("Host mine\n    User me\n")
    sshd.hand_over("one")
    access = ClusterAccess(client_key=CLIENT, client_public_key=CLIENT_PUBLIC)
    host = Host("m-1", "lab-w-1", "ns", node.host, node.port, "one", node.host_key, node.host, node.boot_id, (0, 0, 1))
    await equip(pool, access, host, "lab", make_files("lab", access, [host]))
    assert (home / ".ssh/config").read_text().startswith("Include cloudmesh/lab/config\nHost mine")
    told = await pool.run(target, ["ssh", "-o", "BatchMode=yes", "lab-w-1", "echo", "hello"])
    assert told.text == "hello", told.complaint
    await install(pool, target)
    folder = ".cloudmesh/jobs/j/run-0000"
    await start(pool, target, folder, "cm-run", 0, ["sh", "-c", "echo $$ >> pids; sleep 1000"])
    while not (home / folder / "pids").exists():
        await asyncio.sleep(0.05)
    assert (await look(pool, target, [(folder, "cm-run")]))["cm-run"].state == "Running"
    pid = (home / folder / "pids").read_text().strip()
    await provider.delete_node(node.id, SCOPE)
    key = SshTarget(node.host, node.port, "one", sshd.client_key, (sshd.host_key,))
    for _ in range(100):
        if (await pool.run(key, ["test", "-e", f"/proc/{pid}"])).status:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("the run goes on")
    assert (home / ".ssh/config").read_text() == "Host mine\n    User me\n"
    assert not (home / ".ssh/cloudmesh").exists()
    assert not (home / ".cloudmesh/jobs").exists()
    assert sorted(p.name for p in (home / ".cloudmesh/machines/one").iterdir()) == []
    await pool.close()


async def test_use_of_a_machine_is_seen(sshd: Sshd, provider: SshProvider) -> None:
    node = await provider.ensure_node(await spec(provider))
    host = Host("m-1", "lab-w-1", "ns", node.host, node.port, "one", node.host_key, node.host, node.boot_id, (0, 0, 1))
    access = ClusterAccess(client_key=CLIENT, client_public_key=CLIENT_PUBLIC)
    ours, others = SshPool(), SshPool()
    target = target_of(host, access)
    own_work = asyncio.ensure_future(ours.run(target, ["sleep", "3"]))
    await asyncio.sleep(0.5)
    assert not await in_use(ours, access, [host])
    await own_work
    person = asyncio.ensure_future(others.run(target, ["sleep", "3"]))
    await asyncio.sleep(0.5)
    assert await in_use(ours, access, [host])
    await person
    assert not await in_use(ours, access, [host])  # a connection that runs nothing is no use
    await others.close()
    await ours.run(target, ["sh", "-c", "setsid sleep 2 >/dev/null 2>&1 </dev/null &"])
    assert await in_use(ours, access, [host])
    await ours.close()


async def test_the_end_of_one_slot_leaves_the_other(sshd: Sshd) -> None:
    provider = find_maker("ssh")(account(sshd, slots=2))
    assert isinstance(provider, SshProvider)
    one = await provider.ensure_node(await spec(provider, number=1))
    two = await spec(provider, number=2)
    await provider.ensure_node(two)
    (sshd.home("one") / ".cloudmesh/jobs/j").mkdir(parents=True)
    sshd.hand_over("one")
    await provider.delete_node(one.id, SCOPE)
    assert (sshd.home("one") / ".cloudmesh/jobs/j").exists()
    assert f"cloudmesh-{two.token}\n" in (sshd.home("one") / ".ssh/authorized_keys").read_text()
    assert await provider.find_node(two) is not None
    await provider.close()


async def test_many_claims_at_once_on_one_host(sshd: Sshd) -> None:
    providers = [find_maker("ssh")(account(sshd, slots=8)) for _ in range(3)]
    specs = [await spec(providers[0], number=n) for n in range(4)]  # type: ignore[arg-type]
    await asyncio.gather(*(p.ensure_node(s) for p in providers for s in specs))
    listing = await providers[1].list_nodes(SCOPE)
    assert isinstance(listing, Complete)
    assert sorted(n.token for n in listing.nodes) == sorted(s.token for s in specs)
    lines = (sshd.home("one") / ".ssh/authorized_keys").read_text().splitlines()
    assert len(lines) == 2 + 4
    await asyncio.gather(*(p.delete_node(n.id, SCOPE) for p in providers for n in listing.nodes))
    assert len((sshd.home("one") / ".ssh/authorized_keys").read_text().splitlines()) == 2
    for provider in providers:
        await provider.close()


async def test_a_changed_host_key_is_a_conflict_and_nothing_is_done(sshd: Sshd, provider: SshProvider) -> None:
    wanted = await spec(provider, host="two")
    other = " ".join(make_key_pair("x")[1].split()[:2])
    context = account(sshd)
    hosts = [{**host, "hostKey": other} if host["name"] == "two" else host for host in context.spec["hosts"]]
    changed = find_maker("ssh")(replace(context, spec={"hosts": hosts}))
    with pytest.raises(Conflict, match=r"two .*another host key than the one that is known"):
        await changed.ensure_node(wanted)
    assert not (sshd.home("two") / ".cloudmesh").exists()
    listing = await changed.list_nodes(SCOPE)
    assert isinstance(listing, Partial)
    assert "two (two@127.0.0.3" in listing.reason
    findings = {f.subject: f for f in await changed.check()}
    assert (findings["one"].ok, findings["two"].ok, findings["two"].fatal) == (True, False, False)
    assert "another host key" in findings["two"].message
    await changed.close()


async def test_the_check_says_what_a_host_lacks(sshd: Sshd) -> None:
    made = find_maker("ssh")(account(sshd, arch="arm64"))
    findings = await made.check()
    assert all(not f.ok for f in findings)
    assert "is amd64, not arm64 as the account says" in findings[0].message
    await made.close()


async def test_a_host_that_left_the_account_must_come_back_to_be_cleared(sshd: Sshd, provider: SshProvider) -> None:
    with pytest.raises(InvalidRequest, match="has no host 'gone' any more"):
        await provider.delete_node("gone/cm-1", SCOPE)


@pytest.mark.parametrize(
    ("spec_", "credentials", "error", "words"),
    [
        ({"hosts": []}, {"ssh-privatekey": b"key"}, InvalidRequest, "spec.ssh"),
        (None, {}, AuthFailed, "no key `ssh-privatekey`"),
        (None, {"ssh-privatekey": b" \n"}, AuthFailed, "no key `ssh-privatekey`"),
    ],
)
def test_an_account_that_cannot_be_read(
    sshd: Sshd, spec_: Any, credentials: dict[str, bytes], error: type[Exception], words: str
) -> None:
    context = account(sshd)
    with pytest.raises(error, match=words):
        find_maker("ssh")(replace(context, spec=context.spec if spec_ is None else spec_, credentials=credentials))


async def test_a_key_that_cannot_be_read_is_not_quoted(sshd: Sshd) -> None:
    made = find_maker("ssh")(replace(account(sshd), credentials={"ssh-privatekey": b"-----BEGIN junk\nc2VjcmV0"}))
    with pytest.raises(InvalidRequest, match="can't be read") as caught:
        await made.list_nodes(SCOPE)
    assert "c2VjcmV0" not in str(caught.value)
    await made.close()
