"""What a check of an account says of each call: allowed, refused, or not known."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.contract.compute.aws.test_provider import CREDENTIALS, IMAGE, SCOPE, context, spec_of

from cloudmesh.compute.ports import ClusterSpec, Finding
from cloudmesh.compute.providers.aws import AwsProvider, make
from cloudmesh.compute.providers.aws.check import CHANGES, LOOKS, NOBODY, Trial
from cloudmesh.engine import AuthFailed
from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.query import service_model

OF_THINGS = [trial for trial in CHANGES if trial.subject in ("instance", "group", "other")]
MAKES = [trial for trial in CHANGES if trial not in OF_THINGS]
OF_OURS = [trial for trial in CHANGES if trial.subject in ("instance", "group")]


def provider(aws: FaultProxy, **spec: Any) -> AwsProvider:
    told = dataclasses.replace(
        context(aws, **spec), images={"debian": IMAGE}, installation=SCOPE.installation, credentials=CREDENTIALS
    )
    made = make(told)
    assert isinstance(made, AwsProvider)
    return made


async def check(ec2: AwsProvider) -> dict[str, Finding]:
    found = [finding for finding in await ec2.check() if finding.subject != "images"]  # see test_images.py
    assert len({finding.subject for finding in found}) == len(found) == 1 + len(LOOKS) + len(CHANGES)
    return {finding.subject: finding for finding in found}


def refuse(aws: FaultProxy, trial: Trial, code: str = "UnauthorizedOperation", **rule: Any) -> None:
    aws.add("answer", trial.name, status=403, code=code, message="You are not authorized", times=None, **rule)


@pytest.mark.parametrize("trial", [*LOOKS, *CHANGES], ids=lambda trial: trial.name)
def test_each_call_that_changes_something_has_a_dry_run(trial: Trial) -> None:
    assert "DryRun" in service_model("ec2").operation_model(trial.name).input_shape.members


async def test_what_passes_is_allowed_and_nothing_is_made(aws: FaultProxy) -> None:
    ec2 = provider(aws)
    before = await world(ec2)
    findings = await check(ec2)
    assert await world(ec2) == before
    for trial in [*LOOKS, *MAKES]:
        finding = findings[trial.name]
        assert (finding.ok, finding.known) == (True, True), finding.message
        assert finding.message == f"allowed: {trial.needed}"
    sent = {call.operation: call.parameters for call, _ in aws.calls}
    for trial in CHANGES:
        assert sent[trial.name]["DryRun"] is True
    # as a machine's own call has them: a policy bound to tags allows it with these only
    told = sent["RunInstances"]["TagSpecifications"]
    assert {spec["ResourceType"] for spec in told} == {"instance", "volume"}
    assert {tag["Key"]: tag["Value"] for tag in told[0]["Tags"]} == SCOPE.tags()
    assert not aws.dialect.invalid  # type: ignore[attr-defined]
    await ec2.close()


async def world(ec2: AwsProvider) -> list[int]:
    return [
        len(await ec2.session.pages(operation, key))
        for operation, key in (
            ("describe_instances", "Reservations"),
            ("describe_volumes", "Volumes"),
            ("describe_addresses", "Addresses"),
            ("describe_key_pairs", "KeyPairs"),
            ("describe_security_groups", "SecurityGroups"),
        )
    ]


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "AccessDenied"])
async def test_a_refusal_names_the_permission_that_lacks(aws: FaultProxy, code: str) -> None:
    ec2 = provider(aws)
    ec2.trusted = True  # as AWS's own endpoint is
    for trial in [*LOOKS, *MAKES]:
        refuse(aws, trial, code)
    findings = await check(ec2)
    for trial in [*LOOKS, *MAKES]:
        finding = findings[trial.name]
        assert finding.failed
        assert finding.fatal is trial.vital
        assert f"grant ec2:{trial.name}, needed to {trial.needed}" in finding.message
    assert findings["RunInstances"].fatal
    assert not findings["ImportKeyPair"].fatal
    await ec2.close()


async def test_a_refusal_about_nobodys_things_proves_nothing(aws: FaultProxy) -> None:
    ec2 = provider(aws)
    for trial in OF_THINGS:
        refuse(aws, trial)
    findings = await check(ec2)
    for trial in OF_THINGS:
        finding = findings[trial.name]
        assert (finding.ok, finding.known, finding.failed) == (False, False, False)
        assert "not known" in finding.message
        assert "UnauthorizedOperation" in finding.message
    await ec2.close()


async def test_a_refusal_about_things_of_ours_is_one(aws: FaultProxy) -> None:
    ec2 = provider(aws)
    ec2.trusted = True  # as AWS's own endpoint is
    node = await ec2.ensure_node(await spec_of(ec2, "mine"))
    ground = await ec2.prepare(ClusterSpec(SCOPE, "lab", "uid"))
    findings = await check(ec2)
    for trial in OF_OURS:
        assert findings[trial.name].ok or trial.name == "GetConsoleOutput", findings[trial.name].message
    sent = {call.operation: call.parameters for call, _ in aws.calls}
    assert sent["TerminateInstances"]["InstanceIds"] == [node.id]
    assert sent["DeleteSecurityGroup"]["GroupId"] == ground["securityGroupId"]
    (still,) = (await ec2.list_nodes(SCOPE)).nodes
    assert (still.state, still.type, still.tags) == ("Running", node.type, node.tags)
    for trial in OF_OURS:
        refuse(aws, trial)
    findings = await check(ec2)
    for trial in OF_OURS:
        assert findings[trial.name].failed
        assert findings[trial.name].fatal is trial.vital
    await ec2.close()


@pytest.mark.parametrize(
    ("code", "status"),
    [("InvalidInstanceID.NotFound", 400), ("InvalidParameterValue", 400), ("IncorrectInstanceState", 400),
     ("VcpuLimitExceeded", 400), ("Unsupported", 400), ("NewWordOfTomorrow", 400)],
)  # fmt: skip
async def test_any_other_answer_is_not_known_and_never_allowed(aws: FaultProxy, code: str, status: int) -> None:
    ec2 = provider(aws)
    for trial in CHANGES:
        aws.add("answer", trial.name, status=status, code=code, message="words of the cloud", times=None)
    findings = await check(ec2)
    for trial in CHANGES:
        finding = findings[trial.name]
        assert (finding.ok, finding.known) == (False, False)
        assert finding.message.startswith(f"not known whether we may {trial.needed}: ")
        assert "words of the cloud" in finding.message
    await ec2.close()


@pytest.mark.parametrize(("code", "status"), [("Unavailable", 503), ("RequestLimitExceeded", 503)])
async def test_a_cloud_that_does_not_answer_is_asked_again(aws: FaultProxy, code: str, status: int) -> None:
    ec2 = provider(aws)
    aws.add("answer", "StopInstances|DescribeVolumes", status=status, code=code, times=None)
    findings = await check(ec2)
    for name in ("StopInstances", "DescribeVolumes"):
        assert findings[name].failed
        assert not findings[name].fatal
        assert "not known" in findings[name].message
    await ec2.close()


async def test_credentials_that_are_refused_are_no_permission(aws: FaultProxy) -> None:
    ec2 = provider(aws)
    aws.add("answer", "GetCallerIdentity", status=403, code="InvalidClientTokenId", message="no such key")
    with pytest.raises(AuthFailed, match="no such key"):
        await ec2.check()
    aws.add("answer", "StopInstances", status=401, code="AuthFailure", message="revoked")
    with pytest.raises(AuthFailed, match="revoked"):
        await ec2.check()
    await ec2.close()


async def test_without_an_image_machines_are_not_known(aws: FaultProxy) -> None:
    ec2 = provider(aws)
    ec2._images = {}
    finding = (await check(ec2))["RunInstances"]
    assert (finding.ok, finding.known) == (False, False)
    assert "spec.images" in finding.message
    assert not aws.count("RunInstances")
    await ec2.close()


async def test_where_dry_runs_are_none_nothing_is_tried(aws: FaultProxy) -> None:
    """Another maker's endpoint may not know the word, and do what it says."""
    ec2 = provider(aws)
    aws.add(
        "answer",
        "DescribeInstances",
        code="UnknownParameter",
        times=None,
        when=lambda c: bool(c.parameters.get("DryRun")),
    )
    findings = await check(ec2)
    for trial in CHANGES:
        assert (findings[trial.name].ok, findings[trial.name].known) == (False, False)
        assert not aws.count(trial.name)
    assert findings["DescribeInstances"].ok
    aws.clear()
    await ec2.ensure_node(await spec_of(ec2, "mine"))
    await ec2.list_nodes(SCOPE)
    await check(ec2)
    sent = {call.operation: call.parameters for call, _ in aws.calls}
    assert sent["TerminateInstances"]["InstanceIds"] == [f"i-{NOBODY}"]
    await ec2.close()
