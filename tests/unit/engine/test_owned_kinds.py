"""A kind with a reconciler of its own that belongs to an object of another: its changes reach the owner too."""

from __future__ import annotations

from collections.abc import Sequence

from cloudmesh.engine import Done, Engine, Key, Obj, Resource, own
from cloudmesh.testing import World, run_virtual

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")
GADGET = Resource("test.cloudmesh.org/v1", "Gadget", "gadgets")


class Owner:
    """Makes one Gadget and says of itself what the Gadget says."""

    resource = WIDGET
    owns: Sequence[Resource] = ()

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        children = self.engine.cache.children(obj["metadata"]["uid"], GADGET)
        if not children:
            await self.engine.kube.create(GADGET, own({"metadata": {"name": key.name}, "spec": {}}, obj))
            return Done()
        told = (children[0].get("status") or {}).get("text")
        if told:
            await self.engine.status.write(WIDGET, obj, {"text": told})
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing is held."""


class Child:
    resource = GADGET
    owns: Sequence[Resource] = ()

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        await self.engine.status.write(GADGET, obj, {"text": f"born as {obj['metadata']['uid']}"})
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing is held."""


def test_the_owner_sees_status_changes_and_the_end_of_what_it_owns() -> None:
    async def main() -> None:
        world = World([WIDGET, GADGET])
        world.api.put(WIDGET, {"metadata": {"name": "a", "namespace": "default"}, "spec": {}})
        async with world.engine(Owner, Child):
            await world.settle()
            first = world.api.get(GADGET, "default", "a")["metadata"]["uid"]
            assert world.api.get(WIDGET, "default", "a")["status"]["text"] == f"born as {first}"

            world.api.remove(GADGET, "default", "a")
            await world.settle()
            second = world.api.get(GADGET, "default", "a")["metadata"]["uid"]
            assert second != first
            assert world.api.get(WIDGET, "default", "a")["status"]["text"] == f"born as {second}"

    run_virtual(main())


def test_who_listens_is_told_of_what_is_new_changed_and_gone() -> None:
    async def main() -> None:
        world = World([WIDGET, GADGET])
        told: list[str] = []

        class Listener(Child):
            def __init__(self, engine: Engine) -> None:
                super().__init__(engine)
                engine.listen(WIDGET, lambda obj: told.append(obj["metadata"]["name"]))

        labels = {"app.kubernetes.io/managed-by": "cloudmesh"}
        async with world.engine(Listener):
            world.api.put(WIDGET, {"metadata": {"name": "strange", "namespace": "default"}, "spec": {}})
            world.api.put(WIDGET, {"metadata": {"name": "a", "namespace": "default", "labels": labels}, "spec": {}})
            await world.settle()
            assert told == ["a"]
            world.api.set_status(WIDGET, "default", "a", {"text": "b"})
            await world.settle()
            world.api.remove(WIDGET, "default", "a")
            await world.settle()
            assert told == ["a"] * 3

    run_virtual(main())
