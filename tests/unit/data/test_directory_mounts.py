"""Clusters that have a directory mounted: its gateway lets in whom their Secrets name, as long as they do."""

from __future__ import annotations

import base64
from typing import Any

from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.api.mounts import Login
from cloudmesh.data.config import Guest
from cloudmesh.data.kinds import VIRTUAL_CLUSTER
from cloudmesh.engine import SECRET, own

LOGIN = Login("lab", "raw", "ReadOnly", "vc-calc-1", "p" * 43, "$2b$04$" + "h" * 53)


def cluster(s: Scene, name: str = "calc", **more: Any) -> dict[str, Any]:
    body = {"metadata": {"name": name, "namespace": "ns"}, "spec": {"mounts": [{"path": "/data"}]}, **more}
    return s.api.put(VIRTUAL_CLUSTER, body)


def logins(s: Scene, owner: dict[str, Any], **data: bytes) -> None:
    told = {key: base64.b64encode(text).decode() for key, text in data.items()}
    meta = {"name": f"{owner['metadata']['name']}-vc-mounts", "namespace": "ns"}
    s.api.put(SECRET, own({"metadata": meta, "data": told}, owner))


@scene
async def test_a_gateway_lets_clusters_in_as_long_as_their_secrets_say(s: Scene) -> None:
    s.watched = (VIRTUAL_CLUSTER,)
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle(30)
        assert s.config().auth.guests == {}
        owner = cluster(s)
        elsewhere = Login("other", "", "ReadWrite", "vc-calc-2", "q" * 43, "$2b$04$" + "i" * 53)
        logins(s, owner, one=LOGIN.to_json(), two=elsewhere.to_json(), three=b"{}", four=b"\xff")
        await s.settle(30)
        assert s.config().auth.guests == {"vc-calc-1": Guest("cloudmesh:cluster:calc", LOGIN.hashed, "raw", "ReadOnly")}
        assert LOGIN.password not in str(s.api.all(SECRET)[0])
        # it left the spec, and is still being unmounted
        mounted = {"type": "Mounted", "status": "False", "reason": "NotMounted", "message": ""}
        cluster(s, spec={}, status={"conditions": [mounted]})
        await s.settle(30)
        assert set(s.config().auth.guests) == {"vc-calc-1"}
        cluster(s, spec={}, status={"conditions": []})
        await s.settle(30)
        assert s.config().auth.guests == {}


@scene
async def test_a_secret_that_is_not_the_clusters_lets_nobody_in(s: Scene) -> None:
    s.watched = (VIRTUAL_CLUSTER,)
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        cluster(s)
        stranger = cluster(s, "stranger", spec={})
        told = {"one": base64.b64encode(LOGIN.to_json()).decode()}
        s.api.put(SECRET, own({"metadata": {"name": "calc-vc-mounts", "namespace": "ns"}, "data": told}, stranger))
        await s.settle(60)
        assert s.config().auth.guests == {}
