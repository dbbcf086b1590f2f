"""An SSH server on loopback that runs commands as the test's own user, with SFTP in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh

from cloudmesh.compute.access import make_key_pair
from cloudmesh.compute.ssh import SshTarget


class Server:
    """What the server has seen, and where it is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host_key, self.host_public = make_key_pair("host")
        self.client_key, self.client_public = make_key_pair("client")
        self.logins = 0
        self.commands: list[str] = []
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.port = 0
        self._acceptor: asyncssh.SSHAcceptor | None = None

    def target(self, **changes: object) -> SshTarget:
        fields: dict = {
            "host": "127.0.0.1", "port": self.port, "user": "cm", "client_key": self.client_key,
            "host_keys": (self.host_public,),
        }  # fmt: skip
        return SshTarget(**{**fields, **changes})

    async def start(self) -> None:
        server = self

        class Login(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return True

            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                server.logins += 1
                server.connections.append(conn)

        async def handle(process: asyncssh.SSHServerProcess) -> None:
            server.commands.append(process.command or "")
            data = await process.stdin.read()
            child = await asyncio.create_subprocess_shell(
                process.command or "true",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                cwd=server.root, start_new_session=True,
            )  # fmt: skip
            doing = asyncio.ensure_future(child.communicate(data))
            closed = asyncio.ensure_future(process.wait_closed())
            await asyncio.wait({doing, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():  # the client went away
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            stdout, stderr = await doing
            with contextlib.suppress(OSError):
                process.stdout.write(stdout)
                process.stderr.write(stderr)
                process.exit(child.returncode or 0)
            closed.cancel()

        self._acceptor = await asyncssh.create_server(
            Login, "127.0.0.1", self.port,
            server_host_keys=[asyncssh.import_private_key(self.host_key)],
            authorized_client_keys=asyncssh.import_authorized_keys(self.client_public),
            process_factory=handle, encoding=None,
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(self.root)),
        )  # fmt: skip
        self.port = self._acceptor.get_port()

    async def stop(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            for connection in self.connections:
                connection.abort()
            await self._acceptor.wait_closed()
            self._acceptor = None


@contextlib.asynccontextmanager
async def ssh_server(root: Path) -> AsyncIterator[Server]:
    server = Server(root)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
