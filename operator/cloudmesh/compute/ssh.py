"""SSH to machines: commands without shell strings, files put whole, connections shared, hosts strictly known."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import shlex
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, Conflict, InvalidRequest, Transient

if TYPE_CHECKING:
    import asyncssh

CONNECT_SECONDS = 15.0
RUN_SECONDS = 60.0
IDLE_SECONDS = 60.0
KEEPALIVE_SECONDS = 15.0
SESSIONS = 6
"""Sessions at once on a connection; sshd refuses more than ten."""
CONNECTIONS = 256
OUTPUT_BYTES = 4 * 2**20
BANNER_BYTES = 4096
PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Where to log in, as whom, and which host keys are believed.

    Args:
        host: Name or address.
        port: TCP port.
        user: Login name.
        client_key: Private key in OpenSSH or PEM form.
        host_keys: Public keys of the host, such as `ssh-ed25519 AAAA…`; any other is refused.
        name: What messages call it; the host when empty.
    """

    host: str
    port: int
    user: str
    client_key: str = field(repr=False)
    host_keys: tuple[str, ...]
    name: str = ""

    def __str__(self) -> str:
        place = f"{self.user}@{self.host}:{self.port}"
        return f"{self.name} ({place})" if self.name else place


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left: exit status (128 + n when signal n ended it) and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, without the last line's end."""
        return self.stdout.decode(errors="replace").rstrip("\n")

    @property
    def complaint(self) -> str:
        """The last words of a command that failed, for messages: one line of at most 500 characters."""
        return last_words((self.stderr.strip() or self.stdout.strip()).decode(errors="replace"))


def last_words(text: str, *, lines: int = 5, limit: int = 500) -> str:
    """The last lines of a text that say something, as one line of at most `limit` characters: tables show no second."""
    told = [" ".join(line.split()) for line in text.splitlines()]
    return "; ".join([line for line in told if line][-lines:])[-limit:]


class Ssh(Protocol):
    """What bootstrap, jobs and providers do over SSH; `SshPool` does it, tests may do otherwise."""

    async def run(
        self, target: SshTarget, argv: Sequence[str], *, stdin: Input = b"", seconds: float = RUN_SECONDS
    ) -> Output:
        """Runs a program and waits for its end; a status other than 0 is no error here."""

    def stream(
        self, target: SshTarget, argv: Sequence[str], *, seconds: float = RUN_SECONDS
    ) -> AsyncGenerator[bytes, None]:
        """What a program writes, piece by piece; one that ends with another status than 0 is Transient."""

    async def put(self, target: SshTarget, files: Mapping[str, bytes], *, mode: int = 0o600) -> None:
        """Writes files whole: who reads one sees all of the old or all of the new. Folders are made."""

    async def get(self, target: SshTarget, path: str, *, limit: int = OUTPUT_BYTES) -> bytes | None:
        """The first `limit` bytes of a file; None if there is none."""


Input = bytes | AsyncIterable[bytes]
"""What a program is given; pieces are asked for as fast as it takes them, and what they raise ends it."""


class _Connection:
    """One connection that several tasks share."""

    def __init__(self, target: SshTarget, guard: Guard) -> None:
        self.target = target
        self.guard = guard
        self.lock = asyncio.Lock()
        self.sessions = asyncio.Semaphore(SESSIONS)
        self.users = 0
        self.link: asyncssh.SSHClientConnection | None = None
        self.timer: asyncio.TimerHandle | None = None

    async def open(self) -> asyncssh.SSHClientConnection:
        async with self.lock:
            if self.link is None or self.link.is_closed():
                self.link = await connect(self.target, self.guard)
            return self.link

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.link is not None:
            self.link.close()
            self.link = None


class SshPool:
    """Runs commands and moves files over shared connections.

    Args:
        connections: The most connections that are kept; others wait for none, but the least used is closed.
        at_once: The most operations at the same time, over all hosts.
        idle_seconds: A connection that nobody uses is closed after so long.
        guard: Makes the connections.
    """

    def __init__(
        self,
        *,
        connections: int = CONNECTIONS,
        at_once: int = 64,
        idle_seconds: float = IDLE_SECONDS,
        guard: Guard = ANYWHERE,
    ) -> None:
        self._guard = guard
        self._limit = connections
        self._idle = idle_seconds
        self._turns = asyncio.Semaphore(at_once)
        self._connections: OrderedDict[SshTarget, _Connection] = OrderedDict()

    async def run(
        self, target: SshTarget, argv: Sequence[str], *, stdin: Input = b"", seconds: float = RUN_SECONDS
    ) -> Output:
        """Runs a program and waits for its end.

        Raises:
            AuthFailed: The host refuses the key.
            Conflict: The host shows another host key.
            Transient: No answer, a lost connection, or more time than allowed; it may have run.
        """
        async with self._session(target, seconds) as link:
            return await _run(link, shlex.join(argv), stdin)

    async def stream(
        self, target: SshTarget, argv: Sequence[str], *, seconds: float = RUN_SECONDS
    ) -> AsyncGenerator[bytes, None]:
        """What a program writes, piece by piece.

        Raises:
            AuthFailed: The host refuses the key.
            Conflict: The host shows another host key.
            Transient: No answer, a lost connection, more time than allowed, or a status other than 0.
        """
        async with (
            self._session(target, seconds) as link,
            link.create_process(shlex.join(argv), encoding=None) as process,
        ):
            try:
                process.stdin.write_eof()
                while chunk := await process.stdout.read(PIECE):
                    yield chunk
                complaint = (await process.stderr.read(OUTPUT_BYTES)).decode(errors="replace")
                await process.wait_closed()
            except BaseException:
                process.kill()
                process.close()
                raise
            if process.returncode != 0:
                raise Transient(f"{target}: {last_words(complaint) or 'the connection was lost'}")

    async def put(self, target: SshTarget, files: Mapping[str, bytes], *, mode: int = 0o600) -> None:
        """Writes files whole over SFTP, through a temporary name beside each.

        Raises:
            AuthFailed: The host refuses the key, or the folder.
            Conflict: The host shows another host key.
            Transient: No answer or a lost connection.
        """
        import asyncssh

        async with self._session(target, RUN_SECONDS) as link, link.start_sftp_client() as sftp:
            for path, content in files.items():
                folder, name = posixpath.split(path)
                if folder:
                    await sftp.makedirs(folder, exist_ok=True)
                temporary = posixpath.join(folder, f".{name}.{_unique()}")
                try:
                    # the mode from the start: what is written may be a secret
                    async with sftp.open(temporary, "xb", asyncssh.SFTPAttrs(permissions=mode)) as file:
                        await file.write(content)
                    await sftp.chmod(temporary, mode)
                    # a plain SFTP rename refuses to replace
                    await sftp.posix_rename(temporary, path)
                except BaseException:
                    with contextlib.suppress(Exception):
                        await sftp.remove(temporary)
                    raise

    async def get(self, target: SshTarget, path: str, *, limit: int = OUTPUT_BYTES) -> bytes | None:
        """The first `limit` bytes of a file; None if there is none.

        Raises:
            AuthFailed: The host refuses the key, or the file.
            Conflict: The host shows another host key.
            Transient: No answer or a lost connection.
        """
        import asyncssh

        async with self._session(target, RUN_SECONDS) as link, link.start_sftp_client() as sftp:
            try:
                async with sftp.open(path, "rb") as file:
                    data: bytes = await file.read(limit)
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return None
            return data

    async def close(self) -> None:
        """Closes all connections."""
        held = list(self._connections.values())
        self._connections.clear()
        links = [connection.link for connection in held if connection.link is not None]
        for connection in held:
            connection.close()
        await asyncio.gather(*(link.wait_closed() for link in links), return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _session(self, target: SshTarget, seconds: float) -> AsyncIterator[asyncssh.SSHClientConnection]:
        connection = self._connections.get(target)
        if connection is None:
            connection = self._connections[target] = _Connection(target, self._guard)
        self._connections.move_to_end(target)
        connection.users += 1
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        try:
            async with self._turns, connection.sessions:
                with _mapped(target):
                    link = await connection.open()
                with _mapped(target):
                    async with asyncio.timeout(seconds):
                        yield link
        finally:
            connection.users -= 1
            if connection.users == 0 and self._connections.get(target) is connection:
                loop = asyncio.get_running_loop()
                connection.timer = loop.call_later(self._idle, self._drop, target, connection)
            self._shrink()

    def _shrink(self) -> None:
        for target, connection in list(self._connections.items()):
            if len(self._connections) <= self._limit:
                return
            if connection.users == 0:
                self._drop(target, connection)

    def _drop(self, target: SshTarget, connection: _Connection) -> None:
        if connection.users == 0 and self._connections.get(target) is connection:
            del self._connections[target]
            connection.close()


async def connect(target: SshTarget, guard: Guard = ANYWHERE) -> asyncssh.SSHClientConnection:
    """A connection of one's own, with no configuration file, agent or default key of the machine it starts from.

    Raises:
        InvalidRequest: The guard refuses what the host stands for.
    """
    import asyncssh

    client_key = load_private_key(target.client_key)
    known = [load_public_key(line) for line in target.host_keys]
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            sock = await guard.open(target.host, target.port)
    except TimeoutError:
        raise Transient(f"{target} doesn't answer within {CONNECT_SECONDS:g} s") from None
    return await asyncssh.connect(
        target.host,
        target.port,
        sock=sock,
        username=target.user,
        client_keys=[client_key],
        known_hosts=(known, [], []),
        config=None,
        agent_path=None,
        preferred_auth=["publickey"],
        connect_timeout=CONNECT_SECONDS,
        login_timeout=CONNECT_SECONDS,
        keepalive_interval=KEEPALIVE_SECONDS,
        keepalive_count_max=2,
    )


def load_private_key(text: str) -> asyncssh.SSHKey:
    """A private key; the message of a refusal never quotes it.

    Raises:
        InvalidRequest: It can't be read, or has a passphrase.
    """
    import asyncssh

    try:
        return asyncssh.import_private_key(text)
    except (asyncssh.KeyImportError, ValueError):
        # no `from`: the library's message may hold parts of the key
        raise InvalidRequest(
            "the SSH private key can't be read: OpenSSH or PEM without a passphrase is needed"
        ) from None


def load_public_key(line: str) -> asyncssh.SSHKey:
    """A public key in OpenSSH's one-line form.

    Raises:
        InvalidRequest: It can't be read.
    """
    import asyncssh

    try:
        return asyncssh.import_public_key(line)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise InvalidRequest(f"not an SSH public key: {line[:80]!r}") from error


async def probe(
    host: str,
    port: int,
    *,
    timeout: float = 5.0,  # noqa: ASYNC109
    guard: Guard = ANYWHERE,
) -> None:
    """Makes sure that an SSH server answers: a TCP connection and its banner.

    Raises:
        InvalidRequest: The guard refuses what the host stands for.
        Transient: It doesn't; the message names host and port.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(sock=await guard.open(host, port), limit=BANNER_BYTES)
            # a server may say other lines before its banner
            for _ in range(20):
                line = await reader.readline()
                if line.startswith(b"SSH-"):
                    return
                if not line:
                    raise Transient(f"{host}:{port} closed the connection before an SSH banner")
        raise Transient(f"{host}:{port} doesn't speak SSH")
    except TimeoutError:
        raise Transient(f"{host}:{port} doesn't answer within {timeout:g} s") from None
    except (OSError, ValueError) as error:
        raise Transient(f"{host}:{port} can't be reached: {_words(error)}") from None
    finally:
        if writer is not None:
            writer.close()


async def _run(link: asyncssh.SSHClientConnection, command: str, stdin: Input) -> Output:
    async with link.create_process(command, encoding=None) as process:
        try:
            feed = asyncio.ensure_future(_feed(process, stdin))
            try:
                # what the input raises ends the command at once
                stdout, stderr, _ = await asyncio.gather(_read(process.stdout), _read(process.stderr), feed)
            finally:
                feed.cancel()
            await process.wait_closed()
        except BaseException:
            process.kill()
            process.close()
            raise
        code = process.returncode
        if code is None:
            raise Transient("the connection was lost before the command ended")
        return Output(code if code >= 0 else 128 - code, stdout, stderr)


async def _feed(process: asyncssh.SSHClientProcess[bytes], data: Input) -> None:
    try:
        if isinstance(data, bytes):
            process.stdin.write(data)
            await process.stdin.drain()
        else:
            async for chunk in data:
                process.stdin.write(chunk)
                await process.stdin.drain()
    except OSError:
        pass  # a command need not read what it is given
    with contextlib.suppress(OSError):
        process.stdin.write_eof()


async def _read(stream: asyncssh.SSHReader[bytes]) -> bytes:
    chunks, size = [], 0
    while chunk := await stream.read(65536):
        size += len(chunk)
        if size > OUTPUT_BYTES:
            raise InvalidRequest(f"the command wrote more than {OUTPUT_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


@contextlib.contextmanager
def _mapped(target: SshTarget) -> Iterator[None]:
    """Turns what the library and the system raise into errors of ours, which name the host and hold no secret."""
    import asyncssh

    try:
        yield
    except CloudmeshError:
        raise
    except asyncssh.HostKeyNotVerifiable:
        raise Conflict(_other_key(target)) from None
    except asyncssh.KeyExchangeFailed as error:
        if "host key" in str(error).lower():
            raise Conflict(_other_key(target)) from None
        raise Transient(f"{target}: {_words(error)}") from None
    except asyncssh.PermissionDenied:
        raise AuthFailed(f"{target} refuses the key") from None
    except asyncssh.SFTPPermissionDenied as error:
        raise AuthFailed(f"{target}: {_words(error)}") from None
    except (asyncssh.Error, asyncssh.SFTPError) as error:
        raise Transient(f"{target}: {_words(error)}") from None
    except TimeoutError:
        raise Transient(f"{target} took too long") from None
    except OSError as error:
        raise Transient(f"{target} can't be reached: {_words(error)}") from None


def _other_key(target: SshTarget) -> str:
    return (
        f"{target} shows another host key than the one that is known: if the host was installed anew, "
        "put its new public key in; if not, somebody may stand between"
    )


def _words(error: BaseException) -> str:
    return (str(error) or type(error).__name__).replace("\n", " ")[:300]


def _unique() -> str:
    import secrets

    return secrets.token_hex(6)
