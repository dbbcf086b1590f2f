"""What only EC2 has, against moto behind the fault proxy; the cases of all providers are in the conformance suite."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
import pytest_asyncio
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from cloudmesh.compute.ports import Access, ClusterSpec, Complete, NodeSpec, Partial
from cloudmesh.compute.providers.aws import AwsProvider, make
from cloudmesh.compute.providers.aws.errors import (
    AUTH,
    CAPACITY,
    CONFLICT,
    DENIED,
    QUOTA,
    RATE,
    Denied,
    DryRunPassed,
    classify,
)
from cloudmesh.compute.providers.aws.nodes import to_node
from cloudmesh.compute.providers.aws.offers import newest_prices, quota_of
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.tokens import TAG_MACHINE, Scope
from cloudmesh.engine import (
    AlreadyExists,
    AuthFailed,
    CapacityUnavailable,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Transient,
)
from cloudmesh.testing.proxy import FaultProxy

IMAGE = "ami-12c6146b"
SCOPE = Scope("installation", "team", "aws")
CREDENTIALS = {"aws_access_key_id": b"AKIATEST", "aws_secret_access_key": b"the-secret-key", "hosts": b"127.0.0.1"}


def context(proxy: FaultProxy, **spec: Any) -> Context:
    aws = {"region": "us-east-1", "endpoint": proxy.url, "instanceTypes": ["t3.micro", "m5.large"], **spec}
    return Context("team", "aws", "uid", aws, credentials=CREDENTIALS)


@pytest_asyncio.fixture
async def ec2(aws: FaultProxy) -> AsyncIterator[AwsProvider]:
    provider = make(context(aws))
    assert isinstance(provider, AwsProvider)
    yield provider
    await provider.close()


async def spec_of(ec2: AwsProvider, token: str, **more: Any) -> NodeSpec:
    offers = await ec2.offers()
    offer = next(o for o in offers if (o.type, o.zone, o.purchase) == ("t3.micro", "us-east-1a", "OnDemand"))
    tags = {TAG_MACHINE: f"lab-workers-{token}"}
    return NodeSpec(token, tags[TAG_MACHINE], SCOPE, "lab", f"uid-{token}", offer, IMAGE, tags=tags, **more)


async def test_an_instance_carries_keys_disk_tags_and_asks_for_a_token_at_its_metadata(
    ec2: AwsProvider, aws: FaultProxy
) -> None:
    access = Access(("ssh-ed25519 AAAA me",), "PRIVATE HOST KEY", "ssh-ed25519 BBBB host")
    node = await ec2.ensure_node(await spec_of(ec2, "a", access=access, disk_gib=40, public_address=True))
    sent = next(call.parameters for call, _ in aws.calls if call.operation == "RunInstances")
    assert sent["ClientToken"] == "a"
    assert sent["MetadataOptions"]["HttpTokens"] == "required"
    assert sent["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 40
    assert {spec["ResourceType"] for spec in sent["TagSpecifications"]} == {"instance", "volume"}
    assert node.tags.items() >= SCOPE.tags().items()
    assert "PRIVATE HOST KEY" not in repr(access)
    config = json.loads(base64.b64decode(sent["UserData"]).decode().removeprefix("#cloud-config\n"))
    assert config["users"][1]["ssh_authorized_keys"] == ["ssh-ed25519 AAAA me"]
    assert config["ssh_keys"]["ed25519_private"] == "PRIVATE HOST KEY"
    assert config["ssh_pwauth"] is False
    assert not aws.dialect.invalid  # type: ignore[attr-defined]


async def test_spot_never_costs_more_than_was_quoted(ec2: AwsProvider, aws: FaultProxy) -> None:
    spot = next(o for o in await ec2.offers() if (o.type, o.zone, o.purchase) == ("t3.micro", "us-east-1a", "Spot"))
    spec = await spec_of(ec2, "a")
    await ec2.ensure_node(dataclasses.replace(spec, offer=spot))
    await ec2.ensure_node(dataclasses.replace(spec, token="b", offer=dataclasses.replace(spot, price=None)))
    known, unknown = (
        call.parameters["InstanceMarketOptions"]["SpotOptions"]
        for call, _ in aws.calls if call.operation == "RunInstances"
    )  # fmt: skip
    assert spot.price is not None
    assert Decimal(known["MaxPrice"]) == Decimal(spot.price.nanos) / 10**9
    assert "MaxPrice" not in unknown
    assert not aws.dialect.invalid  # type: ignore[attr-defined]


async def test_prices_of_spot_are_read_and_those_on_demand_unknown(ec2: AwsProvider) -> None:
    offers = await ec2.offers()
    assert {offer.purchase for offer in offers} == {"OnDemand", "Spot"}
    for offer in offers:
        if offer.purchase == "OnDemand":
            assert offer.price is None
        else:
            assert offer.price is not None
            assert offer.price.nanos > 0
            assert offer.price.confidence == "fetched"
    assert {(o.milli_vcpu, o.memory_mib) for o in offers if o.type == "m5.large"} == {(2000, 8192)}


def test_of_several_spot_prices_the_newest_counts_and_nonsense_does_not() -> None:
    items = [
        {"InstanceType": "a", "AvailabilityZone": "z", "SpotPrice": "0.02", "Timestamp": 2},
        {"InstanceType": "a", "AvailabilityZone": "z", "SpotPrice": "0.05", "Timestamp": 1},
        {"InstanceType": "b", "AvailabilityZone": "z", "SpotPrice": "0.0", "Timestamp": 1},
        {"InstanceType": "c", "AvailabilityZone": "z", "SpotPrice": "NaN", "Timestamp": 1},
        {"InstanceType": "d", "AvailabilityZone": "z", "SpotPrice": "Infinity", "Timestamp": 1},
        {"InstanceType": "e", "AvailabilityZone": "z", "Timestamp": 1},
    ]
    assert {key: price.nanos for key, price in newest_prices(items, "now").items()} == {("a", "z"): 20_000_000}


async def test_a_failed_page_is_a_partial_listing(ec2: AwsProvider, aws: FaultProxy) -> None:
    for token in ("a", "b", "c"):
        await ec2.ensure_node(await spec_of(ec2, token))
    assert isinstance(await ec2.list_nodes(SCOPE), Complete)
    aws.dialect.page_size = 1  # type: ignore[attr-defined]
    aws.add("answer", "DescribeInstances", skip=1, status=503, code="Unavailable", times=None)
    listing = await ec2.list_nodes(SCOPE)
    assert isinstance(listing, Partial)
    assert len(listing.nodes) == 1
    assert "Unavailable" in listing.reason
    aws.clear()
    aws.add("answer", "DescribeInstances", status=503, code="Unavailable")
    with pytest.raises(Transient):
        await ec2.list_nodes(SCOPE)


async def test_a_stranger_is_never_adopted_where_filters_are_ignored(ec2: AwsProvider, aws: FaultProxy) -> None:
    stranger = make(context(aws))
    other = dataclasses.replace(await spec_of(ec2, "theirs"), scope=Scope("other", "team", "aws"), uid="theirs")
    await stranger.ensure_node(other)
    await stranger.close()
    aws.dialect.ignore_filters = True  # type: ignore[attr-defined]
    assert await ec2.find_node(await spec_of(ec2, "mine")) is None
    listing = await ec2.list_nodes(SCOPE)
    assert listing.nodes == ()


class Metadata(socketserver.ThreadingTCPServer):
    """Stands where a metadata service would give credentials, and counts who asks."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked = 0
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.asked += 1
        return False


@pytest.fixture
def lures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Credentials wherever AWS's own library looks for them; tells which were taken."""
    marker, home, other = tmp_path / "process-ran", tmp_path / "home", tmp_path / "other"
    keys = "aws_access_key_id = AKIAFILE\naws_secret_access_key = file\naws_session_token = file\n"
    process = f"credential_process = /bin/touch {marker}\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:1\n"
    for folder in (home / ".aws", other):
        folder.mkdir(parents=True)
        (folder / "credentials").write_text(f"[default]\n{keys}[lure]\n{keys}")
        (folder / "config").write_text(f"[default]\n{process}[profile lure]\n{process}")
    (home / ".boto").write_text(f"[Credentials]\n{keys}")
    metadata = Metadata()
    url = f"http://127.0.0.1:{metadata.server_address[1]}"
    for name, value in {
        "HOME": str(home),
        "AWS_SHARED_CREDENTIALS_FILE": str(other / "credentials"),
        "AWS_CONFIG_FILE": str(other / "config"),
        "BOTO_CONFIG": str(home / ".boto"),
        "AWS_PROFILE": "lure",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": url,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/container",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def taken() -> list[str]:
        ran = ["process"] if marker.exists() else []
        return ran + ["metadata"] * metadata.asked

    yield taken
    metadata.shutdown()
    metadata.server_close()


@pytest.mark.parametrize("environment", [True, False], ids=["environment", "files"])
async def test_the_environment_and_files_give_no_credentials(
    aws: FaultProxy, lures: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, environment: bool
) -> None:
    if environment:  # else the library would go on to files, process and metadata
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "environment")
    provider = make(context(aws))
    await provider.check()
    await provider.close()
    assert aws.calls
    for call, _ in aws.calls:
        assert "AKIATEST/" in call.headers["Authorization"]
        assert "/us-east-1/" in call.headers["Authorization"]
        assert "X-Amz-Security-Token" not in call.headers
    with pytest.raises(AuthFailed, match="aws_secret_access_key"):
        make(dataclasses.replace(context(aws), credentials={"aws_access_key_id": b"x"}))
    with pytest.raises(InvalidRequest, match="credential_process"):
        make(dataclasses.replace(context(aws), credentials={**CREDENTIALS, "credential_process": b"/bin/sh"}))
    with pytest.raises(InvalidRequest, match=r"spec\.aws\.region"):
        make(dataclasses.replace(context(aws), spec={}))
    assert lures() == []


@pytest.mark.parametrize("source", ["files", "process", "metadata"])
def test_the_lures_do_lure_the_library_itself(
    lures: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "files":
        assert boto3.session.Session().get_credentials().access_key == "AKIAFILE"
        assert lures() == []
        return
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    if source == "metadata":
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        monkeypatch.delenv("AWS_PROFILE")
        monkeypatch.delenv("BOTO_CONFIG")
        monkeypatch.setenv("HOME", "/nowhere")
        monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    with contextlib.suppress(Exception):  # what they give is nonsense
        boto3.session.Session().get_credentials()
    assert set(lures()) == {source}


async def test_a_group_holds_exactly_the_rules_of_its_cluster(ec2: AwsProvider) -> None:
    cluster = ClusterSpec(SCOPE, "lab", "cluster-uid", ("10.0.0.0/8", "2001:db8::/32"))
    ground = await ec2.prepare(cluster)
    assert await ec2.prepare(cluster) == ground
    await ec2.prepare(dataclasses.replace(cluster, source_ranges=("192.168.0.0/16",)))
    group = next(g for g in await ec2.list_security_groups() if g["id"] == ground["securityGroupId"])
    assert {rule["source"] for rule in group["rules"]} == {"192.168.0.0/16", ground["securityGroupId"]}
    with pytest.raises(Conflict, match="isn't ours"):
        await ec2.prepare(dataclasses.replace(cluster, scope=Scope("another", "team", "aws")))
    assert await ec2.clear(cluster)
    assert await ec2.clear(cluster)


async def test_the_disk_is_the_root_device_of_the_image(ec2: AwsProvider, aws: FaultProxy) -> None:
    (image,) = await ec2.session.pages("describe_images", "Images", ImageIds=[IMAGE])
    await ec2.ensure_node(await spec_of(ec2, "disk", disk_gib=33))
    sent = next(call.parameters for call, _ in aws.calls if call.operation == "RunInstances")
    assert [mapping["DeviceName"] for mapping in sent["BlockDeviceMappings"]] == [image["RootDeviceName"]]
    with pytest.raises(InvalidRequest, match="ami-00000000000000000"):
        await ec2.ensure_node(
            dataclasses.replace(await spec_of(ec2, "none", disk_gib=9), image="ami-00000000000000000")
        )


async def test_sizes_of_disks_are_read_now_and_then_and_a_listing_lives_without_them(aws: FaultProxy) -> None:
    spec = {"region": "us-east-1", "instanceTypes": ["t3.micro"]}
    ec2 = AwsProvider(make(context(aws)).session, "aws", spec, 10, disk_seconds=1.0)  # type: ignore[attr-defined]
    try:
        await ec2.ensure_node(await spec_of(ec2, "disk", disk_gib=33))
        for _ in range(3):
            listing = await ec2.list_nodes(SCOPE)
            assert [node.details.get("diskGiB") for node in listing.nodes] == ["33"]
        assert sum(call.operation == "DescribeVolumes" for call, _ in aws.calls) == 1
        await asyncio.sleep(1.1)
        aws.add("answer", "DescribeVolumes", status=503, code="Unavailable")
        listing = await ec2.list_nodes(SCOPE)
        assert isinstance(listing, Complete)
        assert [node.details.get("diskGiB") for node in listing.nodes] == ["33"]
    finally:
        await ec2.close()


@pytest.mark.parametrize(
    ("type_", "quota"),
    [("m5.large", "standard"), ("t3.micro", "standard"), ("c7g.medium", "standard"), ("inf2.xlarge", "inf"),
     ("g4dn.xlarge", "g-and-vt"), ("p4d.24xlarge", "p"), ("u-6tb1.metal", "high-memory"), ("trn1.2xlarge", "trn"),
     ("x2idn.16xlarge", "x"), ("im4gn.large", "standard"), ("is4gen.medium", "standard")],
)  # fmt: skip
def test_types_count_against_the_quota_of_their_families(type_: str, quota: str) -> None:
    assert quota_of(type_) == quota


def error(code: str, status: int = 400, **headers: str) -> ClientError:
    told: Any = {
        "Error": {"Code": code, "Message": "words of the cloud"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return ClientError(told, "RunInstances")


TABLE: list[tuple[str, int, type[CloudmeshError]]] = [
    *((code, 403, AuthFailed) for code in sorted(AUTH - DENIED)),
    *((code, 403, Denied) for code in sorted(DENIED)),
    ("DryRunOperation", 412, DryRunPassed),
    *((code, 400, QuotaExceeded) for code in sorted(QUOTA)),
    *((code, 400, CapacityUnavailable) for code in sorted(CAPACITY)),
    *((code, 400, Conflict) for code in sorted(CONFLICT)),
    *((code, 503, RateLimited) for code in sorted(RATE)),
    ("InvalidKeyPair.Duplicate", 400, AlreadyExists),
    ("InvalidGroup.Duplicate", 400, AlreadyExists),
    ("InvalidInstanceID.NotFound", 400, NotFound),
    ("InvalidAMIID.NotFound", 400, InvalidRequest),
    ("InvalidAMIID.Malformed", 400, InvalidRequest),
    ("InvalidSubnetID.NotFound", 400, InvalidRequest),
    ("InvalidParameterValue", 400, InvalidRequest),
    ("MissingParameter", 400, InvalidRequest),
    ("NewWordOfTomorrow", 400, InvalidRequest),
    ("InternalError", 500, Transient),
    ("Unavailable", 503, Transient),
    ("RequestTimeout", 400, Transient),
]


@pytest.mark.parametrize(("code", "status", "kind"), TABLE, ids=[row[0] for row in TABLE])
def test_codes_become_errors_of_the_taxonomy(code: str, status: int, kind: type[CloudmeshError]) -> None:
    found = classify(error(code, status), "RunInstances m5.large")
    assert type(found) is kind
    assert "RunInstances m5.large" in str(found)
    assert "words of the cloud" in str(found)


def test_a_limited_rate_tells_how_long_and_a_lost_answer_is_unknown() -> None:
    limited = classify(error("RequestLimitExceeded", 503, **{"retry-after": "7"}), "x")
    assert isinstance(limited, RateLimited)
    assert limited.retry_after == 7
    for lost in (
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        ConnectTimeoutError(endpoint_url="http://127.0.0.1:1"),
        ReadTimeoutError(endpoint_url="http://127.0.0.1:1"),
    ):
        assert type(classify(lost, "x")) is Transient
    assert type(classify(NoCredentialsError(), "x")) is AuthFailed


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("Server.InsufficientInstanceCapacity", CapacityUnavailable),
        ("Server.SpotInstanceTermination", CapacityUnavailable),
        ("Client.VolumeLimitExceeded", QuotaExceeded),
        ("Client.InvalidSnapshot.NotFound", InvalidRequest),
        ("Server.InternalError", Transient),
        ("Client.UserInitiatedShutdown", None),
    ],
)
def test_an_instance_that_ended_by_itself_tells_why(code: str, kind: type[CloudmeshError] | None) -> None:
    instance = {"InstanceId": "i-1", "State": {"Name": "terminated"}, "StateReason": {"Code": code, "Message": "m"}}
    node = to_node(instance, "us-east-1")
    assert node.state == "Deleted"
    if code == "Client.UserInitiatedShutdown":
        assert node.failure is None
    else:
        assert type(node.failure) is kind
    assert (node.details.get("preempted") == "true") == (code == "Server.SpotInstanceTermination")


async def test_a_call_that_was_given_up_leaves_nothing_that_its_token_does_not_find(
    ec2: AwsProvider, aws: FaultProxy
) -> None:
    spec = await spec_of(ec2, "given-up")
    aws.add("delay", "RunInstances", seconds=0.5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await ec2.ensure_node(spec)
    await asyncio.sleep(1.0)
    found = await ec2.find_node(spec)
    assert found is not None
    assert (await ec2.ensure_node(spec)).id == found.id
    assert len((await ec2.list_nodes(SCOPE)).nodes) == 1
