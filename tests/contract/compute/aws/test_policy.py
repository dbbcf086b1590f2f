"""The policy of the account's page suffices for all that is done, and for nothing that isn't ours."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from tests.contract.compute.aws.harness import AwsHarness
from tests.contract.compute.aws.policy import Guarded, read_page
from tests.contract.compute.aws.test_cluster import AwsLab
from tests.contract.compute.aws.test_provider import IMAGE, SCOPE, context, spec_of

from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.ports import ClusterSpec
from cloudmesh.compute.providers.aws import AwsProvider, make
from cloudmesh.compute.providers.aws.check import CHANGES, PUBLIC_KEY
from cloudmesh.compute.providers.aws.errors import Denied
from cloudmesh.compute.providers.aws.powers.base import token_tags
from cloudmesh.compute.tokens import Scope
from cloudmesh.testing.providers import CASES, run_case
from cloudmesh.testing.proxy import FaultProxy

CHOSEN = (
    "create/one", "create/tags", "delete/ends", "delete/twice", "delete/unknown", "delete/other-installation",
    "check/good",
    "groundwork/twice", "groundwork/machine", "groundwork/held", "groundwork/changed", "security-groups/rules",
    "key-pairs/round-trip", "addresses/round-trip", "volumes/round-trip", "start-stop/round-trip", "reboot/boot-id",
    "resize/round-trip", "rename/found", "console/text", "metadata/round-trip", "adopt/round-trip", "images/listed",
    "networks/listed", "identity/stable",
)  # fmt: skip


class GuardedHarness(AwsHarness):
    """EC2 that allows what the page allows."""

    guarded: Guarded

    async def open(self, scope: Scope) -> None:
        await super().open(scope)
        self.guarded = Guarded(self._moto, [*itertools.chain(*read_page(scope.namespace, scope.account))])
        self.guarded.guard(self.proxy)

    async def heal(self) -> None:
        await super().heal()
        self.guarded.guard(self.proxy)


@pytest.fixture(scope="module")
def harness(moto: str) -> Iterator[tuple[GuardedHarness, asyncio.Runner]]:
    with asyncio.Runner() as runner:
        yield GuardedHarness(moto), runner


@pytest.mark.parametrize("case", CHOSEN)
def test_it_suffices(harness: tuple[GuardedHarness, asyncio.Runner], case: str) -> None:
    guarded, runner = harness
    result = runner.run(run_case(guarded, CASES[case]))
    assert result.outcome == "pass", f"{result.reason}\n{result.trace}"
    assert guarded.guarded.refused == []


async def test_a_whole_cluster_needs_no_more(moto: str, aws: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    lab = AwsLab(aws)
    guarded = Guarded(moto, read_page("ns", "aws")[0])
    guarded.guard(aws)
    lab.make_cluster(purchase={"aboveBase": "SpotWithFallback", "baseOnDemand": 1})
    async with lab.operator():
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "aws") == "True")
        await lab.until(lab.is_ready)
        assert len(await lab.living()) == 3
        lab.api.remove(VIRTUAL_CLUSTER, "ns", "lab")
        await lab.until(lambda: not lab.api.all(VIRTUAL_MACHINE) and not lab.api.all(VIRTUAL_CLUSTER), 90)
    assert not await lab.living()
    assert not await lab.groups()
    assert guarded.refused == []


@pytest_asyncio.fixture
async def ec2(moto: str, aws: FaultProxy) -> AsyncIterator[AwsProvider]:
    """A key that has the policy, and things of somebody else."""
    provider = make(context(aws))
    assert isinstance(provider, AwsProvider)
    yield provider
    await provider.close()


async def test_it_allows_nothing_to_what_is_not_ours(moto: str, aws: FaultProxy, ec2: AwsProvider) -> None:
    other = Scope(SCOPE.installation, SCOPE.namespace, "another")
    theirs = await ec2.ensure_node(dataclasses.replace(await spec_of(ec2, "theirs"), scope=other))
    await ec2.prepare(ClusterSpec(other, "lab", "their-uid"))
    group = next(g["id"] for g in await ec2.list_security_groups() if g["name"].startswith("cloudmesh-lab"))
    volume = await ec2.ensure_volume("their-volume", 1, "us-east-1a", other.tags())
    address = await ec2.allocate_address("their-address", other.tags())
    await ec2.import_key_pair("their-key", PUBLIC_KEY.decode(), other.tags())
    statements = read_page(SCOPE.namespace, SCOPE.account)
    Guarded(moto, statements[0]).guard(aws)
    ours = ec2.session.call
    one = {"InstanceIds": [theirs.id]}
    tags = [{"Key": key, "Value": value} for key, value in SCOPE.tags().items()]
    run = {"ImageId": IMAGE, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    rules = {"GroupId": group, "IpPermissions": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}
    tried: list[tuple[str, dict[str, Any]]] = [
        ("terminate_instances", one), ("stop_instances", one), ("start_instances", one), ("reboot_instances", one),
        ("modify_instance_attribute", {"InstanceId": theirs.id, "InstanceType": {"Value": "m5.large"}}),
        ("get_console_output", {"InstanceId": theirs.id}),
        ("create_tags", {"Resources": [theirs.id], "Tags": tags}),
        ("delete_tags", {"Resources": [theirs.id], "Tags": [{"Key": "Name"}]}),
        ("authorize_security_group_ingress", rules), ("revoke_security_group_ingress", rules),
        ("delete_security_group", {"GroupId": group}), ("delete_volume", {"VolumeId": volume}),
        ("attach_volume", {"VolumeId": volume, "InstanceId": theirs.id, "Device": "/dev/sdz"}),
        ("detach_volume", {"VolumeId": volume, "InstanceId": theirs.id}),
        ("associate_address", {"AllocationId": address, "InstanceId": theirs.id}),
        ("release_address", {"AllocationId": address}), ("delete_key_pair", {"KeyName": "their-key"}),
        # without our tags
        ("run_instances", run),
        ("run_instances", run | {"TagSpecifications": token_tags(other.tags(), "instance")}),
        ("create_volume", {"Size": 1, "AvailabilityZone": "us-east-1a"}),
        ("create_security_group", {"GroupName": "mine", "Description": "d"}), ("allocate_address", {"Domain": "vpc"}),
        ("import_key_pair", {"KeyName": "mine", "PublicKeyMaterial": PUBLIC_KEY}),
    ]  # fmt: skip
    for operation, parameters in tried:
        with pytest.raises(Denied, match=operation):
            await ours(operation, **parameters)
    changes = {trial.operation for trial in CHANGES}
    assert changes - {operation for operation, _ in tried} == {"disassociate_address"}
    # with the second policy of the page a machine can be taken over
    aws.clear()
    Guarded(moto, statements[0] + statements[1]).guard(aws)
    await ours("create_tags", Resources=[theirs.id], Tags=tags)
    await ours("stop_instances", **one)
