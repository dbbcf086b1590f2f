"""Access tokens by OAuth 2: asked for when one is needed, kept until shortly before they end."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from cloudmesh.data.stores.http import Http, patiently
from cloudmesh.engine.errors import AuthFailed, RateLimited, Transient

EARLY_SECONDS = 120.0
"""How long before its end another token is asked for."""
AGAIN_SECONDS = 10.0
"""How long a token that is still good is used before another one is asked for again, if none came."""
BUSY: Final = frozenset({"temporarily_unavailable", "server_error", "internal_failure"})
"""Errors that say nothing of the credentials."""
Given = tuple[str, float]
"""A token, and the seconds for which it is good."""


class Tokens:
    """The token of one store; blocks.

    Args:
        ask: Asks for another one.
    """

    def __init__(self, ask: Callable[[], Given]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0
        self._ends = 0.0

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
            now = time.monotonic()
            if self._token in ("", refused) or now > self._until:
                try:
                    self._token, seconds = self._ask()
                except (RateLimited, Transient):
                    if self._token in ("", refused) or now > self._ends:
                        raise
                    self._until = min(now + AGAIN_SECONDS, self._ends)
                else:
                    self._until = time.monotonic() + max(1.0, seconds - EARLY_SECONDS)
                    self._ends = time.monotonic() + seconds
            return self._token


def _refused(told: Mapping[str, Any]) -> str:
    return f"no token is given: {str(told['error'])[:100]}"


def by_form(
    http: Http,
    url: str,
    form: Callable[[], Mapping[str, str]],
    refused: Callable[[Mapping[str, Any]], str] = _refused,
) -> Callable[[], Given]:
    """What asks for tokens by a form.

    Args:
        http: Connections.
        url: Where tokens are given.
        form: What is sent there, made anew each time, since it may have a time in it.
        refused: Words of the answer that refuses, which has an `error`.
    """
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}

    def ask() -> Given:
        answer = patiently(lambda: http.send("POST", url, headers, urlencode(form()).encode()))
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
        if answer.status in (400, 401, 403) and "error" in told and told["error"] not in BUSY:
            raise AuthFailed(refused(told))
        raise Transient(f"asking for a token: status {answer.status}")

    return ask


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
