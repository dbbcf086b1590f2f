"""The policy in the documentation names exactly the calls that the provider makes."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
    policy = json.loads(re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])  # type: ignore[index]
    (statement,) = policy["Statement"]
    allowed = set(statement["Action"])
    assert statement["Action"] == sorted(statement["Action"])
    assert allowed - WITHOUT_A_CALL_OF_ITS_OWN == called
