"""Names that every part of Cloudmesh and every child of a resource share: group, labels, annotations, finalizers."""

from __future__ import annotations

from typing import Final

GROUP: Final = "cloudmesh.org"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "cloudmesh"

FIELD_MANAGER: Final = "cloudmesh-operator"

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "cloudmesh"
LABEL_OWNER_KIND: Final = f"{GROUP}/owner-kind"
LABEL_OWNER_NAME: Final = f"{GROUP}/owner-name"
LABEL_OWNER_UID: Final = f"{GROUP}/owner-uid"

ANNOTATION_PAUSED: Final = f"{GROUP}/paused"
"""`"true"` stops all changes to what the object owns."""
ANNOTATION_REBUILD: Final = f"{GROUP}/rebuild"
"""A new value builds the image again with today's base and runtime."""
ANNOTATION_RELOCK: Final = f"{GROUP}/relock"
"""A new value resolves the requirements again."""
ANNOTATION_APPROVED_QUOTE: Final = f"{GROUP}/approved-quote"
"""The hash of the quote that may be spent; setting it needs the verb `approve` on virtualclusters."""
ANNOTATION_RESUME_REQUESTED: Final = f"{GROUP}/resume-requested"
"""A new value wakes a cluster that was suspended because it was idle."""
ANNOTATION_RESTARTED_AT: Final = f"{GROUP}/restarted-at"
"""A new value restarts a VirtualMachine."""
ANNOTATION_RETRY_REQUESTED: Final = f"{GROUP}/retry-requested"
"""A new value lets a CloudAccount try again at once what failed a moment ago."""
ANNOTATION_ABANDON: Final = f"{GROUP}/abandon"
"""The object's uid gives up on purpose what the clean-up can't reach."""

FINALIZER_CLEANUP: Final = f"{GROUP}/cleanup"
FINALIZER_IN_USE: Final = f"{GROUP}/in-use"

SECRET_TYPE_CREDENTIALS: Final = f"{GROUP}/credentials"
SECRET_TYPE_REGISTRY: Final = "kubernetes.io/dockerconfigjson"  # noqa: S105 - a type, not a secret

OBJECT_NAME_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME_MAX_LENGTH: Final = 48

CHILD_NAME_MAX_LENGTH: Final = 63
"""Characters of a name that is a host name too, such as a VirtualMachine's."""
POOL_AND_CLUSTER_MAX_LENGTH: Final = 52
"""Characters of a cluster's name and a pool's name together: their machines' names are made of both."""

PLURALS: Final = {
    "FunctionService": "functionservices",
    "VirtualCluster": "virtualclusters",
    "VirtualMachine": "virtualmachines",
    "CloudAccount": "cloudaccounts",
    "PlacementPolicy": "placementpolicies",
    "PriceSheet": "pricesheets",
    "Budget": "budgets",
    "ClusterJob": "clusterjobs",
    "VirtualDirectory": "virtualdirectories",
    "DataStore": "datastores",
}
"""Resource name of each kind of the group."""


def default_module(name: str) -> str:
    """The Python module a function's source is imported as when `spec.source.module` is left out."""
    return name.replace("-", "_")


def gateway_name(directory: str) -> str:
    """Name of the gateway of a VirtualDirectory, and of all that is made for it."""
    return f"{directory}-vdir"


def gateway_url(namespace: str, directory: str) -> str:
    """Where the gateway of a VirtualDirectory answers inside the cluster."""
    return f"http://{gateway_name(directory)}.{namespace}.svc"


def owner_labels(kind: str, name: str, uid: str) -> dict[str, str]:
    """Labels that mark an object as made by the operator for the named owner."""
    return {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_OWNER_KIND: kind,
        LABEL_OWNER_NAME: name,
        LABEL_OWNER_UID: uid,
    }
