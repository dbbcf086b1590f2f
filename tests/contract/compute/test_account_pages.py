"""The pages of accounts outside of the cluster: their objects are used as they stand, with the reader's own values."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.contract.compute.emulator import moto_server
from tests.contract.compute.ssh.harness import ADDRESSES, USERS
from tests.contract.compute.ssh.sshd import running
from tests.e2e.test_docs import FENCE

from cloudmesh.compute.__main__ import main

Obj = dict[str, Any]
PAGES = Path(__file__).resolve().parents[3] / "docs/reference"
IMAGE = "ami-12c6146b"
"""One that the emulator has."""


class Reader:
    """Follows a page by the command without a cluster."""

    def __init__(self, page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.blocks = [(block[1], block[2]) for block in FENCE.finditer((PAGES / page).read_text())]
        self._file = folder / "files.yaml"
        self._capsys = capsys

    def objects(self) -> dict[str, Obj]:
        """All objects of the page, by kind."""
        texts = [text for language, text in self.blocks if language == "yaml"]
        return {obj["kind"]: obj for text in texts for obj in yaml.safe_load_all(text)}

    def save(self, *objects: Obj) -> None:
        self._file.write_text(yaml.safe_dump_all(objects))

    def run(self, verb: str) -> list[Obj]:
        """What the command says of the file; it must end well."""
        code = main([verb, "-o", "json", str(self._file)])
        told = self._capsys.readouterr()
        assert code == 0, told
        found: list[Obj] = json.loads(told.out)
        return found


@pytest.fixture(autouse=True)
def _on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")


def cluster(**machine: Any) -> Obj:
    pool = {"name": "workers", "alternatives": [{"name": "any", "machine": machine}]}
    body = {"replicas": 1, "accounts": [{"name": "rack"}], "pools": [pool]}
    return {
        "apiVersion": "cloudmesh.org/v1alpha1", "kind": "VirtualCluster", "metadata": {"name": "lab"}, "spec": body,
    }  # fmt: skip


def test_the_page_of_hosts_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = Reader("account-ssh.md", tmp_path, capsys)
    objects = reader.objects()
    secret, hosts = objects["Secret"]["stringData"], objects["CloudAccount"]["spec"]["ssh"]["hosts"]
    assert secret["hosts"].split() == [host["address"] for host in hosts]
    with running(USERS, ADDRESSES) as sshd:
        key = " ".join(sshd.host_key.split()[:2])
        for host, user, address in zip(hosts, USERS, ADDRESSES, strict=False):
            host |= {"address": address, "user": user, "hostKey": key, "port": sshd.port}
        secret |= {"ssh-privatekey": sshd.client_key, "hosts": "\n".join(ADDRESSES)}
        reader.save(*objects.values(), cluster(type="node1"))
        assert {row["state"] for row in reader.run("check")} == {"ok"}
        offers = {row["type"]: row for row in reader.run("offers")}
        (plan,) = reader.run("plan")
    assert {name: (o["vcpu"], o["memory"]) for name, o in offers.items()} == {
        "node1": ("16", "64Gi"), "node2": ("4", "16Gi"),
    }, "slots share a host evenly"  # fmt: skip
    assert {(o["hourly"], o["source"]) for o in offers.values()} == {("0", "PriceSheet/rack")}
    assert [(machine["account"], machine["type"]) for machine in plan["machines"]] == [("rack", "node1")]


def test_the_page_of_ec2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = Reader("account-aws.md", tmp_path, capsys)
    account = reader.objects()["CloudAccount"]
    [(_, command)] = [block for block in reader.blocks if block[0] == "sh"]
    _, *words = shlex.split(command.replace("\\\n", ""))
    assert words[:4] == ["create", "secret", "generic", account["spec"]["credentials"]["secretRef"]["name"]]
    options = [word.removeprefix("--").split("=", 1) for word in words[4:]]
    data = dict(value.split("=", 1) for name, value in options if name == "from-literal")
    assert set(data.values()) == {"AKIA…", "…"}
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"}, "type": dict(options)["type"],
        "stringData": dict.fromkeys(data, "AKIATEST") | {"hosts": "127.0.0.1"},
    }  # fmt: skip
    spec = account["spec"]
    assert all(re.fullmatch(r"ami-[0-9a-f]{17}", image) for image in spec["images"].values())
    with moto_server() as url:
        spec["aws"]["endpoint"], spec["images"] = url, dict.fromkeys(spec["images"], IMAGE)
        reader.save(secret, account)
        findings = reader.run("check")
        offers = reader.run("offers")
    states = {row["subject"]: row["state"] for row in findings}
    assert states["credentials"] == states["RunInstances"] == "ok"
    assert set(states.values()) <= {"ok", "unknown"}, "the emulator tries not all calls without a machine"
    assert {row["type"] for row in offers} == set(spec["aws"]["instanceTypes"])
    assert {row["region"] for row in offers} == {spec["aws"]["region"]}
