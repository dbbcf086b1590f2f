"""The settings of every component of the own bed. Pure: text in, text out.

Paths are those inside of the bed, where its folder is always `/run/bed/state`: short and free of surprises, whatever
the checkout's path is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.testbed.host import AddressPlan

NODE = "bed"
STATE = "/run/bed/state"
BIN = "/run/bed/kubernetes/bin"
SOCKET = "/run/containerd/containerd.sock"
PLUGINS = "/var/lib/kubelet/volumeplugins"
PAUSE = "cloudmesh.local/pause:1"


@dataclass(frozen=True, slots=True)
class Component:
    """One process that the supervisor starts, watches and starts again.

    Attributes:
        name: name of its log and for `kill`.
        command: its argument list.
        ready: URL that answers 200 when it serves, or `unix:PATH` for a socket that takes connections; empty: at once.
        after: names of the components that must be ready first.
        then: a command to run each time it has become ready.
        environment: variables besides those that all have.
    """

    name: str
    command: list[str]
    ready: str = ""
    after: list[str] = field(default_factory=list)
    then: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def _flags(**values: str | int | bool) -> list[str]:
    def text(value: str | int | bool) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return [f"--{name.replace('_', '-')}={text(value)}" for name, value in values.items()]


def _controller(name: str) -> dict[str, str | int | bool]:
    kubeconfig = f"{STATE}/conf/{name}.kubeconfig"
    return {
        "kubeconfig": kubeconfig,
        "authentication_kubeconfig": kubeconfig,
        "authorization_kubeconfig": kubeconfig,
        "leader_elect": False,
        "kube_api_qps": 300,  # the default of 20 delays the ServiceAccount of a new namespace by seconds
        "kube_api_burst": 600,
        "bind_address": "127.0.0.1",
    }


def _etcd() -> Component:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    flags = _flags(
        data_dir="/var/etcd",
        unsafe_no_fsync=True,
        listen_client_urls=client,
        advertise_client_urls=client,
        listen_peer_urls=peer,
        initial_advertise_peer_urls=peer,
        initial_cluster=f"default={peer}",
        log_level="warn",
    )
    return Component("etcd", ["etcd", *flags], ready=f"{client}/health")


def _apiserver(plan: AddressPlan) -> Component:
    pki = f"{STATE}/pki"
    flags = _flags(
        etcd_servers="http://127.0.0.1:2379",
        bind_address="0.0.0.0",
        secure_port=6443,
        advertise_address=plan.node,
        tls_cert_file=f"{pki}/apiserver.crt",
        tls_private_key_file=f"{pki}/apiserver.key",
        client_ca_file=f"{pki}/ca.crt",
        service_account_issuer="https://kubernetes.default.svc.cluster.local",
        service_account_key_file=f"{pki}/sa.pub",
        service_account_signing_key_file=f"{pki}/sa.key",
        service_cluster_ip_range=plan.services,
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        allow_privileged=True,
        kubelet_preferred_address_types="InternalIP",
        kubelet_client_certificate=f"{pki}/kubelet-client.crt",
        kubelet_client_key=f"{pki}/kubelet-client.key",
        requestheader_client_ca_file=f"{pki}/front-proxy-ca.crt",
        requestheader_allowed_names="front-proxy-client",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        requestheader_group_headers="X-Remote-Group",
        requestheader_username_headers="X-Remote-User",
        proxy_client_cert_file=f"{pki}/front-proxy-client.crt",
        proxy_client_key_file=f"{pki}/front-proxy-client.key",
        enable_aggregator_routing=True,
        audit_policy_file=f"{STATE}/conf/audit.yaml",
        audit_log_path=f"{STATE}/log/audit.log",
        audit_log_maxsize=200,
        audit_log_maxbackup=3,
    )
    # a quarter of its CPU time goes into collecting garbage otherwise; the limit holds on small machines
    memory = {"GOGC": "300", "GOMEMLIMIT": "3GiB"}
    ready = "https://127.0.0.1:6443/readyz"
    return Component("apiserver", ["kube-apiserver", *flags], ready=ready, environment=memory)


def _controller_manager(plan: AddressPlan) -> Component:
    pki = f"{STATE}/pki"
    flags = _flags(
        **_controller("controller-manager"),
        service_account_private_key_file=f"{pki}/sa.key",
        root_ca_file=f"{pki}/ca.crt",
        cluster_signing_cert_file=f"{pki}/ca.crt",
        cluster_signing_key_file=f"{pki}/ca.key",
        use_service_account_credentials=True,
        flex_volume_plugin_dir=PLUGINS,
        service_cluster_ip_range=plan.services,
        horizontal_pod_autoscaler_sync_period="5s",
    )
    return Component("controller-manager", ["kube-controller-manager", *flags], after=["apiserver"])


def _metrics_server() -> Component:
    kubeconfig = f"{STATE}/conf/admin.kubeconfig"
    flags = _flags(
        kubeconfig=kubeconfig,
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        cert_dir="/run/metrics-server",
        secure_port=4443,
        kubelet_insecure_tls=True,
        kubelet_preferred_address_types="InternalIP",
        metric_resolution="10s",
        kubelet_request_timeout="5s",  # must be below the resolution
    )
    return Component("metrics-server", ["metrics-server", *flags], ready="tcp:127.0.0.1:4443", after=["kubelet"])


def registry(plan: AddressPlan) -> str:
    """Name of the bed's registry in image references: outside of the cluster, plain HTTP, no password."""
    return f"{plan.node}:5000"


def _registry(plan: AddressPlan) -> dict[str, Any]:
    return {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": "/var/registry"}, "delete": {"enabled": True}},
        "http": {"addr": registry(plan)},
    }


def _registry_host(plan: AddressPlan) -> str:
    return f'[host."http://{registry(plan)}"]\n  capabilities = ["pull", "resolve"]\n'


def components(plan: AddressPlan) -> list[Component]:
    """Every process of the bed, in the order in which they start."""
    images = ["ctr", "--address", SOCKET, "-n", "k8s.io", "images", "import", "/run/bed/kubernetes/pause.tar"]
    conf = f"{STATE}/conf"
    kubelet = _flags(
        config=f"{conf}/kubelet.yaml",
        kubeconfig=f"{conf}/kubelet.kubeconfig",
        node_ip=plan.node,
        hostname_override=NODE,
        cert_dir=f"{STATE}/pki/kubelet",
    )
    proxy = _flags(
        kubeconfig=f"{conf}/proxy.kubeconfig",
        proxy_mode="nftables",
        conntrack_max_per_core=0,
        conntrack_min=0,
        cluster_cidr=plan.pods,
        nodeport_addresses="primary",
        hostname_override=NODE,
        oom_score_adj=0,
    )
    scheduler = ["kube-scheduler", *_flags(**_controller("scheduler"))]
    return [
        _etcd(),
        Component("containerd", ["containerd", "--config", f"{conf}/containerd.toml"], f"unix:{SOCKET}", then=images),
        _apiserver(plan),
        Component("kubelet", ["kubelet", *kubelet], "http://127.0.0.1:10248/healthz", ["apiserver", "containerd"]),
        _controller_manager(plan),
        Component("scheduler", scheduler, after=["apiserver"]),
        Component("proxy", ["kube-proxy", *proxy], after=["apiserver"]),
        Component("coredns", ["coredns", "-conf", f"{conf}/Corefile"], f"http://{plan.node}:8181/ready", ["apiserver"]),
        _metrics_server(),
        Component("registry", ["registry", "serve", f"{conf}/registry.yaml"], f"http://{registry(plan)}/v2/"),
    ]


def _kubelet(plan: AddressPlan) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "volumePluginDir": PLUGINS,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [plan.bridge],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{STATE}/conf/resolv.conf",
        "maxPods": 250,
        "serializeImagePulls": False,
        "registryPullQPS": 50,
        "registryBurst": 100,
        "kubeAPIQPS": 300,
        "kubeAPIBurst": 600,
        "authentication": {
            "x509": {"clientCAFile": f"{STATE}/pki/ca.crt"},
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "evictionHard": {
            "memory.available": "1%",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
    }


def _cni(plan: AddressPlan) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,  # brings the default route; one under `routes` as well fails
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": plan.pods}]]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": NODE, "plugins": [bridge, portmap]}


_CONTAINERD = f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # a negative score needs a capability that containers and some virtual machines lack
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{STATE}/conf/registries"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{STATE}/conf/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""

_AUDIT = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""


def _corefile(plan: AddressPlan, nameservers: list[str]) -> str:
    lines = [
        ".:53 {",
        f"  bind {plan.bridge}",
        "  errors",
        f"  ready {plan.node}:8181",
        "  cache 5 {",
        "    disable denial",  # a name that is about to come must not stay unknown
        "  }",
        "  kubernetes cluster.local in-addr.arpa {",
        f"    kubeconfig {STATE}/conf/admin.kubeconfig bed",
        "  }",
        *([f"  forward . {' '.join(nameservers)}"] if nameservers else []),
        "}",
    ]
    return "\n".join(lines) + "\n"


def files(plan: AddressPlan, nameservers: list[str]) -> dict[str, str]:
    """Every file of `conf/` by its name there, except kubeconfigs.

    Args:
        plan: the bed's addresses.
        nameservers: resolvers for names outside of the cluster; may be empty.
    """
    return {
        "containerd.toml": _CONTAINERD,
        "audit.yaml": _AUDIT,
        "kubelet.yaml": json.dumps(_kubelet(plan), indent=1),
        "cni/10-bed.conflist": json.dumps(_cni(plan), indent=1),
        "registry.yaml": json.dumps(_registry(plan), indent=1),
        f"registries/{registry(plan)}/hosts.toml": _registry_host(plan),
        "Corefile": _corefile(plan, nameservers),
        "resolv.conf": "".join(f"nameserver {address}\n" for address in nameservers),
        "components.json": json.dumps([asdict(component) for component in components(plan)], indent=1),
    }
