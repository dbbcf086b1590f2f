"""A WebDAV server that tests and the demo start on this machine: Debian's Apache httpd over a folder, for one user."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.testbed import artifacts, pki
from tests.testbed.console import TestbedError
from tests.testbed.ports import free_port

USER, UID = "files", 20_701
PASSWORD = "suite-password-91d0"
_HASH = "$apr1$suite$mZTt./N29iBQ5DPDCLURp/"
"""What `openssl passwd -apr1 -salt suite` makes of it."""
START_SECONDS = 30.0
MODULES = (
    "mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs", "ssl",
    "socache_shmcb",
)  # fmt: skip
CONFIG = """\
ServerRoot {folder}
ServerName {host}
User {user}
Group #{uid}
Listen {host}:{port}
PidFile {folder}/run/pid
DefaultRuntimeDir {folder}/run
ErrorLog {folder}/log
{modules}
DocumentRoot {folder}/data
KeepAliveTimeout 300
MaxKeepAliveRequests 0
DavLockDB {folder}/run/locks
<Directory {folder}/data>
    Dav On
    AllowOverride None
    AuthType Basic
    AuthName files
    AuthUserFile {folder}/users
    Require valid-user
</Directory>
"""
TLS = """\
SSLEngine on
SSLCertificateFile {folder}/tls.crt
SSLCertificateKeyFile {folder}/tls.key
"""
# In a mount namespace of its own it finds its account, and its libraries where that may look; the machine keeps what it
# has.
START = """\
mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && mount -t proc proc /proc &&
    mount --bind "$2" "$1/usr" || exit 71
if [ -n "$3" ]; then mount -t tmpfs -o "size=$3,mode=755,uid=$4,gid=$4" none "$1/data" || exit 72; fi
exec "$1/usr/sbin/apache2" -D FOREGROUND -f "$1/config"
"""


class DavServer:
    """Apache over a folder, on one port from its first start to its last.

    Args:
        host: Address of this machine that it listens on, such as the `host_address` of a cluster, for its Pods.
        folder: An empty one, for its files and its log; others may look into it.
        room: Size of the file system that it has of its own, such as `128m`, which goes with a stop; empty for none.
        tls: Whether it speaks TLS, with a certificate of the authority `authority`.
    """

    def __init__(self, host: str, folder: Path, *, room: str = "", tls: bool = False) -> None:
        self.port = free_port(host)
        self.host, self.folder = host, folder
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self.authority = ""
        """Certificate of whoever signed the server's, in PEM form; empty without TLS."""
        self._room = room
        self._programs = artifacts.apache() / "usr"
        (libraries,) = (path.relative_to(self._programs) for path in self._programs.glob("lib/*-linux-gnu"))
        self._environment = {**os.environ, "LD_LIBRARY_PATH": f"{folder}/usr/{libraries}"}
        modules = "\n".join(f"LoadModule {name}_module usr/lib/apache2/modules/mod_{name}.so" for name in MODULES)
        for name in ("data", "run", "usr"):
            (folder / name).mkdir()
            os.chown(folder / name, UID, UID)
        config = CONFIG.format(host=host, port=self.port, folder=folder, modules=modules, user=USER, uid=UID)
        if tls:
            authority = pki.issue("tests")
            pki.issue(host, names=[host], issuer=authority).write(folder, "tls")
            os.chown(folder / "tls.key", UID, UID)
            self.authority = authority.certificate_pem.decode()
            config += TLS.format(folder=folder)
        (folder / "config").write_text(config)
        account = f"{USER}:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin"
        (folder / "passwd").write_text(f"root:x:0:0:root:/root:/bin/bash\n{account}\n")
        (folder / "users").write_text(f"{USER}:{_HASH}\n")
        (folder / "log").touch()
        os.chown(folder / "log", UID, UID)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def files(self) -> Path:
        """The folder that is the collection, as this process sees it."""
        if not self._room or self._process is None:
            return self.folder / "data"
        (child,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return Path(f"/proc/{child}/root{self.folder}/data")

    def start(self) -> None:
        """Starts it, or starts it again over what it held; returns when it answers."""
        (self.folder / "run/pid").unlink(missing_ok=True)
        arguments = [str(self.folder), str(self._programs), self._room, str(UID)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START, "sh", *arguments],
                stdout=log, stderr=log, env=self._environment, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise TestbedError(f"Apache doesn't answer: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it as a machine ends that loses its power; what its folder holds stays."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1):
                return (self.folder / "run/pid").exists()
        except OSError:
            return False


@contextlib.contextmanager
def dav(host: str = "127.0.0.1", *, room: str = "", tls: bool = False) -> Iterator[DavServer]:
    """A server that runs, over a temporary folder; `USER` may do all in it, by `PASSWORD`."""
    with tempfile.TemporaryDirectory(prefix="cloudmesh-dav-") as folder:
        Path(folder).chmod(0o755)
        server = DavServer(host, Path(folder), room=room, tls=tls)
        try:
            server.start()
            yield server
        finally:
            server.stop()
