"""What each power stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.compute.providers.aws.session import Session
from cloudmesh.engine.errors import InvalidRequest, NotFound, Transient


@dataclass(frozen=True, slots=True)
class Subnets:
    """Where machines get their addresses: the subnet of each zone, and the network all of them belong to; empty: EC2's
    default."""

    by_zone: Mapping[str, str]
    vpc: str


class Power:
    """Calls of one region."""

    session: Session
    _subnet_ids: tuple[str, ...] = ()
    _subnets: Subnets | None = None

    async def identity(self) -> str:
        """Number of the AWS account, and the region: machines of another one aren't seen here."""
        number = str((await self.session.identity()).get("Account") or "")
        if not number:
            raise Transient("STS doesn't tell the account")
        return f"{number}/{self.session.region}"

    async def subnets(self) -> Subnets:
        """The account's subnets, looked up once.

        Raises:
            InvalidRequest: One doesn't exist, two lie in one zone, or they belong to two networks.
        """
        if self._subnets is None:
            self._subnets = await self._find_subnets() if self._subnet_ids else Subnets({}, "")
        return self._subnets

    async def _find_subnets(self) -> Subnets:
        items = await self.session.pages("describe_subnets", "Subnets", SubnetIds=list(self._subnet_ids))
        by_zone: dict[str, str] = {}
        for item in items:
            zone, subnet = str(item["AvailabilityZone"]), str(item["SubnetId"])
            if by_zone.setdefault(zone, subnet) != subnet:
                raise InvalidRequest(f"spec.aws.subnetIds: {by_zone[zone]} and {subnet} both lie in {zone}")
        networks = sorted({str(item["VpcId"]) for item in items})
        if len(networks) != 1:
            raise InvalidRequest(f"spec.aws.subnetIds: the subnets belong to several networks: {', '.join(networks)}")
        return Subnets(by_zone, networks[0])

    async def _instance(self, node_id: str) -> Mapping[str, Any]:
        """An instance as EC2 describes it.

        Raises:
            InvalidRequest: There is none of that id.
        """
        try:
            reservations = await self.session.pages("describe_instances", "Reservations", InstanceIds=[node_id])
        except NotFound as error:
            raise InvalidRequest(f"there is no instance {node_id}: {error}") from None
        for reservation in reservations:
            for instance in reservation.get("Instances", []):
                found: Mapping[str, Any] = instance
                return found
        raise InvalidRequest(f"there is no instance {node_id}")


def token_tags(tags: Mapping[str, str], kind: str) -> list[dict[str, Any]]:
    """Tags for a create call of one kind of resource."""
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]
