"""How calls to Azure Blob prove who makes them.

By the account's key, by a SAS token, by an application's secret, or by a token of the Pod's service account.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from cloudmesh.data.stores.clouds import azure_cloud
from cloudmesh.data.stores.common import needed, secret_texts
from cloudmesh.data.stores.federation import Workload, of_entra
from cloudmesh.data.stores.http import Http
from cloudmesh.data.stores.oauth import Tokens, by_form
from cloudmesh.engine.errors import AuthFailed, InvalidRequest

KEY, SAS = "azure_storage_key", "azure_storage_sas_token"
TENANT, CLIENT, SECRET = "azure_tenant_id", "azure_client_id", "azure_client_secret"
KNOWN: Final = frozenset({KEY, SAS, TENANT, CLIENT, SECRET})
VERSION = "2021-12-02"
"""Of the service's API: https://learn.microsoft.com/rest/api/storageservices/versioning-for-the-azure-storage-services"""
SCOPE = "https://storage.azure.com/.default"
_SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


class Signer(Protocol):
    """Adds to a call what proves who makes it; may block."""

    def refused(self) -> bool:
        """The service has refused the last call: whether one more try is worth it."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """URL and headers as they are sent."""


class ByKey:
    """By the key of the account, which is never sent.

    Args:
        account: Name of the account.
        key: Its key in base64.
    """

    def __init__(self, account: str, key: str) -> None:
        self._account = account
        try:
            self._key = base64.b64decode(key, validate=True)
        except binascii.Error:
            raise AuthFailed(f"the Secret's key {KEY!r} must be base64, as the portal shows it") from None

    def refused(self) -> bool:
        """There is but one key."""
        return False

    def __call__(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """As the protocol says."""
        sent = {**headers, "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True)}
        lower = {name.lower(): value for name, value in sent.items()}
        if lower.get("content-length") == "0":
            lower["content-length"] = ""
        split = urlsplit(url)
        own = sorted((name, value) for name, value in lower.items() if name.startswith("x-ms-"))
        query = sorted((name.lower(), value) for name, value in parse_qsl(split.query, keep_blank_values=True))
        text = "\n".join(
            (
                method,
                *(lower.get(name, "") for name in _SIGNED),
                *(f"{name}:{value}" for name, value in own),
                f"/{self._account}{split.path}" + "".join(f"\n{name}:{value}" for name, value in query),
            )
        )
        return url, {**sent, "Authorization": f"SharedKey {self._account}:{self._digest(text)}"}

    def link(self, url: str, container: str, key: str, seconds: int) -> str:
        """An address that reads one blob for a while.

        Args:
            url: Of the blob.
            container: Its container.
            key: Its name.
            seconds: How long.
        """
        now = datetime.now(UTC)
        ends = (now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        protocol = "https" if url.startswith("https:") else "https,http"
        # permissions, start, end, resource, stored policy, addresses, protocol, version, kind, snapshot, scope, and
        # five headers of the answer
        fields = ("r", "", ends, f"/blob/{self._account}/{container}/{key}", "", "", protocol, VERSION, "b", *("",) * 7)
        query = {"sv": VERSION, "se": ends, "sr": "b", "sp": "r", "spr": protocol}
        return f"{url}?{urlencode({**query, 'sig': self._digest(chr(10).join(fields))}, quote_via=quote, safe='')}"

    def _digest(self, text: str) -> str:
        return base64.b64encode(hmac.new(self._key, text.encode(), hashlib.sha256).digest()).decode()


class BySas:
    """By a SAS token, which is a part of each address.

    Args:
        token: As the portal shows it, with or without a question mark.
    """

    def __init__(self, token: str) -> None:
        self._query = token.strip().lstrip("?")
        if "sig" not in dict(parse_qsl(self._query)):
            raise AuthFailed(f"the Secret's key {SAS!r} must be a SAS token, such as 'sv=…&sig=…'")

    def refused(self) -> bool:
        """There is but one token."""
        return False

    def __call__(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """As the protocol says."""
        return f"{url}{'&' if '?' in url else '?'}{self._query}", dict(headers)


class ByToken:
    """By tokens that are asked for.

    Args:
        tokens: Of an application or a managed identity.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._last = ""
        self._refused = ""

    def refused(self) -> bool:
        """The next one is made with another token."""
        self._refused = self._last
        return True

    def __call__(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """As the protocol says."""
        self._last = self._tokens.get(self._refused)
        return url, {**headers, "Authorization": f"Bearer {self._last}"}


def _of_application(http: Http, authority: str, values: Mapping[str, str]) -> Tokens:
    """Tokens that an application's secret is good for."""
    form = {
        "grant_type": "client_credentials", "client_id": values[CLIENT], "client_secret": values[SECRET],
        "scope": SCOPE,
    }  # fmt: skip
    if not values[TENANT].replace("-", "").replace(".", "").isalnum():
        raise InvalidRequest(f"the Secret's key {TENANT!r} must be the id of a tenant")
    return Tokens(by_form(http, f"{authority}/{values[TENANT]}/oauth2/v2.0/token", lambda: form))


def signer(
    account: str,
    endpoint: str,
    credentials: Mapping[str, bytes] | Workload,
    http: Http,
    *,
    authority: str = "",
    plain: bool,
) -> Signer:
    """Who makes the calls of a store.

    Args:
        account: Name of the account.
        endpoint: URL of its blobs.
        credentials: The Secret's data, or what stands in its place.
        http: Connections.
        authority: Where tokens are given, empty for the one of the endpoint's cloud.
        plain: Secrets may be sent without TLS.

    Raises:
        AuthFailed: A key is missing.
        InvalidRequest: A key means nothing here, there are two ways, or a secret would be sent in the open.
    """
    authority = authority or azure_cloud(endpoint).authority
    bare = endpoint.startswith("http:") and not plain
    if isinstance(credentials, Workload):
        if bare:
            raise InvalidRequest(f"{endpoint}: tokens are not sent without TLS")
        return ByToken(of_entra(http, authority, credentials, SCOPE))
    values = secret_texts(credentials, KNOWN)
    ways = [way for way in (KEY, SAS, SECRET) if way in values]
    if not ways:
        raise AuthFailed(f"the Secret must have one of the keys {KEY!r}, {SAS!r}, and {SECRET!r} with its two others")
    if len(ways) > 1:
        raise InvalidRequest(f"the Secret must have one of the keys {' and '.join(map(repr, ways))}, not both")
    if ways == [KEY]:
        return ByKey(account, values[KEY])
    if bare:
        raise InvalidRequest(f"{endpoint}: only {KEY!r} may be used without TLS, since the others would be sent")
    if ways == [SAS]:
        return BySas(values[SAS])
    needed(values, TENANT, CLIENT)
    return ByToken(_of_application(http, authority, values))
