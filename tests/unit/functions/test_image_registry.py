"""The registry client against everything a registry may do: tokens, refusals, redirects, faults at every request."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.unit.functions.fake_registry import FakeRegistry, Fault, hang, reset, times

from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient
from cloudmesh.functions.image.auth import Credentials, parse_challenge
from cloudmesh.functions.image.blobs import Blob
from cloudmesh.functions.image.oci import EMPTY, EMPTY_CONFIG, EMPTY_JSON, LAYER_ZSTD, MANIFEST, manifest_json
from cloudmesh.functions.image.registry import MONOLITHIC, Repository
from cloudmesh.functions.image.signing import artifact_manifest
from cloudmesh.functions.image.transport import Endpoint, Timing, Transport

_QUICK = Timing(connect=1, request=2, total=10, first_pause=0.01, longest_pause=0.05)
_SMALL = Blob.of(LAYER_ZSTD, b"layer" * 100)


@asynccontextmanager
async def _client(
    fake: FakeRegistry, *, credentials: Credentials | None = None, timing: Timing = _QUICK, prefix: str = ""
) -> AsyncIterator[Transport]:
    endpoint = Endpoint(f"{fake.host}{prefix}", credentials, insecure=True)
    async with Transport(endpoint, timing) as transport:
        yield transport


def _manifest(*layers: Blob) -> Blob:
    return Blob.of(MANIFEST, manifest_json(EMPTY_CONFIG, [layer.descriptor for layer in layers]))


async def test_push_and_pull_under_a_prefix() -> None:
    async with FakeRegistry().running() as fake, _client(fake, prefix="/team") as transport:
        repository = Repository(transport, "app")
        await repository.push_blob(_SMALL)
        await repository.put_manifest("v1", _manifest(_SMALL))
        found = await repository.head("v1")
        assert found == _manifest(_SMALL).descriptor
        assert await repository.manifest("v1") == (found, _manifest(_SMALL).read())
        assert await repository.blob(_SMALL.descriptor.digest, 1000) == _SMALL.read()
        assert set(fake.manifests) >= {"team/app"}
        assert await repository.head("gone") is None
        assert await repository.manifest("gone") is None
        assert await repository.blob("sha256:" + "0" * 64, 10) is None


async def test_bytes_are_counted_as_sent() -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        fake.faults.append(times(1, "PUT", "/blobs/uploads/", lambda: web.Response(status=503)))
        repository = Repository(transport, "app")
        await repository.push_blob(_SMALL)
        assert repository.transfer.uploaded_bytes == 2 * _SMALL.descriptor.size
        assert (repository.transfer.uploaded, repository.transfer.mounted) == (1, 0)


async def test_mount_costs_no_bytes() -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        base = Repository(transport, "base")
        await base.push_blob(_SMALL)
        app = Repository(transport, "fn/a")
        await app.push_blob(_SMALL, [base])
        assert (app.transfer.mounted, app.transfer.uploaded_bytes) == (1, 0)
        assert fake.blobs["fn/a"] == fake.blobs["base"]


@pytest.mark.parametrize("mounts", ["no", "refused"])
async def test_a_mount_that_fails_becomes_an_upload(mounts: str) -> None:
    async with FakeRegistry(mounts=mounts).running() as fake, _client(fake) as transport:
        await Repository(transport, "base").push_blob(_SMALL)
        app = Repository(transport, "app")
        await app.push_blob(_SMALL, [Repository(transport, "base")])
        assert (app.transfer.mounted, app.transfer.uploaded) == (0, 1)
        posts = [query for method, path, query in fake.log if method == "POST" and "/app/" in path]
        assert len(posts) == (1 if mounts == "no" else 2)  # the upload that a 202 opened is used
        assert _SMALL.descriptor.digest in fake.blobs["app"]


async def test_large_blobs_go_in_chunks_from_a_file(tmp_path: Path) -> None:
    data = os.urandom(2 * MONOLITHIC + 4711)
    blob = Blob.of(LAYER_ZSTD, data)
    path = tmp_path / "blob"
    path.write_bytes(data)
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        app = Repository(transport, "app")
        await app.push_blob(Blob(blob.descriptor, path))
        assert fake.blobs["app"][blob.descriptor.digest] == data
        assert [method for method, _, _ in fake.log] == ["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PUT"]
        await app.push_blob(Blob(blob.descriptor, path))
        assert app.transfer.present == 1


@pytest.mark.parametrize(
    "fault",
    [
        lambda: reset(1, "PATCH", "/uploads/", after=100_000),
        lambda: reset(2, "PATCH", "/uploads/"),
        lambda: times(1, "PATCH", "/uploads/", lambda: web.Response(status=500)),
        lambda: times(1, "PUT", "/uploads/", lambda: web.Response(status=502)),
        lambda: times(3, "GET", "/uploads/", lambda: web.Response(status=404)),
    ],
)
async def test_a_broken_chunked_upload_goes_on_or_starts_again(fault: Callable[[], Fault]) -> None:
    data = os.urandom(MONOLITHIC + 100)
    blob = Blob.of(LAYER_ZSTD, data)
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        fake.faults += [fault(), reset(1, "PATCH", "/uploads/")]
        await Repository(transport, "app").push_blob(blob)
        assert fake.blobs["app"][blob.descriptor.digest] == data


async def test_a_chunk_that_was_taken_though_the_answer_was_lost_is_not_sent_twice() -> None:
    data = os.urandom(MONOLITHIC + 100)
    blob = Blob.of(LAYER_ZSTD, data)
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        lost = []

        async def lose(request: web.Request) -> web.StreamResponse | None:
            if request.method == "PATCH" and not lost:
                lost.append(1)
                (content,) = fake.uploads.values()
                content += await request.read()
                return web.Response(status=504)
            return None

        fake.faults.append(lose)
        await Repository(transport, "app").push_blob(blob)
        assert fake.blobs["app"][blob.descriptor.digest] == data


_FAULTS: list[Callable[[str, str], Fault]] = [
    lambda method, part: times(2, method, part, lambda: web.Response(status=500, text="not json")),
    lambda method, part: times(1, method, part, lambda: web.Response(status=429, headers={"Retry-After": "0.01"})),
    lambda method, part: reset(1, method, part),
    lambda method, part: hang(1, method, part),
]


@pytest.mark.parametrize("fault", _FAULTS, ids=["500", "429", "reset", "hang"])
@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("HEAD", "/manifests/"),
        ("GET", "/manifests/"),
        ("PUT", "/manifests/"),
        ("POST", "/uploads/"),
        ("PUT", "/uploads/"),
        ("GET", "/blobs/"),
    ],
)
async def test_one_fault_at_each_request(fault: Callable[[str, str], Fault], method: str, part: str) -> None:
    timing = Timing(connect=1, request=0.5, total=10, first_pause=0.01, longest_pause=0.05)
    async with FakeRegistry().running() as fake, _client(fake, timing=timing) as transport:
        fake.faults.append(fault(method, part))
        repository = Repository(transport, "app")
        await repository.push_blob(_SMALL)
        await repository.put_manifest("v1", _manifest(_SMALL))
        assert await repository.head("v1") is not None
        assert await repository.manifest("v1") is not None
        assert await repository.blob(_SMALL.descriptor.digest, 1000) == _SMALL.read()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: web.Response(status=500), Transient),
        (lambda: web.Response(status=429), RateLimited),
        (lambda: web.Response(status=403), AuthFailed),
        (
            lambda: web.Response(status=400, text='{"errors": [{"code": "NAME_INVALID", "message": "no"}]}'),
            InvalidRequest,
        ),
    ],
)
async def test_a_fault_that_stays_ends_in_the_taxonomy(
    answer: Callable[[], web.Response], error: type[CloudmeshError]
) -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        fake.faults.append(times(99, "PUT", "/manifests/", answer))
        with pytest.raises(error, match=r"registry 127\.0\.0\.1.*PUT /v2/app/manifests/v1"):
            await Repository(transport, "app").put_manifest("v1", _manifest())


async def test_a_registry_that_hangs_is_given_up() -> None:
    timing = Timing(connect=0.2, request=0.2, total=0.5, first_pause=0.01)
    async with FakeRegistry().running() as fake, _client(fake, timing=timing) as transport:
        fake.faults.append(hang(99, "HEAD", "/"))
        with pytest.raises(Transient, match="no answer"):
            await Repository(transport, "app").head("v1")


async def test_no_registry_at_all() -> None:
    async with Transport(Endpoint("127.0.0.1:9", insecure=True), _QUICK) as transport:
        with pytest.raises(Transient, match=r"127\.0\.0\.1:9"):
            await Repository(transport, "app").head("v1")


async def test_an_answer_that_is_too_large_is_cut() -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        repository = Repository(transport, "app")
        await repository.push_blob(_SMALL)
        with pytest.raises(InvalidRequest, match="over 10 bytes"):
            await repository.blob(_SMALL.descriptor.digest, 10)


async def test_other_content_than_the_digest_is_noticed() -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        repository = Repository(transport, "app")
        digest = _SMALL.descriptor.digest
        fake.blobs["app"][digest] = b"other"
        fake.manifests["app"][digest] = (MANIFEST, b"{}")
        with pytest.raises(InvalidRequest, match="other content"):
            await repository.blob(digest, 100)
        with pytest.raises(InvalidRequest, match="other content"):
            await repository.manifest(digest)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_credentials(auth: str) -> None:
    async with FakeRegistry(auth=auth).running() as fake:
        async with _client(fake, credentials=Credentials("user", "word")) as transport:
            base, app = Repository(transport, "base"), Repository(transport, "app")
            await base.push_blob(_SMALL)
            await app.push_blob(_SMALL, [base])
            assert app.transfer.mounted == 1
            if auth == "bearer":
                assert ["repository:app:pull,push", "repository:base:pull"] in fake.token_requests
                assert len(fake.token_requests) == 2
        async with _client(fake, credentials=Credentials("user", "wrong")) as transport:
            with pytest.raises(AuthFailed):
                await Repository(transport, "app").head("v1")
        async with _client(fake) as transport:
            with pytest.raises(AuthFailed):
                await Repository(transport, "app").head("v1")


async def test_a_token_that_ended_is_fetched_anew() -> None:
    login = Credentials("user", "word")
    async with FakeRegistry(auth="bearer").running() as fake, _client(fake, credentials=login) as transport:
        repository = Repository(transport, "app")
        await repository.head("v1")
        fake.tokens.clear()
        assert await repository.head("v1") is None
        assert len(fake.token_requests) == 2


async def test_credentials_stay_on_their_host() -> None:
    async with FakeRegistry(auth="basic").running() as fake, FakeRegistry().running() as storage:
        fake.redirect_to = f"{storage.host}/v2/x/blobs"
        storage.blobs["x"][_SMALL.descriptor.digest] = _SMALL.read()
        async with _client(fake, credentials=Credentials("user", "word")) as transport:
            repository = Repository(transport, "app")
            await repository.push_blob(_SMALL)
            assert await repository.blob(_SMALL.descriptor.digest, 1000) == _SMALL.read()
        assert storage.authorizations == [""]


async def test_a_redirect_that_never_ends() -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        here = {"Location": "/v2/app/manifests/v1"}
        fake.faults.append(times(99, "HEAD", "/", lambda: web.Response(status=307, headers=here)))
        with pytest.raises(InvalidRequest, match="redirects"):
            await Repository(transport, "app").head("v1")


def test_challenges() -> None:
    found = parse_challenge('Bearer realm="https://auth.example/token",service="a, b",scope="repository:x:pull"')
    assert found is not None
    assert (found.scheme, found.realm, found.service) == ("bearer", "https://auth.example/token", "a, b")
    assert parse_challenge('Basic realm="x"') is not None
    assert parse_challenge("Negotiate") is None


@pytest.mark.parametrize("name", ["", "http://x", "user@host/x", "a b", "host:port"])
def test_names_that_are_no_registry(name: str) -> None:
    with pytest.raises(InvalidRequest, match="registry"):
        Endpoint(name).url()


def test_secrets_are_not_shown() -> None:
    assert "word" not in repr(Endpoint("host", Credentials("user", "word"), ca="CA-PEM"))


@pytest.mark.parametrize("api", [True, False])
async def test_referrers_with_and_without_the_api(api: bool) -> None:
    async with FakeRegistry(referrers=api).running() as fake, _client(fake) as transport:
        repository = Repository(transport, "app")
        subject = _manifest(_SMALL)
        await repository.put_manifest("v1", subject)
        documents = [Blob.of("text/plain", text) for text in (b"one", b"two")]
        artifacts = [
            artifact_manifest(document, f"application/x-{position}", subject.descriptor, {"a": "b"})
            for position, document in enumerate(documents)
        ]
        for blob in (*documents, Blob.of(EMPTY, EMPTY_JSON)):
            await repository.push_blob(blob)
        for _ in range(2):
            await repository.attach(subject.descriptor, artifacts)
        for position, (_, described) in enumerate(artifacts):
            (found,) = await repository.referrers(subject.descriptor.digest, f"application/x-{position}")
            assert found.digest == described.digest
        assert await repository.referrers(subject.descriptor.digest, "application/none") == []
        assert (subject.descriptor.digest.replace(":", "-") in fake.manifests["app"]) is not api


async def test_an_entry_of_another_writer_stays() -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        repository = Repository(transport, "app")
        subject = _manifest(_SMALL)
        mine, other = (
            artifact_manifest(Blob.of("text/plain", text), "application/x", subject.descriptor, {})
            for text in (b"mine", b"other")
        )
        await repository.attach(subject.descriptor, [other])
        await repository.attach(subject.descriptor, [mine])
        found = await repository.referrers(subject.descriptor.digest, "application/x")
        assert {item.digest for item in found} == {mine[1].digest, other[1].digest}
        assert fake.manifests["app"]


async def test_a_registry_that_answers_the_fallback_tag_with_the_image_itself() -> None:
    async with FakeRegistry().running() as fake, _client(fake) as transport:
        repository = Repository(transport, "app")
        subject = _manifest(_SMALL)
        fake.manifests["app"][subject.descriptor.digest.replace(":", "-")] = (MANIFEST, subject.read())
        assert await repository.referrers(subject.descriptor.digest, "application/x") == []
