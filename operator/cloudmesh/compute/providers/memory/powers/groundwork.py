"""Power Groundwork: a firewall and a key pair a cluster."""

from __future__ import annotations

from collections.abc import Mapping

from cloudmesh.compute.ports import ClusterSpec
from cloudmesh.compute.providers.memory.provider import MemoryProvider
from cloudmesh.compute.tokens import PREFIX


class Groundwork(MemoryProvider):
    """Makes what a cluster needs in an account before its first node, and takes it away after its last."""

    async def prepare(self, cluster: ClusterSpec) -> Mapping[str, str]:
        """Makes it, or finds it as it should be; what it gives goes into each NodeSpec."""
        name, tags = _name(cluster), {**cluster.scope.tags(), PREFIX + "cluster-uid": cluster.uid}
        # Names carry the cluster's uid, so that nothing is made twice and a stranger's is never met.
        rules = [{"protocol": "tcp", "from": 22, "to": 22, "source": source} for source in cluster.source_ranges]
        rules.append({"protocol": "all", "from": 0, "to": 65535, "source": name})
        ground = {
            "securityGroup": await self.call("PutGroup", lambda: self.cloud.resources.put_group(name, rules, tags))
        }
        if key := cluster.public_key:
            await self.call("ImportKeyPair", lambda: self.cloud.resources.import_key_pair(name, key, tags))
            ground["keyPair"] = name
        return ground

    async def clear(self, cluster: ClusterSpec) -> bool:
        """Takes it away; False while something still holds it."""
        name = _name(cluster)
        if not await self.call("DeleteGroup", lambda: self.cloud.delete_group(name)):
            return False
        await self.call("DeleteKeyPair", lambda: self.cloud.resources.key_pairs.pop(name, None))
        return True


def _name(cluster: ClusterSpec) -> str:
    return f"cloudmesh-{cluster.name}-{cluster.uid}"
