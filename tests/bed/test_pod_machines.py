"""Pods as machines on the real cluster: made once, logged in to, SLURM on them, and what the cluster refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests import install
from tests.testbed.kubectl import TestCluster

from cloudmesh.compute.ports import Access, ClusterSpec, Complete, Node, NodeSpec, powers_of
from cloudmesh.compute.providers.kubernetes import make
from cloudmesh.compute.providers.kubernetes.powers import PodProvider
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.tokens import TAG_CLUSTER, Scope, make_token
from cloudmesh.engine import CapacityUnavailable, Conflict, InvalidRequest, Kube, QuotaExceeded, connect
from cloudmesh.policy.model import Offer

pytestmark = pytest.mark.e2e

SLURM = "/opt/cloudmesh/machine/slurm"
SECRET = "lab-vc-ssh"


@pytest.fixture(scope="module")
def image(cluster: TestCluster) -> str:
    """The machine image, on the cluster's nodes."""
    return install.machine_image()


@pytest.fixture(scope="module")
def client_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="module")
def host_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture(scope="module")
def keys(cluster: TestCluster, namespace: str, client_key: asyncssh.SSHKey, host_key: asyncssh.SSHKey) -> Access:
    """The Secret of a cluster, as the operator makes it."""
    public = client_key.export_public_key().decode().strip()
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "stringData": {
                "authorized_keys": public + "\n",
                "ssh_host_ed25519_key": host_key.export_private_key().decode(),
                "id_ed25519": client_key.export_private_key().decode(),
            },
        },
        namespace=namespace,
    )
    return Access(authorized_keys=(public,), secret_name=SECRET)


@pytest.fixture
async def kube(cluster: TestCluster) -> AsyncIterator[Kube]:
    kube = await connect(str(cluster.kubeconfig))
    try:
        yield kube
    finally:
        await kube.close()


class Lab:
    """One account, and a cluster `lab` in it."""

    def __init__(self, cluster: TestCluster, kube: Kube, namespace: str, image: str, keys: Access) -> None:
        self.cluster = cluster
        self.kube = kube
        self.namespace = namespace
        self.image = image
        self.keys = keys
        self.scope = Scope("installation-1", namespace, "pods")
        self.provider = self.account()

    def account(self, spec: Mapping[str, Any] | None = None, kube: Kube | None = None, **defaults: str) -> PodProvider:
        told = {"machineImage": self.image, "hourlyPerVcpu": "0.01", "hourlyPerGiB": "0.001", **defaults}
        found = make(Context(self.namespace, "pods", "u-1", spec or {}, kube=kube or self.kube, defaults=told))
        assert isinstance(found, PodProvider)
        return found

    async def offer(self, name: str = "small") -> Offer:
        return next(offer for offer in await self.provider.offers() if offer.type == name)

    async def spec(self, name: str, attempt: int = 1, **more: Any) -> NodeSpec:
        offer = more.pop("offer", None) or await self.offer()
        token = make_token(f"uid-of-{name}", "workers", 0, attempt, offer.id)
        tags = {**self.scope.tags(), TAG_CLUSTER: "lab"}
        values = {"image": "debian-12", "access": self.keys, "cluster": "lab", "tags": tags} | more
        return NodeSpec(token=token, name=name, scope=self.scope, uid=f"uid-of-{name}", offer=offer, **values)

    async def nodes(self) -> dict[str, Node]:
        listing = await self.provider.list_nodes(self.scope)
        assert isinstance(listing, Complete)
        return {node.id.partition("/")[0]: node for node in listing.nodes}

    async def running(self, *names: str) -> dict[str, Node]:
        async def look() -> dict[str, Node] | None:
            found = await self.nodes()
            here = {name: found[name] for name in names if name in found}
            return here if len(here) == len(names) and all(n.state == "Running" for n in here.values()) else None

        return await until(look, f"{', '.join(names)} run")


async def until(look: Callable[[], Awaitable[Any]], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.3)
    return found


@pytest.fixture
def lab(cluster: TestCluster, kube: Kube, namespace: str, image: str, keys: Access) -> Lab:
    return Lab(cluster, kube, namespace, image, keys)


@contextlib.asynccontextmanager
async def login(
    node: Node, client_key: asyncssh.SSHKey, host_key: asyncssh.SSHKey
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Logs in from this machine; the host key must be the one made beforehand."""
    trusted = ([host_key.convert_to_public()], [], [])

    async def try_it() -> asyncssh.SSHClientConnection | None:
        try:
            return await asyncssh.connect(
                node.host, node.port, username="cm", client_keys=[client_key], known_hosts=trusted,
                config=None, agent_path=None, connect_timeout=5,
            )  # fmt: skip
        except (ConnectionRefusedError, TimeoutError, asyncssh.ConnectionLost):
            return None  # the Pod runs, its sshd starts

    connection = await until(try_it, f"{node.id} takes logins")
    async with connection:
        yield connection


async def run(connection: asyncssh.SSHClientConnection, *command: str, seconds: float = 120) -> str:
    done = await connection.run(" ".join(command), timeout=seconds)
    assert done.exit_status == 0, f"{command}: {done.exit_status} {done.stdout}{done.stderr}"
    return str(done.stdout).strip()


async def ask_slurm(connection: asyncssh.SSHClientConnection, *arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await run(connection, SLURM, *arguments))
    return answer


async def test_slurm_across_machines_that_are_pods(
    lab: Lab, client_key: asyncssh.SSHKey, host_key: asyncssh.SSHKey
) -> None:
    reference = {"apiVersion": "v1", "kind": "VirtualCluster", "name": "lab", "uid": "vc-1"}
    ground = ClusterSpec(lab.scope, "lab", "vc-1", owner=reference)
    # The garbage collector would take a Service whose owner doesn't exist: here nothing owns it.
    lab.cluster.apply(
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "lab-vc", "labels": {"cloudmesh.org/owner-uid": "vc-1"}},
            "spec": {"clusterIP": "None", "selector": {"app": "old"}, "ports": [{"name": "ssh", "port": 2222}]},
        },
        namespace=lab.namespace,
    )  # fmt: skip
    prepared = await lab.provider.prepare(ground)
    assert prepared["subdomain"] == "lab-vc"
    service = lab.cluster.get("-n", lab.namespace, "service", "lab-vc")
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {
        "app.kubernetes.io/managed-by": "cloudmesh", "cloudmesh.org/cluster": "lab"
    }  # fmt: skip

    names = ("lab-a-0", "lab-a-1", "lab-a-2")
    specs = {name: await lab.spec(name) for name in names}
    made = [await lab.provider.ensure_node(spec) for spec in specs.values()]
    again = await asyncio.gather(*(lab.provider.ensure_node(spec) for spec in specs.values()))
    assert [node.id for node in made] == [node.id for node in again]
    nodes = await lab.running(*names)
    assert {node.id for node in nodes.values()} == {node.id for node in made}
    assert all(node.type == "small" and node.image == "debian-12" for node in nodes.values())

    key = secrets.token_bytes(64)
    ctl = nodes["lab-a-0"]

    async def start(node: Node, name: str) -> dict[str, Any]:
        async with login(node, client_key, host_key) as connection:
            assert await run(connection, "hostname") == name
            assert await run(connection, "id -u") == "2000"
            await run(connection, "mkdir -p -m 700 ~/.cloudmesh/slurm")
            async with connection.start_sftp_client() as sftp, sftp.open(".cloudmesh/slurm/munge.key", "wb") as file:
                await file.write(key)
            await run(connection, "chmod 600 ~/.cloudmesh/slurm/munge.key")
            role = "both" if node.id == ctl.id else "node"
            call = ("start", "--role", role, "--ctl", "lab-a-0", "--ctl-address", ctl.private_address)
            first = await ask_slurm(connection, *call)
            assert first["ready"], first
            before = await run(connection, "cat /run/slurm/supervisor.pid")
            assert (await ask_slurm(connection, *call))["ready"]
            assert await run(connection, "cat /run/slurm/supervisor.pid") == before  # twice is once
            return first

    began = time.monotonic()
    await asyncio.gather(*(start(node, name) for name, node in nodes.items()))
    print(f"SLURM on 3 machines: {time.monotonic() - began:.1f} s")
    async with login(ctl, client_key, host_key) as connection:

        async def registered() -> bool:
            return (await ask_slurm(connection, "status"))["nodes"] == dict.fromkeys(names, "IDLE")

        await until(registered, "the nodes are idle")
        assert sorted((await run(connection, "srun -N3 hostname")).split()) == sorted(names)
        await run(connection, "sbatch --parsable --wait --array=1-6 --wrap 'echo $SLURM_ARRAY_TASK_ID'")
        assert await run(connection, "getent hosts lab-a-1 lab-a-2")  # each finds the others by bare name
        assert not await run(connection, "ls /var/run/secrets/kubernetes.io 2>/dev/null || true")
        assert "id_ed25519" not in await run(connection, "ls /etc/cloudmesh/ssh")

    # One container starts anew: the machine is the same, what was on it is gone, and the boot id says so.
    async with login(nodes["lab-a-1"], client_key, host_key) as connection:
        with contextlib.suppress(asyncssh.Error, AssertionError):
            await run(connection, "kill -TERM 1")

    async def anew() -> Node | None:
        node = (await lab.running("lab-a-1"))["lab-a-1"]
        return node if node.boot_id not in ("", nodes["lab-a-1"].boot_id) else None

    restarted = await until(anew, "lab-a-1 starts anew")
    assert restarted.id == nodes["lab-a-1"].id
    assert (await start(restarted, "lab-a-1"))["state"] == "IDLE"

    # One Pod is killed behind our back: another machine takes its place.
    lab.cluster.kubectl("-n", lab.namespace, "delete", "pod", "lab-a-2", "--force", "--grace-period=0")

    async def is_gone() -> bool:
        return "lab-a-2" not in await lab.nodes()

    await until(is_gone, "lab-a-2 is gone")
    spec = await lab.spec("lab-a-2-2", attempt=2)
    assert await lab.provider.find_node(spec) is None
    await lab.provider.ensure_node(spec)
    new = (await lab.running("lab-a-2-2"))["lab-a-2-2"]
    await start(new, "lab-a-2-2")
    async with login(ctl, client_key, host_key) as connection:
        assert await ask_slurm(connection, "forget", "lab-a-2") == {"left": []}
        found = (await run(connection, "srun -N3 hostname")).split()
        assert sorted(found) == ["lab-a-0", "lab-a-1", "lab-a-2-2"]

    # The controller loses all its state: its nodes notice and come back by themselves.
    async with login(ctl, client_key, host_key) as connection:
        with contextlib.suppress(asyncssh.Error, AssertionError):
            await run(connection, "kill -TERM 1")
    old_boot = ctl.boot_id

    async def ctl_anew() -> Node | None:
        node = (await lab.running("lab-a-0"))["lab-a-0"]
        return node if node.boot_id not in ("", old_boot) else None

    ctl = await until(ctl_anew, "lab-a-0 starts anew")
    await start(ctl, "lab-a-0")
    async with login(ctl, client_key, host_key) as connection:

        async def all_idle() -> bool:
            told = await ask_slurm(connection, "status")
            return told["nodes"] == dict.fromkeys(("lab-a-0", "lab-a-1", "lab-a-2-2"), "IDLE")

        began = time.monotonic()
        await until(all_idle, "the nodes register again")
        print(f"nodes back after the controller lost its state: {time.monotonic() - began:.1f} s")
        assert len((await run(connection, "srun -N3 hostname")).split()) == 3
        ended = await ask_slurm(connection, "stop")
        assert (ended["munge"], ended["slurmctld"], ended["role"]) == (False, None, "")

    assert not await lab.provider.clear(ground)  # machines of it are there
    for node in (await lab.nodes()).values():
        await lab.provider.delete_node(node.id, lab.scope)
        await lab.provider.delete_node(node.id, lab.scope)

    async def nobody() -> bool:
        return not await lab.nodes()

    await until(nobody, "all machines are gone")
    assert await lab.provider.clear(ground)
    assert await lab.provider.clear(ground)


async def test_console_and_tags(lab: Lab) -> None:
    assert powers_of(lab.provider) == ("Groundwork", "Console", "Metadata", "Images", "Flavors")
    spec = await lab.spec("lone", cluster="")
    node = await lab.provider.ensure_node(spec)
    node = (await lab.running("lone"))["lone"]

    async def told() -> bool:
        return "Server listening" in await lab.provider.console_output(node.id)

    await until(told, "the console shows that sshd listens")  # the Pod runs a moment before
    await lab.provider.set_metadata(node.id, {"team/été": "physics & more " * 20})
    await lab.provider.set_metadata(node.id, {"other": "x"})
    await lab.provider.delete_metadata(node.id, ["other", "absent"])
    tags = (await lab.nodes())["lone"].tags
    assert tags["team/été"] == "physics & more " * 20
    assert "other" not in tags
    assert lab.scope.holds(tags)
    with pytest.raises(InvalidRequest, match="operator's own"):
        await lab.provider.set_metadata(node.id, {"cloudmesh.org/token": "x"})
    await lab.provider.delete_node(node.id, lab.scope)


async def test_logins_from_anywhere_through_kubectl(
    lab: Lab, client_key: asyncssh.SSHKey, host_key: asyncssh.SSHKey
) -> None:
    """As a user outside of the cluster's network logs in; a stranger's key and another host's are refused."""
    await lab.provider.ensure_node(await lab.spec("far", cluster=""))
    node = (await lab.running("far"))["far"]
    async with login(node, client_key, host_key):
        pass
    kubectl = shutil.which("kubectl", path=lab.cluster.info.environment()["PATH"])
    assert kubectl is not None
    proxy = (
        kubectl, "--kubeconfig", str(lab.cluster.kubeconfig), "-n", lab.namespace, "exec", "-i", "far", "--",
        "/usr/sbin/sshd", "-i", "-e", "-o", "LogLevel=QUIET", "-f", "/opt/cloudmesh/machine/sshd_config",
    )  # fmt: skip
    trusted = ([host_key.convert_to_public()], [], [])
    options: dict[str, Any] = {"username": "cm", "config": None, "agent_path": None}
    async with asyncssh.connect(
        "far", client_keys=[client_key], known_hosts=trusted, proxy_command=proxy, **options
    ) as connection:
        assert await run(connection, "hostname && echo $PATH") == (
            "far\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        )
    other = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(node.host, node.port, client_keys=[other], known_hosts=trusted, **options)
    wrong = ([other.convert_to_public()], [], [])
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await asyncssh.connect(node.host, node.port, client_keys=[client_key], known_hosts=wrong, **options)
    await lab.provider.delete_node(node.id, lab.scope)


async def takes_pods(lab: Lab, namespace: str) -> None:
    """The service account comes a moment after its namespace."""

    async def account_is_there() -> bool:
        return "default" in lab.cluster.kubectl("-n", namespace, "get", "serviceaccounts", "-o", "name")

    await until(account_is_there, f"{namespace} is ready")


async def test_what_is_there_already_is_not_ours(lab: Lab) -> None:
    pod = {"containers": [{"name": "c", "image": "none.invalid/x"}]}
    lab.cluster.kubectl("create", "namespace", f"{lab.namespace}-x")
    try:
        where = f"{lab.namespace}-x"
        await takes_pods(lab, where)
        lab.cluster.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "taken"}, "spec": pod}, namespace=where
        )
        other = Lab(lab.cluster, lab.kube, where, lab.image, lab.keys)
        with pytest.raises(Conflict, match="taken"):
            await other.provider.ensure_node(await other.spec("taken"))
        await other.provider.delete_node("taken/another-uid", other.scope)
        assert lab.cluster.get("-n", where, "pod", "taken")["spec"]["containers"][0]["image"] == "none.invalid/x"
        service = {"ports": [{"port": 80}], "selector": {"app": "mine"}}
        lab.cluster.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lab-vc"}, "spec": service}, namespace=where
        )
        owner = {"apiVersion": "v1", "kind": "VirtualCluster", "name": "lab", "uid": "vc-1"}
        ground = ClusterSpec(other.scope, "lab", "vc-1", owner=owner)
        with pytest.raises(Conflict, match="Service 'lab-vc' exists"):
            await other.provider.prepare(ground)
        assert await other.provider.clear(ground)
        assert lab.cluster.get("-n", where, "service", "lab-vc")["spec"]["selector"] == {"app": "mine"}
    finally:
        lab.cluster.kubectl("delete", "namespace", f"{lab.namespace}-x", "--wait=false")


async def test_a_full_cluster_and_a_missing_image(lab: Lab) -> None:
    nowhere = lab.account({"nodeSelector": {"example.org/none": "x"}}, unschedulableSeconds="1")
    spec = await lab.spec("nowhere")
    await nowhere.ensure_node(spec)

    async def failed() -> Node | None:
        node = await nowhere.find_node(spec)
        return node if node is not None and node.failure is not None else None

    node = await until(failed, "the scheduler says no")
    assert (node.state, type(node.failure)) == ("Failed", CapacityUnavailable)
    assert "didn't match Pod's node affinity/selector" in str(node.failure)
    await nowhere.delete_node(node.id, lab.scope)

    broken = lab.account(machineImage="localhost:1/none/such:1")
    spec = await lab.spec("broken")
    await broken.ensure_node(spec)

    async def no_image() -> Node | None:
        node = await broken.find_node(spec)
        return node if node is not None and node.failure is not None else None

    node = await until(no_image, "the image can't be pulled", seconds=90)
    assert (node.state, type(node.failure)) == ("Failed", InvalidRequest)
    assert "localhost:1/none/such:1" in str(node.failure)
    await broken.delete_node(node.id, lab.scope)


async def test_quota_limits_and_rights(lab: Lab, tmp_path: Path) -> None:
    where = f"{lab.namespace}-q"
    lab.cluster.kubectl("create", "namespace", where)
    try:
        lab.cluster.kubectl("label", "namespace", where, "pod-security.kubernetes.io/enforce=restricted")
        lab.cluster.apply(
            {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}},
            {
                "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
                "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]},
            },
            namespace=where,
        )  # fmt: skip
        other = Lab(lab.cluster, lab.kube, where, lab.image, lab.keys)

        async def quota_is_known() -> bool:
            return bool(lab.cluster.get("-n", where, "resourcequota", "q").get("status", {}).get("hard"))

        await takes_pods(lab, where)
        await until(quota_is_known, "the quota is in force")
        with pytest.raises(QuotaExceeded, match="exceeded quota: q"):
            await other.provider.ensure_node(await other.spec("one"))
        with pytest.raises(InvalidRequest, match="maximum memory usage per Container is 1Gi"):
            await other.provider.ensure_node(await other.spec("big", offer=await other.offer("large")))
        assert await other.nodes() == {}

        assert [finding.ok for finding in await other.provider.check()] == [True, True]
        lab.cluster.kubectl("-n", where, "create", "serviceaccount", "weak")
        lab.cluster.kubectl("-n", where, "create", "role", "weak", "--verb=get,list,create", "--resource=pods")
        lab.cluster.kubectl(
            "-n", where, "create", "rolebinding", "weak", "--role=weak", f"--serviceaccount={where}:weak"
        )
        token = lab.cluster.kubectl("-n", where, "create", "token", "weak").strip()
        weak = await connect(str(_kubeconfig(lab.cluster, token, tmp_path / "kubeconfig")))
        lacking = "delete, patch pods; get pods/log; create, get, patch, delete services"

        async def told() -> Any:  # the API server takes the binding up a moment after it was made
            found = await other.account(kube=weak).check()
            return found if lacking in found[0].message else None

        try:
            found = await until(told, f"what the account lacks is {lacking}")
        finally:
            await weak.close()
        assert found[0].ok is False
        assert token not in repr(found)
    finally:
        lab.cluster.kubectl("delete", "namespace", where, "--wait=false")


def _kubeconfig(cluster: TestCluster, token: str, path: Path) -> Path:
    """The cluster's kubeconfig with a token instead of the administrator's certificate."""
    told = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    told["users"] = [{"name": told["users"][0]["name"], "user": {"token": token}}]
    path.touch(mode=0o600)
    path.write_text(json.dumps(told))
    return path
