"""Discovery documents, as much of them as clients ask for before they watch."""

from __future__ import annotations

from collections.abc import Iterable

from cloudmesh.engine.resources import Obj, Resource

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def discover(path: str, resources: Iterable[Resource]) -> Obj | None:
    """The document for a path, None if it is no discovery path."""
    known = list(resources)
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = sorted({resource.group for resource in known if resource.group})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, known) for name in groups]}
        case ["api", "v1"]:
            return _resources("v1", known)
        case ["apis", group, version] if any(resource.api_version == f"{group}/{version}" for resource in known):
            return _resources(f"{group}/{version}", known)
        case _:
            return None


def _group(name: str, resources: list[Resource]) -> Obj:
    versions = sorted({resource.api_version for resource in resources if resource.group == name})
    told = [{"groupVersion": version, "version": version.rpartition("/")[2]} for version in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0]}


def _resources(api_version: str, resources: list[Resource]) -> Obj:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": [
            {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "kind": resource.kind,
                "namespaced": resource.namespaced,
                "verbs": VERBS,
            }
            for resource in resources
            if resource.api_version == api_version
        ],
    }
