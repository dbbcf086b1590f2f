"""The Pod that is a machine, and the Service that names a cluster's machines. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from cloudmesh.api.names import LABEL_MANAGED_BY, MANAGED_BY, owner_labels
from cloudmesh.compute.ports import ClusterSpec, NodeSpec
from cloudmesh.compute.providers.kubernetes.sizes import Settings, Size
from cloudmesh.compute.tokens import (
    PREFIX,
    TAG_ACCOUNT,
    TAG_CLUSTER,
    TAG_INSTALLATION,
    TAG_MACHINE,
    TAG_NAMESPACE,
    TAG_TOKEN,
    TAG_UID,
)
from cloudmesh.engine.errors import InvalidRequest, Unsupported
from cloudmesh.engine.resources import Obj

CONTAINER = "machine"
PORT = 2222
DISK = "ephemeral-storage"
UID = 2000
USER = "cm"
START = "/opt/cloudmesh/machine/start"
SECRET_MOUNT = "/etc/cloudmesh/ssh"  # noqa: S105 - a path
LABEL_TYPE = PREFIX + "machine-type"
ANNOTATION_TAGS = PREFIX + "tags"
"""JSON of all tags that aren't labels: those may be longer than a label takes."""
ANNOTATION_MADE = PREFIX + "made"
"""JSON of what was made: the image asked for, the image it is, the limits. Serves to see drift."""
LABEL_TAGS = (TAG_INSTALLATION, TAG_NAMESPACE, TAG_ACCOUNT, TAG_CLUSTER, TAG_MACHINE, TAG_UID, TAG_TOKEN)
"""Tags of ours, which are labels of the same name: listings select by them."""

START_SECONDS = 300
GRACE_SECONDS = 5
CPU_SHARE = 10
"""A Pod is guaranteed a tenth of its CPUs and may use all of them: CPU is shared on full nodes, memory never is."""
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_HOST_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def service_name(cluster: str) -> str:
    """The headless Service of a cluster: the subdomain of its machines."""
    return f"{cluster}-vc"


def search_domain(settings: Settings, cluster: str) -> str:
    """Where a cluster's machines find each other by their bare names."""
    return f"{service_name(cluster)}.{settings.namespace}.svc.{settings.cluster_domain}"


def split_tags(tags: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations that carry tags; `join_tags` gives back what was given.

    Raises:
        InvalidRequest: A tag of ours can't be a label.
    """
    labels, others = {}, {}
    for key, value in tags.items():
        if key not in LABEL_TAGS:
            others[key] = value
        elif not _LABEL_VALUE.fullmatch(value):
            raise InvalidRequest(f"tag {key}: {value!r} can't be the value of a label")
        else:
            labels[key] = value
    text = json.dumps(others, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return labels, ({ANNOTATION_TAGS: text} if others else {})


def join_tags(meta: Obj) -> dict[str, str]:
    """The tags of an object; what a stranger wrote over the annotation counts as none."""
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    try:
        others = json.loads(annotations.get(ANNOTATION_TAGS, "{}"))
    except ValueError:
        others = {}
    found = {str(key): str(value) for key, value in others.items()} if isinstance(others, dict) else {}
    return found | {key: labels[key] for key in LABEL_TAGS if key in labels}


def limits_of(size: Size, disk_gib: int) -> dict[str, str]:
    """What a Pod may use at most: what the offer says."""
    limits = {"cpu": f"{size.milli_vcpu}m", "memory": f"{size.memory_mib}Mi"}
    return limits | ({DISK: f"{disk_gib}Gi"} if disk_gib else {})


def make_pod(settings: Settings, spec: NodeSpec) -> Obj:
    """The Pod of a machine; it passes Pod Security `restricted`.

    Raises:
        InvalidRequest: The offer, the image or a name isn't one of the account, or the logins are missing.
        Unsupported: It needs an address of the internet.
    """
    size = settings.sizes.get(spec.offer.type)
    if size is None:
        raise InvalidRequest(f"spec.kubernetes.sizes has no {spec.offer.type!r}")
    if spec.offer.region or spec.offer.zone:
        raise InvalidRequest("a Pod runs where the scheduler puts it: leave region and zone out")
    if spec.public_address:
        raise Unsupported("a Pod has no address of the internet: leave `spec.network.mode` PublicAddress out")
    if not _HOST_NAME.fullmatch(spec.name):
        raise InvalidRequest(f"{spec.name!r} can't be the name of a host")
    if not spec.access.secret_name:
        raise InvalidRequest("a Pod takes its keys from a Secret, and none was named")
    image = settings.image(spec.image)
    if not image:
        raise InvalidRequest("the installation names no machine image: set machine.image of the chart")
    limits = limits_of(size, spec.disk_gib)
    requests = limits | {"cpu": f"{max(1, size.milli_vcpu // CPU_SHARE)}m"}
    labels, annotations = split_tags({**spec.tags, **spec.scope.tags(), TAG_TOKEN: spec.token, TAG_UID: spec.uid})
    labels |= {LABEL_MANAGED_BY: MANAGED_BY, LABEL_TYPE: size.name}
    made = {"asked": spec.image, "image": image, "limits": limits}
    annotations[ANNOTATION_MADE] = json.dumps(made, sort_keys=True, separators=(",", ":"))
    meta: Obj = {"name": spec.name, "namespace": settings.namespace, "labels": labels, "annotations": annotations}
    if spec.owner:
        labels |= owner_labels(spec.owner["kind"], spec.owner["name"], spec.owner["uid"])
        meta["ownerReferences"] = [dict(spec.owner)]
    pod: Obj = {
        "hostname": spec.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {
            **settings.node_selector,
            "kubernetes.io/arch": spec.offer.arch,
            "kubernetes.io/os": "linux",
        },
        "tolerations": [dict(each) for each in settings.tolerations],
        "containers": [_container(image, size, limits, requests)],
        "volumes": [_keys(spec.access.secret_name)],
    }
    if spec.cluster:
        labels[TAG_CLUSTER] = spec.cluster
        pod["subdomain"] = service_name(spec.cluster)
        pod["dnsConfig"] = {"searches": [search_domain(settings, spec.cluster)]}
        # A node that fails shouldn't take a whole cluster along; a full one shouldn't keep it waiting.
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {TAG_CLUSTER: spec.cluster}},
            }
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod}


def _container(image: str, size: Size, limits: dict[str, str], requests: dict[str, str]) -> Obj:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [START],
        "env": [
            {"name": "CLOUDMESH_MILLI_VCPU", "value": str(size.milli_vcpu)},
            {"name": "CLOUDMESH_MEMORY_MIB", "value": str(size.memory_mib)},
        ],
        "ports": [{"name": "ssh", "containerPort": PORT}],
        "resources": {"limits": limits, "requests": requests},
        "startupProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": START_SECONDS},
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 20},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "keys", "mountPath": SECRET_MOUNT, "readOnly": True}],
    }


def _keys(secret: str) -> Obj:
    """What sshd needs of the cluster's Secret, and nothing else of it: it also holds the key that logs in."""
    items = [{"key": key, "path": key} for key in ("authorized_keys", "ssh_host_ed25519_key")]
    return {"name": "keys", "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}


def make_service(settings: Settings, cluster: ClusterSpec) -> Obj:
    """The Service that gives a cluster's machines their names, also before they are ready."""
    meta: Obj = {"name": service_name(cluster.name), "namespace": settings.namespace}
    meta["labels"] = owner_labels("VirtualCluster", cluster.name, cluster.uid)
    if cluster.owner:
        meta["ownerReferences"] = [dict(cluster.owner)]
    spec: Obj = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {LABEL_MANAGED_BY: MANAGED_BY, TAG_CLUSTER: cluster.name},
        "ports": [{"name": "ssh", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
