"""A role in the place of a Secret: by a token of the operator, against the emulator's STS."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.contract.compute.aws.harness import IMAGE
from tests.contract.compute.aws.test_cluster import AwsLab
from tests.contract.compute.aws.test_provider import context

from cloudmesh.compute.command.documents import Documents
from cloudmesh.compute.command.handles import open_accounts
from cloudmesh.compute.identity import WorkloadIdentity, identity_of
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER
from cloudmesh.compute.providers.aws import AwsProvider, make
from cloudmesh.compute.providers.aws.roles import session_name
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import AuthFailed, CloudmeshError, InvalidRequest, Transient
from cloudmesh.testing.proxy import Call, FaultProxy

ROLE = "arn:aws:iam::123456789012:role/cloudmesh"
CREDENTIALS = {"workloadIdentity": {"roleArn": ROLE}}
FIRST, SECOND = "the-first-token-0123", "the-second-token-4567"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The file that the kubelet keeps."""
    file = tmp_path / "token"
    file.write_text(FIRST + "\n")
    return file


def provider(aws: FaultProxy, token: Path, seconds: int = 3600) -> AwsProvider:
    identity = WorkloadIdentity(CREDENTIALS["workloadIdentity"], str(token))
    told = context(aws)
    made = make(
        dataclasses.replace(
            told, credentials={}, identity=identity, defaults={"sessionSeconds": str(seconds), "readSeconds": "60"}
        )
    )
    assert isinstance(made, AwsProvider)
    return made


def assumed(aws: FaultProxy) -> list[Call]:
    return [call for call, _ in aws.calls if call.operation == "AssumeRoleWithWebIdentity"]


async def test_the_role_is_assumed_once_and_its_keys_sign_all_calls(
    aws: FaultProxy, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment")
    ec2 = provider(aws, token)
    assert not aws.calls, "nothing is asked before it is needed"
    assert (await ec2.identity()).startswith("123456789012/")
    await ec2.list_networks()
    await ec2.close()
    (call,) = assumed(aws)
    assert call.parameters == {
        "RoleArn": ROLE, "RoleSessionName": "team@aws", "WebIdentityToken": FIRST, "DurationSeconds": 3600,
    }  # fmt: skip
    assert "Authorization" not in call.headers
    others = [call for call, _ in aws.calls if call.operation != "AssumeRoleWithWebIdentity"]
    assert {call.operation for call in others} == {"GetCallerIdentity", "DescribeSubnets"}
    for call in others:
        assert "Credential=ASIA" in call.headers["Authorization"]
        assert call.headers["X-Amz-Security-Token"]
        assert FIRST not in str(call.headers) + call.body.decode()
    assert not aws.dialect.invalid  # type: ignore[attr-defined]


async def test_credentials_are_renewed_before_they_end_with_the_token_of_the_moment(
    aws: FaultProxy, token: Path
) -> None:
    ec2 = provider(aws, token, seconds=900)  # as long as the time before the end at which they are renewed
    await ec2.list_networks()
    token.write_text(SECOND)
    await ec2.list_networks()
    await ec2.close()
    tokens = [call.parameters["WebIdentityToken"] for call in assumed(aws)]
    assert tokens[0] == FIRST
    assert tokens[-1] == SECOND


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidIdentityToken", AuthFailed),
        (400, "ExpiredTokenException", AuthFailed),
        (403, "AccessDenied", AuthFailed),
        (403, "IDPRejectedClaim", AuthFailed),
        (400, "IDPCommunicationError", Transient),
        (503, "ServiceUnavailable", Transient),
    ],
)
async def test_what_sts_refuses_is_told_in_words_without_the_token(
    aws: FaultProxy, token: Path, status: int, code: str, kind: type[CloudmeshError]
) -> None:
    aws.add("answer", "AssumeRoleWithWebIdentity", status=status, code=code, message="no", times=None)
    ec2 = provider(aws, token)
    with pytest.raises(kind) as caught:
        await ec2.check()
    assert type(caught.value) is kind, "it isn't one call that is denied"
    assert f"AssumeRoleWithWebIdentity {ROLE} as team@aws: {code}" in str(caught.value)
    assert FIRST not in repr(caught.value)
    await ec2.close()


async def test_an_unknown_token_and_a_missing_one_are_refused(aws: FaultProxy, token: Path) -> None:
    aws.dialect.web_tokens = frozenset({SECOND})  # type: ignore[attr-defined]
    ec2 = provider(aws, token)
    with pytest.raises(AuthFailed, match="InvalidIdentityToken"):
        await ec2.identity()
    token.unlink()
    with pytest.raises(AuthFailed, match="the operator has no token"):
        await ec2.identity()
    token.write_text(SECOND)
    assert await ec2.identity()
    await ec2.close()


def test_the_name_of_a_session_tells_the_namespace_whole() -> None:
    long = "n" * 63
    assert session_name("lab", "aws") == "lab@aws"
    assert session_name(long, "aws") == f"{long}@"


def obj(namespace: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "aws", "namespace": namespace},
        "spec": {"aws": {"region": "us-east-1", **spec}, "credentials": CREDENTIALS},
    }


def test_only_namespaces_that_are_named_have_an_identity() -> None:
    settings = ComputeSettings.from_environ(
        {"CLOUDMESH_IDENTITY_NAMESPACES": "lab physics", "CLOUDMESH_IDENTITY_TOKEN_FILE": "/token"}
    )
    assert identity_of(obj("lab"), (), settings) == WorkloadIdentity({"roleArn": ROLE}, "/token")
    for namespace, told in (("other", settings), ("", settings), ("lab", ComputeSettings())):
        with pytest.raises(AuthFailed, match=r"`accounts\.workloadIdentity\.namespaces`"):
            identity_of(obj(namespace), (), told)
    with pytest.raises(InvalidRequest, match=r"evil\.example\.org gets no token"):
        identity_of(obj("lab"), ("evil.example.org",), settings)
    secret = obj("other")
    secret["spec"]["credentials"] = {"secretRef": {"name": "aws"}}
    assert identity_of(secret, (), settings) is None
    assert identity_of({"metadata": {"namespace": "x"}, "spec": {"memory": {}}}, (), settings) is None


async def test_the_command_has_no_token_and_says_so(monkeypatch: pytest.MonkeyPatch, token: Path) -> None:
    monkeypatch.setenv("CLOUDMESH_IDENTITY_NAMESPACES", "lab")
    monkeypatch.setenv("CLOUDMESH_IDENTITY_TOKEN_FILE", str(token))
    documents = Documents("lab", {"CloudAccount": {("lab", "aws"): obj("lab")}})
    async with open_accounts(documents, [("lab", "aws")], ComputeSettings.from_environ()) as (handle,):
        assert handle.provider is None
        assert "this command has no token" in handle.failed


class RoleLab(AwsLab):
    """With an account that has a role and no Secret."""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(proxy)
        account = self.api.get(CLOUD_ACCOUNT, "ns", "aws")
        assert account is not None
        spec = account["spec"] | {"credentials": CREDENTIALS, "images": {"debian": IMAGE}}
        self.api.put(CLOUD_ACCOUNT, account | {"spec": spec})


@pytest.fixture
def lab(aws: FaultProxy, monkeypatch: pytest.MonkeyPatch, token: Path) -> RoleLab:
    monkeypatch.setenv("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "true")
    monkeypatch.setenv("CLOUDMESH_IDENTITY_NAMESPACES", "ns")
    monkeypatch.setenv("CLOUDMESH_IDENTITY_TOKEN_FILE", str(token))
    return RoleLab(aws)


async def test_a_cluster_without_a_secret(lab: RoleLab, aws: FaultProxy) -> None:
    lab.make_cluster()
    async with lab.operator():
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "aws") == "True", 90)
        await lab.until(lab.is_ready, 120)
    made = [call for call, _ in aws.calls if call.operation == "RunInstances" and not call.parameters.get("DryRun")]
    assert made
    assert all("Credential=ASIA" in call.headers["Authorization"] for call in made)
    assert len(assumed(aws)) == 1
    assert {call.parameters["RoleSessionName"] for call in assumed(aws)} == {"ns@aws"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CLOUDMESH_IDENTITY_NAMESPACES", "other another", "namespace 'ns' may not use the operator's identity"),
        ("CLOUDMESH_IDENTITY_TOKEN_FILE", "", "namespace 'ns' may not use the operator's identity"),
        ("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "", "127.0.0.1"),
    ],
)
async def test_an_account_that_may_not_is_told_and_no_token_leaves(
    lab: RoleLab, aws: FaultProxy, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    lab.make_cluster()
    async with lab.operator():
        await lab.until(lambda: lab.ready(CLOUD_ACCOUNT, "aws") == "False")
        assert words in lab.told(CLOUD_ACCOUNT, "aws")
        assert lab.ready(VIRTUAL_CLUSTER, "lab") != "True"
    assert not aws.calls
