"""One connection to an SFTP server, made when it is needed and made anew when it broke, and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import asyncssh

from cloudmesh.data.errors import Full, InvalidName, Missing, ReadOnly
from cloudmesh.data.stores.common import secret_texts
from cloudmesh.data.stores.threads import outlast
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, NameConflict, Transient, Unsupported

T = TypeVar("T")
CALL_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 15.0
KEEPALIVE_SECONDS: Final = 15.0
TRIES: Final = 3
AT_ONCE: Final = 16
"""Calls at once: the server takes them one after the other, more only fill its buffers."""
NO_ROOM_WORDS = ("no space", "disk full", "quota")
"""How servers say so that have no code for it; OpenSSH says only "Failure"."""
LOST = (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost)


class Refused(Transient):
    """The server's "Failure", which says nothing more."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where to log in, as whom, and which host key is believed.

    Args:
        host: Name or address.
        port: TCP port.
        user: Login name.
        host_key: Public key of the host, such as `ssh-ed25519 AAAA…`.
        private_key: Private key without a passphrase, in OpenSSH or PEM form; empty for none.
        password: Empty for none.
    """

    host: str
    port: int
    user: str
    host_key: str
    private_key: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(eq=False, slots=True)
class Session:
    """One connection with one SFTP session on it."""

    link: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient
    broken: bool = False

    @property
    def lost(self) -> bool:
        """Whether it serves no more."""
        return self.broken or bool(self.link.is_closed())


class Link:
    """Makes calls.

    Args:
        login: Where.
        seconds: Time within which an answer must come.
        guard: Makes the connections.

    Raises:
        AuthFailed: There is neither a key nor a password.
        InvalidRequest: A key can't be read.
    """

    def __init__(self, login: Login, *, seconds: float = CALL_SECONDS, guard: Guard = ANYWHERE) -> None:
        self.login = login
        self.seconds = seconds
        self._guard = guard
        self._known = [_public_key(login.host_key)]
        self._keys = [_private_key(login.private_key)] if login.private_key else []
        if not self._keys and not login.password:
            raise AuthFailed("the Secret has neither the key 'ssh-privatekey' nor the key 'password'")
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._session: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._later: set[asyncio.Task[None]] = set()
        self._closed = False

    async def call(
        self, kind: str, what: str, function: Callable[[asyncssh.SFTPClient], Awaitable[T]], *, writing: bool = False
    ) -> T:
        """One call on the present session.

        Args:
            kind: What it does, in one word.
            what: For messages, the key.
            function: Makes it.
            writing: A refusal means that the store takes no writes.

        Raises:
            Missing: The server says that there is no such file.
            Refused: It says "Failure".
        """
        session = await self.session()
        return await self.on(session, kind, what, lambda: function(session.sftp), writing=writing)

    async def session(self) -> Session:
        """The present session, a new one if that is lost."""
        if self._closed:
            raise Transient("the store was closed")
        if self._session is not None and not self._session.lost:
            return self._session
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_heed)
        # whoever waits learns of one failure together, instead of one try after the other
        return await asyncio.shield(self._opening)

    async def on(
        self,
        session: Session,
        kind: str,
        what: str,
        function: Callable[[], Awaitable[T]],
        *,
        writing: bool = False,
        limited: bool = True,
    ) -> T:
        """The same on a session that is at hand, as for its open files; what isn't limited has time limits within."""
        async with self._turns:
            try:
                async with asyncio.timeout(self.seconds if limited else None):
                    return await self._perform(kind, function)
            except TimeoutError:
                # what it did is unknown, and what comes behind it would wait as well
                self.drop(session)
                raise Transient(f"{what}: {self.login} doesn't answer") from None
            except (asyncssh.Error, OSError, ValueError) as error:
                if isinstance(error, LOST) or not isinstance(error, asyncssh.SFTPError):
                    self.drop(session)
                raise self._classified(error, what, writing=writing) from None

    async def _perform(self, kind: str, function: Callable[[], Awaitable[T]]) -> T:
        """Where tests break calls of one kind."""
        return await function()

    def drop(self, session: Session) -> None:
        """Ends a session that can't be trusted any more."""
        session.broken = True
        session.link.abort()
        if self._session is session:
            self._session = None

    def later(self, work: Callable[[], Awaitable[object]]) -> None:
        """Does something that nobody waits for, such as closing a file; what it raises is nobody's business."""

        async def run() -> None:
            with suppress(CloudmeshError):
                await work()

        task = asyncio.ensure_future(run())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def close(self) -> None:
        """Ends the connection; calls under way fail."""
        self._closed = True
        for task in (*self._later, *([self._opening] if self._opening is not None else ())):
            task.cancel()
        session, self._session = self._session, None
        if session is not None:
            session.link.close()
            try:
                async with asyncio.timeout(min(2.0, self.seconds)):
                    await session.link.wait_closed()
            except TimeoutError:
                session.link.abort()

    async def _open(self) -> Session:
        link: asyncssh.SSHClientConnection | None = None
        seconds = min(CONNECT_SECONDS, self.seconds)
        try:
            async with asyncio.timeout(seconds):
                link = await self._connect(seconds)
                # names are bytes: a server may have some that are no UTF-8
                sftp = await link.start_sftp_client(path_encoding=None)
        except TimeoutError:
            raise Transient(f"{self.login} doesn't answer within {seconds:g} s") from None
        except (asyncssh.Error, OSError, ValueError) as error:
            raise self._classified(error, "logging in") from None
        else:
            self._session = Session(link, sftp)
            link = None
            return self._session
        finally:
            self._opening = None
            if link is not None:
                link.abort()

    async def _connect(self, seconds: float) -> asyncssh.SSHClientConnection:
        # nothing is asked of the machine it starts from: no configuration, no agent, no default keys
        return await asyncssh.connect(
            self.login.host,
            self.login.port,
            sock=await self._guard.open(self.login.host, self.login.port),
            username=self.login.user,
            password=self.login.password or None,
            client_keys=self._keys or None,
            known_hosts=(self._known, [], []),
            config=None,
            agent_path=None,
            preferred_auth=[*(["publickey"] if self._keys else []), *(["password"] if self.login.password else [])],
            connect_timeout=seconds,
            login_timeout=seconds,
            keepalive_interval=KEEPALIVE_SECONDS,
            keepalive_count_max=2,
        )

    def _classified(self, error: Exception, what: str, *, writing: bool = False) -> CloudmeshError:
        """An error of the library or the system in the words of the taxonomy; no secret is in it."""
        words = (str(error) or type(error).__name__).replace("\n", " ")[:300]
        text = f"{what}: {words}"
        match error:
            case CloudmeshError():
                return error
            case asyncssh.HostKeyNotVerifiable():
                return AuthFailed(self._other_key())
            case asyncssh.KeyExchangeFailed() if "host key" in words.lower():
                return AuthFailed(self._other_key())
            case asyncssh.PermissionDenied():
                return AuthFailed(f"{self.login} refuses the key or password of the Secret")
            case asyncssh.SFTPNoSuchFile() | asyncssh.SFTPNoSuchPath():
                return Missing(text)
            case asyncssh.SFTPPermissionDenied():
                return ReadOnly(text) if writing else AuthFailed(text)
            case asyncssh.SFTPWriteProtect():
                return ReadOnly(text)
            case asyncssh.SFTPNoSpaceOnFilesystem() | asyncssh.SFTPQuotaExceeded():
                return Full(text)
            case asyncssh.SFTPOpUnsupported():
                return Unsupported(text)
            case asyncssh.SFTPInvalidFilename():
                return InvalidName(text)
            case asyncssh.SFTPBadMessage() if words == "Bad message":  # OpenSSH's word for a name that is too long
                return InvalidName(text)
            case asyncssh.SFTPNotADirectory() | asyncssh.SFTPFileIsADirectory():
                return NameConflict(text)
            case asyncssh.SFTPError():
                if any(said in words.lower() for said in NO_ROOM_WORDS):
                    return Full(text)
                return Transient(text) if isinstance(error, LOST) else Refused(text)
            case _:
                return Transient(f"{self.login}, {text}")

    def _other_key(self) -> str:
        return (
            f"{self.login} shows another host key than `spec.sftp.hostKey`: if the server was installed anew, put its "
            "new public key there; if not, somebody may stand between"
        )


class Opened:
    """An open file on the server; it lives as long as its session."""

    def __init__(self, link: Link, session: Session, file: asyncssh.SFTPClientFile, what: str) -> None:
        self._link = link
        self._session = session
        self._file = file
        self._what = what

    @classmethod
    async def open(cls, link: Link, kind: str, path: bytes, mode: Literal["rb", "r+b", "xb"], what: str) -> Opened:
        """Opens a file; a cancellation leaves none open."""
        session = await link.session()
        writing = mode != "rb"

        async def work() -> Opened:
            file = await session.sftp.open(path, mode, encoding=None)
            return cls(link, session, file, what)

        opening = link.on(session, kind, what, work, writing=writing)
        return await outlast(opening, lambda opened: opened.close_later())

    @property
    def lost(self) -> bool:
        """Whether its session is."""
        return self._session.lost

    async def read(self, kind: str, at: int, count: int) -> bytes:
        """Bytes from a place, fewer at the end only."""
        return await self._on(kind, lambda: self._file.read(count, at))

    async def write(self, kind: str, at: int, content: bytes) -> None:
        """Writes at a place."""
        await self._on(kind, lambda: self._file.write(content, at), writing=True)

    async def stat(self) -> asyncssh.SFTPAttrs:
        """What it is."""
        return await self._on("fstat", lambda: self._file.stat())

    async def set_time(self, seconds: int) -> None:
        """Sets when it was changed."""
        attrs = asyncssh.SFTPAttrs(atime=seconds, mtime=seconds)
        await self._on("set", lambda: self._file.setstat(attrs), writing=True)

    async def sync(self) -> None:
        """Has it brought to disk, where the server can be asked to."""
        try:
            await self._on("fsync", lambda: self._file.fsync(), writing=True)
        except Unsupported:
            return

    async def close(self) -> None:
        """Closes it."""
        if not self.lost:
            await self._on("close", lambda: self._file.close())

    def close_later(self) -> None:
        """Closes it without waiting."""
        self._link.later(self.close)

    async def _on(self, kind: str, function: Callable[[], Awaitable[T]], *, writing: bool = False) -> T:
        if self.lost:
            raise Transient(f"{self._what}: the connection to {self._link.login} was lost")
        return await self._link.on(self._session, kind, self._what, function, writing=writing)


class Handle:
    """An open file that is opened again where its session broke.

    Args:
        opener: Opens it.
    """

    def __init__(self, opener: Callable[[], Awaitable[Opened]]) -> None:
        self._opener = opener
        self._lock = asyncio.Lock()
        self._file: Opened | None = None

    async def get(self) -> Opened:
        """The open file."""
        async with self._lock:
            if self._file is None or self._file.lost:
                self._file = await self._opener()
            return self._file

    def close_later(self) -> None:
        """Closes it without waiting."""
        file, self._file = self._file, None
        if file is not None:
            file.close_later()


async def again(function: Callable[[], Awaitable[T]]) -> T:
    """Does what can be done twice once more, where the connection broke or the server only said "Failure"."""
    for attempt in range(TRIES - 1):
        try:
            return await function()
        except Transient:
            await asyncio.sleep(0.05 * 2**attempt)
    return await function()


def read_login(settings: Mapping[str, object], credentials: Mapping[str, bytes]) -> Login:
    """Where a DataStore's `spec.sftp` and its Secret log in.

    Raises:
        InvalidRequest: The Secret has a key that means nothing.
    """
    secret = secret_texts(credentials, {"password", "ssh-privatekey"})
    return Login(
        host=str(settings["host"]),
        port=int(str(settings.get("port") or 22)),
        user=str(settings["user"]),
        host_key=str(settings["hostKey"]),
        private_key=secret.get("ssh-privatekey", ""),
        password=secret.get("password", ""),
    )


def _private_key(text: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(text + "\n")
    except (asyncssh.KeyImportError, ValueError):
        # no `from`: the library's message may hold parts of the key
        words = "the Secret's key 'ssh-privatekey' can't be read: OpenSSH or PEM without a passphrase is needed"
        raise InvalidRequest(words) from None


def _public_key(line: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(line)
    except (asyncssh.KeyImportError, ValueError):
        raise InvalidRequest(f"`spec.sftp.hostKey` is no public key: {line[:80]!r}") from None


def _heed(task: asyncio.Task[Session]) -> None:
    """Hears an exception that nobody waits for."""
    if not task.cancelled():
        task.exception()
