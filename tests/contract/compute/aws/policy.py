"""The policy of the account's page in front of the emulator, which allows everything: who may do what to which thing.

Kinds of things and keys are those of the Service Authorization Reference, "Actions, resources, and condition keys for
Amazon EC2".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3

from cloudmesh.testing.proxy import Call, FaultProxy

PAGE = Path(__file__).resolve().parents[4] / "docs/reference/account-aws.md"
KINDS = {
    "i": "instance", "vol": "volume", "sg": "security-group", "eipalloc": "elastic-ip", "eipassoc": "elastic-ip",
    "key": "key-pair",
}  # fmt: skip
MADE = {
    "RunInstances": ("instance", "volume"), "CreateVolume": ("volume",), "CreateSecurityGroup": ("security-group",),
    "ImportKeyPair": ("key-pair",), "AllocateAddress": ("elastic-ip",),
}  # fmt: skip
OF = {
    "RunInstances": ("image", "subnet", "network-interface", "security-group"),
    "CreateSecurityGroup": ("vpc",),
    "AssociateAddress": ("network-interface",),
    "DisassociateAddress": ("network-interface",),
}
WITHOUT_AN_ACCOUNT = ("image", "snapshot")


def read_page(namespace: str, account: str) -> list[list[dict[str, Any]]]:
    """Statements of each policy on the page, for one account."""
    found = []
    for text in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL):
        told = json.loads(text.replace("NAMESPACE", namespace))
        for statement in (statements := told.get("Statement") or [told]):
            for values in statement.get("Condition", {}).values():
                values |= {key: account for key in values if key.endswith("cloudmesh.org/account")}
        found.append(statements)
    return found


@dataclass(frozen=True)
class Ask:
    """One question to the policy."""

    action: str
    kind: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)


def allows(statements: list[dict[str, Any]], ask: Ask) -> bool:
    """Whether a statement allows it."""
    place = "" if ask.kind in WITHOUT_AN_ACCOUNT else "123456789012"
    arn = f"arn:aws:ec2:us-east-1:{place}:{ask.kind}/x" if ask.kind else "*"
    for statement in statements:
        assert statement["Effect"] == "Allow"
        if ask.action not in statement["Action"]:
            continue
        resources = statement["Resource"]
        if not any(fnmatchcase(arn, each) for each in ([resources] if isinstance(resources, str) else resources)):
            continue
        (wanted,) = (statement.get("Condition") or {"StringEquals": {}}).values()
        if all(ask.keys.get(key) in ([value] if isinstance(value, str) else value) for key, value in wanted.items()):
            return True
    return False


class Guarded:
    """Makes a proxy refuse what a policy doesn't allow.

    Args:
        moto: Base URL of the emulator.
        statements: The policy.
    """

    def __init__(self, moto: str, statements: list[dict[str, Any]]) -> None:
        self.statements = statements
        self.refused: list[Ask] = []
        """What was refused, but for dry runs."""
        keys = {"aws_access_key_id": "policy", "aws_secret_access_key": "policy"}
        self._ec2: Any = boto3.client("ec2", region_name="us-east-1", endpoint_url=moto, **keys)

    def guard(self, proxy: FaultProxy) -> None:
        """Stands in front of all that the proxy does."""
        rule = proxy.add(
            "answer", status=403, code="UnauthorizedOperation", message="by the policy", times=None, when=self.refuses
        )
        proxy.rules.remove(rule)
        proxy.rules.insert(0, rule)

    def refuses(self, call: Call) -> bool:
        """Whether a call is refused."""
        wrong = [ask for ask in self._asks(call) if not allows(self.statements, ask)]
        if not call.parameters.get("DryRun"):
            self.refused += wrong
        return bool(wrong)

    def _asks(self, call: Call) -> Iterator[Ask]:
        name, given = call.operation, call.parameters
        if name == "GetCallerIdentity":
            yield Ask(f"sts:{name}")
        elif name.startswith("Describe"):
            yield Ask(f"ec2:{name}")
        elif name in MADE:
            tags = {each["ResourceType"]: _keys("Request", each["Tags"]) for each in given["TagSpecifications"]} if (
                given.get("TagSpecifications")
            ) else {}  # fmt: skip
            for kind in MADE[name]:
                yield Ask(f"ec2:{name}", kind, tags.get(kind, {}))
            for kind, keys in tags.items():
                yield Ask("ec2:CreateTags", kind, {**keys, "ec2:CreateAction": name})
        else:
            request = _keys("Request", given.get("Tags") or ())
            things = list(self._things(given))
            assert things, f"{name} of nothing"
            for kind, tags in things:
                yield Ask(f"ec2:{name}", kind, {**request, **tags})
        for kind in OF.get(name, ()):
            yield Ask(f"ec2:{name}", kind)

    def _things(self, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
        ids = [*(given.get("InstanceIds") or ()), *(given.get("Resources") or ())]
        ids += [given[key] for key in ("InstanceId", "VolumeId", "GroupId", "AllocationId") if given.get(key)]
        addresses = self._ec2.describe_addresses()["Addresses"] if given.get("AssociationId") else []
        ids += [a["AllocationId"] for a in addresses if a.get("AssociationId") == given["AssociationId"]]
        pairs = self._ec2.describe_key_pairs()["KeyPairs"] if given.get("KeyName") else []
        ids += [pair["KeyPairId"] for pair in pairs if pair["KeyName"] == given["KeyName"]]
        if not ids:  # nobody's
            yield "key-pair" if given.get("KeyName") else "elastic-ip", {}
        for each in ids:
            tags = self._ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [each]}])["Tags"]
            yield KINDS[each.split("-")[0]], _keys("Resource", tags)


def _keys(what: str, tags: Any) -> dict[str, str]:
    return {f"aws:{what}Tag/{tag['Key']}": tag.get("Value", "") for tag in tags}
