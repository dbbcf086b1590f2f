"""Connections of urllib3 by the guard: the address that was checked is the one that the request goes to.

Names in TLS stay as they are: only the look-up and the connect are taken from the library.
"""

from __future__ import annotations

import socket
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import InvalidRequest

Pools = dict[str, type[HTTPConnectionPool]]


def pools_by(
    guard: Guard,
    plain: type[HTTPConnectionPool] = HTTPConnectionPool,
    safe: type[HTTPSConnectionPool] = HTTPSConnectionPool,
) -> Pools:
    """Pools by scheme whose connections the guard makes; a proxy, which only the installation names, isn't its concern.

    Args:
        guard: Says where they may go.
        plain: Pool of a library that has its own.
        safe: The same for TLS.
    """

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

    def pool(name: str, of: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        return type(name, (of,), {"ConnectionCls": type(f"{name}Connection", (Guarded, of.ConnectionCls), {})})

    return {"http": pool("Plain", plain), "https": pool("Safe", safe)}


def connect_by(client: Any, guard: Guard) -> None:
    """Makes a client of boto3 connect by the guard."""
    session = client._endpoint.http_session
    own: Pools = session._pool_classes_by_scheme
    pools = pools_by(guard, own["http"], own["https"])  # type: ignore[arg-type]  # that of TLS is of TLS
    session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = pools


def refusal(error: Exception) -> InvalidRequest | None:
    """What the guard said, out of the library's error around it; None if it was something else."""
    inner = getattr(error, "kwargs", {}).get("error")
    return inner if isinstance(inner, InvalidRequest) else None
