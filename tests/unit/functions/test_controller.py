"""The controller on a memory API server: the whole way, bad input, faults, and a crash at every call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from tests.unit.functions.cluster import MemoryBuilder, Nodes

from cloudmesh.engine import CONFIG_MAP, SECRET
from cloudmesh.functions.controller import (
    AUTOSCALER,
    DEPLOYMENT,
    FUNCTION_SERVICE,
    POD,
    REVISION,
    SERVICE,
    FunctionReconciler,
)
from cloudmesh.functions.revision import read_revisions
from cloudmesh.testing import CrashPoint, World, for_every_crash, run_virtual
from cloudmesh.testing.apiserver.server import Refused

SOURCE = "def f(x: int) -> int:\n    return x\n"
KINDS = (FUNCTION_SERVICE, DEPLOYMENT, SERVICE, AUTOSCALER, CONFIG_MAP, SECRET, REVISION, POD)


class Scene:
    def __init__(self) -> None:
        self.world = World(KINDS)
        self.api = self.world.api
        self.builder = MemoryBuilder()
        self.nodes = Nodes(self.api)

    def apply(self, *, name: str = "stats", annotations: dict[str, str] | None = None, **spec: Any) -> None:
        body = {"source": {"inline": SOURCE}, "replicas": 1, **spec}
        metadata: dict[str, Any] = {"name": name, "namespace": "ns"}
        if annotations:
            metadata["annotations"] = annotations
        old = self.api.get(FUNCTION_SERVICE, "ns", name)
        obj = {**(old or {}), "apiVersion": "cloudmesh.org/v1alpha1", "kind": "FunctionService", "spec": body}
        obj["metadata"] = {**((old or {}).get("metadata") or {}), **metadata}
        self.api.put(FUNCTION_SERVICE, obj)

    def status(self, name: str = "stats") -> dict[str, Any]:
        found = self.api.get(FUNCTION_SERVICE, "ns", name)
        assert found is not None
        return dict(found.get("status") or {})

    def ready(self, name: str = "stats") -> tuple[str, str, str]:
        found = next(c for c in self.status(name)["conditions"] if c["type"] == "Ready")
        return found["status"], found["reason"], found["message"]

    def revisions(self) -> list[str]:
        return sorted(r["metadata"]["name"] for r in self.api.all(REVISION))

    @contextlib.asynccontextmanager
    async def operator(self, crash: CrashPoint | None = None) -> AsyncIterator[None]:
        nodes = asyncio.create_task(self.nodes.run())
        builder: Any = crash.wrap(self.builder) if crash else self.builder
        try:
            async with self.world.engine(lambda e: FunctionReconciler(e, builder), crash=crash):
                yield
        finally:
            nodes.cancel()

    async def settle(self) -> None:
        await self.world.settle(seconds=600)


def scene(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            await test(Scene())

        run_virtual(main())

    run.__name__ = test.__name__
    return run


@scene
async def test_a_function_becomes_ready(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
    assert s.ready()[:2] == ("True", "AsSpecified")
    assert s.revisions() == ["stats-00001"]
    status = s.status()
    assert status["url"] == "http://stats.ns.svc/cloudmesh"
    assert status["servingRevision"] == "stats-00001"
    assert status["build"]["uploadedBytes"] == 1000
    assert status["observedGeneration"] == 1
    for resource in (DEPLOYMENT, SERVICE):
        child = s.api.get(resource, "ns", "stats")
        assert child is not None
        assert child["metadata"]["ownerReferences"][0]["kind"] == "FunctionService"
    assert s.api.get(REVISION, "ns", "stats-00001")["metadata"]["annotations"]["cloudmesh.org/worked"] == "true"  # type: ignore[index]


@scene
async def test_an_unchanged_object_costs_no_write(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
    before = s.api.writes()
    async with s.operator():
        await s.settle()
    assert s.api.writes() == before
    assert s.builder.built == 1


@scene
async def test_an_edit_rolls_out_and_going_back_builds_nothing(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        s.apply(source={"inline": SOURCE.replace("return x", "return -x")})
        await s.settle()
        assert s.status()["servingRevision"] == "stats-00002"
        s.apply()
        await s.settle()
    assert s.status()["servingRevision"] == "stats-00001"
    assert s.revisions() == ["stats-00001", "stats-00002"]
    assert s.builder.built == 2


@scene
async def test_a_wrong_edit_keeps_what_runs_and_names_the_place(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        image = s.api.get(DEPLOYMENT, "ns", "stats")["spec"]["template"]["spec"]["containers"][0]["image"]  # type: ignore[index]
        s.apply(source={"inline": "def f(x: int) -> int:\n    return x +\n"})
        await s.settle()
        status, reason, message = s.ready()
        assert (status, reason) == ("False", "SourceInvalid")
        assert message.startswith("line 2, column ")
        assert s.status()["build"]["error"]["line"] == 2
        assert s.api.get(DEPLOYMENT, "ns", "stats")["spec"]["template"]["spec"]["containers"][0]["image"] == image  # type: ignore[index]
        s.apply(source={"inline": SOURCE + "\n# mended\n"})
        await s.settle()
    assert s.ready()[0] == "True"
    assert "error" not in s.status()["build"]
    assert s.status()["servingRevision"] == "stats-00002"


@scene
async def test_a_crashing_edit_goes_back_to_what_worked(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        original = s.nodes.seen_images[0]
        s.nodes.crash_new = True
        s.apply(source={"inline": SOURCE + "\nimport nope\n"})
        await s.settle()
    status, reason, message = s.ready()
    assert (status, reason) == ("False", "RolloutFailed")
    assert "ImportError: no" in message
    assert s.status()["servingRevision"] == "stats-00001"
    assert s.api.get(DEPLOYMENT, "ns", "stats")["spec"]["template"]["spec"]["containers"][0]["image"] == original  # type: ignore[index]


@scene
async def test_a_pin_goes_back_and_its_removal_forward(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        s.apply(source={"inline": SOURCE + "\n# two\n"})
        await s.settle()
        s.apply(source={"inline": SOURCE + "\n# two\n"}, revision={"pin": "stats-00001"})
        await s.settle()
        assert s.status()["servingRevision"] == "stats-00001"
        s.apply(source={"inline": SOURCE + "\n# two\n"})
        await s.settle()
    assert s.status()["servingRevision"] == "stats-00002"
    assert s.builder.built == 2


@scene
async def test_a_source_in_a_configmap_is_followed(s: Scene) -> None:
    reference = {"configMapRef": {"name": "code", "key": "function.py"}}
    s.apply(source=reference)
    async with s.operator():
        await s.settle()
        assert s.ready()[1] == "SourceInvalid"
        assert "there is no ConfigMap 'code'" in s.ready()[2]
        code: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "code", "namespace": "ns"},
        }
        s.api.put(CONFIG_MAP, {**code, "data": {"other.py": SOURCE}})
        await s.settle()
        assert "it has 'other.py'" in s.ready()[2]
        s.api.put(CONFIG_MAP, {**code, "data": {"function.py": SOURCE}})
        await s.settle()
        assert s.ready()[0] == "True"
        s.api.put(CONFIG_MAP, {**code, "data": {"function.py": SOURCE + "# new\n"}})
        await s.settle()
    assert s.status()["servingRevision"] == "stats-00002"


@scene
async def test_requirements_are_locked_once(s: Scene) -> None:
    s.apply(python={"requirements": ["numpy>=2"]})
    async with s.operator():
        await s.settle()
        s.apply(python={"requirements": ["numpy>=2"]}, source={"inline": SOURCE + "# new\n"})
        await s.settle()
        assert s.builder.locks == 1
        s.apply(python={"requirements": ["no-such-package"]})
        await s.settle()
        assert s.ready()[1] == "DependenciesUnsatisfiable"
        assert s.builder.locks == 2
        annotations = {"cloudmesh.org/relock": "1"}
        s.apply(python={"requirements": ["numpy>=2"]}, annotations=annotations)
        await s.settle()
    assert s.ready()[0] == "True"
    assert s.builder.locks == 3


@scene
async def test_a_builder_that_is_away_is_waited_for(s: Scene) -> None:
    s.builder.up = False
    s.apply()
    async with s.operator():
        await asyncio.sleep(5)
        assert s.ready()[:2] == ("Unknown", "BuilderUnavailable")
        s.builder.up = True
        await s.settle()
    assert s.ready()[0] == "True"


@scene
async def test_a_registry_that_is_away_is_waited_for(s: Scene) -> None:
    s.builder.fail = {"class": "RegistryUnavailable", "message": "no route"}
    s.apply()
    async with s.operator():
        await asyncio.sleep(5)
        assert s.ready()[:2] == ("Unknown", "RegistryUnavailable")
        s.builder.fail = None
        s.builder.restart()
        await s.settle()
    assert s.ready()[0] == "True"


@scene
async def test_an_image_that_the_registry_lost_is_built_again(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        image = s.nodes.seen_images[0]
        s.nodes.lost_images.add(image)
        s.builder.registry.clear()
        s.builder.restart()
        s.apply(replicas=2)
        while s.builder.built < 2:
            await asyncio.sleep(0.5)
        s.nodes.lost_images.clear()
        await s.settle()
    assert s.ready()[0] == "True"
    assert s.revisions() == ["stats-00001"]


@scene
async def test_a_slow_repair_is_one_build(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        s.builder.build_seconds = 15.0
        before = s.builder.starts
        s.nodes.lost_images.add(s.nodes.seen_images[0])
        s.builder.registry.clear()
        s.builder.restart()
        s.apply(replicas=2)
        while s.builder.built < 2:
            await asyncio.sleep(0.5)
        s.nodes.lost_images.clear()
        await s.settle()
    assert s.ready()[0] == "True"
    assert s.builder.starts - before == 1


@scene
async def test_an_image_of_a_pinned_revision_is_built_again_too(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        first = s.nodes.seen_images[0]
        s.apply(source={"inline": SOURCE + "# two\n"})
        await s.settle()
        s.nodes.lost_images.add(first)
        s.builder.registry.clear()
        s.apply(source={"inline": "this is no Python\n"}, revision={"pin": "stats-00001"})
        while s.builder.built < 3:
            await asyncio.sleep(0.5)
        s.nodes.lost_images.clear()
        await s.settle()
    assert s.ready()[0] == "True"
    assert s.status()["servingRevision"] == "stats-00001"
    assert s.api.get(DEPLOYMENT, "ns", "stats")["spec"]["template"]["spec"]["containers"][0]["image"] == first  # type: ignore[index]


@scene
async def test_a_missing_push_secret_says_only_what_is_known(s: Scene) -> None:
    s.apply(image={"repository": "r.example.org/a", "pushSecretRef": {"name": "login"}})
    async with s.operator():
        await s.settle()
    found = {c["type"]: (c["status"], c["reason"]) for c in s.status()["conditions"]}
    assert found["Ready"] == ("False", "BuildFailed")
    assert found["SourceValid"][0] == "Unknown"
    assert found["DependenciesLocked"][0] == "Unknown"
    assert found["ImageBuilt"][0] == "False"
    assert "`spec.image.pushSecretRef.name`" in s.ready()[2]


@scene
async def test_a_restart_leaves_a_verdict_as_it_stands(s: Scene) -> None:
    s.apply(name="wrong", source={"inline": "def f(:\n"})
    s.apply(name="unlocked", python={"requirements": ["no-such-package"]})
    async with s.operator():
        await s.settle()
    before, statuses = s.api.writes(FUNCTION_SERVICE), [s.status("wrong"), s.status("unlocked")]
    assert s.ready("wrong")[1] == "SourceInvalid"
    assert s.ready("unlocked")[1] == "DependenciesUnsatisfiable"
    s.builder.up = False
    async with s.operator():
        await asyncio.sleep(5)
        s.builder.up = True
        await s.settle()
    assert s.api.writes(FUNCTION_SERVICE) == before
    assert [s.status("wrong"), s.status("unlocked")] == statuses
    s.apply(name="unlocked")
    async with s.operator():
        await s.settle()
    assert s.ready("unlocked")[0] == "True"


@scene
async def test_revisions_of_others_are_a_name_conflict(s: Scene) -> None:
    for number in range(1, 25):
        metadata = {"name": f"stats-{number:05d}", "namespace": "ns"}
        s.api.put(
            REVISION, {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": 1}
        )
    s.apply()
    async with s.operator():
        await s.settle()
    assert s.ready()[:2] == ("False", "NameConflict")
    assert "'stats-00001'" in s.ready()[2]


@scene
async def test_what_the_api_server_does_not_take_is_told(s: Scene) -> None:
    def refuse(act: str, resource: Any, obj: dict[str, Any]) -> None:
        if resource == DEPLOYMENT and act == "create":
            raise Refused(422, "Invalid", "spec.template: no")

    s.api.admit.append(refuse)
    s.apply()
    async with s.operator():
        await s.settle()
    assert s.ready()[:2] == ("False", "RolloutFailed")
    assert "spec.template: no" in s.ready()[2]


@scene
async def test_a_service_of_somebody_else_is_left_alone(s: Scene) -> None:
    stranger = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "stats", "namespace": "ns"},
        "spec": {"ports": []},
    }
    s.api.put(SERVICE, stranger)
    s.apply()
    async with s.operator():
        await s.settle()
        assert s.ready()[:2] == ("False", "NameConflict")
        assert s.api.get(SERVICE, "ns", "stats")["spec"] == {"ports": []}  # type: ignore[index]
        s.api.remove(SERVICE, "ns", "stats")
        s.apply(replicas=2)
        await s.settle()
    assert s.ready()[0] == "True"


@scene
async def test_a_paused_object_is_left_as_it_is(s: Scene) -> None:
    s.apply()
    async with s.operator():
        await s.settle()
        s.apply(source={"inline": SOURCE + "# new\n"}, annotations={"cloudmesh.org/paused": "true"})
        await s.settle()
        assert s.revisions() == ["stats-00001"]
        assert any(c["type"] == "Paused" and c["status"] == "True" for c in s.status()["conditions"])
        s.apply(source={"inline": SOURCE + "# new\n"}, annotations={"cloudmesh.org/paused": "false"})
        await s.settle()
    assert s.revisions() == ["stats-00001", "stats-00002"]
    assert not any(c["type"] == "Paused" for c in s.status()["conditions"])


@scene
async def test_autoscaling_comes_and_goes(s: Scene) -> None:
    s.apply(autoscaling={"maxReplicas": 5, "targetCPUPercent": 60})
    async with s.operator():
        await s.settle()
        scaler = s.api.get(AUTOSCALER, "ns", "stats")
        assert scaler is not None
        assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 5)
        s.apply(replicas=3)
        await s.settle()
    assert s.api.get(AUTOSCALER, "ns", "stats") is None
    assert s.api.get(DEPLOYMENT, "ns", "stats")["spec"]["replicas"] == 3  # type: ignore[index]


async def _edit_with_crash(point: CrashPoint) -> None:
    """A first life makes the function and edits it, dying at the point; the second must come to the same end."""
    s = Scene()
    s.apply()

    async def first_life() -> None:
        async with s.operator(point):
            await s.settle()
            s.apply(source={"inline": SOURCE + "# two\n"})
            await s.settle()

    await point.until_crash(first_life())
    s.apply(source={"inline": SOURCE + "# two\n"})
    async with s.operator():
        await s.settle()
    assert s.ready()[:2] == ("True", "AsSpecified")
    names = s.revisions()
    assert s.status()["servingRevision"] == names[-1]
    assert len(names) <= 2
    assert len(s.api.all(DEPLOYMENT)) == len(s.api.all(SERVICE)) == 1
    contents = [r.content for r in read_revisions(s.api.all(REVISION))]
    assert len(contents) == len(set(contents)), "the same content was kept twice"


@pytest.mark.timeout(240)
def test_a_crash_at_any_call_changes_nothing_in_the_end() -> None:
    crashes = 0

    async def main() -> None:
        nonlocal crashes
        crashes = await for_every_crash(_edit_with_crash)

    run_virtual(main())
    assert crashes > 20
