"""Machines that are Pods: what is read from an account, what is made, and what a Pod tells."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from cloudmesh.compute.ports import Access, ClusterSpec, NodeSpec
from cloudmesh.compute.providers.kubernetes import make
from cloudmesh.compute.providers.kubernetes.nodes import split_id, to_node
from cloudmesh.compute.providers.kubernetes.pods import join_tags, make_pod, make_service, split_tags
from cloudmesh.compute.providers.kubernetes.powers import PodProvider
from cloudmesh.compute.providers.kubernetes.sizes import Settings, read_settings
from cloudmesh.compute.providers.registry import Context, find_maker
from cloudmesh.compute.tokens import TAG_CLUSTER, TAG_TOKEN, TAG_UID, Scope, make_token
from cloudmesh.engine import AuthFailed, CapacityUnavailable, InvalidRequest, Kube, Resource, Transient, Unsupported
from cloudmesh.policy.model import NANO
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi
from cloudmesh.testing.apiserver.server import Refused

POD, SERVICE = Resource("v1", "Pod", "pods"), Resource("v1", "Service", "services")
DAY = "2026-05-04T00:00:00Z"
DEFAULTS = {"machineImage": "cloudmesh.local/machine:1", "hourlyPerVcpu": "0.01", "hourlyPerGiB": "0.001"}
SCOPE = Scope("installation-1", "lab", "pods")
OWNER = {"apiVersion": "cloudmesh.org/v1alpha1", "kind": "VirtualMachine", "name": "a-0", "uid": "u-0"}


def settings(spec: dict[str, Any] | None = None, images: dict[str, str] | None = None, **defaults: str) -> Settings:
    return read_settings(Context("lab", "pods", "u", spec or {}, images or {}, defaults=DEFAULTS | defaults), DAY)


def spec(account: Settings, type_: str = "small", **changes: Any) -> NodeSpec:
    offer = next((offer for offer in account.offers() if offer.type == type_), account.offers()[0])
    token = make_token("u-0", "a", 0, 1, offer.id)
    values: dict[str, Any] = {
        "token": token, "name": "lab-a-0", "scope": SCOPE, "cluster": "lab", "uid": "u-0", "offer": offer,
        "image": "", "access": Access(secret_name="lab-vc-ssh"), "owner": OWNER,
        "tags": {**SCOPE.tags(), TAG_TOKEN: token, TAG_UID: "u-0", TAG_CLUSTER: "lab"},
    }  # fmt: skip
    return NodeSpec(**values | changes)


# -- the account -------------------------------------------------------------------------------------------------------


def test_offers_are_the_sizes_at_exact_prices() -> None:
    offers = {offer.type: offer for offer in settings().offers()}
    assert list(offers) == ["small", "medium", "large"]
    small, large = offers["small"], offers["large"]
    assert (small.milli_vcpu, small.memory_mib, small.free, small.network) == (500, 512, None, "pods")
    assert small.price is not None and large.price is not None
    assert small.price.nanos == NANO * 55 // 10_000  # half of 0.01 and half of 0.001
    assert large.price.nanos == NANO * 24 // 1000
    assert (small.price.currency, small.price.confidence, small.price.as_of) == ("USD", "declared", DAY)
    assert small.id == "pods/small///OnDemand"
    assert small.images == frozenset({"", "debian-12"})


def test_a_price_of_nothing_is_declared_and_a_missing_one_is_unknown() -> None:
    assert [offer.price.nanos for offer in settings(hourlyPerVcpu="0", hourlyPerGiB="0").offers() if offer.price] == [
        0, 0, 0
    ]  # fmt: skip
    context = Context("lab", "pods", "u", {}, defaults={"machineImage": "m"})
    assert [offer.price for offer in read_settings(context, DAY).offers()] == [None, None, None]


def test_amounts_are_rounded_down_and_prices_up() -> None:
    odd = settings(
        {"sizes": [{"name": "odd", "cpu": "0.1239", "memory": "100M"}]}, hourlyPerVcpu="0.000000001"
    ).offers()
    assert (odd[0].milli_vcpu, odd[0].memory_mib) == (123, 95)
    assert odd[0].price is not None and odd[0].price.nanos == 92774  # 0.123 and 92773.4375


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sizes": ["small"]}, "spec.kubernetes.sizes[0] must have"),
        ({"sizes": [{"cpu": "1", "memory": "1Gi"}]}, "spec.kubernetes.sizes[0].name"),
        ({"sizes": [{"name": "A b", "cpu": "1", "memory": "1Gi"}]}, "spec.kubernetes.sizes[0].name"),
        (
            {"sizes": [{"name": "a", "cpu": "1", "memory": "1Gi"}] * 2},
            "spec.kubernetes.sizes[1].name: 'a' is there twice",
        ),
        ({"sizes": [{"name": "a", "cpu": "none", "memory": "1Gi"}]}, "spec.kubernetes.sizes[0].cpu"),
        ({"sizes": [{"name": "a", "cpu": "-1", "memory": "1Gi"}]}, "spec.kubernetes.sizes[0].cpu"),
        ({"sizes": [{"name": "a", "cpu": "1", "memory": "1k"}]}, "spec.kubernetes.sizes[0].memory"),
        ({"sizes": [{"name": "a", "cpu": "1"}]}, "spec.kubernetes.sizes[0].memory"),
        ({"nodeSelector": {"a": 1}}, "spec.kubernetes.nodeSelector"),
        ({"tolerations": {"key": "a"}}, "spec.kubernetes.tolerations"),
    ],
)
def test_a_wrong_field_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        settings(wrong)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"hourlyPerVcpu": "-1"}, "hourlyPerVcpu"),
        ({"hourlyPerGiB": "1e3"}, "hourlyPerGiB"),
        ({"unschedulableSeconds": "soon"}, "unschedulableSeconds"),
    ],
)
def test_a_wrong_setting_of_the_installation_is_named(defaults: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        settings(**defaults)


def test_images_are_aliases_of_the_account() -> None:
    account = settings(images={"science": "registry.example/science@sha256:1"})
    assert account.image("") == account.image("debian-12") == "cloudmesh.local/machine:1"
    assert account.image("science") == account.image("registry.example/science@sha256:1")
    assert account.offers()[0].images == frozenset({"", "debian-12", "science"})
    with pytest.raises(InvalidRequest, match=r"ubuntu-24\.04.*debian-12, science"):
        account.image("ubuntu-24.04")


# -- what is made ------------------------------------------------------------------------------------------------------


def test_the_pod_passes_pod_security_restricted_and_names_nothing_else() -> None:
    pod = make_pod(settings(), spec(settings()))
    body, container = pod["spec"], pod["spec"]["containers"][0]
    assert body["securityContext"]["runAsNonRoot"] and body["securityContext"]["seccompProfile"] == {
        "type": "RuntimeDefault"
    }
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert body["automountServiceAccountToken"] is False and body["enableServiceLinks"] is False
    assert [list(volume) for volume in body["volumes"]] == [["name", "secret"]]
    assert [item["key"] for item in body["volumes"][0]["secret"]["items"]] == [
        "authorized_keys",
        "ssh_host_ed25519_key",
    ]
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "initContainers"} & set(body)
    assert container["resources"] == {
        "limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "50m", "memory": "512Mi"}
    }  # fmt: skip
    assert (body["hostname"], body["subdomain"]) == ("lab-a-0", "lab-vc")
    assert body["dnsConfig"] == {"searches": ["lab-vc.lab.svc.cluster.local"]}
    labels = pod["metadata"]["labels"]
    assert labels["cloudmesh.org/owner-uid"] == "u-0" and labels["app.kubernetes.io/managed-by"] == "cloudmesh"
    assert pod["metadata"]["ownerReferences"] == [OWNER]


def test_a_machine_alone_has_no_subdomain_and_a_disk_is_a_limit() -> None:
    pod = make_pod(settings(), spec(settings(), cluster="", owner={}, disk_gib=10))
    assert "subdomain" not in pod["spec"] and "ownerReferences" not in pod["metadata"]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"] == "10Gi"
    pod["metadata"]["uid"] = "p-1"
    node = look(pod)
    assert (node.type, node.details["diskGiB"]) == ("small", "10")
    pod["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"] = "12884901888"
    node = look(pod)
    assert (node.type, node.details["diskGiB"]) == ("small", "12")


def test_where_pods_run_is_the_accounts_choice() -> None:
    taint = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    account = settings({"nodeSelector": {"pool": "lab", "kubernetes.io/arch": "arm64"}, "tolerations": [taint]})
    pod = make_pod(account, spec(account))
    # the offer says amd64, and a selector of the account can't make it lie
    assert pod["spec"]["nodeSelector"] == {
        "pool": "lab", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"
    }  # fmt: skip
    assert pod["spec"]["tolerations"] == [taint]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"access": Access()}, InvalidRequest, "Secret"),
        ({"name": "Not_a_name"}, InvalidRequest, "Not_a_name"),
        ({"name": "x" * 64}, InvalidRequest, "host"),
        ({"image": "ami-1"}, InvalidRequest, "ami-1"),
        ({"public_address": True}, Unsupported, "internet"),
        ({"tags": {TAG_CLUSTER: "a b"}}, InvalidRequest, "label"),
    ],
)
def test_what_cannot_be_a_pod_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_pod(settings(), spec(settings(), **changes))


def test_without_a_machine_image_nothing_is_made() -> None:
    with pytest.raises(InvalidRequest, match=r"machine\.image"):
        make_pod(settings(machineImage=""), spec(settings()))


def test_tags_come_back_as_they_were() -> None:
    tags = {TAG_TOKEN: "cm-abc", TAG_CLUSTER: "lab", "team/é": "a b " * 100, "empty": "", "cloudmesh.org/other": "x y"}
    labels, annotations = split_tags(tags)
    assert set(labels) == {TAG_TOKEN, TAG_CLUSTER}
    assert join_tags({"labels": labels, "annotations": annotations}) == tags
    for broken in ("{", "[1]", "null"):
        assert join_tags({"labels": labels, "annotations": {"cloudmesh.org/tags": broken}}) == labels


def test_the_service_names_machines_before_they_are_ready() -> None:
    service = make_service(
        settings(), ClusterSpec(SCOPE, "lab", "vc-1", owner={"kind": "VirtualCluster", "uid": "vc-1"})
    )
    assert service["metadata"]["name"] == "lab-vc"
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True


# -- what a Pod tells --------------------------------------------------------------------------------------------------


def pod(phase: str = "Running", container: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    made = make_pod(settings(), spec(settings()))
    made["metadata"] |= {"uid": "p-1", "creationTimestamp": "2026-05-04T10:00:00Z"}
    running = {"name": "machine", "containerID": "containerd://1", "state": {"running": {}}, "restartCount": 0}
    made["status"] = {"phase": phase, "podIP": "192.0.2.7", "containerStatuses": [container or running], **status}
    return made


def unschedulable(since: str) -> dict[str, Any]:
    condition = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": since,
        "message": "0/3 nodes are available: 3 Insufficient memory.",
    }  # fmt: skip
    return pod("Pending", {"name": "machine", "state": {}}, conditions=[condition])


def look(made: dict[str, Any], now: str = "2026-05-04T10:01:00Z") -> Any:
    return to_node(made, now, 20)


def test_a_pod_that_runs() -> None:
    node = look(pod())
    assert (node.id, node.state, node.host, node.port, node.boot_id) == (
        "lab-a-0/p-1", "Running", "192.0.2.7", 2222, "containerd://1"
    )  # fmt: skip
    assert (node.type, node.failure, node.token[:3]) == ("small", None, "cm-")


def waiting(reason: str, message: str = "", restarts: int = 0) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "machine", "state": state, "restartCount": restarts, "image": "cloudmesh.local/machine:1"}


@pytest.mark.parametrize(
    ("made", "state", "failure", "words"),
    [
        (pod("Pending", waiting("ContainerCreating")), "Pending", None, ""),
        (pod("Pending", waiting("ErrImagePull")), "Pending", None, ""),
        (pod("Pending", waiting("ImagePullBackOff", "no such image")), "Failed", InvalidRequest, "no such image"),
        (pod("Pending", waiting("InvalidImageName")), "Failed", InvalidRequest, "cloudmesh.local/machine:1"),
        (pod("Running", waiting("CrashLoopBackOff", "x", 3)), "Running", None, ""),
        (pod("Running", waiting("ContainerCreating")), "Pending", None, ""),
        (unschedulable("2026-05-04T10:00:50Z"), "Pending", None, ""),
        (unschedulable("2026-05-04T10:00:30Z"), "Failed", CapacityUnavailable, "Insufficient memory"),
        (pod("Succeeded"), "Deleted", None, ""),
        (pod("Failed", reason="Evicted", message="low on memory"), "Deleted", CapacityUnavailable, "Evicted: low on"),
        (pod("Unknown"), "Pending", None, ""),
        ({"metadata": {"name": "a", "uid": "b"}, "spec": {}}, "Pending", None, ""),
    ],
)
def test_states(made: dict[str, Any], state: str, failure: type[Exception] | None, words: str) -> None:
    node = look(made)
    assert node.state == state
    assert (type(node.failure) if node.failure else None) == failure
    assert words in str(node.failure or "")


def test_a_pod_on_its_way_out_is_not_gone() -> None:
    made = pod()
    made["metadata"]["deletionTimestamp"] = "2026-05-04T10:00:59Z"
    assert look(made).state == "Deleting"
    made["status"]["phase"] = "Failed"
    assert look(made).state == "Deleted"


def test_a_container_that_started_anew_says_so() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    container = {"name": "machine", "containerID": "containerd://2", "state": {"running": {}}, "lastState": ended}
    node = look(pod(container=container))
    assert (node.boot_id, node.details["lastEnd"]) == ("containerd://2", "OOMKilled, exit code 137")
    assert look(pod("Running", waiting("CrashLoopBackOff", "x", 3))).boot_id == ""
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    assert look(pod("Failed", conditions=[target])).details["preempted"] == "true"


def test_drift_is_seen_and_other_spellings_are_none() -> None:
    made = pod()
    container = made["spec"]["containers"][0]
    container["resources"]["limits"] = {"cpu": "0.5", "memory": "536870912"}
    assert look(made).type == "small"
    container["resources"]["limits"] = {"cpu": "1", "memory": "512Mi"}
    container["image"] = "cloudmesh.local/machine:2"
    node = look(made)
    assert (node.type, node.image) == ("cpu=1/memory=512Mi", "cloudmesh.local/machine:2")
    asked = make_pod(settings(), spec(settings(), image="debian-12"))
    asked["metadata"]["uid"] = "p-1"
    assert look(asked).image == "debian-12"
    for broken in ("{", "[]"):
        asked["metadata"]["annotations"]["cloudmesh.org/made"] = broken
        assert look(asked).type == "small"


@pytest.mark.parametrize("wrong", ["", "a", "a/", "/b", "../..", "a/b/c", "*", "A/b", "a/..", "a?x=y/b"])
def test_an_id_that_is_none_never_becomes_a_path(wrong: str) -> None:
    with pytest.raises(InvalidRequest):
        split_id(wrong)


# -- calls -------------------------------------------------------------------------------------------------------------


def provider(api: MemoryApi, faults: Faults | None = None) -> PodProvider:
    kube = Kube(FaultyTransport(api, faults or Faults()))
    made = make(Context("lab", "pods", "u", {}, kube=kube, defaults=DEFAULTS))
    assert isinstance(made, PodProvider)
    return made


async def test_the_registry_finds_it_and_it_needs_an_api_server() -> None:
    assert find_maker("kubernetes") is make
    with pytest.raises(InvalidRequest, match="API server"):
        make(Context("lab", "pods", "u", {}))


async def test_a_refusal_at_admission_is_about_the_request_and_a_missing_right_is_not() -> None:

    said = ""

    def refuse(act: str, resource: Any, obj: Any) -> None:
        raise Refused(403, "Forbidden", said)

    api = MemoryApi()
    api.admit.append(refuse)
    pods = provider(api)
    for said, error in (
        ('pods "lab-a-0" is forbidden: violates PodSecurity "restricted:latest": …', InvalidRequest),
        ('pods "lab-a-0" is forbidden: [maximum cpu usage per Container is 1]', InvalidRequest),
        ('admission webhook "x.example" denied the request: no', InvalidRequest),
        ('pods is forbidden: User "u" cannot create resource "pods" in API group ""', AuthFailed),
        ('pods "lab-a-0" is forbidden: status unknown for quota: q, resources: pods', Transient),
    ):
        with pytest.raises(error) as caught:
            await pods.ensure_node(spec(pods.settings))
        assert said[:30] in str(caught.value)


async def test_a_user_who_changes_the_service_does_not_break_names() -> None:
    api = MemoryApi()
    pods = provider(api)
    cluster = ClusterSpec(SCOPE, "lab", "vc-1", owner={"kind": "VirtualCluster", "uid": "vc-1", "controller": True})
    first = await pods.prepare(cluster)
    service = copy.deepcopy(api.all(SERVICE)[0])
    service["spec"] |= {"selector": {"app": "other"}, "publishNotReadyAddresses": False}
    api.put(SERVICE, service)
    before = api.writes(SERVICE)
    assert await pods.prepare(cluster) == first
    assert api.all(SERVICE)[0]["spec"]["selector"] == {
        "app.kubernetes.io/managed-by": "cloudmesh", TAG_CLUSTER: "lab"
    }  # fmt: skip
    await pods.prepare(cluster)
    assert api.writes(SERVICE) == before + 1  # the second time there was nothing to do


async def test_another_accounts_machines_keep_the_service() -> None:
    api = MemoryApi()
    pods = provider(api)
    cluster = ClusterSpec(SCOPE, "lab", "vc-1", owner={"kind": "VirtualCluster", "uid": "vc-1", "controller": True})
    await pods.prepare(cluster)
    other = Scope("installation-1", "lab", "other")
    tags = {**spec(pods.settings).tags, **other.tags()}
    await pods.ensure_node(spec(pods.settings, scope=other, tags=tags))
    assert await pods.clear(cluster)  # nothing of this account is left …
    assert len(api.all(SERVICE)) == 1  # … but names are still needed


async def test_tags_that_were_changed_meanwhile_are_not_lost() -> None:
    api, faults = MemoryApi(), Faults()
    pods = provider(api, faults)
    node = await pods.ensure_node(spec(pods.settings))
    await pods.set_metadata(node.id, {"a": "1"})
    before = api.writes()
    await pods.set_metadata(node.id, {"a": "1"})
    await pods.delete_metadata(node.id, ["b"])
    assert api.writes() == before
    assert json.loads(api.all(POD)[0]["metadata"]["annotations"]["cloudmesh.org/tags"]) == {"a": "1"}


async def test_rights_that_are_missing_are_named() -> None:
    class Reviewing(MemoryApi):
        def handle(self, request: Any) -> Any:
            if not request.path.endswith("/selfsubjectaccessreviews"):
                return super().handle(request)
            asked = request.body["spec"]["resourceAttributes"]
            return 201, {**request.body, "status": {"allowed": asked["verb"] not in ("delete", "create")}}

    found = await provider(Reviewing()).check()
    assert [finding.ok for finding in found] == [False, True]
    assert found[0].message == (
        "the operator may not create, delete pods; create, delete services in namespace lab: its role lacks them"
    )


async def test_a_pod_that_is_released_outlives_its_owner_and_isnt_listed() -> None:
    api = MemoryApi()
    pods = provider(api)
    node = await pods.ensure_node(spec(pods.settings))
    assert api.all(POD)[0]["metadata"]["ownerReferences"][0]["uid"] == "u-0"
    await pods.set_metadata(node.id, {"a": "1"})
    await pods.release_node(node.id)
    (pod,) = api.all(POD)
    assert not pod["metadata"].get("ownerReferences")  # or the API server would end it with its VirtualMachine
    assert pod["metadata"].get("labels") == {}
    assert join_tags(pod["metadata"]) == {"a": "1"}
    assert (await pods.list_nodes(SCOPE)).nodes == ()
    await pods.release_node(node.id)
    api.remove(POD, "lab", pod["metadata"]["name"])
    await pods.release_node(node.id)
