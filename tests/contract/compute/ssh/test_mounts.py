"""Directories on machines: the whole operator, real sshd, rclone over real FUSE, a gateway that comes and goes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from tests.contract.compute.ssh.harness import ADDRESSES
from tests.contract.compute.ssh.sshd import Sshd, running
from tests.contract.compute.ssh.test_cluster import SshLab
from tests.testbed import artifacts
from tests.unit.data.gateway_scene import Served, basic

from cloudmesh.api import conditions as c
from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.bootstrap import worker
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.ssh import SshPool, SshTarget
from cloudmesh.data import config as configs
from cloudmesh.data.clusters import read_guests
from cloudmesh.data.kinds import VIRTUAL_DIRECTORY
from cloudmesh.data.remote import Gateways
from cloudmesh.engine import SECRET, CloudmeshError, Engine, own

ROOT = Path(__file__).resolve().parents[4]
PATH = "/mnt/data"
# only sshd and what it starts sees what is mounted; rclone and fusermount3 come from the tests' own packages
PREPARE = """\
mount -t tmpfs none /mnt && mount -t tmpfs none /var/lib && mount -t tmpfs none /usr/local/bin &&
    cp {root}/usr/bin/rclone /usr/local/bin/ && cp {root}/bin/fusermount3 /usr/local/bin/ &&
    ln -s fusermount3 /usr/local/bin/fusermount || exit 71
"""


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    root, _ = artifacts.dav_clients()
    with running(("boss", "plain"), ADDRESSES[:2], roots=("boss",), prepare=PREPARE.format(root=root)) as found:
        yield found


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    monkeypatch.setattr(worker, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(worker, "LAST_WAIT", 1.0)


class MountLab(SshLab):
    """With a directory `lab`, whose gateway is told of clusters as its reconciler tells it."""

    def __init__(self, sshd: Sshd, served: Served) -> None:
        super().__init__(sshd)
        self.served = served
        self.ssh = SshPool()
        self.away = False

    def make_host(self, user: str, address: str) -> None:
        data = {"ssh-privatekey": self.sshd.client_key.encode(), "hosts": address.encode()}
        self.put_secret("rack", "kubernetes.io/ssh-auth", data)
        host = {
            "name": user, "address": address, "port": self.sshd.port, "user": user, "vcpu": "4", "memory": "8Gi",
            "hostKey": " ".join(self.sshd.host_key.split()[:2]), "zone": "rack",
        }  # fmt: skip
        self.put(CLOUD_ACCOUNT, "rack", spec={"ssh": {"hosts": [host]}, "credentials": {"secretRef": {"name": "rack"}}})

    def mount(self, *mounts: dict[str, object]) -> None:
        """Asks for a cluster with these mounts."""
        told = [{"directoryRef": {"name": "lab"}, "address": self.served.url} | mount for mount in mounts]
        spec = {"accounts": [{"name": "rack"}], **({"mounts": told} if told else {})}
        found = self.api.get(VIRTUAL_CLUSTER, "ns", "lab")
        if found is None:
            self.put(VIRTUAL_CLUSTER, "lab", spec=spec)
        else:
            self.api.put(VIRTUAL_CLUSTER, found | {"spec": spec})

    @property
    def mounted(self) -> tuple[str, str]:
        """Status and message of the condition Mounted."""
        found = c.find_condition(self.status(VIRTUAL_CLUSTER, "lab").get("conditions") or (), c.MOUNTED) or {}
        return found.get("status", ""), found.get("message", "")

    async def on_machine(self, command: str) -> tuple[int, str]:
        """Runs something there; gives its status and what it wrote."""
        target = SshTarget(
            ADDRESSES[0], self.sshd.port, "boss", self.sshd.client_key, (self.sshd.host_key,)
        )  # fmt: skip
        done = await self.ssh.run(target, ["sh", "-c", command])
        return done.status, (done.stdout + done.stderr).decode()

    @contextlib.asynccontextmanager
    async def directory(self, engine: Engine) -> AsyncIterator[None]:
        """The directory is there, and its gateway hears of clusters that mount it."""
        self.put(VIRTUAL_DIRECTORY, "lab", spec={"stores": [{"name": "one"}]})
        owner = self.api.get(VIRTUAL_DIRECTORY, "ns", "lab") or {}

        ended = asyncio.Event()

        async def follow() -> None:
            told = b""
            while not ended.is_set():
                auth = self.served.config.auth
                guests = await read_guests(engine, "ns", "lab")
                if guests != auth.guests and not self.away:
                    await asyncio.to_thread(self.served.reconfigure, auth=msgspec.structs.replace(auth, guests=guests))
                if told != (told := configs.dump(self.served.config)):
                    data = {"config.json": base64.b64encode(told).decode()}
                    self.api.put(SECRET, own({"metadata": {"name": "lab-vdir"}, "data": data}, owner))
                await asyncio.sleep(0.1)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            ended.set()
            await task
            await self.ssh.close()


async def test_a_directory_is_a_folder_of_the_machine_through_all_that_happens(sshd: Sshd, tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        lab = MountLab(sshd, served)
        vdir = served.vdir()
        vdir.write("raw/first.csv", b"1,2\n")
        lab.make_host("boss", ADDRESSES[0])
        async with lab.operator() as engine:
            engine.directories = Gateways(engine.kube, lambda namespace, name: served.url)
            await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "rack") == "True")
            lab.mount({"path": PATH})
            await lab.until(lambda: "VirtualDirectory 'lab' isn't there" in lab.told(VIRTUAL_CLUSTER, "lab"))
            (machine,) = [m["metadata"]["name"] for m in lab.api.all(VIRTUAL_MACHINE)]
            assert lab.mounted == ("False", f"{machine}: {PATH} isn't mounted: VirtualDirectory 'lab' isn't there")
            async with lab.directory(engine):
                await lab.until(lambda: lab.ready(VIRTUAL_CLUSTER, "lab") == "True")
                assert lab.mounted[0] == "True"
                await _read_and_write(lab)
                await _nobody_sees_the_password(lab)
                await _a_client_that_is_killed(lab, machine)
                await _a_mount_that_is_removed(lab)
                await _a_mount_that_may_write_no_more(lab)
                await _what_may_be_read_only(lab, machine)
                lab.api.remove(VIRTUAL_CLUSTER, "ns", "lab")
                await lab.until(lambda: not lab.api.all(VIRTUAL_MACHINE) and not lab.api.all(VIRTUAL_CLUSTER))
                assert await lab.on_machine(
                    "grep -c cloudmesh: /proc/self/mountinfo; ls /var/lib/cloudmesh/mounts"
                ) == (
                    0,
                    "0\nlock\n",
                )


async def _read_and_write(lab: MountLab) -> None:
    vdir = lab.served.vdir()
    assert await lab.on_machine(f"cat {PATH}/raw/first.csv; mkdir {PATH}/new; seq 100000 >{PATH}/new/seq; id -u") == (
        0,
        "1,2\n0\n",
    )
    numbers = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    await _until_read(lab, "new/seq", numbers)
    # what needs more than writing from beginning to end
    await lab.on_machine(f"echo more >>{PATH}/new/seq")
    await _until_read(lab, "new/seq", numbers + b"more\n")
    code = "import shutil; shutil.copy2('first.csv', 'part'); shutil.move('part', 'second.csv')"
    await lab.on_machine(f'mv {PATH}/new/seq {PATH}/new/moved; cd {PATH}/raw && python3 -c "{code}"; rm first.csv')
    await _until_read(lab, "raw/second.csv", b"1,2\n")
    assert [e["name"] for e in vdir.list("new")] == ["moved"]
    assert [e["name"] for e in vdir.list("raw")] == ["second.csv"]
    vdir.write("raw/others.txt", b"from outside")
    await _until_shown(lab, "raw/others.txt", "from outside")
    # nor does what was written here stand for what others wrote over it
    vdir.write("raw/second.csv", b"of somebody else")
    await _until_shown(lab, "raw/second.csv", "of somebody else")


async def _until_shown(lab: MountLab, path: str, content: str) -> None:
    """On the machine, after so long as it may believe what it knows; and nothing that never was there."""
    told = (0, "")
    for _ in range(100):
        told = await lab.on_machine(f"cat {PATH}/{path}")
        if told == (0, content):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(told)


async def _until_read(lab: MountLab, path: str, content: bytes) -> None:
    def holds() -> bool:
        with contextlib.suppress(CloudmeshError):  # it isn't there yet, or is written right now
            return bytes(lab.served.vdir().read(path)) == content
        return False

    await lab.until(holds)


def _logins(lab: MountLab) -> list[dict[str, str]]:
    secret = lab.api.get(SECRET, "ns", "lab-vc-mounts") or {}
    return [json.loads(base64.b64decode(text)) for text in (secret.get("data") or {}).values()]


def _login(lab: MountLab) -> dict[str, str]:
    (login,) = _logins(lab)
    return login


async def _nobody_sees_the_password(lab: MountLab) -> None:
    password = _login(lab)["password"]
    _, shown = await lab.on_machine("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '")
    assert "rclone mount2" in shown
    assert password not in shown
    assert password not in repr(lab.status(VIRTUAL_CLUSTER, "lab"))
    files = "/var/lib/cloudmesh/mounts/*/*/rclone.conf"
    assert (await lab.on_machine(f"stat -c '%U %a' {files} /var/lib/cloudmesh/mounts"))[1] == "root 600\nroot 700\n"
    assert (await lab.on_machine(f"stat -c '%u %a' {PATH}"))[1] == "0 700\n"


async def _a_client_that_is_killed(lab: MountLab, machine: str) -> None:
    """While the gateway is away: what was written is sent when both are back."""
    await asyncio.to_thread(lab.served.stop)
    await lab.on_machine(f"echo late >{PATH}/late.txt")
    await lab.until(lambda: lab.mounted[0] == "False")
    assert lab.mounted[1].startswith(f"{machine}: {PATH}: ")
    assert lab.ready(VIRTUAL_CLUSTER, "lab") == "False"
    await asyncio.to_thread(lab.served.start)
    await lab.until(lambda: lab.mounted[0] == "True")
    assert (
        await lab.on_machine(
            f"echo written >{PATH}/kept.txt; kill -9 $(cat /var/lib/cloudmesh/mounts/*/*/pid); cat {PATH}/kept.txt"
        )
    )[0] != 0
    await _until_read(lab, "kept.txt", b"written\n")
    await lab.until(lambda: lab.mounted[0] == "True")
    await _until_shown(lab, "kept.txt", "written\n")
    await _until_shown(lab, "late.txt", "late\n")


async def _a_mount_that_is_removed(lab: MountLab) -> None:
    login = _login(lab)
    shown = {"Authorization": basic(login["login"], login["password"])}
    assert lab.served.ask("GET", "/v1/list/", headers=shown).status == 200
    # somebody has a file of it open
    await lab.on_machine(f"cd {PATH} && nohup sleep 8 >/dev/null 2>&1 </dev/null & echo last >{PATH}/last.txt")
    lab.mount()
    await lab.until(lambda: lab.mounted == ("", "") and not _logins(lab), seconds=90)
    assert lab.served.vdir().read("last.txt") == b"last\n"
    assert (await lab.on_machine(f"grep -c cloudmesh: /proc/self/mountinfo; ls -d {PATH}"))[1].startswith("0\nls: ")
    await lab.until(lambda: lab.served.ask("GET", "/v1/list/", headers=shown).status == 401)


async def _a_mount_that_may_write_no_more(lab: MountLab) -> None:
    """What was written before that gets in with the right that it was written by."""
    lab.mount({"path": PATH})
    await lab.until(lambda: lab.mounted[0] == "True")
    lab.away = True
    await asyncio.to_thread(lab.served.stop)
    await lab.on_machine(f"echo unsent >{PATH}/unsent.txt")
    lab.mount({"path": PATH, "access": "ReadOnly"})
    await lab.until(lambda: lab.mounted[0] == "False" and len(_logins(lab)) == 2)
    await asyncio.to_thread(lab.served.start)
    lab.away = False
    await lab.until(lambda: lab.mounted[0] == "True" and len(_logins(lab)) == 1, seconds=90)
    assert lab.served.vdir().read("unsent.txt") == b"unsent\n"
    assert _login(lab)["access"] == "ReadOnly"
    assert await lab.on_machine(f"cat {PATH}/unsent.txt && ! touch {PATH}/more 2>/dev/null") == (0, "unsent\n")
    lab.mount()
    await lab.until(lambda: lab.mounted == ("", "") and not _logins(lab), seconds=90)


async def _what_may_be_read_only(lab: MountLab, machine: str) -> None:
    lab.served.vdir().write("secret.txt", b"not for machines")
    lab.mount({"path": PATH, "subPath": "raw/x y", "access": "ReadOnly"})
    await lab.until(lambda: lab.mounted[0] == "False" and "has no folder" in lab.mounted[1])
    lab.served.vdir().write("raw/x y/data", b"for them")
    await lab.until(lambda: lab.mounted[0] == "True")
    assert await lab.on_machine(f"cd {PATH} && ls && cat data && ! echo no >data") == (
        0,
        "data\nfor themsh: 1: cannot create data: Read-only file system\n",
    )
    login = _login(lab)
    shown = {"Authorization": basic(login["login"], login["password"])}
    for method, path, status in (
        ("GET", "/v1/files/raw/x%20y/data", 200),
        ("PUT", "/v1/files/raw/x%20y/data", 403),
        ("DELETE", "/dav/raw/x%20y/data", 403),
        ("GET", "/v1/files/secret.txt", 403),
        ("PROPFIND", "/dav/", 403),
    ):
        answer = lab.served.ask(method, path, headers=shown, body=b"" if method == "PUT" else None)
        assert answer.status == status, (method, path, answer.body)


async def test_a_login_that_is_not_root_is_told_what_a_mount_needs(sshd: Sshd, tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        lab = MountLab(sshd, served)
        lab.make_host("plain", ADDRESSES[1])
        async with lab.operator() as engine:
            engine.directories = Gateways(engine.kube, lambda namespace, name: served.url)
            async with lab.directory(engine):
                await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "rack") == "True")
                lab.mount({"path": PATH})
                await lab.until(lambda: "isn't root" in lab.mounted[1])
                assert "vdir://" in lab.told(VIRTUAL_CLUSTER, "lab")
                lab.mount()
                await lab.until(lambda: lab.ready(VIRTUAL_CLUSTER, "lab") == "True" and lab.mounted == ("", ""))
                await lab.until(lambda: not _logins(lab))


async def test_the_page_and_its_example_are_followed(sshd: Sshd, tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/mount-a-directory-on-machines.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    example = yaml.safe_load((ROOT / "manifests/examples/clusters/mounts.yaml").read_text())
    assert yaml.safe_load(text) == example
    spec = VirtualCluster.model_validate(example, extra="forbid").spec
    with Served(tmp_path) as served:
        served.vdir().write("raw/2024/a.csv", b"1\n")
        lab = MountLab(sshd, served)
        lab.make_host("boss", ADDRESSES[0])
        async with lab.operator() as engine:
            engine.directories = Gateways(engine.kube, lambda namespace, name: served.url)
            async with lab.directory(engine):
                await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "rack") == "True")
                lab.mount(
                    *(m.to_dict() | {"path": f"/mnt{m.path}", "directoryRef": {"name": "lab"}, "address": served.url}
                      for m in spec.mounts)
                )  # fmt: skip
                await lab.until(lambda: lab.mounted[0] == "True" and lab.ready(VIRTUAL_CLUSTER, "lab") == "True")
                told = await lab.on_machine("ls /mnt/data/raw /mnt/inputs; touch /mnt/inputs/b 2>/dev/null || echo no")
                assert told == (0, "/mnt/data/raw:\n2024\n\n/mnt/inputs:\na.csv\nno\n")
                lab.api.remove(VIRTUAL_CLUSTER, "ns", "lab")
                await lab.until(lambda: not lab.api.all(VIRTUAL_MACHINE) and not lab.api.all(VIRTUAL_CLUSTER))
                assert (await lab.on_machine("grep -c cloudmesh: /proc/self/mountinfo; ls /mnt"))[1] == "0\n"
