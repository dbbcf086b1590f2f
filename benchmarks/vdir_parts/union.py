"""The rival: `rclone union` over the same stores, with the same writes, deletions, reads, outages and failing calls.

It is set up as somebody would who wants files on all stores and wants to go on while one is away: `rclone serve
webdav` with `--vfs-cache-mode writes` (its documentation's advice; what is written lies on its own disk until stores
have it, and is tried again), a short `--dir-cache-time` as stores come and go, `search_policy newest` so that the copy
that missed a write isn't read, `action_policy epall`. Two ways to create: `epall` writes to all stores that answer,
`all` waits for all. Its directories are there in each store before it begins, since `epall` writes where a directory
is. It is never killed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

from tests.testbed import artifacts, sftpserver, swiftserver
from tests.testbed.ports import free_port
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY

from benchmarks.vdir_parts.places import BOX, EAST, NAMES, NAS, STACK, WEST, Places
from benchmarks.vdir_parts.real import FILES, Step
from benchmarks.vdir_parts.served import BUCKET
from cloudmesh.testing.directories.checks import Allowed

Create = Literal["epall", "all"]
"""Stores that a file is written to: those that answer and have its directory, or all, else it is tried again."""
START_SECONDS = 30.0
UPLOAD_SECONDS = 120.0
"""Within which all that waits on its disk is in stores, once these are back."""
LISTED_SECONDS = 10.0
"""How long it believes a listing; each call to a store that is away takes it seconds, so that less makes it slow."""
OPTIONS = (
    "--vfs-cache-mode", "writes", "--vfs-write-back", "100ms", "--dir-cache-time", f"{LISTED_SECONDS:g}s",
    "--low-level-retries", "1", "--contimeout", "3s", "--timeout", "20s",
)  # fmt: skip
ERRORS = (OSError, http.client.HTTPException)


def configuration(create: Create) -> str:
    """How it is set up, in words."""
    return f"union create_policy={create} action_policy=epall search_policy=newest; serve webdav {' '.join(OPTIONS)}"


@dataclass
class Verdict:
    """What became of the rival's files.

    Args:
        operations: That it was asked for.
        away: Of its writes and deletions, those that were acknowledged while a store was away.
        lost: Files that were acknowledged, and are nowhere.
        stale: That hold an older content than was acknowledged.
        resurrected: Whose deletion was acknowledged.
        refused: Writes and deletions that were not acknowledged.
        unread: Reads that were not answered.
        misread: Reads that gave an older content, or said that there is no such file, while stores were away.
        notes: In words.
    """

    operations: int = 0
    away: int = 0
    lost: int = 0
    stale: int = 0
    resurrected: int = 0
    refused: int = 0
    unread: int = 0
    misread: int = 0
    notes: list[str] = field(default_factory=list)


class Union:
    """rclone over all stores.

    Args:
        port: Where it answers as WebDAV.
        control: Where it is asked how it does.
        places: The stores.
    """

    def __init__(self, port: int, control: int, places: Places) -> None:
        self._port, self._control, self._places = port, control, places
        self._files: dict[str, Allowed] = {}
        self.verdict = Verdict()

    def _ask(self, port: int, method: str, target: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request(method, target, body=body, headers={"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ERRORS:
            return 0, b""
        finally:
            connection.close()

    def _told(self, call: str) -> dict[str, Any]:
        status, body = self._ask(self._control, "POST", f"/{call}", b"{}", "application/json")
        return dict(json.loads(body)) if status == 200 else {}

    def up(self) -> bool:
        """Whether it answers."""
        return bool(self._told("core/pid")) and self._ask(self._port, "PROPFIND", "/")[0] == 207

    def prepare(self) -> None:
        """Makes all directories in each store."""
        for folder in sorted({path.rpartition("/")[0] for path in FILES} - {""}):
            for upstream in _upstreams(self._places):
                mark = uuid.uuid4().hex
                head = f'--{mark}\r\nContent-Disposition: form-data; name="file0"; filename=".keep"\r\n\r\n\r\n'
                status, words = self._ask(
                    self._control, "POST",
                    f"/operations/uploadfile?{urlencode({'fs': upstream, 'remote': folder})}",
                    f"{head}--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}",
                )  # fmt: skip
                if status != 200:
                    raise RuntimeError(f"rclone can't write to {upstream}: {words[:500]!r}")
        self._told("vfs/forget")

    def step(self, step: Step) -> None:
        """Does what our directory did."""
        what, at, content = step
        match what:
            case "put":
                self.verdict.operations += 1
                self._change(at, content, self._ask(self._port, "PUT", f"/{quote(at)}", content)[0] in (201, 204))
            case "delete":
                self.verdict.operations += 1
                status, _ = self._ask(self._port, "DELETE", f"/{quote(at)}")
                if status != 404:
                    self._change(at, None, status == 204)
                elif None not in self._files.get(at, {None}):
                    self.verdict.misread += 1
            case "read":
                self.verdict.operations += 1
                told, found = self.read(at)
                self.verdict.unread += not told
                self.verdict.misread += told and found not in self._files.get(at, {None})
            case "lose":
                self._places.lose(at)
            case "back":
                self._places.back(at)
            case "fault":
                self._places.fault(content)
            case _:
                self._places.calm()
                self._judge()

    def read(self, path: str) -> tuple[bool, bytes | None]:
        """Whether there was an answer, and the file's content, None if it says that there is no such file."""
        status, body = self._ask(self._port, "GET", f"/{quote(path)}")
        return status in (200, 404), body if status == 200 else None

    def _change(self, path: str, content: bytes | None, acknowledged: bool) -> None:
        if acknowledged:
            self.verdict.away += bool(self._places.down)
            self._files[path] = {content}
        else:
            self.verdict.refused += 1
            self._files[path] = self._files.get(path, {None}) | {content}

    def _waiting(self) -> int:
        cache = self._told("vfs/stats").get("diskCache", {})
        return int(cache.get("uploadsInProgress", 0)) + int(cache.get("uploadsQueued", 0))

    def _judge(self) -> None:
        """All stores are back: what is there counts, and is what is expected from now on."""
        end = time.monotonic() + UPLOAD_SECONDS
        while self._waiting() and time.monotonic() < end:
            time.sleep(0.1)
        self._told("vfs/forget")
        for path, allowed in self._files.items():
            told, found = self.read(path)
            while not told and time.monotonic() < end:
                time.sleep(0.5)
                told, found = self.read(path)
            if not told or found not in allowed:
                what = "lost" if found is None else "resurrected" if allowed == {None} else "stale"
                setattr(self.verdict, what, getattr(self.verdict, what) + 1)
                self.verdict.notes.append(f"{what}: {path}")
            self._files[path] = {found}


def _upstreams(places: Places) -> tuple[str, ...]:
    return (
        str(places.nas), f"{EAST}:{BUCKET}", f"{WEST}:{BUCKET}", f"{STACK}:{BUCKET}", f"{BOX}:{places.sftp.path}",
    )  # fmt: skip


def _settings(places: Places, folder: Path, create: Create) -> dict[str, str]:
    remotes: dict[str, dict[str, str]] = {
        name: {
            "type": "s3", "provider": "Other", "endpoint": places.url(name), "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY, "region": "us-east-1",
            "no_check_bucket": "true",
        }
        for name in (EAST, WEST)
    }  # fmt: skip
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(places.sftp.client_key)
    remotes[BOX] = {
        "type": "sftp", "host": places.sftp.host, "port": str(places.sftp.port), "user": sftpserver.USER,
        "key_file": str(key), "shell_type": "none",
    }  # fmt: skip
    remotes[STACK] = {
        "type": "swift", "auth": f"{places.url(STACK)}/auth/v1.0", "user": swiftserver.USER, "key": swiftserver.KEY,
    }  # fmt: skip
    remotes["u"] = {
        "type": "union", "upstreams": " ".join(_upstreams(places)), "create_policy": create, "action_policy": "epall",
        "search_policy": "newest", "cache_time": "0",
    }  # fmt: skip
    if (EAST, WEST, NAS, BOX, STACK) != NAMES:
        raise RuntimeError("the rival has other stores")
    return {
        f"RCLONE_CONFIG_{name.upper()}_{option.upper()}": value
        for name, options in remotes.items() for option, value in options.items()
    }  # fmt: skip


@contextlib.contextmanager
def union(folder: Path, places: Places, create: Create) -> Iterator[Union]:
    """rclone's server that runs, with all directories."""
    root, environment = artifacts.dav_clients()
    environment.pop("AWS_CA_BUNDLE", None)  # rclone 1.60 can't use one, and speaks to this machine only
    port, control = free_port("127.0.0.1"), free_port("127.0.0.1")
    command = [
        str(root / "usr/bin/rclone"), "serve", "webdav", "u:", "--addr", f"127.0.0.1:{port}", "--cache-dir",
        str(folder / "cache"), "--rc", "--rc-no-auth", "--rc-addr", f"127.0.0.1:{control}", *OPTIONS,
    ]  # fmt: skip
    with (folder / "rclone.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**environment, "RCLONE_CONFIG": "/dev/null", **_settings(places, folder, create)},
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        made, end = Union(port, control, places), time.monotonic() + START_SECONDS
        while not made.up():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"rclone doesn't answer: {(folder / 'rclone.log').read_text()[-2000:]}")
            time.sleep(0.1)
        made.prepare()
        yield made
    finally:
        process.terminate()
        process.wait(30)
