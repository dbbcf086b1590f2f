"""What a function is made of in the cluster: Deployment, Service, HorizontalPodAutoscaler, ConfigMap. Pure.

Each `make_…` gives one object, ready for server-side apply. The Pod template is rendered once, when a revision is made,
and kept in it; the Deployment puts the template of the revision that serves together with today's replicas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudmesh.api.names import owner_labels
from cloudmesh.engine.applied import stamped
from cloudmesh.engine.owners import owner_reference

if TYPE_CHECKING:
    from cloudmesh.functions.revision import Revision, Wanted

Obj = dict[str, Any]

CONTAINER = "function"
PORT = 8080
FUNCTION_LABEL = "cloudmesh.org/function"
REVISION_ANNOTATION = "cloudmesh.org/revision"
PROGRESS_DEADLINE_SECONDS = 120
# After SIGTERM the runtime serves on for 4 s, since load balancers hear of the end later, and finishes what runs.
DRAIN_SECONDS = 5
KILL_AFTER_SECONDS = 5
DEFAULT_CPU = "10m"
DEFAULT_CPU_AUTOSCALED = "100m"  # utilisation is a share of the request: of 10m any request is a burst
DEFAULT_MEMORY = "64Mi"


def function_url(namespace: str, name: str, base_path: str) -> str:
    """Where the function answers inside the cluster."""
    return f"http://{name}.{namespace}.svc{base_path}"


def openapi_name(name: str) -> str:
    """The ConfigMap that holds the function's OpenAPI document."""
    return f"{name}-openapi"


def selector_labels(name: str) -> dict[str, str]:
    """The labels that select the function's Pods, and no others."""
    return {FUNCTION_LABEL: name}


def make_pod_template(owner: Mapping[str, Any], wanted: Wanted, image: str, *, pull_secret: str = "") -> Obj:
    """The Pod template of a revision: passes Pod Security `restricted`, runs `image` by digest.

    Args:
        owner: the FunctionService.
        wanted: what it asks for.
        image: name and digest.
        pull_secret: name of the Secret that nodes pull with from the installation's own registry; empty for none.
    """
    runtime = wanted.runtime
    resources = {k: dict(v) for k, v in (runtime.get("resources") or {}).items()}
    requests = resources.setdefault("requests", {})
    limits = resources.get("limits", {})
    # A limit without a request is the request too: a default must not stand in its way.
    if "cpu" not in requests and "cpu" not in limits:
        requests["cpu"] = DEFAULT_CPU_AUTOSCALED if wanted.autoscaled else DEFAULT_CPU
    if "memory" not in requests and "memory" not in limits:
        requests["memory"] = DEFAULT_MEMORY
    timeout = int(runtime["timeoutSeconds"])
    environment: list[Obj] = [
        {"name": "CLOUDMESH_TIMEOUT_SECONDS", "value": str(timeout)},
        {"name": "CLOUDMESH_CONCURRENCY", "value": str(runtime["concurrency"])},
        {"name": "CLOUDMESH_MAX_BODY_BYTES", "value": str(runtime["maxBodyBytes"])},
        {"name": "CLOUDMESH_GRACE_SECONDS", "value": str(timeout + DRAIN_SECONDS)},
        {"name": "CLOUDMESH_PORT", "value": str(PORT)},
    ]
    environment += [dict(e) for e in runtime.get("env") or []]
    container: Obj = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": environment,
        "resources": resources,
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http", "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the container's own
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    if env_from := runtime.get("envFrom"):
        container["envFrom"] = [dict(e) for e in env_from]
    spec: Obj = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": timeout + DRAIN_SECONDS + KILL_AFTER_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
    }
    if node_selector := runtime.get("nodeSelector"):
        spec["nodeSelector"] = dict(node_selector)
    if tolerations := runtime.get("tolerations"):
        spec["tolerations"] = [dict(t) for t in tolerations]
    if wanted.image.get("repository"):
        pull_secret = (wanted.image.get("pullSecretRef") or {}).get("name", "")
    if pull_secret:
        spec["imagePullSecrets"] = [{"name": pull_secret}]
    return {"metadata": {"labels": {**_labels(owner), **selector_labels(wanted.name)}}, "spec": spec}


def with_image(template: Mapping[str, Any], image: str) -> Obj:
    """A Pod template of a revision, with another image."""
    container = {**template["spec"]["containers"][0], "image": image}
    return {**template, "spec": {**template["spec"], "containers": [container]}}


def _labels(owner: Mapping[str, Any]) -> dict[str, str]:
    return owner_labels(owner["kind"], owner["metadata"]["name"], owner["metadata"]["uid"])


def child_metadata(owner: Mapping[str, Any], name: str, **more: Any) -> Obj:
    """Metadata of a child: labels that say whose it is, and the owner reference that lets it go with its owner."""
    return {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": _labels(owner),
        "ownerReferences": [owner_reference(dict(owner))],
        **more,
    }


def make_deployment(owner: Mapping[str, Any], revision: Revision, replicas: int | None) -> Obj:
    """The Deployment that runs `revision`; `replicas` None leaves the number to the autoscaler."""
    name = owner["metadata"]["name"]
    template = json.loads(json.dumps(revision.template))
    template["metadata"].setdefault("annotations", {})[REVISION_ANNOTATION] = revision.name
    spec: Obj = {
        "selector": {"matchLabels": selector_labels(name)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
        "revisionHistoryLimit": 1,
        "template": template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return stamped(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": child_metadata(owner, name, annotations={REVISION_ANNOTATION: revision.name}),
            "spec": spec,
        }
    )


def make_service(owner: Mapping[str, Any]) -> Obj:
    """The Service of the function: port 80."""
    name = owner["metadata"]["name"]
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": child_metadata(owner, name),
            "spec": {
                "selector": selector_labels(name),
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        }
    )


def make_autoscaler(owner: Mapping[str, Any], minimum: int, maximum: int, cpu_percent: int) -> Obj:
    """The HorizontalPodAutoscaler of the function, on CPU utilisation in percent of the request."""
    name = owner["metadata"]["name"]
    return stamped(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": child_metadata(owner, name),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": minimum,
                "maxReplicas": maximum,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": cpu_percent},
                        },
                    }
                ],
            },
        }
    )


def make_openapi(owner: Mapping[str, Any], document: Mapping[str, Any]) -> Obj:
    """The ConfigMap that holds the OpenAPI document of the revision that serves."""
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": child_metadata(owner, openapi_name(owner["metadata"]["name"])),
            "data": {"openapi.json": json.dumps(document, sort_keys=True, ensure_ascii=False) + "\n"},
        }
    )
