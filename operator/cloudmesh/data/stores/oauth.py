"""Access tokens by OAuth 2: asked for when one is needed, kept until shortly before they end."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from cloudmesh.data.stores.http import Http, patiently
from cloudmesh.engine.errors import AuthFailed, RateLimited, Transient

EARLY_SECONDS = 120.0
"""How long before its end a token isn't used any more."""


class Tokens:
    """The token of one store; blocks.

    Args:
        http: Connections.
        url: Where tokens are given.
        form: What is sent there, made anew each time, since it may have a time in it.
    """

    def __init__(self, http: Http, url: str, form: Callable[[], Mapping[str, str]]) -> None:
        self._http = http
        self._url = url
        self._form = form
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def get(self, refused: str = "") -> str:
        """A token that is good for a while.

        Args:
            refused: A token that the service has refused: another one is asked for.

        Raises:
            AuthFailed: The credentials are refused.
            RateLimited: Fewer calls are asked for.
            Transient: No answer that can be read came.
        """
        with self._lock:
            if not self._token or self._token == refused or time.monotonic() > self._until:
                self._token, seconds = self._ask()
                self._until = time.monotonic() + max(1.0, seconds - EARLY_SECONDS)
            return self._token

    def _ask(self) -> tuple[str, float]:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        answer = patiently(lambda: self._http.send("POST", self._url, headers, urlencode(self._form()).encode()))
        try:
            told: Any = json.loads(answer.body)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise Transient(f"asking for a token: status {answer.status}, and an answer that can't be read")
        if answer.ok:
            try:
                return str(told["access_token"]), float(told["expires_in"])
            except (KeyError, TypeError, ValueError):
                raise Transient("asking for a token: the answer has none") from None
        if answer.status == 429:
            raise RateLimited("asking for a token: too many were asked for", answer.retry_after)
        if answer.status in (400, 401, 403) and "error" in told:
            raise AuthFailed(f"no token is given: {str(told['error'])[:100]}")
        raise Transient(f"asking for a token: status {answer.status}")


def signed(key: RSAPrivateKey, text: bytes) -> bytes:
    """The text's signature by RSA with SHA-256."""
    return key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def jwt(key: RSAPrivateKey, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A signed JSON Web Token."""
    parts = [_base64(json.dumps(part, separators=(",", ":")).encode()) for part in ({"typ": "JWT", **header}, claims)]
    parts.append(_base64(signed(key, ".".join(parts).encode())))
    return ".".join(parts)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
