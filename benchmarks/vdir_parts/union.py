"""The rival: `rclone union` over the same kinds of stores, with the same writes, deletions, reads and outages."""

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
from urllib.parse import quote, urlencode

from tests.testbed import artifacts, sftpserver
from tests.testbed.ports import free_port
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY

from benchmarks.vdir_parts.places import BOX, EAST, NAMES, NAS, WEST, Places
from benchmarks.vdir_parts.real import Step
from benchmarks.vdir_parts.served import BUCKET
from cloudmesh.testing.directories.checks import Allowed

START_SECONDS = 30.0
ERRORS = (OSError, http.client.HTTPException)


@dataclass
class Verdict:
    """What became of the rival's files.

    Args:
        lost: That were acknowledged, and are nowhere.
        stale: That hold an older content than was acknowledged.
        resurrected: Whose deletion was acknowledged.
        refused: Writes and deletions that were not acknowledged.
        misread: Reads that gave an older content without a word, while stores were away or afterwards.
        notes: In words.
    """

    lost: int = 0
    stale: int = 0
    resurrected: int = 0
    refused: int = 0
    misread: int = 0
    notes: list[str] = field(default_factory=list)


class Union:
    """rclone over all stores, every file on each.

    Args:
        port: Where it answers.
        places: The stores.
    """

    def __init__(self, port: int, places: Places) -> None:
        self._port, self._places = port, places
        self._files: dict[str, Allowed] = {}
        self.verdict = Verdict()

    def _ask(self, method: str, target: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request(method, target, body=body, headers={"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ERRORS:
            return 0, b""  # it cuts the line to whoever sends what it can't store
        finally:
            connection.close()

    def put(self, path: str, content: bytes) -> bool:
        """Writes a file; whether that is acknowledged."""
        folder, _, name = path.rpartition("/")
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file0"; filename="{name}"\r\n\r\n'.encode()
        query = urlencode({"fs": "u:", "remote": folder})
        status, _ = self._ask(
            "POST", f"/operations/uploadfile?{query}", head + content + f"\r\n--{mark}--\r\n".encode(),
            f"multipart/form-data; boundary={mark}",
        )  # fmt: skip
        return status == 200

    def delete(self, path: str) -> bool:
        """Deletes a file; whether that is acknowledged."""
        body = json.dumps({"fs": "u:", "remote": path}).encode()
        return self._ask("POST", "/operations/deletefile", body, "application/json")[0] == 200

    def read(self, path: str) -> tuple[bool, bytes | None]:
        """Whether there was an answer, and the file's content, None if it says that there is no such file."""
        status, body = self._ask("GET", "/" + quote(f"[u:]/{path}", safe="/[]:"))
        return status in (200, 404), body if status == 200 else None

    def step(self, step: Step) -> None:
        """Does what our directory did."""
        what, at, content = step
        match what:
            case "put":
                self._change(at, content, self.put(at, content))
            case "delete":
                self._change(at, None, self.delete(at))
            case "read":
                told, found = self.read(at)
                if told and found not in self._files.get(at, {None}):
                    self.verdict.misread += 1
            case "lose":
                self._places.lose(at)
            case "back":
                self._places.back(at)
            case "fault":
                self._places.fault(content)
            case _:
                self._places.calm()
                self._judge()

    def _change(self, path: str, content: bytes | None, acknowledged: bool) -> None:
        if acknowledged:
            self._files[path] = {content}
        else:
            self.verdict.refused += 1
            self._files[path] = self._files.get(path, {None}) | {content}

    def _judge(self) -> None:
        """All stores are back: what is there counts, and is what is expected from now on."""
        for path, allowed in self._files.items():
            told, found = self.read(path)
            for _ in range(20):
                if told:
                    break
                time.sleep(0.5)
                told, found = self.read(path)
            if not told or found not in allowed:
                what = "lost" if found is None else "resurrected" if allowed == {None} else "stale"
                setattr(self.verdict, what, getattr(self.verdict, what) + 1)
                self.verdict.notes.append(f"{what}: {path}")
            self._files[path] = {found}


def _settings(places: Places, folder: Path) -> dict[str, str]:
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
    # what is nearest is read first
    upstreams = (str(places.nas), f"{EAST}:{BUCKET}", f"{WEST}:{BUCKET}", f"{BOX}:{places.sftp.path}")
    remotes["u"] = {
        "type": "union", "upstreams": " ".join(upstreams), "create_policy": "all", "action_policy": "all",
        "search_policy": "ff", "cache_time": "0",
    }  # fmt: skip
    if (EAST, WEST, NAS, BOX) != NAMES:
        raise RuntimeError("the rival has other stores")
    return {
        f"RCLONE_CONFIG_{name.upper()}_{option.upper()}": value
        for name, options in remotes.items() for option, value in options.items()
    }  # fmt: skip


@contextlib.contextmanager
def union(folder: Path, places: Places) -> Iterator[Union]:
    """rclone's daemon that runs."""
    root, environment = artifacts.dav_clients()
    environment.pop("AWS_CA_BUNDLE", None)  # rclone 1.60 can't use one, and speaks to this machine only
    port = free_port("127.0.0.1")
    command = [
        str(root / "usr/bin/rclone"), "rcd", "--rc-no-auth", "--rc-serve", "--rc-addr", f"127.0.0.1:{port}",
        "--low-level-retries", "1", "--retries", "1", "--contimeout", "3s", "--timeout", "20s",
    ]  # fmt: skip
    with (folder / "rclone.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**environment, "RCLONE_CONFIG": "/dev/null", **_settings(places, folder)},
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        made, end = Union(port, places), time.monotonic() + START_SECONDS
        while True:
            if made.read("nothing")[0]:
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"rclone doesn't answer: {(folder / 'rclone.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(30)
