"""The embedded registry as the chart runs it: two processes on one folder, pushes with a password, pulls without."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest
from images.compose import ROOT, build_go, default_cache
from tests.testbed.ports import free_port

from cloudmesh.functions.image.auth import Credentials
from cloudmesh.functions.image.transport import Endpoint, Timing, Transport


@pytest.fixture(scope="session")
def registry_binary() -> Path:
    """The program of the registry image."""
    return build_go(ROOT / "images" / "registry", default_cache() / "go")


@dataclass
class Distribution:
    """A running registry."""

    binary: Path
    folder: Path
    push: str
    pull: str
    password: str
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def credentials(self) -> Credentials:
        return Credentials("cloudmesh", self.password)

    def endpoint(self) -> Endpoint:
        return Endpoint(self.push, self.credentials, insecure=True)

    def start(self, name: str) -> None:
        """Start one of the two processes."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [self.binary, "serve", self.folder / f"{name}.yml"],
                env={"PATH": os.defpath, "OTEL_TRACES_EXPORTER": "none"},
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """Kill one of them."""
        self.processes[name].kill()
        self.processes[name].wait()

    async def answering(self) -> None:
        """Wait until both take connections."""
        for host in (self.push, self.pull):
            for _ in range(400):
                try:
                    _, writer = await asyncio.open_connection(*host.split(":"))
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
            else:
                raise AssertionError(f"{host} doesn't answer: {(self.folder / 'push.log').read_text()[-2000:]}")


@pytest.fixture
async def distribution(registry_binary: Path, tmp_path: Path) -> AsyncIterator[Distribution]:
    folder = tmp_path / "registry"
    folder.mkdir()
    password = secrets.token_urlsafe(32)
    ports = free_port(), free_port()
    (folder / "htpasswd").write_text(f"cloudmesh:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n")
    storage = f"filesystem: {{rootdirectory: {folder}/data}}"
    common = "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
    (folder / "push.yml").write_text(
        f"{common}storage: {{{storage}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{ports[0]}'}}\n"
        f"auth: {{htpasswd: {{realm: cloudmesh, path: {folder}/htpasswd}}}}\n"
    )
    (folder / "pull.yml").write_text(
        f"{common}storage: {{{storage}, maintenance: {{readonly: {{enabled: true}}}}}}\n"
        f"http: {{addr: '127.0.0.1:{ports[1]}'}}\n"
    )
    running = Distribution(registry_binary, folder, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", password, {})
    try:
        for name in ("push", "pull"):
            running.start(name)
        await running.answering()
        yield running
    finally:
        for name in running.processes:
            running.kill(name)


@pytest.fixture
async def transport(distribution: Distribution) -> AsyncIterator[Transport]:
    async with Transport(distribution.endpoint(), Timing(first_pause=0.05)) as running:
        yield running
