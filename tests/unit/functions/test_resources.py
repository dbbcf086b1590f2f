"""The objects that a function is made of: every setting of the spec arrives, and the Pod stays within `restricted`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.functions.objects import function, revision, wanted

from cloudmesh.api.functionservice import Runtime
from cloudmesh.engine.applied import differs
from cloudmesh.functions.resources import (
    make_autoscaler,
    make_deployment,
    make_openapi,
    make_pod_template,
    make_service,
    with_image,
)
from cloudmesh_function.settings import from_environment

RUNTIME: dict[str, Any] = {
    "resources": {"requests": {"cpu": "123m"}, "limits": {"memory": "456Mi"}},
    "env": [{"name": "MARK_ENV", "value": "mark-env"}],
    "envFrom": [{"secretRef": {"name": "mark-secret"}}],
    "timeoutSeconds": 71,
    "concurrency": 72,
    "maxBodyBytes": 73,
    "nodeSelector": {"mark-node": "yes"},
    "tolerations": [{"key": "mark-taint", "operator": "Exists"}],
}
MARKS = {
    "resources": ("123m", "456Mi"),
    "env": ("mark-env",),
    "env_from": ("mark-secret",),
    "timeout_seconds": ('"71"',),
    "concurrency": ('"72"',),
    "max_body_bytes": ('"73"',),
    "node_selector": ("mark-node",),
    "tolerations": ("mark-taint",),
}


def template(runtime: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return make_pod_template(function(), wanted(runtime=runtime or RUNTIME), "r/i@sha256:0", **more)


def test_every_setting_of_the_runtime_arrives_in_the_pod() -> None:
    assert Runtime.model_fields.keys() == MARKS.keys(), "a new field needs a mark here, and its place in the template"
    text = json.dumps(template())
    for field, marks in MARKS.items():
        for mark in marks:
            assert mark in text, f"{field} does not arrive"


def test_the_pod_passes_restricted() -> None:
    spec = template()["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert [next(iter(v.keys() - {"name"})) for v in spec["volumes"]] == ["emptyDir"]


@pytest.mark.parametrize("timeout", [1, 30, 3600])
@pytest.mark.parametrize(("concurrency", "body"), [(1, 1), (10000, 2**30)])
def test_the_runtime_takes_all_that_the_schema_takes(timeout: int, concurrency: int, body: int) -> None:
    made = template({"timeoutSeconds": timeout, "concurrency": concurrency, "maxBodyBytes": body})
    environment = {e["name"]: e["value"] for e in made["spec"]["containers"][0]["env"]}
    settings = from_environment(environment)
    assert (settings.timeout, settings.concurrency, settings.max_body) == (timeout, concurrency, body)
    assert settings.grace > timeout
    assert made["spec"]["terminationGracePeriodSeconds"] > settings.grace


def test_requests_have_defaults_that_no_limit_is_hurt_by() -> None:
    bare = {"timeoutSeconds": 30, "concurrency": 1, "maxBodyBytes": 1}

    def resources(**more: Any) -> Any:
        asked = wanted(runtime={**bare, **more}, autoscaled=more.pop("autoscaled", False))
        return make_pod_template(function(), asked, "i")["spec"]["containers"][0]["resources"]

    assert resources()["requests"] == {"cpu": "10m", "memory": "64Mi"}
    assert resources(autoscaled=True)["requests"]["cpu"] == "100m"
    assert resources(resources={"limits": {"cpu": "5m", "memory": "32Mi"}})["requests"] == {}


def test_the_pull_secret_is_the_specs_or_the_installations() -> None:
    own = {"repository": "r.example.org/a", "pullSecretRef": {"name": "mine"}, "platforms": ["linux/amd64"]}

    def secrets(image: dict[str, Any]) -> Any:
        asked = wanted(runtime=RUNTIME, image=image)
        return make_pod_template(function(), asked, "i", pull_secret="theirs")["spec"].get("imagePullSecrets")

    assert secrets(own) == [{"name": "mine"}]
    assert secrets({"platforms": ["linux/amd64"]}) == [{"name": "theirs"}]
    assert secrets({"repository": "r.example.org/a", "platforms": ["linux/amd64"]}) is None


def test_children_are_owned_and_inherit_nothing() -> None:
    owner = function()
    owner["metadata"] |= {"labels": {"app": "x"}, "annotations": {"note": "y"}}
    for child in (
        make_deployment(owner, revision(1), 2),
        make_service(owner),
        make_autoscaler(owner, 1, 2, 50),
        make_openapi(owner, {"openapi": "3.1.0"}),
    ):
        metadata = child["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == "u-1"
        assert metadata["labels"]["cloudmesh.org/owner-uid"] == "u-1"
        assert "app" not in metadata["labels"]
        assert "note" not in metadata["annotations"]


def test_a_difference_is_seen_and_what_the_server_adds_is_none() -> None:
    desired = make_service(function())
    live = json.loads(json.dumps(desired))
    live["spec"] |= {"clusterIP": "10.0.0.1", "sessionAffinity": "None"}
    live["metadata"] |= {"uid": "s", "resourceVersion": "7"}
    assert not differs(desired, live)
    live["spec"]["ports"][0]["targetPort"] = 9
    assert differs(desired, live)
    changed = make_autoscaler(function(), 1, 2, 50)
    assert differs(changed, make_autoscaler(function(), 1, 3, 50))


def test_another_image_leaves_the_rest_of_a_template() -> None:
    before = template()
    after = with_image(before, "r/i@sha256:1")
    assert after["spec"]["containers"][0]["image"] == "r/i@sha256:1"
    after["spec"]["containers"][0]["image"] = "r/i@sha256:0"
    assert after == before
