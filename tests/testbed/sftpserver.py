"""An SFTP server that tests and the demo start on this machine: Debian's OpenSSH over a folder, for one account."""

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

from cloudmesh.compute.access import make_key_pair
from tests.contract.compute.ssh.sshd import find_sshd
from tests.testbed.console import TestbedError
from tests.testbed.ports import free_port

USER, UID = "files", 20_700
PASSWORD = "suite-password-7c1e"
_HASH = "$6$suite$xXTdBx9aAcl7Y9zK0B1saJg52UROZVlZ6UuE0wcRLi0QxUzv/b037t3qOnu3QEkuKiJls1/6iX37demVBocqZ."
"""What `openssl passwd -6 -salt suite` makes of it."""
START_SECONDS = 30.0
CONFIG = """\
ListenAddress {host}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
UsePAM no
StrictModes no
PermitRootLogin no
PasswordAuthentication yes
KbdInteractiveAuthentication no
PidFile none
PrintMotd no
UseDNS no
MaxStartups {startups}
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""
# In a mount namespace of its own sshd finds its account and its folder, and the machine keeps what it has.
START = """\
mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd &&
    mount -t proc proc /proc || exit 71
if [ -n "$3" ]; then mount -t tmpfs -o "size=$3,mode=755,uid=$4,gid=$4" none "$1/data" || exit 72; fi
exec "$2" -D -e -f "$1/config"
"""


class SftpServer:
    """sshd over a folder, on one port from its first start to its last.

    Args:
        host: Address of this machine that it listens on, such as the `host_address` of a cluster, for its Pods.
        folder: An empty one, for its files and its log; others may look into it.
        room: Size of the file system that it has of its own, such as `128m`, which goes with a stop; empty for none.
        startups: Connections that may be logging in at the same time; it drops what is more.
    """

    def __init__(self, host: str, folder: Path, *, room: str = "", startups: int = 200) -> None:
        self.port = free_port(host)
        self.host, self.folder = host, folder
        self.path = f"{folder}/data"
        """Of the folder in which the account may write, on the server."""
        self._room = room
        self._program, self._libraries = find_sshd()
        private, self.host_key = make_key_pair("host")
        self.client_key, public = make_key_pair("client")
        (folder / "host_key").touch(mode=0o600)
        (folder / "host_key").write_text(private)
        (folder / "authorized_keys").write_text(f"{public}\n")
        lines = ["root:x:0:0:root:/root:/bin/bash", "sshd:x:74:65534::/run/sshd:/usr/sbin/nologin"]
        lines += [f"{USER}:{_HASH}:{UID}:{UID}::{folder}/data:/bin/bash", ""]
        (folder / "passwd").write_text("\n".join(lines))
        (folder / "config").write_text(CONFIG.format(host=host, port=self.port, folder=folder, startups=startups))
        (folder / "data").mkdir()
        os.chown(folder / "data", UID, UID)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def files(self) -> Path:
        """The folder in which the account may write, as this process sees it."""
        if not self._room or self._process is None:
            return self.folder / "data"
        (child,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return Path(f"/proc/{child}/root{self.path}")

    def start(self) -> None:
        """Starts it, or starts it again over what it held; returns when it answers."""
        environment = {**os.environ, **({"LD_LIBRARY_PATH": str(self._libraries)} if self._libraries else {})}
        arguments = [str(self.folder), str(self._program), self._room, str(UID)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START, "sh", *arguments],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise TestbedError(f"sshd doesn't answer: {(self.folder / 'log').read_text()[-2000:]}")
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
            with socket.create_connection((self.host, self.port), timeout=1) as sock:
                return sock.recv(4) == b"SSH-"
        except OSError:
            return False


@contextlib.contextmanager
def sftp(host: str = "127.0.0.1", *, room: str = "", startups: int = 200) -> Iterator[SftpServer]:
    """A server that runs, over a temporary folder; `USER` logs in by its `client_key` or by `PASSWORD`."""
    with tempfile.TemporaryDirectory(prefix="cloudmesh-sftp-") as folder:
        Path(folder).chmod(0o755)
        server = SftpServer(host, Path(folder), room=room, startups=startups)
        try:
            server.start()
            yield server
        finally:
            server.stop()
