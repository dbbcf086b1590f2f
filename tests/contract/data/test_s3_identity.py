"""A role in the place of a Secret: by a token of the gateway's service account, against the emulator's STS and S3."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.contract.compute.emulator import moto_server

from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.data.stores.s3 import S3Store
from cloudmesh.data.stores.s3_clients import boto_client
from cloudmesh.data.stores.s3_identity import NAME_LENGTH, Role, of_role, of_secret
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, RateLimited, Transient
from cloudmesh.testing.proxy import Answer, Call, FaultProxy
from cloudmesh.testing.proxy.s3 import S3Dialect
from cloudmesh.testing.stores import chunks, noise

ROLE = "arn:aws:iam::123456789012:role/lab-data"
ASSUME = "AssumeRoleWithWebIdentity"
FIRST, SECOND = "the-first-token-0123", "the-second-token-4567"
BUCKET = "lab-data"


class Dialect(S3Dialect):
    """S3 with STS beside it, as the emulator has them."""

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        form = {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}
        if method == "POST" and urlsplit(target).path == "/" and "Action" in form:
            return Call(form["Action"], method, target, form, headers, body)
        return super().read(method, target, headers, body)

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        if call.operation != ASSUME:
            return super().error(call, status, code, message)
        words = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        body = f"<ErrorResponse>{words}<RequestId>0</RequestId></ErrorResponse>".encode()
        return Answer(status, body, {"Content-Type": "text/xml"})


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        keys = of_secret({"aws_access_key_id": b"AKIAEXAMPLE", "aws_secret_access_key": b"s3cret"})
        client = boto_client(keys, url, "us-east-1", 30.0, tries=3)
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield url


@pytest.fixture
async def aws(moto: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(moto, Dialect(), keep_host=True) as proxy:
        yield proxy


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The file that the kubelet keeps."""
    file = tmp_path / "token"
    file.write_text(FIRST + "\n")
    return file


def store(aws: FaultProxy, token: Path) -> S3Store:
    settings = {"endpoint": aws.url, "bucket": BUCKET}
    identity = {"roleArn": ROLE, "session": "team@lab", "tokenFile": str(token), "audience": "sts.amazonaws.com"}
    made = maker("s3")(StoreContext("lab", settings, allow_private=True, identity=identity))
    assert isinstance(made, S3Store)
    return made


def assumed(aws: FaultProxy) -> list[Call]:
    return [call for call in aws.received if call.operation == ASSUME]


async def test_the_role_is_assumed_once_and_its_keys_sign_all_calls(
    aws: FaultProxy, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "environment")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/environment")
    s3 = store(aws, token)
    assert not aws.received, "nothing is asked before it is needed"
    content = noise(20 << 20)
    await s3.write("large", chunks(content), size=len(content))
    await s3.write("small", chunks(b"small"))
    assert b"".join([piece async for piece in s3.read("large")]) == content
    assert [each.key for each in (await s3.list("")).objects] == ["large", "small"]
    assert "X-Amz-Security-Token=" in await s3.presign("small", 60)
    await s3.delete("large")
    await s3.delete("small")
    await s3.close()
    (call,) = assumed(aws)
    asked = {name: call.parameters[name] for name in ("RoleArn", "RoleSessionName", "WebIdentityToken")}
    assert asked == {"RoleArn": ROLE, "RoleSessionName": "team@lab", "WebIdentityToken": FIRST}
    assert "authorization" not in {name.lower() for name in call.headers}
    others = [{name.lower(): text for name, text in call.headers.items()} for call in aws.received]
    others = [each for each in others if "authorization" in each]
    assert len(others) == len(aws.received) - 1
    for headers in others:
        assert "Credential=ASIA" in headers["authorization"] and headers["x-amz-security-token"]
        assert FIRST not in str(headers)


async def test_keys_are_renewed_before_they_end_with_the_token_of_the_moment(
    aws: FaultProxy, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as long as the time before the end at which they are renewed
    monkeypatch.setattr("cloudmesh.data.stores.s3_identity.SESSION_SECONDS", 900)
    s3 = store(aws, token)
    await s3.write("a", chunks(b"1"))
    token.write_text(SECOND)
    await s3.probe()
    assert b"".join([piece async for piece in s3.read("a")]) == b"1"
    await s3.close()
    tokens = [call.parameters["WebIdentityToken"] for call in assumed(aws)]
    assert (tokens[0], tokens[-1]) == (FIRST, SECOND)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidIdentityToken", AuthFailed),
        (400, "ExpiredTokenException", AuthFailed),
        (403, "AccessDenied", AuthFailed),
        (403, "IDPRejectedClaim", AuthFailed),
        (400, "ValidationError", AuthFailed),
        (400, "Throttling", RateLimited),
        (503, "ServiceUnavailable", Transient),
    ],
)
async def test_what_sts_refuses_is_told_in_words_without_the_token(
    aws: FaultProxy, token: Path, status: int, code: str, kind: type[CloudmeshError]
) -> None:
    aws.add("answer", ASSUME, status=status, code=code, message="no", times=None)
    s3 = store(aws, token)

    async def read() -> None:
        async for _ in s3.read("a"):
            pass

    for call in (s3.probe(), s3.stat("a"), read(), s3.write("a", chunks(b"x")), s3.delete("a")):
        with pytest.raises(kind) as caught:
            await call
        assert f"AssumeRoleWithWebIdentity {ROLE} as team@lab: {code}" in str(caught.value)
        assert FIRST not in repr(caught.value)
    await s3.close()


async def test_a_token_that_is_not_there(aws: FaultProxy, token: Path) -> None:
    token.unlink()
    s3 = store(aws, token)
    with pytest.raises(AuthFailed, match="there is no token: No such file"):
        await s3.write("a", chunks(b"x"))
    token.write_text(SECOND)
    await s3.write("a", chunks(b"x"))
    await s3.close()
    assert len(assumed(aws)) == 1


def test_the_name_of_a_session_is_as_long_as_sts_takes_it(token: Path) -> None:

    class Sts:
        name = ""

        def assume_role_with_web_identity(self, *, RoleSessionName: str, **_: object) -> dict[str, object]:
            self.name = RoleSessionName
            raise AuthFailed("enough")

    sts = Sts()
    with pytest.raises(AuthFailed, match="enough"):
        of_role(sts, Role(ROLE, f"{'n' * 63}@lab-data", str(token))).get_frozen_credentials()
    assert sts.name == f"{'n' * 63}@" and len(sts.name) == NAME_LENGTH
