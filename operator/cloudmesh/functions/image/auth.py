"""Authentication towards a registry: none, basic, or bearer tokens from the realm that a 401 names."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

_CHALLENGE = re.compile(r"(?P<scheme>Basic|Bearer)\s+(?P<rest>[^\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_DEFAULT_SECONDS = 60.0
_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """User name and password (or token); never shown by `repr`."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of a basic `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for."""

    scheme: str
    realm: str
    service: str


def parse_challenge(header: str) -> Challenge | None:
    """Read a `WWW-Authenticate` header; None if it asks for something unknown."""
    match = _CHALLENGE.search(header)
    if not match:
        return None
    values = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(match["rest"])}
    return Challenge(match["scheme"].lower(), values.get("realm", ""), values.get("service", ""))


class TokenCache:
    """Bearer tokens by realm, service and set of scopes, until shortly before they end."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str, frozenset[str]], tuple[str, float]] = {}

    def get(self, challenge: Challenge, scopes: Iterable[str]) -> str | None:
        """A token that is still good, or None."""
        found = self._tokens.get((challenge.realm, challenge.service, frozenset(scopes)))
        return found[0] if found and found[1] > time.monotonic() else None

    def put(self, challenge: Challenge, scopes: Iterable[str], token: str, seconds: float | None) -> None:
        """Keep a token that is good for `seconds` (60 where the realm doesn't say)."""
        if len(self._tokens) > 1000:
            self._tokens.clear()
        until = time.monotonic() + (seconds or _DEFAULT_SECONDS) - _MARGIN_SECONDS
        self._tokens[challenge.realm, challenge.service, frozenset(scopes)] = (token, until)

    def drop(self, challenge: Challenge, scopes: Iterable[str]) -> None:
        """Forget a token that was refused."""
        self._tokens.pop((challenge.realm, challenge.service, frozenset(scopes)), None)
