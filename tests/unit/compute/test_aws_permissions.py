"""The policy in the documentation names exactly the calls that the provider makes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cloudmesh.compute.providers.aws.check import CHANGES, LOOKS
from cloudmesh.compute.tokens import TAG_ACCOUNT, TAG_NAMESPACE

ROOT = Path(__file__).resolve().parents[3]
PROVIDER = ROOT / "operator/cloudmesh/compute/providers/aws"
PAGE = ROOT / "docs/reference/account-aws.md"
WITHOUT_A_CALL_OF_ITS_OWN = {
    "sts:GetCallerIdentity",  # called through another client
}


def spoken(operation: str) -> str:
    return "ec2:" + "".join(word.capitalize() for word in operation.split("_"))


def test_every_call_is_allowed_and_nothing_more() -> None:
    source = "\n".join(path.read_text() for path in sorted(PROVIDER.rglob("*.py")))
    names = re.findall(r'"((?:[a-z]+_)+[a-z]+)"', source)
    verbs = r"(allocate|associate|attach|authorize|create|delete|describe|detach|disassociate|get|import|modify|reboot"
    verbs += r"|release|revoke|run|start|stop|terminate)_"
    called = {spoken(name) for name in names if re.match(verbs, name)} - {"ec2:DescribeInstancesDryRun"}
    statements = [
        statement
        for text in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
        for told in [json.loads(text)]
        for statement in told.get("Statement") or [told]
    ]
    allowed = {action for statement in statements for action in statement["Action"]}
    for statement in statements:
        assert statement["Action"] == sorted(statement["Action"])
    assert allowed - WITHOUT_A_CALL_OF_ITS_OWN == called
    assert {f"ec2:{trial.name}" for trial in (*LOOKS, *CHANGES)} == called


def test_what_changes_something_is_bound_to_tags() -> None:
    """But for things that machines are made of, which get none."""
    (policy,) = re.findall(r"```json\n(\{\n  \"Version.*?)```", PAGE.read_text(), re.DOTALL)
    for statement in json.loads(policy)["Statement"]:
        actions = {action.split(":")[1] for action in statement["Action"]}
        if all(action.startswith(("Describe", "GetCaller")) for action in actions):
            assert statement["Resource"] == "*"
            continue
        kinds = {resource.split(":")[-1].removesuffix("/*") for resource in statement["Resource"]}
        if "Condition" not in statement:
            assert kinds <= {"image", "snapshot", "subnet", "vpc", "network-interface", "security-group"}
            assert "security-group" not in kinds or actions == {"RunInstances"}
            assert actions <= {"RunInstances", "CreateSecurityGroup", "AssociateAddress", "DisassociateAddress"}
            continue
        keys = set(statement["Condition"]["StringEquals"])
        what = {key.split("/")[0] for key in keys}
        assert keys == {"ec2:CreateAction"} or (
            what in ({"aws:RequestTag"}, {"aws:ResourceTag"})
            and {key.split("/", 1)[1] for key in keys} == {TAG_NAMESPACE, TAG_ACCOUNT}
        )
