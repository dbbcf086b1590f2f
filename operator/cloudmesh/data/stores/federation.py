"""Workload identity of Azure and Google: a token of the Pod's service account is traded for one of the cloud.

The file with the token is read at each trade, since the kubelet renews it. All calls go by the store's own connections.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cloudmesh.data.stores.clouds import GOOGLE_RESOURCE
from cloudmesh.data.stores.http import Answer, Http, patiently
from cloudmesh.data.stores.oauth import Given, Tokens, by_form
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, RateLimited, Transient

STS: Final = "https://sts.googleapis.com"
IAM: Final = "https://iamcredentials.googleapis.com"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
IAM_SCOPE: Final = "https://www.googleapis.com/auth/iam"
ACTING_SECONDS: Final = 3600
FIELD: Final = "spec.credentials.workloadIdentity"
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_ENTRA: Final[Mapping[int, str]] = {
    90002: "there is no such `tenantId`",
    900023: "there is no such `tenantId`",
    700016: "the tenant has no application or identity with this `clientId`",
    70021: "no federated credential of `clientId` has this issuer, subject and audience",
    700211: "no federated credential of `clientId` has this issuer",
    700212: "no federated credential of `clientId` has this audience",
    700213: "no federated credential of `clientId` has this subject",
    700024: "the token is too old, or not good yet: the node's clock may be wrong",
}
# https://cloud.google.com/iam/docs/troubleshooting-workload-identity-federation
_STS: Final[Mapping[str, str]] = {
    "invalid_target": "there is no such `provider`, or it is disabled",
    "invalid_grant": "the `provider` doesn't believe the token: look at its issuer and its audiences",
    "unauthorized_client": "the condition of the `provider` isn't met by the token",
    "unsupported_grant_type": "the `provider` takes no tokens of this kind",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """What a store proves who it is by, in the place of a Secret.

    Args:
        fields: What `spec.credentials.workloadIdentity` says.
        token_file: File with the token of the Pod's service account.
    """

    fields: Mapping[str, str]
    token_file: str

    def token(self) -> str:
        """The token of the moment.

        Raises:
            AuthFailed: There is none.
        """
        try:
            return Path(self.token_file).read_text().strip()
        except OSError as error:
            raise AuthFailed(f"`{FIELD}`: there is no token of the service account: {error.strerror}") from None


def workload(identity: Mapping[str, str]) -> Workload | None:
    """What `StoreContext.identity` says; None for nothing."""
    return Workload(identity, identity["tokenFile"]) if identity else None


def of_entra(http: Http, authority: str, who: Workload, scope: str) -> Tokens:
    """Tokens of Azure.

    Args:
        http: Connections.
        authority: Where tokens are given.
        who: Has `tenantId` and `clientId`.
        scope: What they are for.
    """

    def form() -> dict[str, str]:
        return {
            "grant_type": "client_credentials", "client_id": who.fields["clientId"], "scope": scope,
            "client_assertion_type": ASSERTION, "client_assertion": who.token(),
        }  # fmt: skip

    url = f"{authority}/{quote(who.fields['tenantId'], safe='')}/oauth2/v2.0/token"
    return Tokens(by_form(http, url, form, _refused_by_entra))


def of_google(http: Http, who: Workload, scope: str, *, sts: str = STS, iam: str = IAM) -> Tokens:
    """Tokens of Google: of the workload itself, or of the service account that it acts as.

    Args:
        http: Connections.
        who: Has `provider`, and perhaps `serviceAccountEmail`.
        scope: What they are for.
        sts: Where tokens are traded.
        iam: Where those of service accounts are given.
    """
    email = who.fields.get("serviceAccountEmail", "")

    def form() -> dict[str, str]:
        return {
            "grant_type": EXCHANGE, "audience": f"//{GOOGLE_RESOURCE}/{who.fields['provider']}",
            "scope": IAM_SCOPE if email else scope, "requested_token_type": ACCESS_TOKEN,
            "subject_token": who.token(), "subject_token_type": JWT,
        }  # fmt: skip

    traded = by_form(http, f"{sts}/v1/token", form, _refused_by_sts)
    return Tokens(_acting(http, f"{iam}/v1", email, scope, traded) if email else traded)


def _acting(http: Http, url: str, email: str, scope: str, traded: Callable[[], Given]) -> Callable[[], Given]:
    place = f"{url}/projects/-/serviceAccounts/{quote(email, safe='@')}:generateAccessToken"
    body = json.dumps({"scope": [scope], "lifetime": f"{ACTING_SECONDS}s"}).encode()

    def ask() -> Given:
        token, _ = traded()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
        answer = patiently(lambda: http.send("POST", place, headers, body))
        if not answer.ok:
            raise _refused_by_iam(answer, email)
        try:
            told: Any = json.loads(answer.body)
            ends = datetime.fromisoformat(str(told["expireTime"]))
            return str(told["accessToken"]), (ends - _their_time(answer)).total_seconds()
        except (ValueError, TypeError, LookupError):
            raise Transient(f"asking for a token of {email}: the answer has none") from None

    return ask


def _their_time(answer: Answer) -> datetime:
    """Of the service: it says when a token ends, and the node's clock may be wrong."""
    try:
        return parsedate_to_datetime(answer.headers.get("date", ""))
    except (TypeError, ValueError):
        return datetime.now(UTC)


def _refused_by_entra(told: Mapping[str, Any]) -> str:
    codes = told.get("error_codes")
    numbers = [code for code in codes if isinstance(code, int)][:1] if isinstance(codes, list) else []
    known = [_ENTRA.get(number, "") for number in numbers]
    words = (known[0] if known else "") or "look at `tenantId` and `clientId`, and at the application's credentials"
    code = " ".join([str(told["error"])[:100], *(f"AADSTS{number}" for number in numbers)])
    return f"`{FIELD}`: Azure gives no token: {words} ({code})"


def _refused_by_sts(told: Mapping[str, Any]) -> str:
    code = str(told["error"])[:100]
    words = _STS.get(code, "look at the `provider`, its issuer and its audiences")
    return f"`{FIELD}`: Google gives no token: {words} ({code})"


def _refused_by_iam(answer: Answer, email: str) -> CloudmeshError:
    if answer.status == 429:
        return RateLimited(f"asking for a token of {email}: too many were asked for", answer.retry_after)
    if answer.status not in (400, 401, 403, 404):
        return Transient(f"asking for a token of {email}: status {answer.status}")
    words = f"the workload may not act as the `serviceAccountEmail` {email}, or there is no such service account"
    return AuthFailed(f"`{FIELD}`: Google gives no token: {words} (status {answer.status})")
