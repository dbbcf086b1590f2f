"""VirtualClusters that have a directory mounted: what their machines are let in with, as the clusters' Secrets tell."""

from __future__ import annotations

from cloudmesh.api import conditions as c
from cloudmesh.api.mounts import logins_in, secret_name, user_name
from cloudmesh.data.asked import decoded
from cloudmesh.data.config import Guest
from cloudmesh.data.kinds import VIRTUAL_CLUSTER
from cloudmesh.engine import SECRET, Engine, Obj, is_owned_by
from cloudmesh.engine.cache import Cache


def mounting(cache: Cache, namespace: str) -> dict[str, Obj]:
    """Clusters of a namespace that have, or had a moment ago, any directory mounted, by the names of their Secrets."""
    return {
        secret_name(cluster["metadata"]["name"]): cluster
        for cluster in cache.list(VIRTUAL_CLUSTER, namespace)
        if cluster["spec"].get("mounts")
        or c.find_condition((cluster.get("status") or {}).get("conditions") or (), c.MOUNTED) is not None
    }


async def read_guests(engine: Engine, namespace: str, directory: str) -> dict[str, Guest]:
    """Who is let into a directory for clusters, by the names that they show."""
    guests: dict[str, Guest] = {}
    for name, cluster in mounting(engine.cache, namespace).items():
        found = await engine.kube.get(SECRET, namespace, name)
        if found is None or not is_owned_by(found, cluster["metadata"]["uid"]):
            continue
        for login in logins_in(decoded(found.get("data"))).values():
            if login.directory == directory:
                user = user_name(cluster["metadata"]["name"])
                guests[login.login] = Guest(user, login.hashed, login.folder, login.access)
    return guests
