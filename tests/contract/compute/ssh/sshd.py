"""Real sshd on loopback addresses: Debian's, unpacked and not installed, with accounts that only it sees."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images import debian
from images.compose import default_cache
from tests.testbed.ports import free_port

from cloudmesh.compute.access import make_key_pair

PACKAGES = ("libwrap0", "openssh-server")
CONFIG = """\
{listen}
HostKey {root}/host_key
AuthorizedKeysFile .ssh/authorized_keys
UsePAM no
StrictModes no
PermitRootLogin {root_login}
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
PrintMotd no
UseDNS no
MaxStartups 200
MaxSessions 100
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Subsystem sftp internal-sftp
"""
# In a mount namespace of its own sshd finds its accounts and its folder, and the machine keeps what it has.
START = """\
mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd &&
    mount -t proc proc /proc || exit 71
eval "$3"
exec "$2" -D -e -f "$1/config"
"""


@dataclass(frozen=True)
class Sshd:
    """A running sshd.

    Args:
        root: Its folder.
        port: Its port, on all addresses.
        host_key: Its public host key.
        client_key: Private key that all accounts let in.
        client_public: Its public part.
        uids: Numbers of the accounts by name.
    """

    root: Path
    port: int
    host_key: str
    client_key: str
    client_public: str
    uids: Mapping[str, int]

    def home(self, user: str) -> Path:
        """Home of an account."""
        return self.root / "home" / user

    def authorize(self, user: str, *keys: str) -> None:
        """Writes who may log in."""
        folder = self.home(user) / ".ssh"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "authorized_keys").write_text("".join(f"{key}\n" for key in keys))
        self.hand_over(user)

    def hand_over(self, user: str) -> None:
        """Gives an account all that lies in its home."""
        home, uid = self.home(user), self.uids[user]
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)

    def reset(self, user: str) -> None:
        """A home as new."""
        shutil.rmtree(self.home(user), ignore_errors=True)
        self.home(user).mkdir(parents=True)
        self.authorize(user, "# a person's own line", self.client_public)


def find_sshd() -> tuple[Path, Path | None]:
    """The program, and the folder of libraries that it needs besides the machine's."""
    installed = Path("/usr/sbin/sshd")
    if installed.exists():
        return installed, None
    cache = default_cache() / "sshd"
    program = cache / "usr/sbin/sshd"
    if not program.exists():
        found = debian.packages(PACKAGES, default_cache() / "debs")
        unpacked = Path(tempfile.mkdtemp(dir=default_cache(), prefix="sshd-"))
        for deb in found.values():
            subprocess.run(["dpkg-deb", "-x", deb, unpacked], check=True, timeout=60)
        with contextlib.suppress(OSError):  # another run was first
            unpacked.rename(cache)
        shutil.rmtree(unpacked, ignore_errors=True)
    return program, cache / "usr/lib/x86_64-linux-gnu"


@contextlib.contextmanager
def running(
    users: Sequence[str], addresses: Sequence[str] = ("127.0.0.1",), *, roots: Sequence[str] = (), prepare: str = ""
) -> Iterator[Sshd]:
    """An sshd with accounts, each with a home of its own.

    Args:
        users: Names of the accounts.
        addresses: Where it listens.
        roots: Accounts that are root.
        prepare: What a shell does first, where only sshd and its sessions see what is mounted.
    """
    program, libraries = find_sshd()
    root = Path(tempfile.mkdtemp(prefix="cm-sshd-"))
    root.chmod(0o755)
    process: subprocess.Popen[bytes] | None = None
    try:
        private, public = make_key_pair("host")
        client, client_public = make_key_pair("client")
        (root / "host_key").touch(mode=0o600)
        (root / "host_key").write_text(private)
        lines = ["root:x:0:0:root:/root:/bin/bash", "sshd:x:74:65534::/run/sshd:/usr/sbin/nologin"]
        uids = {user: 0 if user in roots else 20_000 + number for number, user in enumerate(users)}
        lines += [f"{user}:x:{uid}:{uid}::{root}/home/{user}:/bin/bash" for user, uid in uids.items()]
        (root / "passwd").write_text("\n".join([*lines, ""]))
        sshd = Sshd(root, free_port(), public, client, client_public, uids)
        for user in users:
            sshd.reset(user)
        listen = "".join(f"ListenAddress {address}:{sshd.port}\n" for address in addresses)
        (root / "config").write_text(CONFIG.format(listen=listen, root=root, root_login="yes" if roots else "no"))
        environment = {**os.environ, **({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})}
        with (root / "log").open("wb") as log:
            apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            process = subprocess.Popen(
                [*apart, "sh", "-c", START, "sh", str(root), str(program), prepare],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        _wait_until_up(sshd, addresses[0], process)
        yield sshd
    finally:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(root, ignore_errors=True)


def _wait_until_up(sshd: Sshd, address: str, process: subprocess.Popen[bytes]) -> None:
    import socket

    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection((address, sshd.port), timeout=1) as sock:
                if sock.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"sshd doesn't start: {(sshd.root / 'log').read_text()[-2000:]}")
        time.sleep(0.05)
