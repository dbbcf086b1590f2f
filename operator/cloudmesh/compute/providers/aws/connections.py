"""Connections of a client by the guard: the address that was checked is the one that the request goes to.

Names in TLS stay as they are: only the look-up and the connect are taken from the library.
"""

from __future__ import annotations

import socket
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import InvalidRequest


def connect_by(client: Any, guard: Guard) -> None:
    """Makes a client of boto3 connect by the guard; a proxy, which only the installation names, is not its concern."""

    class Guarded:
        def _new_conn(self) -> socket.socket:
            link: Any = self
            if link.proxy is not None:
                made: socket.socket = super()._new_conn()  # type: ignore[misc]  # of the class it is mixed into
                return made
            try:
                return guard.connect(link.host, link.port, link.timeout, link.socket_options or ())
            except socket.gaierror as error:
                raise NameResolutionError(link.host, link, error) from error
            except TimeoutError as error:
                raise ConnectTimeoutError(link, f"{link.host} doesn't answer") from error
            except OSError as error:
                raise NewConnectionError(link, f"{link.host} can't be reached: {error}") from error

    plain = type("Plain", (Guarded, AWSHTTPConnection), {})
    safe = type("Safe", (Guarded, AWSHTTPSConnection), {})
    pools = {
        "http": type("PlainPool", (AWSHTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SafePool", (AWSHTTPSConnectionPool,), {"ConnectionCls": safe}),
    }
    session = client._endpoint.http_session
    session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = pools


def refusal(error: Exception) -> InvalidRequest | None:
    """What the guard said, out of the library's error around it; None if it was something else."""
    inner = getattr(error, "kwargs", {}).get("error")
    return inner if isinstance(inner, InvalidRequest) else None
