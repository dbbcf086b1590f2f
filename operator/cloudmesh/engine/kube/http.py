"""The transport over HTTPS, on the REST layer of the `kubernetes` client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from kubernetes.aio.client.rest import RESTClientObject

from cloudmesh.engine.errors import Transient
from cloudmesh.engine.kube.access import Access
from cloudmesh.engine.kube.transport import Request

CONNECT_SECONDS = 5.0
CLOSING_SECONDS = 0.1
USER_AGENT = "cloudmesh-operator"


class HttpReply:
    """An aiohttp answer behind the port."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        """The whole body."""
        try:
            return await self._response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"the API server's answer broke off: {_say(error)}") from error

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Lines as they arrive; the server may end the body at any time."""
        try:
            while line := await self._response.content.readline():
                yield line
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Transient(f"the watch broke off: {_say(error)}") from error

    def close(self) -> None:
        """Drops the connection if the body isn't read to its end, else gives it back to the pool."""
        self._response.close()


class HttpTransport:
    """Sends requests through the client's connection pool, with a fresh token each time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        configuration = access.configuration
        self._rest: Any = RESTClientObject(configuration)
        route = {
            "server_hostname": configuration.tls_server_name,
            "proxy": configuration.proxy or _environment_proxy(configuration.host),
            "proxy_headers": configuration.proxy_headers,
        }
        self._route: dict[str, Any] = {k: v for k, v in route.items() if v}

    async def send(self, request: Request) -> HttpReply:
        """Sends one request.

        Raises:
            Transient: No connection, time-out, TLS failure.
        """
        url = self._access.configuration.host.rstrip("/") + quote(request.path)
        if request.query:
            url += "?" + urlencode(request.query)
        headers = {"Accept": request.accept, "Content-Type": request.content_type, "User-Agent": USER_AGENT}
        if header := await self._access.authorization():
            headers["Authorization"] = header
        # Compact, which the client's own encoding isn't: the API server keeps the data of a ControllerRevision byte by
        # byte as it was sent, and takes the compact form that it makes of it at a later patch for a change.
        data = None if request.body is None else msgspec.json.encode(request.body)
        limit = aiohttp.ClientTimeout(
            total=request.timeout_seconds, sock_connect=min(CONNECT_SECONDS, request.timeout_seconds or CONNECT_SECONDS)
        )
        try:
            answer = await self._session().request(
                request.method, url, headers=headers, data=data, timeout=limit, **self._route
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise Transient(f"{request.method} {request.path}: {_say(error)}") from error
        return HttpReply(answer)

    def _session(self) -> aiohttp.ClientSession:
        if self._rest.pool_manager is None:
            self._rest.pool_manager = self._rest._create_pool_manager()  # its hook for subclasses
            # else it looks for a proxy and a netrc in the environment at each request, each look in a thread
            self._rest.pool_manager._trust_env = False
        session: aiohttp.ClientSession = self._rest.pool_manager
        return session

    async def close(self) -> None:
        """Closes the pool and lets TLS connections finish closing."""
        await self._rest.close()
        # aiohttp doesn't wait for the other side's end of TLS
        await asyncio.sleep(CLOSING_SECONDS)


def _environment_proxy(host: str) -> str | None:
    """The proxy that the environment names for a host, such as HTTPS_PROXY without a match in NO_PROXY."""
    url = urlsplit(host)
    proxy = getproxies().get(url.scheme)
    return None if not proxy or proxy_bypass(url.hostname or "") else proxy


def _say(error: BaseException) -> str:
    return "time-out" if isinstance(error, TimeoutError) else (str(error) or type(error).__name__)
