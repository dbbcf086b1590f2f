"""What a directory is made of in the cluster: Secret, PersistentVolumeClaim, Deployment, Service. Pure."""

from __future__ import annotations

import base64
from typing import Any

from cloudmesh.api.names import gateway_name, owner_labels
from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.data.stores.clouds import IDENTITY_FOLDER, identity_token
from cloudmesh.engine.applied import stamped
from cloudmesh.engine.owners import owner_reference
from cloudmesh.engine.resources import Obj

DIRECTORY_LABEL = "cloudmesh.org/directory"
CONFIG_KEY = "config.json"
CONFIG_FOLDER = "/etc/cloudmesh"
CATALOG_FOLDER = "/var/lib/cloudmesh"
STORES_FOLDER = "/stores"
CA_FOLDER = "/var/run/cloudmesh/ca"
CA_CONFIG_MAP = "kube-root-ca.crt"
"""Kubernetes keeps it in every namespace: the gateway asks the API server with users' tokens, having none itself."""
CONTAINER = "gateway"
PORT = 8080
USER = 65532
TERMINATION_SECONDS = 30
ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}
"""Many threads take turns: an arena for each would keep what the others need."""
SCRATCH = "20Gi"
"""Of a node's disk at most, while a catalogue in a database is made anew of millions of files."""


def mount_of(store: str) -> str:
    """Where the volume of a local store is mounted."""
    return f"{STORES_FOLDER}/{store}"


def _metadata(owner: Obj) -> dict[str, Any]:
    meta = owner["metadata"]
    return {
        "name": gateway_name(meta["name"]),
        "namespace": meta["namespace"],
        "labels": owner_labels(owner["kind"], meta["name"], meta["uid"]),
        # a deletion in the foreground must not wait for what is still needed to empty the stores
        "ownerReferences": [owner_reference(owner) | {"blockOwnerDeletion": False}],
    }


def make_secret(owner: Obj, config: bytes) -> Obj:
    """The Secret that holds the gateway's configuration."""
    data = {CONFIG_KEY: base64.b64encode(config).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(owner), "type": "Opaque", "data": data}


def make_claim(owner: Obj, directory: VirtualDirectory) -> Obj | None:
    """The volume that the catalogue lies on, if it is a file."""
    asked = directory.spec.catalog.sqlite
    if asked is None:
        return None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": asked.storage}},
    }
    if asked.storage_class_name is not None:
        spec["storageClassName"] = asked.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _metadata(owner), "spec": spec}


def make_service(owner: Obj) -> Obj:
    """The Service of the gateway: port 80."""
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(owner),
            "spec": {
                "selector": {DIRECTORY_LABEL: owner["metadata"]["name"]},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        }
    )


def _catalog_volume(name: str, config: DirectoryConfig) -> Obj:
    if config.postgres:
        # what a rebuild needs for a while
        return {"emptyDir": {"sizeLimit": SCRATCH}}
    return {"persistentVolumeClaim": {"claimName": gateway_name(name)}}


def _strategy(config: DirectoryConfig) -> Obj:
    """How a new gateway follows the one before it: two at once would open one file, or want one volume twice."""
    if not config.postgres or any(store.mount for store in config.stores):
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _volumes(name: str, config: DirectoryConfig) -> tuple[list[Obj], list[Obj]]:
    """Volumes of the Pod, and where the container has them mounted."""
    local = {store.name: store.settings["persistentVolumeClaimRef"]["name"] for store in config.stores if store.mount}
    volumes: list[Obj] = [
        {"name": "config", "secret": {"secretName": gateway_name(name), "defaultMode": 0o440}},
        {"name": "ca", "configMap": {"name": CA_CONFIG_MAP, "optional": True}},
        {"name": "catalog"} | _catalog_volume(name, config),
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    mounts: list[Obj] = [
        {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "ca", "mountPath": CA_FOLDER, "readOnly": True},
        {"name": "catalog", "mountPath": CATALOG_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
    ]
    if audiences := sorted({store.identity["audience"] for store in config.stores if store.identity}):
        # the kubelet renews them when four fifths of their time are over
        tokens = [
            {"audience": each, "expirationSeconds": 3600, "path": identity_token(each).rpartition("/")[2]}
            for each in audiences
        ]
        projected = {"sources": [{"serviceAccountToken": token} for token in tokens], "defaultMode": 0o440}
        volumes.append({"name": "identity", "projected": projected})
        mounts.append({"name": "identity", "mountPath": IDENTITY_FOLDER, "readOnly": True})
    # a claim may serve several stores, and can be mounted under one volume only
    named = {claim: f"store-{number}" for number, claim in enumerate(sorted(set(local.values())))}
    volumes += [{"name": volume, "persistentVolumeClaim": {"claimName": claim}} for claim, volume in named.items()]
    mounts += [{"name": named[claim], "mountPath": mount_of(store)} for store, claim in sorted(local.items())]
    return volumes, mounts


def _container(image: str, mounts: list[Obj], log_level: str) -> Obj:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3.11", "-m", "cloudmesh.data.gateway"],
        "env": [
            {"name": "CLOUDMESH_LOG_LEVEL", "value": log_level},
            # indexes of millions of entries are sorted beside them, not in the small folder for temporary files
            {"name": "SQLITE_TMPDIR", "value": CATALOG_FOLDER},
            *({"name": name, "value": value} for name, value in ALLOCATOR.items()),
            {
                "name": "CLOUDMESH_MEMORY_LIMIT",
                "valueFrom": {"resourceFieldRef": {"containerName": CONTAINER, "resource": "limits.memory"}},
            },
        ],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        # before it listens it looks at all stores and takes up what a crash left
        "startupProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 300,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http", "scheme": "HTTP"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def make_deployment(owner: Obj, config: DirectoryConfig, image: str, *, log_level: str = "INFO") -> Obj:
    """The Deployment of the gateway; passes Pod Security `restricted`.

    A change of the configuration doesn't change it, unless other volumes are to be mounted: the gateway reads the
    mounted Secret again.

    Args:
        owner: The VirtualDirectory.
        config: What the gateway is told.
        image: Image of the gateway.
        log_level: Of the gateway.
    """
    name = owner["metadata"]["name"]
    volumes, mounts = _volumes(name, config)
    labels = {**_metadata(owner)["labels"], DIRECTORY_LABEL: name}
    return stamped(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(owner),
            "spec": {
                "replicas": 1,
                "strategy": _strategy(config),
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": {DIRECTORY_LABEL: name}},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [_container(image, mounts, log_level)],
                        "volumes": volumes,
                        "automountServiceAccountToken": False,
                        "enableServiceLinks": False,
                        "terminationGracePeriodSeconds": TERMINATION_SECONDS,
                        "securityContext": {
                            "runAsNonRoot": True,
                            "runAsUser": USER,
                            "runAsGroup": USER,
                            "fsGroup": USER,
                            "fsGroupChangePolicy": "OnRootMismatch",
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                    },
                },
            },
        }
    )
