"""WebDAV as others know it: the litmus suite, and the clients rclone and cadaver."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.testbed import artifacts
from tests.unit.data.gateway_scene import PASSWORD, Served

LITMUS = {"basic": 16, "copymove": 13, "props": 30, "locks": 41, "http": 4}


@pytest.fixture(scope="module")
def clients() -> tuple[Path, dict[str, str]]:
    return artifacts.dav_clients()


def _run(command: list[str], env: dict[str, str], folder: Path, said: str = "") -> str:
    run = subprocess.run(command, env=env, cwd=folder, input=said, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return run.stdout + run.stderr


def test_litmus_passes_whole(clients: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, env = clients
    env |= {"TESTROOT": str(root / "usr/libexec/litmus"), "HTDOCS": str(root / "usr/share/litmus/htdocs")}
    with Served(tmp_path) as served:
        command = [str(root / "usr/bin/litmus"), "-k", f"{served.url}/dav/", "ada", PASSWORD]
        told = _run(command, env, tmp_path)
    found = re.findall(r"summary for `(\w+)': of (\d+) tests run: (\d+) passed, 0 failed", told)
    assert {name: (int(run), int(passed)) for name, run, passed in found} == {n: (c, c) for n, c in LITMUS.items()}
    assert (sum(int(run) for _, run, _ in found), sum(int(passed) for _, _, passed in found)) == (104, 104)
    assert "WARNING" not in told, told


def _rclone(clients: tuple[Path, dict[str, str]], served: Served, folder: Path) -> tuple[list[str], dict[str, str]]:
    root, env = clients
    hidden = _run([str(root / "usr/bin/rclone"), "obscure", PASSWORD], env, folder).strip()
    env = env | {
        "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_DAV_TYPE": "webdav", "RCLONE_CONFIG_DAV_URL": f"{served.url}/dav/",
        "RCLONE_CONFIG_DAV_VENDOR": "owncloud", "RCLONE_CONFIG_DAV_USER": "ada", "RCLONE_CONFIG_DAV_PASS": hidden,
    }  # fmt: skip
    return [str(root / "usr/bin/rclone"), "--retries", "1"], env


def test_rclone_copies_checks_and_moves(clients: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "b/ü &<>#?%").mkdir(parents=True)
    for number, name in enumerate(("a.txt", "b/c.bin", "b/ü &<>#?%/d e.txt", "b/empty")):
        file = here / name
        file.write_bytes(os.urandom(number * 1_500_000) if name != "b/empty" else b"")
        os.utime(file, (1_600_000_000 + number, 1_600_000_000 + number))
    with Served(tmp_path) as served:
        rclone, env = _rclone(clients, served, tmp_path)
        _run([*rclone, "copy", str(here), "dav:lab"], env, tmp_path)
        _run([*rclone, "check", "--download", str(here), "dav:lab"], env, tmp_path)
        stat = served.vdir().stat("lab/b/ü &<>#?%/d e.txt")
        assert stat["sha256"] == hashlib.sha256((here / "b/ü &<>#?%/d e.txt").read_bytes()).hexdigest()
        # times came along, so that there is nothing to do a second time
        told = _run([*rclone, "sync", "-v", "--stats-one-line", str(here), "dav:lab"], env, tmp_path)
        assert "Copied" not in told, told
        _run([*rclone, "moveto", "dav:lab/b", "dav:moved/b"], env, tmp_path)
        _run([*rclone, "copy", "dav:moved/b", str(back)], env, tmp_path)
        assert (back / "ü &<>#?%/d e.txt").read_bytes() == (here / "b/ü &<>#?%/d e.txt").read_bytes()
        _run([*rclone, "purge", "dav:moved"], env, tmp_path)
        assert _run([*rclone, "lsf", "-R", "dav:"], env, tmp_path).split() == ["lab/", "lab/a.txt"]


def test_cadaver_locks_sets_properties_and_copies(clients: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, env = clients
    (tmp_path / ".netrc").write_text(f'default login ada password "{PASSWORD}"\n')
    (tmp_path / "file.txt").write_text("content")
    env |= {"HOME": str(tmp_path), "TERM": "dumb"}
    with Served(tmp_path) as served:
        said = (
            "mkcol one\ncd one\nput file.txt\nlock file.txt\npropset file.txt author Grace\npropget file.txt author\n"
            "unlock file.txt\ncopy file.txt second.txt\nmove second.txt third.txt\nls\nget third.txt got.txt\nquit\n"
        )
        told = _run([str(root / "usr/bin/cadaver"), f"{served.url}/dav/"], env, tmp_path, said)
        names = [one["name"] for one in served.vdir().list("one")]
    assert "Grace" in told, told
    assert "failed" not in told, told
    assert names == ["file.txt", "third.txt"]
    assert (tmp_path / "got.txt").read_text() == "content"
