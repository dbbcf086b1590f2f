"""Specs that users may write, good and bad; pydantic and the API server must agree on each of them.

`VALID` maps a name to a spec. `INVALID` maps a name to a spec, the field that the server names, and, for rules across
fields, the message that both give.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Spec = dict[str, Any]
SOURCE: Spec = {"inline": "def f(x: int) -> int:\n    return x\n"}


class Bad(NamedTuple):
    """A spec to be refused: the field that is named, and words of the message that both readers give."""

    spec: Any
    field: str
    message: str = ""


def spec(**fields: Any) -> Spec:
    """A spec with a source."""
    return {"source": dict(SOURCE), **fields}


def runtime(**fields: Any) -> Spec:
    return spec(runtime=fields)


VALID: dict[str, Spec] = {
    "smallest": spec(),
    "longest-inline": {"source": {"inline": "#" * 131072}},
    "inline-counts-characters": {"source": {"inline": "é" * 131072}},
    "module": {"source": {**SOURCE, "module": "cpu_2"}},
    "config-map": {"source": {"configMapRef": {"name": "code.v1"}}},
    "config-map-key": {"source": {"configMapRef": {"name": "code", "key": "my_module.py"}}},
    "one-function": spec(expose={"functions": {"names": ["f"]}}),
    "many-functions": spec(expose={"functions": {"names": ["f", "g2", "H_i"]}, "basePath": "/a/b.c/d-e"}),
    "class": spec(expose={"class": {"name": "Model"}}),
    "no-replicas": spec(replicas=0),
    "autoscaling": spec(replicas=2, autoscaling={"maxReplicas": 2}),
    "autoscaling-percent": spec(autoscaling={"maxReplicas": 9, "targetCPUPercent": 45}),
    "requirements": spec(
        python={
            "version": "3.11",
            "requirements": ["numpy>=2", "pandas==2.*", "uvicorn[standard]~=0.30; python_version >= '3.10'", "x"],
            "indexRef": {"name": "campus-index"},
        }
    ),
    "no-requirements": spec(python={"requirements": []}),
    "image": spec(
        image={
            "repository": "registry.example.org:5000/team/stats__x/a-b",
            "pushSecretRef": {"name": "push"},
            "pullSecretRef": {"name": "pull"},
            "pullRepository": "mirror/team/stats",
            "platforms": ["linux/amd64"],
        }
    ),
    "resources": runtime(
        resources={"requests": {"cpu": "100m", "memory": "0.5Gi"}, "limits": {"cpu": 1, "memory": "512Mi"}}
    ),
    "resources-disk": runtime(
        resources={"requests": {"ephemeral-storage": "1e9"}, "limits": {"ephemeral-storage": "1G"}}
    ),
    "resources-requests": runtime(resources={"requests": {"cpu": 2}}),
    "env": runtime(
        env=[
            {"name": "MODE", "value": "fast"},
            {"name": "EMPTY", "value": ""},
            {"name": "my.name-x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "a_b.c"}}},
        ]
    ),
    "env-from": runtime(envFrom=[{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}]),
    "limits": runtime(timeoutSeconds=3600, concurrency=1, maxBodyBytes=1073741824),
    "placement": runtime(
        nodeSelector={"kubernetes.io/arch": "amd64", "disk": ""},
        tolerations=[
            {"operator": "Exists"},
            {"key": "gpu", "value": "yes"},
            {"key": "example.org/x", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
    ),
    "empty-structs": spec(runtime={}, python={}, image={}, revision={}),
    "nulls-are-absent": spec(replicas=None, python=None, runtime={"env": None, "timeoutSeconds": None}),
    "pinned": spec(revision={"pin": "pinned-00003"}),
    "history": spec(revisionHistoryLimit=1),
}

_ONE_SOURCE = "`spec.source` must have exactly one of `inline` and `configMapRef`"
_ONE_EXPOSE = "`spec.expose` must have exactly one of `functions` and `class`"
_REQUIREMENT = "must be a package name with an optional version"
_REF = {"name": "x"}

INVALID: dict[str, Bad] = {
    "no-source": Bad({}, "spec.source"),
    "empty-source": Bad({"source": {}}, "spec.source", _ONE_SOURCE),
    "two-sources": Bad({"source": {**SOURCE, "configMapRef": _REF}}, "spec.source", _ONE_SOURCE),
    "only-module": Bad({"source": {"module": "m"}}, "spec.source", _ONE_SOURCE),
    "empty-inline": Bad({"source": {"inline": ""}}, "spec.source.inline"),
    "inline-too-long": Bad({"source": {"inline": "#" * 131073}}, "spec.source.inline"),
    "inline-number": Bad({"source": {"inline": 1}}, "spec.source.inline"),
    "module-dotted": Bad({"source": {**SOURCE, "module": "a.b"}}, "spec.source.module"),
    "module-newline": Bad({"source": {**SOURCE, "module": "a\n"}}, "spec.source.module"),
    "config-map-no-name": Bad({"source": {"configMapRef": {"key": "k"}}}, "spec.source.configMapRef.name"),
    "config-map-slash": Bad({"source": {"configMapRef": {"name": "a/b"}}}, "spec.source.configMapRef.name"),
    "config-map-bad-key": Bad(
        {"source": {"configMapRef": {"name": "a", "key": "../b"}}}, "spec.source.configMapRef.key"
    ),
    "expose-neither": Bad(spec(expose={"basePath": "/x"}), "spec.expose", _ONE_EXPOSE),
    "expose-both": Bad(
        spec(expose={"functions": {"names": ["f"]}, "class": {"name": "C"}}), "spec.expose", _ONE_EXPOSE
    ),
    "expose-no-names": Bad(spec(expose={"functions": {}}), "spec.expose.functions.names"),
    "expose-empty-names": Bad(spec(expose={"functions": {"names": []}}), "spec.expose.functions.names"),
    "expose-underscore": Bad(spec(expose={"functions": {"names": ["_f"]}}), "spec.expose.functions.names[0]"),
    "expose-star-and-name": Bad(
        spec(expose={"functions": {"names": ["*", "f"]}}),
        "spec.expose.functions.names",
        "`names` must be either names or '*' alone",
    ),
    "expose-twice": Bad(spec(expose={"functions": {"names": ["f", "f"]}}), "spec.expose.functions.names[1]"),
    "class-underscore": Bad(spec(expose={"class": {"name": "_C"}}), "spec.expose.class.name"),
    "base-path-relative": Bad(spec(expose={"functions": {"names": ["f"]}, "basePath": "x/y"}), "spec.expose.basePath"),
    "base-path-dots": Bad(spec(expose={"functions": {"names": ["f"]}, "basePath": "/a/../b"}), "spec.expose.basePath"),
    "base-path-slash": Bad(spec(expose={"functions": {"names": ["f"]}, "basePath": "/a/"}), "spec.expose.basePath"),
    "base-path-own": Bad(
        spec(expose={"functions": {"names": ["f"]}, "basePath": "/metrics/x"}),
        "spec.expose.basePath",
        "`basePath` must not begin with '/healthz', '/readyz' or '/metrics'",
    ),
    "replicas-negative": Bad(spec(replicas=-1), "spec.replicas"),
    "replicas-many": Bad(spec(replicas=1001), "spec.replicas"),
    "replicas-text": Bad(spec(replicas="2"), "spec.replicas"),
    "replicas-fraction": Bad(spec(replicas=1.5), "spec.replicas"),
    "replicas-true": Bad(spec(replicas=True), "spec.replicas"),
    "autoscaling-empty": Bad(spec(autoscaling={}), "spec.autoscaling.maxReplicas"),
    "autoscaling-below": Bad(
        spec(replicas=3, autoscaling={"maxReplicas": 2}),
        "spec.autoscaling.maxReplicas",
        "`spec.autoscaling.maxReplicas` must not be less than `spec.replicas`",
    ),
    "autoscaling-from-zero": Bad(
        spec(replicas=0, autoscaling={"maxReplicas": 2}),
        "spec.replicas",
        "`spec.replicas` must be at least 1 when `spec.autoscaling` is set",
    ),
    "python-version": Bad(spec(python={"version": "3.12"}), "spec.python.version"),
    "python-number": Bad(spec(python={"version": 3.11}), "spec.python.version"),
    "requirement-url": Bad(
        spec(python={"requirements": ["git+https://x.org/a"]}), "spec.python.requirements[0]", _REQUIREMENT
    ),
    "requirement-at": Bad(spec(python={"requirements": ["ok", "a @ b"]}), "spec.python.requirements[1]", _REQUIREMENT),
    "requirement-option": Bad(
        spec(python={"requirements": ["--index-url=x"]}), "spec.python.requirements[0]", _REQUIREMENT
    ),
    "requirement-path": Bad(spec(python={"requirements": ["./wheel"]}), "spec.python.requirements[0]", _REQUIREMENT),
    "requirement-backslash": Bad(spec(python={"requirements": ["a\\b"]}), "spec.python.requirements[0]", _REQUIREMENT),
    "requirement-two-lines": Bad(
        spec(python={"requirements": ["a\n-e x"]}), "spec.python.requirements[0]", _REQUIREMENT
    ),
    "requirement-empty": Bad(spec(python={"requirements": [""]}), "spec.python.requirements[0]"),
    "requirements-many": Bad(spec(python={"requirements": [f"a{i}" for i in range(101)]}), "spec.python.requirements"),
    "index-no-name": Bad(spec(python={"indexRef": {}}), "spec.python.indexRef.name"),
    "repository-tag": Bad(spec(image={"repository": "r.org/a:1"}), "spec.image.repository"),
    "repository-upper": Bad(spec(image={"repository": "r.org/A"}), "spec.image.repository"),
    "repository-scheme": Bad(spec(image={"repository": "https://r.org/a"}), "spec.image.repository"),
    "platform": Bad(spec(image={"platforms": ["linux/arm64"]}), "spec.image.platforms[0]"),
    "platforms-empty": Bad(spec(image={"platforms": []}), "spec.image.platforms"),
    "push-secret-alone": Bad(
        spec(image={"pushSecretRef": _REF}),
        "spec.image",
        "`spec.image.pushSecretRef` must be used together with `spec.image.repository`",
    ),
    "pull-repository-alone": Bad(
        spec(image={"pullRepository": "r.org/a"}),
        "spec.image",
        "`spec.image.pullRepository` must be used together with `spec.image.repository`",
    ),
    "cpu-word": Bad(runtime(resources={"requests": {"cpu": "much"}}), "spec.runtime.resources.requests.cpu"),
    "cpu-negative": Bad(runtime(resources={"requests": {"cpu": "-1"}}), "spec.runtime.resources.requests.cpu"),
    "cpu-true": Bad(runtime(resources={"requests": {"cpu": True}}), "spec.runtime.resources.requests.cpu"),
    "cpu-fraction": Bad(runtime(resources={"requests": {"cpu": 0.5}}), "spec.runtime.resources.requests.cpu"),
    "requests-over-limits": Bad(
        runtime(resources={"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}),
        "spec.runtime.resources",
        "`requests.cpu` must not be more than `limits.cpu`",
    ),
    "disk-over-limits": Bad(
        runtime(resources={"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "1G"}}),
        "spec.runtime.resources",
        "`requests.ephemeral-storage` must not be more than `limits.ephemeral-storage`",
    ),
    "env-neither": Bad(
        runtime(env=[{"name": "A"}]), "spec.runtime.env[0]", "must have exactly one of `value` and `valueFrom`"
    ),
    "env-both": Bad(
        runtime(env=[{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "spec.runtime.env[0]",
        "must have exactly one of `value` and `valueFrom`",
    ),
    "env-number": Bad(runtime(env=[{"name": "A", "value": 1}]), "spec.runtime.env[0].value"),
    "env-twice": Bad(runtime(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "spec.runtime.env[1]"),
    "env-reserved": Bad(
        runtime(env=[{"name": "CLOUDMESH_PORT", "value": "1"}]),
        "spec.runtime.env[0].name",
        "`name` must not be 'PYTHONPATH' or begin with 'CLOUDMESH_'",
    ),
    "env-python-path": Bad(
        runtime(env=[{"name": "PYTHONPATH", "value": "/x"}]),
        "spec.runtime.env[0].name",
        "`name` must not be 'PYTHONPATH'",
    ),
    "env-name": Bad(runtime(env=[{"name": "1A", "value": ""}]), "spec.runtime.env[0].name"),
    "env-empty-source": Bad(
        runtime(env=[{"name": "A", "valueFrom": {}}]),
        "spec.runtime.env[0].valueFrom",
        "`valueFrom` must have exactly one of `configMapKeyRef` and `secretKeyRef`",
    ),
    "env-from-empty": Bad(
        runtime(envFrom=[{}]), "spec.runtime.envFrom[0]", "must have exactly one of `configMapRef` and `secretRef`"
    ),
    "env-from-both": Bad(
        runtime(envFrom=[{"configMapRef": _REF, "secretRef": _REF}]),
        "spec.runtime.envFrom[0]",
        "must have exactly one of `configMapRef` and `secretRef`",
    ),
    "timeout-zero": Bad(runtime(timeoutSeconds=0), "spec.runtime.timeoutSeconds"),
    "timeout-long": Bad(runtime(timeoutSeconds=3601), "spec.runtime.timeoutSeconds"),
    "concurrency-zero": Bad(runtime(concurrency=0), "spec.runtime.concurrency"),
    "body-huge": Bad(runtime(maxBodyBytes=2**30 + 1), "spec.runtime.maxBodyBytes"),
    "node-selector-key": Bad(
        runtime(nodeSelector={"a b": "x"}), "spec.runtime.nodeSelector", "`nodeSelector` must have label names as keys"
    ),
    "node-selector-value": Bad(runtime(nodeSelector={"a": "x y"}), "spec.runtime.nodeSelector"),
    "node-selector-number": Bad(runtime(nodeSelector={"a": 1}), "spec.runtime.nodeSelector"),
    "node-selector-many": Bad(runtime(nodeSelector={f"a{i}": "x" for i in range(33)}), "spec.runtime.nodeSelector"),
    "toleration-value": Bad(
        runtime(tolerations=[{"key": "a", "operator": "Exists", "value": "x"}]),
        "spec.runtime.tolerations[0].value",
        "`value` must not be set when `operator` is 'Exists'",
    ),
    "toleration-no-key": Bad(
        runtime(tolerations=[{"value": "x"}]),
        "spec.runtime.tolerations[0]",
        "`key` must be set when `operator` is 'Equal'",
    ),
    "toleration-seconds": Bad(
        runtime(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]),
        "spec.runtime.tolerations[0]",
        "`tolerationSeconds` must be used only with `effect` 'NoExecute'",
    ),
    "toleration-operator": Bad(
        runtime(tolerations=[{"key": "a", "operator": "exists"}]), "spec.runtime.tolerations[0].operator"
    ),
    "pin-of-another": Bad(
        spec(revision={"pin": "other-00001"}),
        "spec.revision.pin",
        "`spec.revision.pin` must be a revision of this object",
    ),
    "history-none": Bad(spec(revisionHistoryLimit=0), "spec.revisionHistoryLimit"),
    "list-for-struct": Bad(spec(runtime=[]), "spec.runtime"),
    "text-for-list": Bad(spec(python={"requirements": "numpy"}), "spec.python.requirements"),
    "no-spec": Bad(None, "spec"),
}

UNKNOWN: dict[str, tuple[Spec, str]] = {
    "unknown-top": (spec(replica=1), "spec.replica"),
    "unknown-nested": (runtime(resources={"requests": {"gpu": 1}}), "spec.runtime.resources.requests.gpu"),
    "unknown-in-list": (runtime(env=[{"name": "A", "value": "1", "optional": True}]), "spec.runtime.env[0].optional"),
    "unknown-pod-spec": (runtime(securityContext={"privileged": True}), "spec.runtime.securityContext"),
}
"""Fields that don't exist: refused in what users write, ignored in what the API server returns."""

BAD_NAMES = ("1-begins-with-a-digit", "a.dot", "n" * 49)
GOOD_NAMES = ("a", "a0", "a-b-0", "n" * 48)
NAME_MESSAGE = "`metadata.name` must be at most 48 lower-case letters, digits and '-'"


def make_object(name: str, spec: Any, **type_: str) -> dict[str, Any]:
    """A FunctionService with that name and spec, or of another type; no spec at all for None."""
    made: dict[str, Any] = {"apiVersion": "cloudmesh.org/v1alpha1", "kind": "FunctionService", **type_}
    made["metadata"] = {"name": name}
    return made if spec is None else {**made, "spec": spec}
