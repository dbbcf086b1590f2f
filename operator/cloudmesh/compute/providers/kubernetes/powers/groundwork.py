"""Power Groundwork: the headless Service that gives a cluster's machines their names."""

from __future__ import annotations

from collections.abc import Mapping

from cloudmesh.compute.ports import ClusterSpec
from cloudmesh.compute.providers.kubernetes.core import POD, PodCore
from cloudmesh.compute.providers.kubernetes.pods import join_tags, make_service, search_domain, service_name
from cloudmesh.compute.tokens import TAG_CLUSTER
from cloudmesh.engine import NameConflict, Obj, Resource, create_or_get, is_owned_by

SERVICE = Resource("v1", "Service", "services")
_KEPT = ("publishNotReadyAddresses", "selector")


class Groundwork(PodCore):
    """Makes it before the first machine; it goes with the cluster."""

    async def prepare(self, cluster: ClusterSpec) -> Mapping[str, str]:
        """Makes the Service of a cluster, or finds it; a machine that stands alone needs none.

        Raises:
            NameConflict: A Service of that name is somebody else's; it isn't touched.
        """
        if not _is_cluster(cluster):
            return {}
        wanted = make_service(self.settings, cluster)
        found = await self.kube.get(SERVICE, self.settings.namespace, wanted["metadata"]["name"])
        if found is None:
            found = await create_or_get(self.kube, SERVICE, wanted)
        self._check_owner(found, cluster)
        spec, kept = found.get("spec") or {}, {name: wanted["spec"][name] for name in _KEPT}
        if any(spec.get(name) != value for name, value in kept.items()):
            without = dict.fromkeys(spec.get("selector") or {})  # a merge patch takes nothing off by itself
            kept["selector"] = {**without, **kept["selector"]}
            patch = {"metadata": {"uid": found["metadata"]["uid"]}, "spec": kept}
            await self.kube.patch(SERVICE, self.settings.namespace, found["metadata"]["name"], patch)
        return {"subdomain": service_name(cluster.name), "searchDomain": search_domain(self.settings, cluster.name)}

    async def clear(self, cluster: ClusterSpec) -> bool:
        """Deletes the Service; False while machines of this account in the cluster are there."""
        if not _is_cluster(cluster):
            return True
        namespace, name = self.settings.namespace, service_name(cluster.name)
        pods, _ = await self.kube.list(POD, namespace, label_selector=f"{TAG_CLUSTER}={cluster.name}")
        if any(cluster.scope.holds(join_tags(pod["metadata"])) for pod in pods):
            return False
        if pods:
            return True  # another account's machines still need it
        service = await self.kube.get(SERVICE, namespace, name)
        if service is None or not is_owned_by(service, cluster.uid):
            return True
        await self.kube.delete(SERVICE, namespace, name, uid=service["metadata"]["uid"])
        return await self.kube.get(SERVICE, namespace, name) is None

    def _check_owner(self, service: Obj, cluster: ClusterSpec) -> None:
        if not is_owned_by(service, cluster.uid):
            name = service["metadata"]["name"]
            raise NameConflict(
                f"Service '{name}' exists and isn't of VirtualCluster '{cluster.name}'; "
                "delete it or give the cluster another name"
            )


def _is_cluster(cluster: ClusterSpec) -> bool:
    return cluster.owner.get("kind") != "VirtualMachine"
