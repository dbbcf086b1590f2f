"""Tokens of service accounts are traded at Azure and Google: what is sent there, kept, renewed and said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.data.token_scene import CLIENT, EMAIL, PROVIDER, STORAGE_SCOPE, TENANT, Givers, givers

from cloudmesh.data.stores import azure, gcs, http, oauth
from cloudmesh.data.stores.clouds import AZURE_CLOUDS, audience, azure_cloud, is_own
from cloudmesh.data.stores.federation import Workload, of_entra, of_google
from cloudmesh.data.stores.http import Http
from cloudmesh.data.stores.oauth import AGAIN_SECONDS, EARLY_SECONDS, Tokens
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient

SECOND = "the-second-token-4567"
AZURE = {"tenantId": TENANT, "clientId": CLIENT}
GOOGLE = {"provider": PROVIDER}
ACTING = {**GOOGLE, "serviceAccountEmail": EMAIL}
WAYS = [AZURE, GOOGLE, ACTING]
IDS = ["azure", "google", "acting"]


@dataclass
class Clock:
    now: float = 1000.0
    waited: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.waited += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(oauth, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=made.sleep))
    return made


@pytest.fixture
def cloud() -> Iterator[Givers]:
    with givers() as made:
        yield made


@pytest.fixture
def file(tmp_path: Path, cloud: Givers) -> Path:
    """What the kubelet keeps."""
    made = tmp_path / "token"
    made.write_text(f"{cloud.believed}\n")
    return made


@pytest.fixture
def tokens(cloud: Givers, file: Path, clock: Clock) -> Iterator[Callable[[dict[str, str]], Tokens]]:
    links = Http(4, 5.0)

    def make(fields: dict[str, str]) -> Tokens:
        who = Workload(fields, str(file))
        if "tenantId" in fields:
            return of_entra(links, cloud.url, who, "https://storage.azure.com/.default")
        return of_google(links, who, STORAGE_SCOPE, sts=cloud.url, iam=cloud.url)

    yield make
    links.close()


Make = Callable[[dict[str, str]], Tokens]


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        (AZURE, [f"/{TENANT}/oauth2/v2.0/token"]),
        (GOOGLE, ["/v1/token"]),
        (ACTING, ["/v1/token", f"/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken"]),
    ],
    ids=IDS,
)
def test_one_token_serves_all_calls_until_shortly_before_its_end(
    cloud: Givers, tokens: Make, file: Path, clock: Clock, fields: dict[str, str], asked: list[str]
) -> None:
    kept = tokens(fields)
    assert not cloud.asked, "nothing is asked before it is needed"
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(kept.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(got) == set(cloud.tokens) and len(cloud.tokens) == 1 and cloud.asked == asked
    clock.now += 3600 - EARLY_SECONDS - 10
    assert kept.get() == cloud.tokens[0] and cloud.asked == asked
    # the kubelet has brought another one: it is that which is traded now
    cloud.believed = SECOND
    file.write_text(SECOND)
    clock.now += 15
    assert kept.get() == cloud.tokens[1] and cloud.asked == 2 * asked


@pytest.mark.parametrize("fields", WAYS, ids=IDS)
def test_a_token_that_the_service_refuses_is_replaced(cloud: Givers, tokens: Make, fields: dict[str, str]) -> None:
    kept = tokens(fields)
    first = kept.get()
    assert kept.get(refused=first) == cloud.tokens[1] == kept.get(refused=first) == kept.get()


@pytest.mark.parametrize("fields", WAYS, ids=IDS)
@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (500, {}, Transient),
        (503, {"error": "temporarily_unavailable"}, Transient),
        (429, {"error": "slow_down"}, RateLimited),
    ],
)
def test_trouble_of_a_moment_is_tried_again_and_hurts_nobody_who_has_a_token(
    cloud: Givers,
    tokens: Make,
    clock: Clock,
    fields: dict[str, str],
    status: int,
    told: dict[str, Any],
    kind: type[CloudmeshError],
) -> None:
    kept = tokens(fields)
    cloud.answers = 2 * [(status, told)]
    first = kept.get()
    assert first == cloud.tokens[0] and clock.waited > 0
    # later it is time for another one, and there is none
    clock.now += 3600 - EARLY_SECONDS + 1
    cloud.answers = 3 * [(status, told)]
    assert kept.get() == first and not cloud.answers
    cloud.answers = 3 * [(status, told)]
    assert kept.get() == first and len(cloud.answers) == 3, "it isn't asked for at each call"
    clock.now += AGAIN_SECONDS + 1
    assert kept.get() == first and not cloud.answers
    clock.now += EARLY_SECONDS  # now it has ended
    cloud.answers = 3 * [(status, told)]
    with pytest.raises(kind):
        kept.get()
    assert kept.get() == cloud.tokens[1]
    cloud.answers = 3 * [(status, told)]
    with pytest.raises(kind):
        kept.get(refused=cloud.tokens[1])


def test_what_says_nothing_of_the_credentials_is_no_refusal(cloud: Givers, tokens: Make) -> None:
    for status, told in ((400, {"error": "temporarily_unavailable"}), (200, {"expires_in": 1}), (200, {})):
        cloud.answers = [(status, told)]
        with pytest.raises(Transient):
            tokens(AZURE).get()
        cloud.answers = [(200, {"access_token": "traded", "expires_in": 9}), (200, told)]
        with pytest.raises(Transient):
            tokens(ACTING).get()


TRADED: tuple[int, dict[str, Any]] = (200, {"access_token": "traded", "expires_in": 9})
REFUSALS: list[tuple[dict[str, str], list[tuple[int, dict[str, Any]]], str]] = [
    (AZURE, [(400, {"error": "invalid_request", "error_codes": [90002]})], r"`tenantId` \(invalid_request AADSTS90002"),
    (AZURE, [(400, {"error": "unauthorized_client", "error_codes": [700016]})], "this `clientId` .*AADSTS700016"),
    (AZURE, [(401, {"error": "invalid_client", "error_codes": [700211]})], "`clientId` has this issuer"),
    (AZURE, [(401, {"error": "invalid_client", "error_codes": [700212]})], "`clientId` has this audience"),
    (AZURE, [(401, {"error": "invalid_client", "error_codes": [700024]})], "too old"),
    (AZURE, [(401, {"error": "invalid_client", "error_codes": [1]})], "look at `tenantId` and `clientId`.*AADSTS1"),
    (AZURE, [(401, {"error": "invalid_client", "error_codes": "x"})], r"look at .* \(invalid_client\)"),
    (GOOGLE, [(400, {"error": "invalid_target"})], r"no such `provider`.*\(invalid_target\)"),
    (GOOGLE, [(400, {"error": "invalid_grant"})], "`provider` doesn't believe the token"),
    (GOOGLE, [(401, {"error": "unauthorized_client"})], "the condition of the `provider`"),
    (GOOGLE, [(403, {"error": "other"})], r"look at the `provider`.*\(other\)"),
    (ACTING, [(400, {"error": "invalid_target"})], "no such `provider`"),
    (ACTING, [TRADED, (403, {"error": {"code": 403}})], f"may not act as the `serviceAccountEmail` {EMAIL}.*403"),
    (ACTING, [TRADED, (404, {"error": {"code": 404}})], "or there is no such service account"),
]


@pytest.mark.parametrize(("fields", "answers", "words"), REFUSALS)
def test_a_refusal_names_the_field(
    cloud: Givers, tokens: Make, fields: dict[str, str], answers: list[tuple[int, dict[str, Any]]], words: str
) -> None:
    cloud.answers = list(answers)
    with pytest.raises(AuthFailed, match=words) as caught:
        tokens(fields).get()
    assert str(caught.value).startswith("`spec.credentials.workloadIdentity`: ") and len(cloud.asked) == len(answers)


@pytest.mark.parametrize("fields", WAYS, ids=IDS)
def test_a_token_that_is_not_believed_stands_in_no_error(
    cloud: Givers, tokens: Make, file: Path, fields: dict[str, str]
) -> None:
    cloud.believed = SECOND
    with pytest.raises(AuthFailed) as caught:
        tokens(fields).get()
    assert file.read_text().strip() not in repr(caught.value) and not cloud.tokens
    file.unlink()
    with pytest.raises(AuthFailed, match="no token of the service account: No such file"):
        tokens(fields).get()
    assert len(cloud.asked) == 1


def test_the_end_of_a_token_is_told_by_the_clock_of_who_gives_it(cloud: Givers, tokens: Make, clock: Clock) -> None:
    cloud.ahead = -7200
    kept = tokens(ACTING)
    first = kept.get()
    clock.now += 3600 - EARLY_SECONDS - 10
    assert kept.get() == first
    clock.now += 15
    assert kept.get() == cloud.tokens[1]


# -- where it goes


@pytest.mark.parametrize("fields", WAYS, ids=IDS)
def test_nothing_is_sent_where_the_guard_lets_nobody(
    cloud: Givers, file: Path, clock: Clock, fields: dict[str, str]
) -> None:
    who, links = Workload(fields, str(file)), Http(4, 5.0, Guard())
    kept = of_entra(links, cloud.url, who, "s") if fields is AZURE else of_google(links, who, "s", sts=cloud.url)
    with pytest.raises(InvalidRequest, match="refused as an endpoint"):
        kept.get()
    links.close()
    assert not cloud.asked


async def test_the_stores_ask_their_own_clouds(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    sent: list[tuple[str, dict[str, str]]] = []

    def send(_: Http, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> Any:
        sent.append((url, dict(headers)))
        raise InvalidRequest("enough")

    monkeypatch.setattr(Http, "send", send)
    china = {"endpoint": "https://lab.blob.core.chinacloudapi.cn"}
    for kind, settings, fields, place in (
        ("azureBlob", {"account": "lab", "container": "data"}, AZURE, "https://login.microsoftonline.com/"),
        ("azureBlob", {"account": "lab", "container": "data", **china}, AZURE, "https://login.chinacloudapi.cn/"),
        ("gcs", {"bucket": "lab"}, GOOGLE, "https://sts.googleapis.com/v1/token"),
        ("gcs", {"bucket": "lab"}, ACTING, "https://sts.googleapis.com/v1/token"),
    ):
        identity = {**fields, "session": "ns@lab", "audience": "x", "tokenFile": str(file)}
        store: Any = maker(kind)(StoreContext("lab", settings, identity=identity))
        with pytest.raises(InvalidRequest, match="enough"):
            await store.stat("a")
        assert sent.pop()[0].startswith(place) and not sent
        assert not hasattr(store, "presign"), "nobody can sign a link"
        await store.close()


@pytest.mark.parametrize("kind", ["azureBlob", "gcs"])
def test_tokens_are_not_sent_in_the_open(kind: str, file: Path) -> None:
    settings = {"account": "lab", "container": "c", "bucket": "lab", "endpoint": "http://store.example.org"}
    with pytest.raises(InvalidRequest, match="not sent without TLS"):
        maker(kind)(StoreContext("lab", settings, identity={**AZURE, **GOOGLE, "tokenFile": str(file)}))


def test_each_cloud_of_azure_has_its_own_authority_and_audience() -> None:
    assert azure_cloud("") is azure_cloud("https://lab.blob.core.windows.net") is AZURE_CLOUDS[0]
    assert azure_cloud("https://lab.blob.core.usgovcloudapi.net:443/").authority == "https://login.microsoftonline.us"
    assert azure_cloud("https://evilcore.usgovcloudapi.net") is AZURE_CLOUDS[0]
    assert len({cloud.audience for cloud in AZURE_CLOUDS} | {cloud.authority for cloud in AZURE_CLOUDS}) == 6


def test_whom_a_token_is_for() -> None:
    gov = {"account": "lab", "endpoint": "https://lab.blob.core.usgovcloudapi.net"}
    assert audience("azureBlob", {"account": "lab"}, AZURE, "aws") == "api://AzureADTokenExchange"
    assert audience("azureBlob", gov, AZURE, "aws") == "api://AzureADTokenExchangeUSGov"
    assert audience("gcs", {}, GOOGLE, "aws") == f"https://iam.googleapis.com/{PROVIDER}"
    assert audience("s3", {}, {"roleArn": "x"}, "aws") == "aws"


@pytest.mark.parametrize(
    ("kind", "endpoint", "own"),
    [
        ("azureBlob", "", True),
        ("azureBlob", "https://lab.blob.core.windows.net", True),
        ("azureBlob", "https://lab.blob.core.usgovcloudapi.net/", True),
        ("azureBlob", "http://lab.blob.core.windows.net", False),
        ("azureBlob", "https://other.blob.core.windows.net", False),
        ("azureBlob", "https://lab.blob.core.windows.net.example.org", False),
        ("azureBlob", "https://example.org/lab.blob.core.windows.net", False),
        ("azureBlob", "https://[::", False),
        ("gcs", "https://storage.europe-west3.rep.googleapis.com", True),
        ("gcs", "http://storage.googleapis.com", False),
        ("gcs", "https://storage.evilgoogleapis.com", False),
        ("gcs", "https://storage.googleapis.com.example.org", False),
        ("s3", "", True),
        ("s3", "https://s3.amazonaws.com", False),
    ],
)
def test_which_addresses_are_the_clouds_own(kind: str, endpoint: str, own: bool) -> None:
    assert is_own(kind, {"account": "lab", **({"endpoint": endpoint} if endpoint else {})}) is own


def test_without_an_identity_the_secret_is_what_counts() -> None:
    with pytest.raises(AuthFailed, match="the Secret"):
        azure.make(StoreContext("lab", {"account": "lab", "container": "c"}))
    with pytest.raises(AuthFailed, match="the Secret"):
        gcs.make(StoreContext("lab", {"bucket": "lab"}))
