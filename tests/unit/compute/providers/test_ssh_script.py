"""The script on hosts of one's own: a disk that takes less than it says costs nobody a line of theirs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloudmesh.compute.providers.ssh.script import BROKEN, SCRIPT

FOREIGN = "# mine\nssh-ed25519 AAAA me@home\nssh-ed25519 BBBB m\xfcller@work\nssh-ed25519 DDDD last"
# what goes into a file is cut off after its first line; what is read is whole
FULL_DISK = """#!/bin/sh
[ -f /dev/stdout ] || exec {real} "$@"
{real} "$@" | head -n 1
exit {status}
"""


def run(home: Path, verb: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    argv = ["sh", "-c", SCRIPT, "sh", verb, "one", "cm-token", *arguments]
    return subprocess.run(argv, env=environment, input=stdin.encode(), capture_output=True, timeout=30, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/authorized_keys").write_bytes(FOREIGN.encode("latin-1"))
    return tmp_path


def break_disk(home: Path, program: str, status: int) -> None:
    found = subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True)
    file = home / "bin" / program
    file.write_text(FULL_DISK.format(real=found.stdout.strip(), status=status))
    file.chmod(0o755)


@pytest.mark.parametrize("status", [0, 2])
def test_a_full_disk_leaves_peoples_keys_as_they_were(home: Path, status: int) -> None:
    file = home / ".ssh/authorized_keys"
    break_disk(home, "grep", status)
    assert run(home, "claim", "1", stdin="{}\nssh-ed25519 CCCC lab\n").returncode == BROKEN
    assert file.read_bytes() == FOREIGN.encode("latin-1")
    assert list(file.parent.iterdir()) == [file]
    (home / "bin/grep").unlink()
    assert run(home, "claim", "1", stdin="{}\nssh-ed25519 CCCC lab\n").returncode == 0
    with_ours = file.read_bytes()
    assert with_ours == f"{FOREIGN}\nssh-ed25519 CCCC lab cloudmesh-cm-token\n".encode("latin-1")
    break_disk(home, "grep", status)
    assert run(home, "release").returncode == BROKEN
    assert file.read_bytes() == with_ours
    (home / "bin/grep").unlink()
    assert run(home, "release").returncode == 0
    assert file.read_bytes() == f"{FOREIGN}\n".encode("latin-1")
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_leaves_the_ssh_config_as_it_was(home: Path) -> None:
    config = home / ".ssh/config"
    (home / ".ssh/authorized_keys").write_text("ssh-ed25519 AAAA me\n")  # one line: it is whole on this disk
    assert run(home, "claim", "1", stdin="{}\n").returncode == 0
    told = "Include cloudmesh/lab/config\nHost mine\n    User me\n"
    config.write_text(told)
    break_disk(home, "grep", 0)
    assert run(home, "release").returncode == BROKEN
    assert config.read_text() == told
    (home / "bin/grep").unlink()
    assert run(home, "release").returncode == 0
    assert config.read_text() == "Host mine\n    User me\n"
