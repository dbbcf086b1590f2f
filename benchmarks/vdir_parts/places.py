"""Real stores of the model: two S3 servers and a Swift behind fault proxies, a volume, an SFTP server; their faults."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tests.testbed.s3server import S3Server, s3
from tests.testbed.sftpserver import SftpServer, sftp
from tests.testbed.swiftserver import SwiftServer, swift

from benchmarks.vdir_parts.container import Container
from benchmarks.vdir_parts.served import BUCKET, of_folder, of_s3, of_sftp, of_swift
from cloudmesh.data.config import StoreConfig
from cloudmesh.testing.proxy.core import Action, FaultProxy, Rule
from cloudmesh.testing.proxy.s3 import S3Dialect
from cloudmesh.testing.proxy.swift import SwiftDialect

EAST, WEST, NAS, BOX, STACK = NAMES = ("east", "west", "nas", "box", "stack")
"""Two S3 servers, a volume, a folder on an SFTP server, and a Swift."""
_CUTS: tuple[Action, ...] = ("answer", "answer", "answer_after", "cut_before", "cut_after", "duplicate", "garbage")
_OPERATIONS = ("PutObject", "GetObject", "HeadObject", "DeleteObject", "ListObjects(V2)?", "CopyObject", ".*")
Fault = tuple[str, Rule]
"""A server behind a proxy, and what goes wrong there."""
_REFUSALS = ((500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable"))


class Proxies:
    """Fault proxies in front of servers, in a thread with a loop of its own; use with `with`."""

    def __init__(self, servers: Mapping[str, S3Server | SwiftServer]) -> None:
        self._servers = servers
        self.proxies: dict[str, FaultProxy] = {}

    def __enter__(self) -> Proxies:
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), daemon=True)
        self._thread.start()
        if not up.wait(30):
            raise RuntimeError("the proxies don't start")
        return self

    async def _serve(self, up: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            for name, server in self._servers.items():
                dialect = S3Dialect() if isinstance(server, S3Server) else SwiftDialect()
                proxy = FaultProxy(server.url, dialect, keep_host=isinstance(server, S3Server))
                self.proxies[name] = await stack.enter_async_context(proxy)
            up.set()
            while not self._end.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._end.wait(), 5)
                for proxy in self.proxies.values():
                    proxy.calls.clear()  # a long run would keep all bodies
                    proxy.received.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)


class Places:
    """All stores, and what may happen to them; what they hold is looked at past all faults.

    Args:
        servers: S3 servers by name.
        stack: Swift.
        proxies: In front of them.
        volume: Where the volume is mounted, a folder `nas` in it.
        server: Of SFTP.
    """

    def __init__(
        self, servers: dict[str, S3Server], stack: SwiftServer, proxies: Proxies, volume: Path, server: SftpServer
    ) -> None:
        self._servers, self._proxies, self.sftp = servers, proxies, server
        self._container = Container(stack, BUCKET)
        self.nas, self._aside = volume / NAS, volume / "elsewhere"
        self.nas.mkdir()
        self.down: set[str] = set()
        self.written_below: list[str] = []
        """Files that were put where the volume wasn't mounted."""

    def configs(self) -> tuple[StoreConfig, ...]:
        """For a gateway."""
        buckets = [of_s3(name, self.url(name)) for name in self._servers]
        return (*buckets, of_folder(NAS, self.nas), of_sftp(BOX, self.sftp), of_swift(STACK, self.url(STACK)))

    def url(self, name: str) -> str:
        """Of a server, through its proxy."""
        return self._proxies.proxies[name].url

    def content(self, name: str, key: str) -> bytes | None:
        """Of an object in a store, None if it isn't there."""
        if name == STACK:
            return self._container.read(key)
        file = self._folder(name) / key
        return file.read_bytes() if file.is_file() else None

    def keys(self, name: str, prefix: str) -> set[str]:
        """Of all objects in a store that lie in a folder, whose name ends with a slash."""
        if name == STACK:
            return self._container.keys(prefix)
        folder = self._folder(name)
        return {str(file.relative_to(folder)) for file in (folder / prefix).rglob("*") if file.is_file()}

    def _folder(self, name: str) -> Path:
        """Where a store's files lie on this machine, its prefix not included."""
        if name in self._servers:
            return self._servers[name].file(BUCKET, "")
        if name == NAS:
            return self._aside if NAS in self.down else self.nas
        return self.sftp.files

    def keep(self, folder: Path) -> None:
        """Copies what the stores hold, Swift's not, for somebody who looks at it later."""
        for name in (*self._servers, NAS, BOX):
            shutil.copytree(self._folder(name), folder / name, symlinks=True)

    def lose(self, name: str) -> None:
        """The server of a store goes away; the volume is unmounted, and an empty folder is seen there."""
        if name in self.down:
            return
        self.down.add(name)
        if name in self._proxies.proxies:
            self._proxies.proxies[name].rules.insert(0, _cut())
        elif name == NAS:
            self.nas.rename(self._aside)
            self.nas.mkdir()
        else:
            self.sftp.stop()

    def back(self, name: str) -> None:
        """It comes back with what it held."""
        if name not in self.down:
            return
        self.down.remove(name)
        if name in self._proxies.proxies:
            self._proxies.proxies[name].clear()
        elif name == NAS:
            found = [path for path in sorted(self.nas.rglob("*"), reverse=True) if path.is_file()]
            self.written_below += [str(path.relative_to(self.nas)) for path in found]
            self.nas.rename(self.nas.with_name(f"below-{len(list(self.nas.parent.iterdir()))}"))
            self._aside.rename(self.nas)
        else:
            self.sftp.start()

    def draw(self, numbers: random.Random) -> Fault:
        """A few calls of a server that are to go wrong."""
        name, action = numbers.choice((EAST, WEST, STACK)), numbers.choice(_CUTS)
        status, code = numbers.choice(_REFUSALS)
        if action == "garbage":
            status = 502
        operation, times, skip = numbers.choice(_OPERATIONS), numbers.randint(1, 3), numbers.randint(0, 3)
        return name, Rule(action, operation, status=status, code=code, times=times, skip=skip)

    def fault(self, fault: Fault) -> None:
        """They will."""
        name, rule = fault
        self._proxies.proxies[name].rules.append(replace(rule))

    def sweep(self) -> None:
        """Takes away what was left where the volume wasn't mounted."""
        for left in self.nas.parent.glob("below-*"):
            shutil.rmtree(left, ignore_errors=True)

    def calm(self) -> None:
        """All is well again."""
        for name in tuple(self.down):
            self.back(name)
        for proxy in self._proxies.proxies.values():
            proxy.clear()


def _cut() -> Rule:
    return Rule("cut_before", times=None)


@contextlib.contextmanager
def places(folder: Path) -> Iterator[Places]:
    """Servers, proxies and a volume that run."""
    with s3("127.0.0.1", BUCKET) as east, s3("127.0.0.1", BUCKET) as west, sftp() as box, swift() as stack:
        servers = {EAST: east, WEST: west}
        stack.make_container(BUCKET)
        with Proxies({**servers, STACK: stack}) as proxies:
            yield Places(servers, stack, proxies, folder, box)
