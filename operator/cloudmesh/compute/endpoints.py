"""Which hosts a CloudAccount may send credentials to: those its Secret names, and none of this cluster's own."""

from __future__ import annotations

import asyncio
import fnmatch
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import InvalidRequest

HOSTS_KEY = "hosts"
METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})
"""Metadata services of clouds that aren't at a link-local address."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


def hosts_of(member: Mapping[str, Any]) -> tuple[str, ...]:
    """Hosts that a member of CloudAccount.spec names: of its endpoint, and of its machines."""
    found = []
    if endpoint := member.get("endpoint"):
        found.append(urlsplit(str(endpoint)).hostname or "")
    hosts = member.get("hosts")
    if isinstance(hosts, list):  # in the settings of a plug-in it is text, and the plug-in's own
        found += [str(host["address"]) for host in hosts if host.get("address")]
    return tuple(dict.fromkeys(host.lower().rstrip(".") for host in found))


def check_hosts(hosts: Iterable[str], settings: ComputeSettings) -> None:
    """Looks at hosts before anything is sent there.

    Raises:
        InvalidRequest: One is loopback, link-local or the API server.
    """
    for host in hosts:
        if not host:
            raise InvalidRequest("the endpoint has no host")
        if host in settings.forbidden_hosts or host.startswith("kubernetes.default.svc."):
            raise InvalidRequest(f"{host} is the API server of this cluster: that is no cloud")
        if settings.allow_private_endpoints:
            continue
        address = _parsed(host)
        if host == "localhost" or host.endswith(".localhost") or (address is not None and _is_private(address)):
            raise InvalidRequest(f"{host}: loopback and link-local addresses are refused as endpoints")


async def check_names(hosts: Iterable[str], settings: ComputeSettings) -> None:
    """Looks at what names stand for; one that can't be resolved is the provider's to tell.

    Raises:
        InvalidRequest: A name leads to a loopback or link-local address, or to the API server.
    """
    if settings.allow_private_endpoints:
        return
    for host in hosts:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            continue
        for address in {str(entry[4][0]) for entry in found}:
            parsed = _parsed(address)
            if address in settings.forbidden_hosts or (parsed is not None and _is_private(parsed)):
                raise InvalidRequest(f"{host} leads to {address}, which is refused as an endpoint")


def check_allowed(hosts: Iterable[str], credentials: Mapping[str, bytes], secret: str) -> None:
    """Makes sure that whoever made the Secret wants it to be sent to these hosts.

    Raises:
        InvalidRequest: Its key `hosts` doesn't list one of them.
    """
    allowed = [line.strip().lower() for line in credentials.get(HOSTS_KEY, b"").decode("utf-8", "replace").split()]
    for host in hosts:
        if not any(fnmatch.fnmatchcase(host, pattern) for pattern in allowed):
            raise InvalidRequest(f"Secret '{secret}' must list {host} under its key `{HOSTS_KEY}` to be sent there")


def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    try:  # what resolvers take as well: 127.1, 2130706433, 0x7f.1
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, compatible, 6to4, NAT64."""
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (inner := _inner(address)) is not None:
        return _is_private(inner)
    return (
        address in METADATA
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
    )
