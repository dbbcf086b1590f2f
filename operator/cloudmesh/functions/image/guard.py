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
_API_SERVER_NAMES = frozenset({"kubernetes", "kubernetes.default", "kubernetes.default.svc"})


class AddressRefused(InvalidRequest):
    """An address that a user named is, or leads to, one that is kept from users."""


def refused(address: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `address`, an IP address, is one that no user may send this process to."""
    found = _parsed(address.partition("%")[0])
    if found is None:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast:
        return True
    return str(found) == environment.get(_API_SERVER)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        pass
    try:  # what resolvers take as well: 127.1, 2130706433, 0x7f.1
        return ipaddress.IPv4Address(socket.inet_aton(address))
    except (OSError, ValueError):
        return None


def check_host(host: str) -> None:
    """Look at a host before it is connected to.

    Raises:
        AddressRefused: it is a refused address, or the API server by its name; other names are looked at when they are
            resolved, by `GuardedResolver`.
    """
    name = host.lower().rstrip(".")
    api_server = name in _API_SERVER_NAMES or name.startswith("kubernetes.default.svc.")
    if api_server or refused(host.strip("[]")):
        raise AddressRefused(f"{host}: loopback, link-local and API server addresses are not taken")


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses those that lead to a refused address."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`.

        Raises:
            AddressRefused: one of them is refused.
            OSError: it has none.
        """
        found = await self._resolver.resolve(host, port, family)
        for item in found:
            if refused(item["host"]):
                raise AddressRefused(
                    f"{host} leads to {item['host']}: loopback, link-local and API server addresses are not taken"
                )
        return found

    async def close(self) -> None:
        """Release what the resolver holds."""
        await self._resolver.close()
