"""Keeps addresses that users name away from the cluster's own: loopback, link-local (metadata) and the API server."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from cloudmesh.engine.errors import InvalidRequest

_API_SERVER = "KUBERNETES_SERVICE_HOST"


def refused(address: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `address`, an IP address, is one that no user may send this process to."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast:
        return True
    return str(found) == environment.get(_API_SERVER)


def check_host(host: str) -> None:
    """Look at a host before it is connected to.

    Raises:
        InvalidRequest: it is a refused address; names are looked at when they are resolved, by `GuardedResolver`.
    """
    if refused(host.strip("[]")):
        raise InvalidRequest(f"{host}: loopback, link-local and API server addresses are not taken")


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses those that lead to a refused address."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`.

        Raises:
            OSError: it has none, or one of them is refused.
        """
        found = await self._resolver.resolve(host, port, family)
        for item in found:
            if refused(item["host"]):
                raise OSError(None, f"{host} leads to {item['host']}, which is not taken")
        return found

    async def close(self) -> None:
        """Release what the resolver holds."""
        await self._resolver.close()
