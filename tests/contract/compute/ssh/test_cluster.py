"""The whole operator on hosts of one's own: account, cluster, job and end; real sshd, an API server in memory."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.contract.compute.lab import Lab
from tests.contract.compute.ssh.harness import ADDRESSES, USERS
from tests.contract.compute.ssh.sshd import Sshd, running
from tests.unit.data.gateway_scene import Served

from cloudmesh.compute.bootstrap.shared import bootstrap_of, ssh_of
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, CLUSTER_JOB, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.data import config as configs
from cloudmesh.data.kinds import VIRTUAL_DIRECTORY
from cloudmesh.data.remote import Gateways
from cloudmesh.engine import CONFIG_MAP, SECRET, Engine, Settings, own
from cloudmesh.operator import load

WING = (
    "cloudmesh.compute.account_controller:reconciler",
    "cloudmesh.compute.machine_controller:reconciler",
    "cloudmesh.compute.cluster_controller:reconciler",
    "cloudmesh.compute.jobs.controller:reconciler",
    "cloudmesh.compute.choices:price_sheets",
)


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    with running(USERS, ADDRESSES) as found:
        yield found


class SshLab(Lab):
    """With hosts of one's own."""

    def __init__(self, sshd: Sshd) -> None:
        super().__init__()
        self.sshd = sshd

    def make_account(self) -> None:
        data = {"ssh-privatekey": self.sshd.client_key.encode(), "hosts": "\n".join(ADDRESSES).encode()}
        self.put_secret("rack", "kubernetes.io/ssh-auth", data)
        hosts = [
            {
                "name": user, "address": address, "port": self.sshd.port, "user": user, "vcpu": "4", "memory": "8Gi",
                "hostKey": " ".join(self.sshd.host_key.split()[:2]), "zone": "rack",
            }
            for user, address in zip(USERS, ADDRESSES, strict=True)
        ]  # fmt: skip
        spec = {"ssh": {"hosts": hosts}, "credentials": {"secretRef": {"name": "rack"}}}
        self.put(CLOUD_ACCOUNT, "rack", spec=spec)

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Engine]:
        settings = Settings("cloudmesh-system")
        makers = [lambda engine, make=make: make(engine, settings) for make in load(WING)]
        async with self.world.engine(*makers) as engine:
            try:
                yield engine
            finally:
                await bootstrap_of(engine).close()
                await ssh_of(engine).close()  # type: ignore[attr-defined]


async def test_hosts_become_a_cluster_run_a_job_and_are_given_back(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    lab = SshLab(sshd)
    keys = {user: (sshd.home(user) / ".ssh/authorized_keys").read_text() for user in USERS}
    lab.make_account()
    async with lab.operator():
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "rack") == "True")
        lab.put(VIRTUAL_CLUSTER, "lab", spec={"accounts": [{"name": "rack"}], "replicas": 2})
        await lab.until(lambda: lab.ready(VIRTUAL_CLUSTER, "lab") == "True")
        machines = lab.api.all(VIRTUAL_MACHINE)
        assert len({m["status"]["sshHost"] for m in machines}) == 2
        code = "echo $1 by $(whoami); cat data"
        lab.put(CONFIG_MAP, "code", data={"run.sh": code, "data": "from the map\n"})
        lab.put(
            CLUSTER_JOB, "sweep",
            spec={
                "clusterRef": {"name": "lab"}, "command": ["sh", "run.sh"], "arguments": ["x=[1-4]"],
                "files": {"workdir": {"configMapRef": {"name": "code"}}},
            },
        )  # fmt: skip
        await lab.until(lambda: lab.status(CLUSTER_JOB, "sweep").get("endedAt"))
        status = lab.status(CLUSTER_JOB, "sweep")
        assert status["counts"]["done"] == 4
        hosts = {m["metadata"]["name"]: m["spec"]["offer"]["type"] for m in machines}
        logs = (lab.api.get(CONFIG_MAP, "ns", "sweep-logs-0") or {})["data"]
        for run in status["runs"]:
            assert logs[run["name"]] == f"x={run['index'] + 1} by {hosts[run['node']]}\nfrom the map\n"
        lab.api.remove(CLUSTER_JOB, "ns", "sweep")
        lab.api.remove(VIRTUAL_CLUSTER, "ns", "lab")
        await lab.until(lambda: not lab.api.all(VIRTUAL_MACHINE) and not lab.api.all(VIRTUAL_CLUSTER))
        for user in USERS:
            assert (sshd.home(user) / ".ssh/authorized_keys").read_text() == keys[user]
            assert not list((sshd.home(user) / ".cloudmesh/machines").glob("*/cm-*"))


async def test_files_of_a_directory_come_to_the_machines_and_results_go_into_it(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    lab = SshLab(sshd)
    lab.make_account()
    large = os.urandom(3_000_001)
    with Served(tmp_path) as served:
        vdir = served.vdir()
        vdir.write("raw/a.csv", b"1,2\n")
        vdir.write("raw/deep/größe 2.bin", large)
        vdir.write("raw/empty", b"")
        vdir.write("elsewhere", b"not for the job")
        async with lab.operator() as engine:
            engine.directories = Gateways(engine.kube, lambda namespace, name: served.url)
            await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "rack") == "True")
            lab.put(VIRTUAL_CLUSTER, "lab", spec={"accounts": [{"name": "rack"}], "replicas": 2})
            files = {"workdir": {"configMapRef": {"name": "code"}}, "directory": {"name": "lab", "path": "raw"}}
            outputs = {"paths": ["out-*", "small", "none"], "directoryRef": {"name": "lab"}, "path": "results"}
            code = 'find . -type f ! -path "./cm-*" | sort; cp "deep/größe 2.bin" "out-$1"; head -c 5 a.csv > small'
            lab.put(CONFIG_MAP, "code", data={"run.sh": code})
            lab.put(
                CLUSTER_JOB, "sweep",
                spec={
                    "clusterRef": {"name": "lab"}, "command": ["sh", "run.sh"], "arguments": ["[1-2]"],
                    "files": files, "outputs": outputs,
                },
            )  # fmt: skip
            await lab.until(lambda: "VirtualDirectory 'lab' isn't there" in lab.told(CLUSTER_JOB, "sweep"))
            lab.put(VIRTUAL_DIRECTORY, "lab", spec={"stores": [{"name": "one"}]})
            owner = lab.api.get(VIRTUAL_DIRECTORY, "ns", "lab") or {}
            config = base64.b64encode(configs.dump(served.config)).decode()
            secret = {"metadata": {"name": "lab-vdir"}, "data": {"config.json": config}}
            lab.api.put(SECRET, own(secret, owner))
            await lab.until(lambda: lab.status(CLUSTER_JOB, "sweep").get("endedAt"))
            status = lab.status(CLUSTER_JOB, "sweep")
            assert status["counts"]["done"] == 2, status
            logs = (lab.api.get(CONFIG_MAP, "ns", "sweep-logs-0") or {})["data"]
            for run in status["runs"]:
                assert logs[run["name"]].splitlines() == ["./a.csv", "./deep/größe 2.bin", "./empty", "./run.sh"]
                assert run["outputPath"] == f"results/{run['name']}"
                assert run["message"] == "no file matches `outputs.paths`: none"
                assert vdir.read(f"results/{run['name']}/out-{run['index'] + 1}") == large
                assert vdir.read(f"results/{run['name']}/small") == b"1,2\n"
            assert not lab.api.get(CONFIG_MAP, "ns", "sweep-output-0")
