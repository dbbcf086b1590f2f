"""What a container of Swift holds, asked past all proxies."""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote, urlsplit

from tests.testbed.swiftserver import SwiftServer

PAGE = 10_000
"""Names in a listing at most, as Swift has it."""


class Container:
    """A container of the tests' user.

    Args:
        server: That holds it.
        name: Its name.
    """

    def __init__(self, server: SwiftServer, name: str) -> None:
        self._server, self._name = server, name
        self._url, self._token = "", ""

    def read(self, key: str) -> bytes | None:
        """The content of an object, None if it isn't there."""
        status, body = self._ask(f"/{quote(key)}")
        if status not in (200, 404):
            raise RuntimeError(f"Swift answers {status} to a read of {key}")
        return body if status == 200 else None

    def keys(self, prefix: str) -> set[str]:
        """Names of all objects that begin so."""
        found: list[str] = []
        while True:
            query = f"?format=json&limit={PAGE}&prefix={quote(prefix)}&marker={quote(found[-1] if found else '')}"
            status, body = self._ask(query)
            if status != 200:
                raise RuntimeError(f"Swift answers {status} to a listing")
            page = [one["name"] for one in json.loads(body)]
            found += page
            if len(page) < PAGE:
                return set(found)

    def _ask(self, target: str) -> tuple[int, bytes]:
        for again in (True, False):
            if not self._token:
                self._url, self._token = self._server.login()
            split = urlsplit(self._url)
            connection = http.client.HTTPConnection(str(split.hostname), split.port or 80, timeout=60)
            try:
                connection.request("GET", f"{split.path}/{self._name}{target}", headers={"X-Auth-Token": self._token})
                answer = connection.getresponse()
                status, body = answer.status, answer.read()
            finally:
                connection.close()
            if status == 401 and again:  # its time is over
                self._token = ""
                continue
            return status, body
        raise AssertionError
