"""The namespace controller deletes all objects beside the operator, in any order, and nothing new may be made."""

from __future__ import annotations

import base64
import itertools

import pytest
from tests.unit.compute.cluster_scene import Scene

from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.engine import SECRET
from cloudmesh.testing import Faults, FaultyTransport, run_virtual

KEY = "s3cret-key-of-the-memory-cloud"
ORDERS = list(itertools.permutations((SECRET, CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE)))


@pytest.mark.parametrize("number", range(len(ORDERS)), ids=lambda n: "-".join(kind.kind for kind in ORDERS[n]))
def test_what_a_cloud_holds_is_ended_whatever_goes_first(number: int) -> None:
    # every order with the operator that made it or with a new one, which has to read the Secret
    order, fresh = ORDERS[number], number % 2 == 1

    async def main() -> None:
        s = Scene()
        s.cloud.habits.boot_seconds = 0.5
        s.cloud.key = KEY
        data = {"key": base64.b64encode(KEY.encode()).decode()}
        metadata = {"name": "login", "namespace": "ns"}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "cloudmesh.org/credentials"}
        s.api.put(SECRET, {**body, "data": data})
        s.add_account(credentials={"secretRef": {"name": "login"}})
        s.cluster(replicas=2)
        faults = Faults()

        async def go() -> None:
            faults.add("answer", method="POST", status=403, times=None)
            for kind in order:
                for obj in s.api.all(kind):
                    await s.delete(kind, obj["metadata"]["name"])

        def gone() -> bool:
            return not any(s.api.all(kind) for kind in ORDERS[0])

        async with s.operator(transport=FaultyTransport(s.api, faults)):
            await s.until(lambda: s.said() == ("True", "AsSpecified"))
            if not fresh:
                await go()
                await s.until(gone, 120)
        if fresh:
            assert len(s.living()) == 2
            await go()
            assert s.is_there(SECRET, "login")
            async with s.operator(transport=FaultyTransport(s.api, faults)):
                await s.until(gone, 120)
        assert s.living() == []
        assert len(s.cloud.meter.lines) == 2

    run_virtual(main())
