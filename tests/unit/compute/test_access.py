"""Keys of a cluster: made once, kept, never a stranger's; known_hosts, config and inventory."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from cloudmesh.compute.access import ensure_access, make_config, make_known_hosts, publish_logins
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.ssh import load_private_key
from cloudmesh.engine import CONFIG_MAP, SECRET, Conflict, Kube, Transient
from cloudmesh.engine.owners import own
from cloudmesh.testing import CrashPoint, MemoryApi, for_every_crash

OWNER: dict[str, Any] = {
    "apiVersion": "cloudmesh.org/v1alpha1",
    "kind": "VirtualCluster",
    "metadata": {"name": "lab", "namespace": "ns", "uid": "u-1"},
}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5vdEFSZWFsS2V5Tm90QVJlYWxLZXlOb3RBUmVhbEtl ada"


class Holder:
    """Stands for the engine: a client, and its calls counted."""

    def __init__(self, api: MemoryApi) -> None:
        self.api = api
        self.kube = Kube(api)

    def stored(self, resource: Any, name: str) -> dict[str, Any] | None:
        return self.api.store.get(resource, ("ns", name))

    @property
    def writes(self) -> int:
        return len(self.api.store.writes)


@pytest.fixture
def holder() -> Holder:
    return Holder(MemoryApi((SECRET, CONFIG_MAP)))


def machine(n: int = 0, **changes: Any) -> MachineView:
    fields: dict[str, Any] = {
        "uid": f"m-{n}", "name": f"lab-w-{n}", "namespace": "ns", "cluster": "lab", "pool": "w", "ordinal": n,
        "attempt": 1, "counts_as": 1, "alternative": "small", "account": "pods", "offer_id": "pods/small///OnDemand",
        "host": f"10.0.0.{n + 1}", "port": 2222, "user": "cm", "reachable": True,
    }  # fmt: skip
    return MachineView(**{**fields, **changes})


async def test_keys_are_made_once_and_fit_together(holder: Holder) -> None:
    access = await ensure_access(holder, OWNER, public_keys=[KEY], slurm=True)
    assert load_private_key(access.client_key).export_public_key("openssh").split()[1].decode() in (
        access.client_public_key
    )
    assert load_private_key(access.host_key).export_public_key("openssh").split()[1].decode() in access.host_public_key
    assert access.authorized_keys == (access.client_public_key, KEY)
    assert access.secret_name == "lab-vc-ssh"
    assert len(access.munge_key) >= 32
    before = holder.writes
    again = await ensure_access(Holder(holder.api), OWNER, public_keys=[KEY], slurm=True)  # another process
    assert again == access
    assert holder.writes == before


async def test_secret_parts_are_not_shown(holder: Holder) -> None:
    access = await ensure_access(holder, OWNER, slurm=True)
    shown = repr(access)
    assert "PRIVATE KEY" not in shown
    assert repr(access.munge_key)[2:20] not in shown


async def test_what_is_known_costs_no_call(holder: Holder) -> None:
    await ensure_access(holder, OWNER, public_keys=[KEY])
    holder.kube = None  # type: ignore[assignment]
    assert (await ensure_access(holder, OWNER, public_keys=[KEY])).authorized_keys[1] == KEY


async def test_another_key_of_the_user_and_slurm_are_added_and_keys_kept(holder: Holder) -> None:
    first = await ensure_access(holder, OWNER)
    second = await ensure_access(holder, OWNER, public_keys=[KEY, KEY], slurm=True)
    assert second.client_key == first.client_key
    assert second.host_key == first.host_key
    assert second.authorized_keys == (first.client_public_key, KEY)
    assert first.munge_key == b""
    assert second.munge_key
    third = await ensure_access(holder, OWNER, slurm=True)
    assert third.authorized_keys == (first.client_public_key,)
    assert third.munge_key == second.munge_key


async def test_a_strangers_secret_is_a_conflict_and_stays(holder: Holder) -> None:
    stranger = {"metadata": {"name": "lab-vc-ssh", "namespace": "ns"}, "data": {"a": "Yg=="}}
    await holder.kube.create(SECRET, stranger)
    with pytest.raises(Conflict, match="'lab-vc-ssh' exists and isn't of this VirtualCluster"):
        await ensure_access(holder, OWNER)
    stored = holder.stored(SECRET, "lab-vc-ssh")
    assert stored is not None
    assert stored["data"] == {"a": "Yg=="}


async def test_the_secret_of_an_earlier_life_is_waited_for(holder: Holder) -> None:
    earlier = {**OWNER, "metadata": {**OWNER["metadata"], "uid": "u-0"}}
    await holder.kube.create(SECRET, own({"metadata": {"name": "lab-vc-ssh"}, "data": {}}, earlier))
    with pytest.raises(Transient, match="of a deleted VirtualCluster"):
        await ensure_access(holder, OWNER)


async def test_a_deleted_secret_comes_back_with_the_same_keys(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await ensure_access(holder, OWNER)
    await holder.kube.delete(SECRET, "ns", "lab-vc-ssh")
    monkeypatch.setattr("cloudmesh.compute.access.LOOK_AGAIN_SECONDS", -1.0)
    assert (await ensure_access(holder, OWNER)).client_key == first.client_key


async def test_a_crash_at_any_call_makes_no_second_key() -> None:
    async def scenario(crash: CrashPoint) -> None:
        holder = Holder(MemoryApi((SECRET, CONFIG_MAP)))
        seen = []

        async def life(kube: Kube) -> None:
            user = Holder(holder.api)
            user.kube = kube
            access = await ensure_access(user, OWNER, public_keys=[KEY], slurm=True)
            seen.append(access.client_key)
            await publish_logins(user, OWNER, access, [machine()])

        await crash.until_crash(life(crash.wrap(Kube(holder.api))))
        stored = holder.stored(SECRET, "lab-vc-ssh")
        if stored is not None:
            seen.append(base64.b64decode(stored["data"]["id_ed25519"]).decode())
        await life(Kube(holder.api))
        assert len(set(seen)) == 1

    assert await for_every_crash(scenario) >= 6


async def test_logins_are_written_when_machines_come_and_go_and_only_then(holder: Holder) -> None:
    outputs = ("SSHConfigSecret", "InventoryConfigMap")
    access = await ensure_access(holder, OWNER)
    await publish_logins(holder, OWNER, access, [machine(0), machine(1, host="")], outputs)
    data = (holder.stored(SECRET, "lab-vc-ssh") or {})["data"]
    assert "Host lab-w-0\n" in base64.b64decode(data["config"]).decode()
    assert "lab-w-1" not in base64.b64decode(data["config"]).decode()
    before = holder.writes
    await publish_logins(holder, OWNER, access, [machine(0), machine(1, host="")], outputs)
    assert holder.writes == before
    await publish_logins(holder, OWNER, access, [machine(0), machine(1)], outputs)
    assert holder.writes == before + 2
    inventory = (holder.stored(CONFIG_MAP, "lab-vc-inventory") or {})["data"]
    assert inventory["hosts"] == "lab-w-0\nlab-w-1\n"
    assert "lab-w-1 ansible_host=10.0.0.2 ansible_port=2222 ansible_user=cm" in inventory["inventory.ini"]
    assert [m["host"] for m in json.loads(inventory["inventory.json"])["machines"]] == ["10.0.0.1", "10.0.0.2"]
    # keys that were there stay
    assert (await ensure_access(Holder(holder.api), OWNER)).client_key == access.client_key


async def test_a_strangers_inventory_is_a_conflict(holder: Holder) -> None:
    await holder.kube.create(CONFIG_MAP, {"metadata": {"name": "lab-vc-inventory", "namespace": "ns"}, "data": {}})
    access = await ensure_access(holder, OWNER)
    with pytest.raises(Conflict, match="lab-vc-inventory"):
        await publish_logins(holder, OWNER, access, [machine()], ("InventoryConfigMap",))


def test_texts_of_logins() -> None:
    host_key = "ssh-ed25519 AAAA comment"
    machines = [
        machine(login_command="kubectl exec -i -n ns p -- sshd -i"),
        machine(1, port=22, host_key="ssh-rsa B x"),
    ]
    assert make_known_hosts(machines, host_key) == (
        "lab-w-0,[10.0.0.1]:2222 ssh-ed25519 AAAA\nlab-w-1,10.0.0.2 ssh-rsa B\n"
    )
    config = make_config(machines)
    assert "    ProxyCommand kubectl exec -i -n ns p -- sshd -i\n" in config
    assert config.count("ProxyCommand") == 1
    assert "StrictHostKeyChecking yes" in config


@pytest.mark.parametrize(
    "changes",
    [{"host": "1.2.3.4\nHost *"}, {"user": "a b"}, {"login_command": "x\n  ForwardAgent yes"}, {"host_key": "a\nb"}],
)
def test_a_machine_cannot_write_lines_of_its_own(changes: dict[str, str]) -> None:
    with pytest.raises(Conflict, match="can't be used"):
        make_config([machine(**changes)])
