"""Calls over HTTP for stores whose services speak plain REST: they block, so they belong into a store's threads.

Nothing but what is given is asked for: no proxy, no netrc, no cookie, no redirect. Errors name no query, since that may
be a credential.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from cloudmesh.engine.connections import pools_by
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import InvalidRequest, Transient

TRIES: Final = 3
CONNECT_SECONDS = 5.0
MOST_ANSWER = 64 << 20
"""Bytes of an answer at most: no window, listing or token is larger."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        status: HTTP status.
        headers: By name in small letters.
        body: As it came, not decoded.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the service says that it went well."""
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, None where none were named."""
        told = self.headers.get("retry-after", "")
        return float(told) if told.replace(".", "", 1).isdigit() else None

    @property
    def modified(self) -> int:
        """Microseconds of Last-Modified, 0 without."""
        try:
            return round(parsedate_to_datetime(self.headers.get("last-modified", "")).timestamp()) * 1_000_000
        except (TypeError, ValueError):
            return 0

    def skew_ms(self, now: float, took: float) -> int | None:
        """The service's clock minus ours, None where it tells no time.

        Args:
            now: Our time in seconds.
            took: Seconds that the call took.
        """
        try:
            # told in whole seconds: half of one is added, half the way is taken off
            theirs = parsedate_to_datetime(self.headers.get("date", "")).timestamp() + 0.5
        except (TypeError, ValueError):
            return None
        return round((theirs - now + took / 2) * 1000)


class _NoQuery(logging.Filter):
    """Takes queries out of what the library writes when it is asked to tell all: some hold a credential."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record stays."""
        if isinstance(record.args, tuple):
            record.args = tuple(_path(each) if isinstance(each, str) else each for each in record.args)
        return True


def _path(text: str) -> str:
    return text.partition("?")[0] if text.startswith("/") else text


logging.getLogger("urllib3.connectionpool").addFilter(_NoQuery())
Send = Callable[[], Answer]


class Http:
    """Connections of one store.

    Args:
        connections: At most, as many as threads use them.
        seconds: Time within which an answer must come.
        guard: Makes the connections.
    """

    def __init__(self, connections: int, seconds: float, guard: Guard = ANYWHERE) -> None:
        self._timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds)
        self._pool = urllib3.PoolManager(num_pools=4, maxsize=connections, retries=False, timeout=self._timeout)
        self._pool.pool_classes_by_scheme = pools_by(guard)

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Makes one call, once.

        Raises:
            Transient: No whole answer came: what the call did is unknown.
            InvalidRequest: The address can't be one, or leads where no store may be.
        """
        where = urlsplit(url).netloc
        # without this, urllib3 says who it is
        told = {"User-Agent": "cloudmesh", **headers}
        try:
            answer = self._pool.request(
                method, url, headers=told, body=body or None, redirect=False, preload_content=False,
                decode_content=False,
            )  # fmt: skip
            try:
                pieces: list[bytes] = []
                size = 0
                while piece := answer.read(_PIECE, decode_content=False):
                    pieces.append(piece)
                    if (size := size + len(piece)) > MOST_ANSWER:
                        raise Transient(f"{where}: the answer has no end")
                answer.release_conn()
            finally:
                # a connection whose answer wasn't read to its end can't be used again
                answer.close()
        except LocationValueError:
            raise InvalidRequest(f"{where!r} is no address") from None
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: {error}") from None
        except (HTTPError, OSError) as error:
            raise Transient(f"{where}: {_words(error)}") from None
        return Answer(answer.status, {name.lower(): text for name, text in answer.headers.items()}, b"".join(pieces))

    def close(self) -> None:
        """Lets go of connections."""
        self._pool.clear()


def patiently(send: Send, tries: int = TRIES) -> Answer:
    """Makes a call that may be repeated again, until its answer is one of the service and not of a moment's trouble.

    Args:
        send: Makes it.
        tries: How often at most.

    Raises:
        Transient: No answer came, each time.
    """
    for number in range(1, tries):
        try:
            answer = send()
        except Transient:
            pass
        else:
            if answer.status not in (408, 429) and answer.status < 500:
                return answer
        time.sleep(0.1 * 2**number * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
    return send()


def _words(error: Exception) -> str:
    """What an error of the library says, without the address of the call."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text.partition(' with url:')[0]}"[:300]
