"""Key pairs and security groups, and what a cluster needs before its first machine."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from cloudmesh.compute.ports import ClusterSpec
from cloudmesh.compute.providers.aws.powers.base import Power, token_tags
from cloudmesh.compute.providers.aws.session import filters
from cloudmesh.compute.tokens import TAG_CLUSTER
from cloudmesh.engine.errors import AlreadyExists, Conflict, InvalidRequest, NotFound

SSH = 22
WORLD = "0.0.0.0/0"


class Access(Power):
    """Who may come in."""

    async def list_key_pairs(self) -> Sequence[Mapping[str, str]]:
        """All key pairs of the region."""
        answer = await self.session.call("describe_key_pairs", IncludePublicKey=True)
        return [
            {
                "name": str(item.get("KeyName", "")),
                "fingerprint": str(item.get("KeyFingerprint", "")),
                "publicKey": str(item.get("PublicKey", "")).strip(),
            }
            for item in answer.get("KeyPairs", [])
        ]

    async def import_key_pair(self, name: str, public_key: str, tags: Mapping[str, str]) -> None:
        """Makes a key pair; the same key under its name is fine."""
        try:
            await self.session.call(
                "import_key_pair",
                f"ImportKeyPair {name}",
                KeyName=name,
                PublicKeyMaterial=public_key.encode(),
                TagSpecifications=token_tags(tags, "key-pair"),
            )
        except AlreadyExists:
            held = next((pair for pair in await self.list_key_pairs() if pair["name"] == name), None)
            if held is None or not _same_key(held, public_key):
                raise Conflict(f"the key pair {name!r} exists with another key") from None

    async def delete_key_pair(self, name: str) -> None:
        """Deletes a key pair."""
        await self.session.call("delete_key_pair", f"DeleteKeyPair {name}", KeyName=name)

    async def list_security_groups(self) -> Sequence[Mapping[str, Any]]:
        """All security groups of the region."""
        items = await self.session.pages("describe_security_groups", "SecurityGroups")
        return [
            {"id": str(item["GroupId"]), "name": str(item["GroupName"]), "rules": _rules(item.get("IpPermissions", []))}
            for item in items
        ]

    async def ensure_security_group(
        self, name: str, rules: Sequence[Mapping[str, Any]], tags: Mapping[str, str]
    ) -> str:
        """Makes a group of this name have exactly these rules; a rule's source is a network or `self`."""
        try:
            made = await self.session.call(
                "create_security_group",
                f"CreateSecurityGroup {name}",
                GroupName=name,
                Description="made by cloudmesh",
                TagSpecifications=token_tags(tags, "security-group"),
                **({"VpcId": vpc} if (vpc := (await self.subnets()).vpc) else {}),
            )
            group = str(made["GroupId"])
            held: list[dict[str, Any]] = []
        except AlreadyExists:
            item = await self._group(name)
            if item is None:
                raise
            theirs = {t["Key"]: t.get("Value", "") for t in item.get("Tags", [])}
            if any(theirs.get(key) != value for key, value in tags.items()):
                raise Conflict(f"the security group {name!r} exists and isn't ours") from None
            group, held = str(item["GroupId"]), _rules(item.get("IpPermissions", []))
        wanted = [_resolved(rule, group) for rule in rules]
        await self._change("authorize_security_group_ingress", group, [r for r in wanted if r not in held])
        await self._change("revoke_security_group_ingress", group, [r for r in held if r not in wanted])
        return group

    async def _change(self, operation: str, group: str, rules: Sequence[Mapping[str, Any]]) -> None:
        for rule in rules:
            try:
                await self.session.call(
                    operation, f"{operation} {group}", GroupId=group, IpPermissions=[_permission(rule)]
                )
            except (AlreadyExists, NotFound):
                continue
            except InvalidRequest as error:
                if "NotFound" not in str(error):
                    raise

    async def delete_security_group(self, name: str) -> bool:
        """Deletes a group; False while machines hold it."""
        item = await self._group(name)
        if item is None:
            return True
        try:
            await self.session.call("delete_security_group", f"DeleteSecurityGroup {name}", GroupId=item["GroupId"])
        except NotFound:
            return True
        except Conflict:
            return False
        return True

    async def _group(self, name: str) -> dict[str, Any] | None:
        items = await self.session.pages(
            "describe_security_groups", "SecurityGroups", Filters=filters({"group-name": name})
        )
        return next((item for item in items if item["GroupName"] == name), None)

    async def prepare(self, cluster: ClusterSpec) -> Mapping[str, str]:
        """One security group: logins from the networks named, everything between the cluster's machines."""
        rules: list[dict[str, Any]] = [
            {"protocol": "tcp", "from": SSH, "to": SSH, "source": source}
            for source in cluster.source_ranges or (WORLD,)
        ]
        rules.append({"protocol": "-1", "from": -1, "to": -1, "source": "self"})
        tags = {**cluster.scope.tags(), TAG_CLUSTER: cluster.name}
        return {"securityGroupId": await self.ensure_security_group(group_name(cluster), rules, tags)}

    async def clear(self, cluster: ClusterSpec) -> bool:
        """Deletes the group."""
        return await self.delete_security_group(group_name(cluster))


def group_name(cluster: ClusterSpec) -> str:
    """Name of a cluster's group: unique among clusters of one name in other namespaces and installations."""
    return f"cloudmesh-{cluster.name}-{hashlib.sha256(cluster.uid.encode()).hexdigest()[:8]}"


def _same_key(held: Mapping[str, str], public_key: str) -> bool:
    kept, given = held.get("publicKey", "").split(), public_key.split()
    if len(kept) >= 2:
        return kept[:2] == given[:2]
    blob = base64.b64decode(given[1]) if len(given) > 1 else b""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return held["fingerprint"].rstrip("=") in (digest.rstrip("="), "SHA256:" + digest.rstrip("="))


def _rules(permissions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for item in permissions:
        base = {
            "protocol": str(item["IpProtocol"]),
            "from": int(item.get("FromPort", -1)),
            "to": int(item.get("ToPort", -1)),
        }
        found += [base | {"source": str(r["CidrIp"])} for r in item.get("IpRanges", [])]
        found += [base | {"source": str(r["CidrIpv6"])} for r in item.get("Ipv6Ranges", [])]
        found += [base | {"source": str(r["GroupId"])} for r in item.get("UserIdGroupPairs", [])]
    return found


def _resolved(rule: Mapping[str, Any], group: str) -> dict[str, Any]:
    source = str(rule["source"])
    return {
        "protocol": str(rule["protocol"]),
        "from": int(rule["from"]),
        "to": int(rule["to"]),
        "source": group if source == "self" else source,
    }


def _permission(rule: Mapping[str, Any]) -> dict[str, Any]:
    source = str(rule["source"])
    made: dict[str, Any] = {"IpProtocol": rule["protocol"]}
    if rule["protocol"] != "-1":
        made |= {"FromPort": rule["from"], "ToPort": rule["to"]}
    if source.startswith("sg-"):
        return made | {"UserIdGroupPairs": [{"GroupId": source}]}
    if ":" in source:
        return made | {"Ipv6Ranges": [{"CidrIpv6": source}]}
    return made | {"IpRanges": [{"CidrIp": source}]}
