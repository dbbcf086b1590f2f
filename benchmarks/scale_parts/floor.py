"""The peers: a minimal client that writes the same objects with nothing to decide.

Once as often as the operator did: the limit that this API server sets to anybody who writes so often. And once each,
the object and its last status: the limit for anybody at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from cloudmesh.engine import Kube, Obj, Resource

IN_FLIGHT = 64
_OWN = ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields", "selfLink", "deletionTimestamp")


def copy_for(obj: Obj, namespace: str) -> Obj:
    """An object as it would be created in another namespace: no owner, no finalizer, nothing of the server's own."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _OWN}
    meta.pop("ownerReferences", None)
    meta.pop("finalizers", None)
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != "app.kubernetes.io/managed-by"}
    kept = {key: value for key, value in obj.items() if key != "status"}
    return kept | {"metadata": meta | {"namespace": namespace, "labels": labels}}


async def replay(
    kube: Kube,
    namespace: str,
    objects: Mapping[Resource, Sequence[Obj]],
    writes: Mapping[str, int] | None,
    say: Callable[[str], None],
) -> tuple[float, int]:
    """Writes copies of all objects; what a kind was written beyond its creates is spread as status writes.

    Args:
        kube: The client.
        namespace: An empty one, which no operator serves.
        objects: What the operator made or wrote status of.
        writes: How often it wrote each kind; None for once each, and the status once where there is one.
        say: Talk.

    Returns:
        Seconds and number of writes.
    """
    gate = asyncio.Semaphore(IN_FLIGHT)
    done = 0

    async def write(call: Awaitable[object]) -> None:
        nonlocal done
        async with gate:
            await call
            done += 1

    async def life(resource: Resource, obj: Obj, times: int) -> None:
        made = copy_for(obj, namespace)
        await write(kube.create(resource, made))
        status = obj.get("status")
        name = obj["metadata"]["name"]
        for number in range(times):
            if status:
                told = {"status": status | {"conditions": _turned(status.get("conditions") or [], number, times)}}
                await write(kube.patch(resource, namespace, name, told, subresource="status"))
            else:
                touch = {"metadata": {"annotations": {"floor": str(number)}}}
                await write(kube.patch(resource, namespace, name, touch))

    begin = time.monotonic()
    lives: list[Awaitable[None]] = []
    for resource, items in objects.items():
        if not items:
            continue
        if writes is None:
            lives.extend(life(resource, obj, 1 if obj.get("status") else 0) for obj in items)
            continue
        # an operator's own creates are counted in its writes, users' objects aren't
        made_by_user = resource.kind in ("VirtualCluster", "CloudAccount")
        wanted = writes.get(resource.kind, 0) + (len(items) if made_by_user else 0)
        more = max(0, wanted - len(items))
        for index, obj in enumerate(items):
            lives.append(life(resource, obj, more // len(items) + (1 if index < more % len(items) else 0)))
    await asyncio.gather(*lives)
    seconds = time.monotonic() - begin
    name = "floor of once each" if writes is None else "floor"
    say(f"{name}: {done} writes in {seconds:.1f} s, {done / seconds:.0f} a second")
    return seconds, done


def _turned(conditions: Sequence[Obj], number: int, times: int) -> list[Obj]:
    """Conditions that differ from write to write, so that the server has something to store."""
    if number == times - 1:
        return list(conditions)
    return [condition | {"message": f"{condition.get('message', '')} {number}"} for condition in conditions]
