"""How calls to Google Cloud Storage prove who makes them: by the key of a service account."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloudmesh.data.stores.common import needed, secret_texts
from cloudmesh.data.stores.http import Http
from cloudmesh.data.stores.oauth import Tokens, by_form, jwt, signed
from cloudmesh.engine.errors import AuthFailed, InvalidRequest

KEY = "google_application_credentials"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
TOKEN_URIS: Final = ("https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token")
TOKEN_SECONDS = 3600
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class ServiceAccount:
    """One key of a service account.

    Args:
        credentials: The Secret's data.
        endpoint: URL of the API: tokens may also be asked for there, and else at Google only.

    Raises:
        AuthFailed: The key isn't there, or can't be read.
        InvalidRequest: It is a key of another kind, or tokens would be asked for elsewhere.
    """

    def __init__(self, credentials: Mapping[str, bytes], endpoint: str) -> None:
        needed(secret_texts(credentials, {KEY}), KEY)
        try:
            told: Any = json.loads(credentials[KEY])
            kind = told["type"]
        except (ValueError, TypeError, LookupError):
            raise AuthFailed(f"the Secret's key {KEY!r} must be the JSON file of a service account's key") from None
        if kind != "service_account":
            raise InvalidRequest(f"the Secret's key {KEY!r} is a {str(kind)[:40]!r}: a service_account is needed")
        try:
            self.email = str(told["client_email"])
            self._id = str(told["private_key_id"])
            self.token_uri = str(told["token_uri"])
            key = load_pem_private_key(str(told["private_key"]).encode(), None)
        except (ValueError, TypeError, LookupError):
            raise AuthFailed(
                f"the Secret's key {KEY!r} lacks a field of a service account's key, or it's damaged"
            ) from None
        if not isinstance(key, RSAPrivateKey):
            raise AuthFailed(f"the Secret's key {KEY!r} must hold a key of RSA")
        self._key = key
        ours, theirs = urlsplit(endpoint), urlsplit(self.token_uri)
        if self.token_uri not in TOKEN_URIS and (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            raise InvalidRequest(f"the key's `token_uri` must be {TOKEN_URIS[0]}, or at the endpoint")

    def tokens(self, http: Http) -> Tokens:
        """Its tokens for buckets."""
        return Tokens(by_form(http, self.token_uri, self._form))

    def _form(self) -> Mapping[str, str]:
        now = int(time.time())
        claims = {
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": now, "exp": now + TOKEN_SECONDS,
        }  # fmt: skip
        return {"grant_type": GRANT, "assertion": jwt(self._key, {"alg": "RS256", "kid": self._id}, claims)}

    def link(self, endpoint: str, bucket: str, key: str, seconds: int, now: datetime | None = None) -> str:
        """An address that reads one object for a while, signed as version 4 has it.

        Args:
            endpoint: URL of the service.
            bucket: The bucket.
            key: Name of the object.
            seconds: How long.
            now: Time of the signature, None for now.
        """
        moment = now or datetime.now(UTC)
        stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
        scope = f"{day}/auto/storage/goog4_request"
        query = {
            "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
            "X-Goog-Credential": f"{self.email}/{scope}",
            "X-Goog-Date": stamp,
            "X-Goog-Expires": str(seconds),
            "X-Goog-SignedHeaders": "host",
        }
        told = urlencode(sorted(query.items()), quote_via=quote, safe="")
        split = urlsplit(endpoint)
        path = f"{split.path.rstrip('/')}/{bucket}/{quote(key, safe='/')}"
        canonical = f"GET\n{path}\n{told}\nhost:{split.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = signed(self._key, f"GOOG4-RSA-SHA256\n{stamp}\n{scope}\n{digest}".encode()).hex()
        return f"{split.scheme}://{split.netloc}{path}?{told}&X-Goog-Signature={signature}"
