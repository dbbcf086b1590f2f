"""The chart, rendered by Helm and put before a real API server: lint, rights, Pod Security, install and uninstall."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.testbed.kubectl import CommandFailed, TestCluster

from cloudmesh.api.names import PLURALS

pytestmark = [pytest.mark.kube]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/cloudmesh"
CI = sorted((CHART / "ci").glob("*.yaml"))
RIGHTS = Path(__file__).parent / "chart-rights.txt"
TRIAL = "trials.chart-test.cloudmesh.org"
WORKLOADS = {"Deployment", "DaemonSet"}
Objects = list[dict[str, Any]]


RENDERED: dict[tuple[str, ...], str] = {}


def render(cluster: TestCluster, *arguments: str, namespace: str = "cloudmesh-system") -> Objects:
    """The chart's objects for some values, hooks too."""
    command = ("template", "cloudmesh", str(CHART), "-n", namespace, *arguments)
    if command not in RENDERED:
        RENDERED[command] = cluster.helm(*command)
    return [obj for obj in yaml.load_all(RENDERED[command], Loader=yaml.CSafeLoader) if obj]


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Pod specs by component."""
    found = {}
    for obj in objects:
        if obj["kind"] in WORKLOADS:
            template = obj["spec"]["template"]
            found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template["spec"]
        elif obj["kind"] == "Pod":
            found[obj["metadata"]["labels"]["app.kubernetes.io/component"]] = obj["spec"]
    return found


def by_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    return {obj["metadata"]["name"]: obj for obj in objects if obj["kind"] == kind}


@pytest.mark.parametrize("file", CI, ids=lambda f: f.stem)
def test_lint(cluster: TestCluster, file: Path) -> None:
    cluster.helm("lint", "--strict", str(CHART), "-f", str(file))


@pytest.mark.parametrize("file", CI, ids=lambda f: f.stem)
def test_server_takes_what_is_rendered(cluster: TestCluster, namespace: str, file: Path) -> None:
    arguments = ["-f", str(file)]
    if yaml.safe_load(file.read_text()).get("watchNamespaces"):
        arguments += ["--set", f"watchNamespaces={{{namespace}}}"]
    objects = [o for o in render(cluster, *arguments, namespace=namespace) if o["kind"] != "ServiceMonitor"]
    for pod in (o for o in objects if o["kind"] == "Pod"):
        pod["metadata"]["namespace"] = namespace
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    told = cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"),
        stdin=listed,
    )
    assert told.count("serverside-applied") == len(objects)


@pytest.mark.parametrize("file", CI, ids=lambda f: f.stem)
def test_every_pod_is_restricted_but_the_proxy(cluster: TestCluster, namespace: str, file: Path) -> None:
    specs = pods(render(cluster, "-f", str(file)))
    # Accounts and classes of the release aren't there; nothing else is taken away.
    away = {"serviceAccountName", "priorityClassName"}
    made = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": component, "namespace": namespace},
            "spec": {**{k: v for k, v in spec.items() if k not in away}, "restartPolicy": "Never"},
        }
        for component, spec in specs.items()
    ]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    try:
        told = cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=listed)
    except CommandFailed as error:
        told = error.output
    accepted = {component for component in specs if f"pod/{component} created" in told}
    assert accepted == specs.keys() - {"registry-proxy"}, told
    if "registry-proxy" in specs:
        assert 'pods "registry-proxy" is forbidden: violates PodSecurity "restricted' in told
        assert "host namespaces (hostNetwork=true)" in told


def test_pods_are_as_careful_as_they_can_be(cluster: TestCluster) -> None:
    for component, spec in pods(render(cluster)).items():
        assert spec["automountServiceAccountToken"] is (component == "operator")
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec.get("hostNetwork", False) is (component == "registry-proxy")
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["imagePullPolicy"] == "IfNotPresent"
            assert container["image"].startswith("cloudmesh.local/")
            assert {"requests", "limits"} <= container["resources"].keys()
            assert component == "test" or "readinessProbe" in container


def test_no_secret_is_made_by_a_template(cluster: TestCluster) -> None:
    for file in CI:
        assert not by_kind(render(cluster, "-f", str(file)), "Secret")
    mounted = {
        (component, volume["secret"]["secretName"])
        for component, spec in pods(render(cluster)).items()
        for volume in spec.get("volumes", [])
        if "secret" in volume
    }
    assert mounted == {
        ("builder", "cloudmesh-builder"),
        ("builder", "cloudmesh-signing"),
        ("builder", "cloudmesh-registry"),
        ("registry", "cloudmesh-registry"),
        ("test", "cloudmesh-builder"),
    }


def test_a_token_for_clouds_is_there_only_where_namespaces_may_use_it(cluster: TestCluster) -> None:
    def operator(*arguments: str) -> tuple[dict[str, str], list[Any], list[Any]]:
        spec = pods(render(cluster, *arguments))["operator"]
        (container,) = spec["containers"]
        env = {each["name"]: each.get("value", "") for each in container["env"] if "IDENTITY" in each["name"]}
        mounts = [each for each in container["volumeMounts"] if each["name"] == "identity"]
        return env, mounts, [volume["projected"] for volume in spec["volumes"] if "projected" in volume]

    assert operator() == ({}, [], [])
    folder = "/var/run/secrets/cloudmesh.org/identity"
    token = {"audience": "sts.example.org", "expirationSeconds": 3600, "path": "token"}
    value = "accounts.workloadIdentity"
    assert operator("--set", f"{value}.namespaces={{lab,physics}},{value}.audience=sts.example.org") == (
        {
            "CLOUDMESH_IDENTITY_NAMESPACES": "lab physics",
            "CLOUDMESH_IDENTITY_TOKEN_FILE": f"{folder}/token",
            "CLOUDMESH_IDENTITY_AUDIENCE": "sts.example.org",
        },
        [{"name": "identity", "mountPath": folder, "readOnly": True}],
        [{"sources": [{"serviceAccountToken": token}]}],
    )


def test_crds_are_the_generated_ones_and_kept(cluster: TestCluster) -> None:
    rendered = by_kind(render(cluster), "CustomResourceDefinition")
    generated = {}
    for file in (ROOT / "crds").glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())
        generated[crd["metadata"]["name"]] = crd
    assert {name: crd["spec"] for name, crd in rendered.items()} == {n: c["spec"] for n, c in generated.items()}
    assert all(c["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for c in rendered.values())
    dropped = by_kind(render(cluster, "--set", "crds.keep=false"), "CustomResourceDefinition")
    assert dropped
    assert not any("annotations" in c["metadata"] for c in dropped.values())
    assert not by_kind(render(cluster, "--set", "crds.install=false"), "CustomResourceDefinition")


def rights(objects: Objects) -> str:
    """Who may do what, one line a role and resource."""
    lines = []
    for obj in objects:
        if obj["kind"] not in {"Role", "ClusterRole"}:
            continue
        for rule in obj["rules"]:
            for group in rule["apiGroups"]:
                names = f" {sorted(rule['resourceNames'])}" if "resourceNames" in rule else ""
                for resource in rule["resources"]:
                    verbs = " ".join(sorted(rule["verbs"]))
                    lines.append(
                        f"{obj['kind']}/{obj['metadata']['name']}: {group or 'core'}/{resource}{names}: {verbs}"
                    )
    return "\n".join(sorted(lines)) + "\n"


def test_rights_are_the_reviewed_ones(cluster: TestCluster) -> None:
    """A change of the file is a change of what the operator and users may do: review it as such."""
    granted = rights(render(cluster))
    assert granted == RIGHTS.read_text()
    operator = [line for line in granted.splitlines() if "/cloudmesh-operator" in line]
    assert not any("*" in line or "impersonate" in line or "escalate" in line or "bind" in line for line in operator)


def test_watch_namespaces_narrows_rights(cluster: TestCluster) -> None:
    objects = render(cluster, "-f", str(CHART / "ci/watch-namespaces-values.yaml"))
    assert not by_kind(objects, "ClusterRole")
    assert not by_kind(objects, "ClusterRoleBinding")
    where = {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in objects if o["kind"] == "RoleBinding"}
    assert where == {
        ("team-a", "cloudmesh-operator"),
        ("team-b", "cloudmesh-operator"),
        ("cloudmesh-system", "cloudmesh-operator-own"),
        ("kube-system", "cloudmesh-operator-cloudmesh-system"),  # its uid, and nothing else
        ("default", "cloudmesh-operator-cloudmesh-system"),  # the API server's addresses, and nothing else
    }
    environment = pods(objects)["operator"]["containers"][0]["env"]
    assert {"name": "CLOUDMESH_WATCH_NAMESPACES", "value": "team-a,team-b"} in environment


def environment(cluster: TestCluster, component: str, *arguments: str) -> dict[str, Any]:
    container = pods(render(cluster, *arguments))[component]["containers"][0]
    return {e["name"]: e.get("value") for e in container["env"]}


def test_registry_names(cluster: TestCluster) -> None:
    for component in ("operator", "builder"):
        embedded = environment(cluster, component)
        assert embedded["CLOUDMESH_REGISTRY_PUSH"] == "cloudmesh-registry.cloudmesh-system.svc:5000"
        assert embedded["CLOUDMESH_REGISTRY_PULL"] == "localhost:25500"
        assert embedded["CLOUDMESH_REGISTRY_INSECURE"] == "true"
        external = environment(cluster, component, "-f", str(CHART / "ci/external-registry-values.yaml"))
        assert external["CLOUDMESH_REGISTRY_PUSH"] == "registry.internal.example.org:5000/cloudmesh"
        assert external["CLOUDMESH_REGISTRY_PULL"] == "registry.example.org/cloudmesh"
        assert external["CLOUDMESH_REGISTRY_INSECURE"] == "false"
        named = environment(cluster, component, "-f", str(CHART / "ci/own-claim-values.yaml"))
        assert named["CLOUDMESH_REGISTRY_PULL"] == "registry.example.org:5001"
    objects = render(cluster, "-f", str(CHART / "ci/external-registry-values.yaml"))
    assert {"operator", "builder", "test"} == pods(objects).keys()


def test_builder_settings(cluster: TestCluster) -> None:
    arguments = ("-f", str(CHART / "ci/campus-values.yaml"))
    found = environment(cluster, "builder", *arguments)
    assert found["CLOUDMESH_INDEX_URL"] == "https://index.example.org/simple"
    assert found["CLOUDMESH_INDEX_CREDENTIALS"] == "/var/run/cloudmesh/index"
    assert found["CLOUDMESH_CA_BUNDLE"] == "/etc/cloudmesh/ca/ca.crt"
    assert found["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    assert found["NO_PROXY"] == "localhost,127.0.0.1,::1,.svc,.cluster.local,.example.org"
    volumes = pods(render(cluster, *arguments))["builder"]["volumes"]
    assert {"name": "index", "secret": {"secretName": "campus-index"}} in volumes
    text = by_kind(render(cluster, *arguments), "ConfigMap")["cloudmesh-ca"]["data"]["ca.crt"]
    assert text.startswith("-----BEGIN CERTIFICATE-----\n")


def test_images(cluster: TestCluster) -> None:
    for component, spec in pods(render(cluster, "-f", str(CHART / "ci/private-images-values.yaml"))).items():
        assert spec["imagePullSecrets"] == [{"name": "mirror"}]
        for container in spec["containers"]:
            name, _, rest = container["image"].partition("/cloudmesh/")
            assert name == "mirror.example.org:5000"
            part = {"registry-proxy": "operator", "test": "operator"}.get(component, component)
            assert rest.startswith(f"{part}:" if part == "registry" else f"{part}@sha256:")


def test_service_monitor_finds_the_operator(cluster: TestCluster) -> None:
    objects = render(cluster, "-f", str(CHART / "ci/observed-values.yaml"))
    monitor = by_kind(objects, "ServiceMonitor")["cloudmesh-operator"]
    service = by_kind(objects, "Service")["cloudmesh-operator"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert not by_kind(render(cluster), "ServiceMonitor")


def test_network_policies_select_the_parts(cluster: TestCluster) -> None:
    objects = render(cluster)
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] == "Deployment"]
    policies = by_kind(objects, "NetworkPolicy")
    assert len(policies) == len(labels) == 3
    for policy in policies.values():
        chosen = policy["spec"]["podSelector"]["matchLabels"].items()
        assert sum(chosen <= pod.items() for pod in labels) == 1
    assert policies["cloudmesh-registry"]["spec"]["egress"] == []
    blocked = [
        to["ipBlock"]
        for rule in policies["cloudmesh-builder"]["spec"]["egress"]
        for to in rule.get("to", [])
        if "ipBlock" in to
    ]
    assert {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]} in blocked


def test_health_for_argo_cd(cluster: TestCluster) -> None:
    assert "cloudmesh-argocd-health" not in by_kind(render(cluster), "ConfigMap")
    made = by_kind(render(cluster, "--set", "argocd.healthConfigMap=true"), "ConfigMap")["cloudmesh-argocd-health"]
    lua = (CHART / "files/argocd/health.lua").read_text()
    assert made["data"] == {f"resource.customizations.health.cloudmesh.org_{kind}": lua for kind in PLURALS}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["registry.external.push=r.example.org/x"], "set registry.embedded.enabled=false"),
        (["registry.embedded.enabled=false"], "set registry.external.push"),
        (["registry.embedded.nodeProxy.enabled=false"], "set registry.embedded.pullName"),
        (
            ["builder.caBundle.configMapName=a", "builder.caBundle.inline=-----BEGIN CERTIFICATE-----"],
            "Set one of builder.caBundle.configMapName",
        ),
        *(
            (
                [f"{part}.env[0].name=A", f"{part}.env[1].name={name}", f"{part}.env[1].value=x", *others],
                f"{part}.env: {name} is set by the chart itself; take it out of {part}.env",
            )
            for part, name, *others in (
                ("operator", "CLOUDMESH_NAMESPACE"),
                ("operator", "CLOUDMESH_REGISTRY_PUSH"),
                ("operator", "CLOUDMESH_BUILDER_URL"),
                ("builder", "CLOUDMESH_CACHE"),
                ("builder", "CLOUDMESH_REGISTRY_INSECURE"),
                ("builder", "CLOUDMESH_INDEX_URL", "builder.index.url=https://index.example.org/simple"),
                ("builder", "NO_PROXY", "builder.proxy.httpProxy=http://proxy.example.org:3128"),
            )
        ),
        (["builder.env[0].name=A", "builder.env[1].name=A"], "builder.env: A is there twice"),
        (["operator.replica=2"], "replica"),
        (["operator.logLevel=loud"], "logLevel"),
    ],
)
def test_wrong_values(cluster: TestCluster, settings: list[str], message: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        render(cluster, *(part for setting in settings for part in ("--set", setting)))
    assert message in caught.value.output


def test_environment_of_the_users_own(cluster: TestCluster) -> None:
    """What the chart doesn't set for these values may be set."""
    for part, name in (
        ("operator", "MALLOC_ARENA_MAX"),
        ("builder", "HTTPS_PROXY"),
        ("builder", "CLOUDMESH_INDEX_URL"),
    ):
        found = environment(cluster, part, "--set", f"{part}.env[0].name={name}", "--set", f"{part}.env[0].value=x")
        assert found[name] == "x"
        assert found["CLOUDMESH_VERSION"]
    for file in CI:
        for spec in pods(render(cluster, "-f", str(file))).values():
            for container in spec["containers"]:
                names = [variable["name"] for variable in container.get("env", [])]
                assert len(names) == len(set(names))


def test_restricted_namespace_is_told_what_to_set(cluster: TestCluster, namespace: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        cluster.helm("install", "cloudmesh", str(CHART), "-n", namespace, "--dry-run=server")
    told = caught.value.output
    assert 'enforces Pod Security level "restricted"' in told
    assert f"kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged" in told
    assert "--set registry.external.push=REGISTRY/PATH" in told


@pytest.fixture
def free_namespace(cluster: TestCluster) -> Iterator[str]:
    """A namespace without a Pod Security level."""
    name = f"t-chart-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def chart_with_trial_kind(cluster: TestCluster, tmp_path: Path) -> Iterator[Path]:
    """The chart with a CRD of other names, so that users' real objects are out of the way."""
    chart = tmp_path / "cloudmesh"
    shutil.copytree(CHART, chart)
    crd = yaml.safe_load((chart / "files/crds/functionservices.cloudmesh.org.yaml").read_text())
    for file in (chart / "files/crds").iterdir():
        file.unlink()
    crd["metadata"]["name"] = TRIAL
    crd["spec"]["group"] = TRIAL.partition(".")[2]
    crd["spec"]["names"] = {"kind": "Trial", "listKind": "TrialList", "plural": "trials", "singular": "trial"}
    (chart / "files/crds/trials.yaml").write_text(yaml.safe_dump(crd, sort_keys=False))
    try:
        yield chart
    finally:
        cluster.kubectl("delete", "crd", TRIAL, "--ignore-not-found", "--timeout=50s")


def test_install_upgrade_uninstall_install(
    cluster: TestCluster, free_namespace: str, chart_with_trial_kind: Path
) -> None:
    """Users' objects and what functions that run need outlive the release, and the next install takes them over."""
    values = {
        # Beside the release that other tests share: nothing that is cluster-wide, and no Pod that runs.
        "watchNamespaces": [free_namespace],
        "rbac": {"aggregateRoles": False, "guardApprovals": False, "guardNamespaces": False},
        "operator": {"nodeSelector": {"cloudmesh.org/nowhere": "x"}},
        "builder": {"nodeSelector": {"cloudmesh.org/nowhere": "x"}},
        "registry": {
            "embedded": {
                "nodeSelector": {"cloudmesh.org/nowhere": "x"},
                "nodeProxy": {"nodeSelector": {"cloudmesh.org/nowhere": "x"}},
            }
        },
    }
    text = yaml.safe_dump(values)
    arguments = ("cloudmesh", str(chart_with_trial_kind), "-n", free_namespace, "-f", "-")
    notes = cluster.helm("install", *arguments, stdin=text)
    assert "localhost:25500" in notes
    assert "kubectl wait" in notes

    def uids() -> dict[str, str]:
        kinds = (
            "deployments,daemonsets,services,configmaps,persistentvolumeclaims,networkpolicies,roles,serviceaccounts"
        )
        return {
            f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["uid"]
            for o in cluster.get("-n", free_namespace, kinds)["items"]
            if o["metadata"]["name"].startswith("cloudmesh")
        }

    installed = uids()
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{TRIAL}", "--timeout=30s")
    mine = {
        "apiVersion": f"{TRIAL.partition('.')[2]}/v1alpha1",
        "kind": "Trial",
        "metadata": {"name": "mine"},
        "spec": {"source": {"inline": "def f() -> int: return 1"}},
    }
    cluster.apply(mine, namespace=free_namespace)
    uid = cluster.get("-n", free_namespace, f"{TRIAL}/mine")["metadata"]["uid"]
    cluster.helm("upgrade", *arguments, "--set", "operator.logLevel=debug", stdin=text)
    assert uids() == installed
    cluster.helm("uninstall", "cloudmesh", "-n", free_namespace)
    kept = {
        "Deployment/cloudmesh-registry",
        "DaemonSet/cloudmesh-registry-proxy",
        "Service/cloudmesh-registry",
        "ConfigMap/cloudmesh-registry",
        "PersistentVolumeClaim/cloudmesh-registry",
    }
    assert uids() == {name: uid for name, uid in installed.items() if name in kept}
    cluster.helm("install", *arguments, stdin=text)
    assert cluster.get("-n", free_namespace, f"{TRIAL}/mine")["metadata"]["uid"] == uid
    again = uids()
    assert again.keys() == installed.keys()
    assert all(again[name] == installed[name] for name in kept)


def test_notes_example_is_valid(cluster: TestCluster) -> None:
    """The function in the notes is one that the API server takes."""
    from cloudmesh.api.functionservice import FunctionService

    shown = cluster.helm(
        *("install", "cloudmesh", str(CHART), "-n", "default", "--dry-run=client", "--hide-secret"),
        *("--set", "registry.embedded.nodeProxy.port=25777"),
    )
    notes = shown.partition("NOTES:")[2]
    assert "localhost:25777" in notes
    example = notes.partition("<<'YAML'")[2].partition("\n")[2].partition("\nYAML\n")[0]
    read = FunctionService.model_validate(yaml.safe_load(example), extra="forbid")
    assert read.metadata.name == "hello"
