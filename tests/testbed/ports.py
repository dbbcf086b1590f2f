"""TCP ports for servers that are told theirs on the command line, and for those that stop and start again on one port.

A port that the kernel picks (`bind` to 0) and that is let go again is soon anybody's: the next outgoing connection of
any process may get it before the server binds it, or while the server is stopped. So ports come from below the range
that the kernel picks from, and each is kept from other processes that ask here, such as the other worker of a test run,
by a socket in the abstract namespace, which belongs to the same network namespace and ends with its process.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections import deque
from pathlib import Path

LOWEST = 12_000
KEPT = 200
"""So many ports are kept at a time; older ones may be given again."""
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_NODE_PORTS = 30_000
"""From here on Kubernetes picks ports, on hosts where kind or k3d run."""

_kept: deque[int] = deque()
_next = 0


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of this machine that nobody listens on, and that nobody else gets as long as this runs.

    Raises:
        OSError: None is free.
    """
    global _next
    highest = _highest()
    _next = _next or random.randrange(LOWEST, highest)
    for _ in range(LOWEST, highest):
        _next = _next + 1 if LOWEST <= _next + 1 < highest else LOWEST
        if _keep(host, _next):
            return _next
    raise OSError(errno.EADDRNOTAVAIL, f"no port from {LOWEST} to {highest} is free on {host}")


def _highest() -> int:
    try:
        lowest_picked = int(_RANGE.read_text().split()[0])
    except OSError:
        lowest_picked = _NODE_PORTS
    highest = min(lowest_picked, _NODE_PORTS)
    return highest if highest > LOWEST + KEPT else _NODE_PORTS


def _keep(host: str, port: int) -> bool:
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0cloudmesh-port-{port}")
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)  # with SO_REUSEADDR only this fails beside another listener
    except OSError as error:
        mark.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return False
        raise
    _kept.append(mark.detach())
    if len(_kept) > KEPT:
        os.close(_kept.popleft())
    return True
