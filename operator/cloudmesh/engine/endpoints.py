"""Which hosts may be sent credentials: those that their Secret names, and none of this cluster's own.

What a name stands for can change between a look and a connection. So whoever can connects by the guard: it looks a name
up once, checks all that it stands for, and connects to these addresses and no others.
"""

from __future__ import annotations

import asyncio
import fnmatch
import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, Transient
from cloudmesh.engine.resources import Resource

if TYPE_CHECKING:
    from cloudmesh.engine.kube import Kube

HOSTS_KEY = "hosts"
METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})
"""Metadata services of clouds that aren't at a link-local address."""
ENDPOINT_SLICE = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
API_SERVER = ("default", "kubernetes")
"""Namespace and name of the EndpointSlice in which the API servers write their addresses."""
FRESH_SECONDS = 300.0
_SERVER_NAMES = frozenset({"kubernetes.default", "kubernetes.default.svc"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Option = tuple[int, int, int | bytes]
"""Arguments of `socket.setsockopt`."""


class Guard:
    """Says where connections may go, and makes them.

    Args:
        names: Hosts of this cluster that no endpoint may be, as names or addresses.
        inside: Whether loopback, link-local and the API server's addresses are allowed.
    """

    def __init__(self, names: Iterable[str] = (), *, inside: bool = False) -> None:
        self._read_at: float | None = None
        self.become(names, inside=inside)

    def become(self, names: Iterable[str], *, inside: bool) -> None:
        """Goes by other words from now on, for all who have it; arguments as of the class."""
        self._names = frozenset(names)
        self._inside = inside
        self._named = _addresses(self._names)
        self._servers = self._named

    @property
    def inside(self) -> bool:
        """Whether it refuses no address."""
        return self._inside

    @property
    def forbidden(self) -> tuple[str, ...]:
        """What a guard of another process must be made of to refuse the same."""
        return tuple(sorted(self._names | {str(address) for address in self._servers}))

    def check_hosts(self, hosts: Iterable[str]) -> None:
        """Looks at hosts before anything is sent there.

        Raises:
            InvalidRequest: One is loopback, link-local or the API server.
        """
        for host in hosts:
            if not host:
                raise InvalidRequest("the endpoint has no host")
            if host in self._names | _SERVER_NAMES or host.startswith("kubernetes.default.svc."):
                raise InvalidRequest(f"{host} is the API server of this cluster: that is no cloud")
            if self._inside:
                continue
            address = _parsed(host)
            if address is not None and _outer(address) in self._servers:
                raise InvalidRequest(f"{host} is the API server of this cluster: that is no cloud")
            if host == "localhost" or host.endswith(".localhost") or (address is not None and _is_private(address)):
                raise InvalidRequest(f"{host}: loopback and link-local addresses are refused as endpoints")

    async def check_names(self, hosts: Iterable[str]) -> None:
        """Looks at what names stand for; one that can't be resolved is the provider's to tell.

        Raises:
            InvalidRequest: A name leads to a loopback or link-local address, or to the API server.
        """
        if self._inside:
            return
        for host in hosts:
            if _parsed(host) is not None:
                self.check(host, [host])
                continue
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError:
                continue
            self.check(host, {str(entry[4][0]) for entry in found})

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Looks at addresses that a host stands for, before a connection is made to one.

        Raises:
            InvalidRequest: One is refused.
        """
        if self._inside:
            return
        for address in addresses:
            parsed = _parsed(address)
            if parsed is None or _is_private(parsed) or _outer(parsed) in self._servers:
                raise InvalidRequest(f"{host} leads to {address}, which is refused as an endpoint")

    async def learn(self, kube: Kube) -> None:
        """Reads the addresses of the API servers, if it wasn't done in the last minutes.

        Raises:
            Transient: They never could be read.
        """
        clock = asyncio.get_running_loop().time()
        if self._inside or (self._read_at is not None and clock < self._read_at + FRESH_SECONDS):
            return
        try:
            found = await kube.get(ENDPOINT_SLICE, *API_SERVER)
        except CloudmeshError as error:
            if self._read_at is None:
                told = "the API server's own addresses, which no endpoint may be, can't be read"
                raise Transient(f"{told}: {error}") from None
            return
        listed = (address for entry in (found or {}).get("endpoints") or () for address in entry["addresses"])
        self._servers = self._named | _addresses(listed)
        self._read_at = clock

    def connect(
        self, host: str, port: int, seconds: float | None = None, options: Iterable[Option] = ()
    ) -> socket.socket:
        """A connection to what a name stands for, made by a blocking call; looked up once.

        Args:
            host: Name or address.
            port: TCP port.
            seconds: For each address.
            options: Socket options.

        Raises:
            InvalidRequest: The host leads where no endpoint may be; nothing was sent.
            OSError: Nobody answers.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.check(host, {str(entry[4][0]) for entry in found})
        trouble: OSError | None = None
        for family, type_, protocol, _, place in found:
            link = socket.socket(family, type_, protocol)
            try:
                for option in options:
                    link.setsockopt(*option)
                link.settimeout(seconds)
                link.connect(place)
            except OSError as error:
                link.close()
                trouble = error
            else:
                return link
        raise trouble or OSError(f"{host} has no address")

    async def open(self, host: str, port: int) -> socket.socket:
        """The same without blocking; the caller sets the time limit."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.check(host, {str(entry[4][0]) for entry in found})
        trouble: OSError | None = None
        for family, type_, protocol, _, place in found:
            link = socket.socket(family, type_, protocol)
            try:
                link.setblocking(False)
                await loop.sock_connect(link, place)
            except OSError as error:
                link.close()
                trouble = error
            except BaseException:
                link.close()
                raise
            else:
                return link
        raise trouble or OSError(f"{host} has no address")


def hosts_at(member: Mapping[str, Any], places: Mapping[str, Literal["Url", "Host"]]) -> tuple[str, ...]:
    """Hosts that a struct of the API names.

    Args:
        member: The struct.
        places: Paths of the fields that say where to connect, such as `hosts[].address`, and what stands there.
    """
    found = []
    for path, what in places.items():
        texts = _at(member, path.split("."))
        found += [_host_of(text) for text in texts] if what == "Url" else texts
    return tuple(dict.fromkeys(host.lower().rstrip(".") for host in found))


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _at(node: Any, path: Sequence[str]) -> list[str]:
    """All texts at a path; `hosts[]` stands for each item of a list."""
    if not path:
        return [str(node)] if node else []
    name, rest = path[0], path[1:]
    inner = node.get(name.removesuffix("[]"))
    if name.endswith("[]"):
        return [place for item in inner or () for place in _at(item, rest)]
    return [] if inner is None else _at(inner, rest)


def check_allowed(hosts: Iterable[str], credentials: Mapping[str, bytes], secret: str) -> None:
    """Makes sure that whoever made the Secret wants it to be sent to these hosts.

    Raises:
        InvalidRequest: Its key `hosts` doesn't list one of them.
    """
    # people separate them by lines, blanks or commas, and no host has one of these
    allowed = credentials.get(HOSTS_KEY, b"").decode("utf-8", "replace").lower().replace(",", " ").split()
    for host in hosts:
        if not any(fnmatch.fnmatchcase(host, pattern) for pattern in allowed):
            raise InvalidRequest(f"Secret '{secret}' must list {host} under its key `{HOSTS_KEY}` to be sent there")


def _parsed(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    try:  # what resolvers take as well: 127.1, 2130706433, 0x7f.1
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _addresses(hosts: Iterable[str]) -> frozenset[Address]:
    found = (_parsed(host) for host in hosts)
    return frozenset(_outer(address) for address in found if address is not None)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, compatible, 6to4, NAT64."""
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _outer(address: Address) -> Address:
    """The address as the API server would have written it."""
    return (_inner(address) if isinstance(address, ipaddress.IPv6Address) else None) or address


def _is_private(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (inner := _inner(address)) is not None:
        return _is_private(inner)
    return (
        address in METADATA
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
    )


ANYWHERE = Guard(inside=True)
"""Refuses nothing: for what no user has named."""
