"""What the machine must have for a bed of its own, each with a sentence that says how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.testbed.console import TestbedError

_ELSE = "use a Debian machine, or name a cluster with CLUSTER=current"
COMMANDS = {
    "apt-get": f"Debian packages are fetched with it: {_ELSE}",
    "dpkg-deb": f"Debian packages are unpacked with it: {_ELSE}",
    "ip": "links and routes are made with it: apt-get install iproute2",
    "unshare": "namespaces are made with it: apt-get install util-linux",
    "nsenter": "namespaces are entered with it: apt-get install util-linux",
}
FREE_BYTES_TO_RUN = 3 * 2**30


def missing(folder: Path) -> Iterator[str]:
    """Yield a sentence for each thing that is missing.

    Args:
        folder: where the bed's state will lie.
    """
    if os.geteuid() != 0:
        yield "root: namespaces, mounts and links need it; run `sudo make up`, or name a cluster with CLUSTER=current"
    if importlib.util.find_spec("cryptography") is None:
        yield "the development environment: make it with `make .venv` and run this with its Python"
    for command, why in COMMANDS.items():
        if shutil.which(command) is None:
            yield f"the command {command}: {why}"
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_TO_RUN:
        yield f"{FREE_BYTES_TO_RUN >> 30} GB of free space at {folder}: there are {free / 2**30:.1f}"
    for name in ("cgroup", "ns/cgroup", "ns/pid"):
        if not Path("/proc/self", name).exists():
            yield f"/proc/self/{name}: the kernel was built without what containers need"


def check(folder: Path) -> None:
    """Raise TestbedError with all sentences when something is missing."""
    sentences = list(missing(folder))
    if sentences:
        raise TestbedError("this machine can't run the test bed; it needs\n" + "\n".join(f"- {s}" for s in sentences))
