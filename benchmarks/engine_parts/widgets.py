"""The kind that both operators serve, and what they make of it."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from cloudmesh.engine import Obj, Resource

GROUP = os.environ.get("BENCH_GROUP", "bench.cloudmesh.org")
"""Others, such as tests, take a group of their own."""
WIDGET = Resource(f"{GROUP}/v1", "Widget", "widgets")
CRD = Resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
FREE: Obj = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition(plural: str, kind: str, group: str = GROUP, *, namespaced: bool = True) -> Obj:
    """A custom resource definition without a schema of its own."""
    schema = {"type": "object", "properties": {"spec": FREE, "status": FREE}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


def peering_definition() -> Obj:
    """kopf's own kind for replicas that must not work at once."""
    made = definition("kopfpeerings", "KopfPeering", "kopf.dev")
    made["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = FREE
    del made["spec"]["versions"][0]["subresources"]
    return made


def widget(name: str, namespace: str, text: str) -> Obj:
    """An object the size of a small inline function."""
    source = f"def {name.replace('-', '_')}(x: int) -> int:\n" + "    x = x + 1  # one more line of code\n" * 24 + text
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "text": text,
            "source": {"inline": source},
            "replicas": 1,
            "runtime": {"resources": {"cpu": "100m", "memory": "128Mi"}, "env": [{"name": "A", "value": "b"}]},
        },
    }


def status_for(spec: Any, generation: int) -> Obj:
    """The status that both operators write."""
    digest = hashlib.sha256(str(spec.get("source", {}).get("inline", "")).encode()).hexdigest()
    return {"text": spec.get("text", ""), "digest": digest, "observedGeneration": generation}
