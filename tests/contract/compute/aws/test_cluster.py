"""The whole operator on EC2: account, cluster, faults, a new leader, end; moto behind the fault proxy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.contract.compute.aws.test_provider import CREDENTIALS, IMAGE, context
from tests.contract.compute.lab import Lab

from cloudmesh.api import names
from cloudmesh.compute import account_controller, budgets, choices
from cloudmesh.compute.accounts import shared
from cloudmesh.compute.cluster_controller import ClusterReconciler
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_controller import MachineReconciler
from cloudmesh.compute.probes import Probes
from cloudmesh.compute.providers.aws import make
from cloudmesh.compute.providers.aws.core import AwsCore
from cloudmesh.engine import Engine, Settings
from cloudmesh.engine.reconciler import Reconciler
from cloudmesh.testing.proxy import FaultProxy

SETTINGS = Settings("cloudmesh-system")


async def answers(host: str, port: int) -> str:
    """The emulator's machines have addresses of the world outside: nobody may try them."""
    return ""


class AwsLab(Lab):
    """With an account of the emulator."""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__()
        self.proxy = proxy
        self.put_secret("aws", names.SECRET_TYPE_CREDENTIALS, CREDENTIALS)
        spec = {
            "aws": {"region": "us-east-1", "endpoint": proxy.url, "instanceTypes": ["t3.micro", "m5.large"]},
            "credentials": {"secretRef": {"name": "aws"}},
            "images": {"debian": IMAGE},
        }
        self.put(CLOUD_ACCOUNT, "aws", spec=spec)

    def make_cluster(self, **pool: Any) -> None:
        machine = {"vcpu": {"min": "1"}}
        any_ = {"name": "any", "machine": machine}
        workers = {"name": "workers", "image": {"name": "debian"}, "alternatives": [any_], **pool}
        spec = {"accounts": [{"name": "aws"}], "replicas": 3, "pools": [workers]}
        self.put(VIRTUAL_CLUSTER, "lab", spec=spec)

    def findings(self) -> dict[str, str]:
        return {f["subject"]: f["result"] for f in self.status(CLOUD_ACCOUNT, "aws").get("findings") or ()}

    def is_ready(self) -> bool:
        status = self.status(VIRTUAL_CLUSTER, "lab")
        wanted = (self.api.get(VIRTUAL_CLUSTER, "ns", "lab") or {})["spec"]["replicas"]
        return self.ready(VIRTUAL_CLUSTER, "lab") == "True" and status.get("machines") == wanted

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Engine]:
        def machines(engine: Engine) -> Reconciler:
            return MachineReconciler(engine, shared(engine), probes=Probes(engine.enqueue, answers))

        def clusters(engine: Engine) -> Reconciler:
            return ClusterReconciler(engine, shared(engine), budgets.shared(engine))

        async with self.world.engine(
            lambda engine: account_controller.reconciler(engine, SETTINGS), machines, clusters,
            lambda engine: choices.price_sheets(engine, SETTINGS),
        ) as engine:  # fmt: skip
            yield engine

    async def pages(self, operation: str, key: str) -> list[dict[str, Any]]:
        provider: Any = make(context(self.proxy))
        try:
            found: list[dict[str, Any]] = await provider.session.pages(operation, key)
        finally:
            await provider.close()
        return found

    async def groups(self) -> list[str]:
        """Names of security groups that were made."""
        groups = await self.pages("describe_security_groups", "SecurityGroups")
        return [group["GroupName"] for group in groups if group["GroupName"] != "default"]

    async def living(self) -> list[dict[str, Any]]:
        """Instances that have not ended."""
        reservations = await self.pages("describe_instances", "Reservations")
        instances = [i for r in reservations for i in r["Instances"]]
        return [i for i in instances if i["State"]["Name"] not in ("terminated", "shutting-down")]


@pytest.fixture
def lab(aws: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> AwsLab:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    return AwsLab(aws)


async def test_instances_become_a_cluster_and_end_with_it(lab: AwsLab, aws: FaultProxy) -> None:
    aws.add("cut_after", "RunInstances", times=2)  # made, and the answer lost
    lab.make_cluster()
    async with lab.operator():
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "aws") == "True")
        await lab.until(lab.is_ready)
        names = {m["metadata"]["name"] for m in lab.api.all(VIRTUAL_MACHINE)}
        assert len(names) == len(await lab.living()) == 3
        lost = (await lab.living())[0]["InstanceId"]
        provider: Any = make(context(aws))
        await provider.session.call("terminate_instances", "", InstanceIds=[lost])  # behind the operator's back
        await provider.close()
        await lab.until(lambda: not lab.is_ready(), 90)
        await lab.until(lab.is_ready, 90)
        living = await lab.living()
        assert len(living) == 3
        assert lost not in {i["InstanceId"] for i in living}
    obj = lab.api.get(VIRTUAL_CLUSTER, "ns", "lab") or {}
    lab.api.put(VIRTUAL_CLUSTER, obj | {"spec": obj["spec"] | {"replicas": 1}})
    async with lab.operator():  # another leader
        await lab.until(lambda: lab.is_ready() and len(lab.api.all(VIRTUAL_MACHINE)) == 1)  # the others are seen gone
        assert len(await lab.living()) == 1
        assert len(await lab.groups()) == 1
        lab.api.remove(VIRTUAL_CLUSTER, "ns", "lab")
        await lab.until(lambda: not lab.api.all(VIRTUAL_MACHINE) and not lab.api.all(VIRTUAL_CLUSTER), 90)
    assert not await lab.living()
    assert not await lab.groups()
    assert not aws.dialect.invalid  # type: ignore[attr-defined]


async def test_spot_above_a_base_on_demand(lab: AwsLab) -> None:
    lab.make_cluster(purchase={"aboveBase": "SpotWithFallback", "baseOnDemand": 1})
    async with lab.operator():
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "aws") == "True")
        await lab.until(lab.is_ready)
    living = await lab.living()
    assert sorted(i.get("InstanceLifecycle", "") for i in living) == ["", "spot", "spot"]


async def test_what_may_be_done_to_machines_is_found_out_with_the_first(
    lab: AwsLab, aws: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = AwsCore.__init__

    def trusted(self: AwsCore, *arguments: Any, **options: Any) -> None:
        plain(self, *arguments, **options)
        self.trusted = True  # as AWS's own endpoint is

    monkeypatch.setattr(AwsCore, "__init__", trusted)
    aws.add(
        "answer", "TerminateInstances", status=403, code="UnauthorizedOperation", message="You are not authorized",
        times=None,
    )  # fmt: skip
    async with lab.operator():
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "aws") == "True")
        assert lab.findings()["TerminateInstances"] == "Unknown"
        assert "not known yet" in lab.told(CLOUD_ACCOUNT, "aws")
        lab.make_cluster()
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "aws") == "False", 90)
        assert lab.findings()["TerminateInstances"] == "Failed"
        assert "grant ec2:TerminateInstances" in lab.told(CLOUD_ACCOUNT, "aws")
    assert not [c for c, _ in aws.calls if c.operation == "TerminateInstances" and not c.parameters.get("DryRun")]
    assert await lab.living()
