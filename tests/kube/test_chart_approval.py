"""Who may approve a quote: the chart's admission policy on a real API server, over a copy of the definition."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.testbed.kubectl import CommandFailed, TestCluster

pytestmark = [pytest.mark.kube]
ROOT = Path(__file__).resolve().parents[2]
SUFFIX = secrets.token_hex(3)
GROUP = f"trial-approval-{SUFFIX}.cloudmesh.org"
"""Behind `cloudmesh.org` in the alphabet: where two groups have a `virtualcluster`, kubectl means the first one's."""
RESOURCE = f"virtualclusters.{GROUP}"
DIRECTORIES = f"virtualdirectories.{GROUP}"
ANNOTATION = "cloudmesh.org/approved-quote"
REFUSED = "must be set by somebody who has the verb `approve`"


def copies(cluster: TestCluster, namespace: str) -> list[dict[str, Any]]:
    """Definitions and policy as they are shipped, in another group."""
    crds = []
    for resource in (RESOURCE, DIRECTORIES):
        crd = yaml.safe_load((ROOT / f"crds/{resource.replace(GROUP, 'cloudmesh.org')}.yaml").read_text())
        crd["metadata"]["name"] = resource
        crd["spec"]["group"] = GROUP
        crd["spec"]["names"] = {
            key: value for key, value in crd["spec"]["names"].items() if key not in ("shortNames", "categories")
        }
        crds.append(crd)
    text = cluster.helm(
        *("template", "cloudmesh", str(ROOT / "charts/cloudmesh"), "-n", namespace),
        *("--show-only", "templates/approvals.yaml"),
    )
    shipped = f"approvals.{namespace}.cloudmesh.org"
    assert shipped in text
    policy = text.replace(shipped, f"approvals-{SUFFIX}.cloudmesh.org")
    assert "group('cloudmesh.org')" in policy
    policy = policy.replace("group('cloudmesh.org')", f"group('{GROUP}')")
    policy = policy.replace("apiGroups: [cloudmesh.org]", f"apiGroups: [{GROUP}]")
    return [*crds, *yaml.safe_load_all(policy)]


def role(namespace: str, user: str, *verbs: str) -> list[dict[str, Any]]:
    """What lets a user do these things with clusters of the namespace."""
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": user, "namespace": namespace}
    rule = {"apiGroups": [GROUP], "resources": ["virtualclusters", "virtualdirectories"], "verbs": list(verbs)}
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
        },
    ]


class Users:
    """Two people: one may change clusters, the other may approve their quotes too."""

    def __init__(self, cluster: TestCluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def run(self, user: str, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, f"--as={user}", *arguments, stdin=stdin)

    def make(self, user: str, name: str, **annotations: str) -> str:
        obj = {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "VirtualCluster",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"apply": {"mode": "RequireApproval"}},
        }
        return self.run(user, "create", "-f", "-", stdin=json.dumps(obj))

    def annotate(self, user: str, name: str, *pairs: str) -> str:
        return self.run(user, "annotate", "--overwrite", f"{RESOURCE}/{name}", *pairs)


@pytest.fixture(scope="module")
def users(cluster: TestCluster, namespace: str) -> Iterator[Users]:
    made = copies(cluster, namespace)
    everything = ("get", "list", "create", "update", "patch", "delete")
    cluster.apply(*made, *role(namespace, "editor", *everything), *role(namespace, "approver", *everything, "approve"))
    try:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{RESOURCE}", f"crd/{DIRECTORIES}", "--timeout=30s")
        people = Users(cluster, namespace)
        until = time.monotonic() + 40
        while True:  # the API server takes a policy up some time after it was made
            name = f"probe-{secrets.token_hex(3)}"
            try:
                people.make("editor", name, **{ANNOTATION: "0a"})
            except CommandFailed as error:
                if REFUSED in error.output:
                    break
            assert time.monotonic() < until, "the policy isn't acted on"
            time.sleep(0.5)
        yield people
    finally:
        for obj in reversed(made):
            cluster.kubectl("delete", obj["kind"], obj["metadata"]["name"], "--ignore-not-found", "--timeout=50s")


def test_editor_may_do_all_but_approve(users: Users) -> None:
    users.make("editor", "a", note="x")
    with pytest.raises(CommandFailed) as caught:
        users.annotate("editor", "a", f"{ANNOTATION}=0a1b")
    assert REFUSED in caught.value.output
    users.annotate("editor", "a", "note=y")
    users.run("editor", "patch", f"{RESOURCE}/a", "--type=merge", "-p", '{"spec": {"replicas": 2}}')


def test_approver_may(users: Users) -> None:
    users.make("editor", "b")
    users.annotate("approver", "b", f"{ANNOTATION}=0a1b")
    users.annotate("approver", "b", f"{ANNOTATION}=2c3d")


def test_what_was_approved_stays_in_an_editor_s_hands(users: Users) -> None:
    users.make("approver", "c", **{ANNOTATION: "0a1b"})
    users.run("editor", "patch", f"{RESOURCE}/c", "--type=merge", "-p", '{"spec": {"replicas": 3}}')
    with pytest.raises(CommandFailed) as caught:
        users.annotate("editor", "c", f"{ANNOTATION}=2c3d")
    assert REFUSED in caught.value.output
    users.annotate("editor", "c", f"{ANNOTATION}-")  # to withdraw an approval spends nothing
    with pytest.raises(CommandFailed) as caught:
        users.annotate("editor", "c", f"{ANNOTATION}=0a1b")
    assert REFUSED in caught.value.output


def test_approval_stays_required_in_an_editor_s_hands(users: Users) -> None:
    users.make("editor", "e")
    for patch in ('{"spec": {"apply": {"mode": "Auto"}}}', '{"spec": {"apply": null}}'):
        with pytest.raises(CommandFailed) as caught:
            users.run("editor", "patch", f"{RESOURCE}/e", "--type=merge", "-p", patch)
        assert "RequireApproval must be left by somebody who has the verb `approve`" in caught.value.output
    users.run("approver", "patch", f"{RESOURCE}/e", "--type=merge", "-p", '{"spec": {"apply": {"mode": "Auto"}}}')
    users.run("editor", "patch", f"{RESOURCE}/e", "--type=merge", "-p", '{"spec": {"apply": null}}')
    users.run(
        *("editor", "patch", f"{RESOURCE}/e", "--type=merge"), "-p", '{"spec": {"apply": {"mode": "RequireApproval"}}}'
    )


def test_directories_are_guarded_too(users: Users) -> None:
    directory = {
        "apiVersion": f"{GROUP}/v1alpha1", "kind": "VirtualDirectory", "metadata": {"name": "lab"},
        "spec": {"stores": [{"name": "nas"}], "apply": {"mode": "RequireApproval"}},
    }  # fmt: skip
    users.run("editor", "create", "-f", "-", stdin=json.dumps(directory))
    approve = ("annotate", f"{DIRECTORIES}/lab", f"{ANNOTATION}=0a1b")
    free = ("patch", f"{DIRECTORIES}/lab", "--type=merge", "-p", '{"spec": {"apply": {"mode": "Auto"}}}')
    with pytest.raises(CommandFailed) as caught:
        users.run("editor", *approve)
    assert f"{REFUSED} on virtualdirectories.cloudmesh.org in this namespace" in caught.value.output
    with pytest.raises(CommandFailed) as caught:
        users.run("editor", *free)
    assert "must be left by somebody who has the verb `approve` on virtualdirectories" in caught.value.output
    users.run("approver", *approve)
    users.run("approver", *free)


def test_status_is_no_way_around(users: Users, cluster: TestCluster) -> None:
    users.make("editor", "d")
    patch = json.dumps({"metadata": {"annotations": {ANNOTATION: "0a1b"}}, "status": {"clouds": "pods"}})
    cluster.kubectl(
        "-n", users.namespace, "patch", f"{RESOURCE}/d", "--subresource=status", "--type=merge", "-p", patch
    )
    stored = cluster.get("-n", users.namespace, f"{RESOURCE}/d")
    assert stored["status"]["clouds"] == "pods"
    assert ANNOTATION not in stored["metadata"].get("annotations", {})
