"""Bytes through a directory's gateway, beside clients that use the same S3 server without it.

The peers: obstore, which the gateway itself reads with, for large files; `rclone serve webdav` for small ones. All run
on this machine: server, gateway and client share its cores. BENCH_MIB sets the size of the large file (1024),
BENCH_RSS_GIB that of the stream whose memory is watched (10).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import obstore
from obstore.store import S3Store
from tests.testbed import artifacts
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY, s3

from cloudmesh.data.resources import ALLOCATOR

MIB = 1 << 20
LARGE = int(os.environ.get("BENCH_MIB", "1024")) * MIB
WATCHED = int(os.environ.get("BENCH_RSS_GIB", "10")) << 30
WATCHED_AT_ONCE = 4 << 30
"""The server keeps the list of an object's parts in an attribute: that of 10 GiB is too long for ext4's."""
SMALL_FILES, SMALL, AT_ONCE, REPEATS = 2000, 4096, 16, 3
USER, PASSWORD, BUCKET = "bench", "bench", "lab"
ROOT = Path(__file__).parents[1]


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    """Prints one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 2), "unit": unit} | more) + "\n")
    sys.stdout.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Door:
    """A server in front of the stores.

    Args:
        url: Below it lie the files.
        pid: Of its process.
        headers: What each request carries.
    """

    url: str
    pid: int
    headers: dict[str, str]

    def memory(self) -> float:
        """Largest resident size so far in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def cpu(self) -> float:
        """Seconds of processor time that the process has taken so far."""
        times = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def written(self) -> int:
        """Bytes that the process has written so far, to wherever."""
        return int(Path(f"/proc/{self.pid}/io").read_text().split("wchar:")[1].split()[0])


def _wait(url: str, headers: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    async def answers() -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
                return answer.status < 500
        return False

    end = time.monotonic() + 60
    while not asyncio.run(answers()):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r} doesn't answer")
        time.sleep(0.2)


@contextlib.contextmanager
def gateway(stores: dict[str, str], copies: int) -> Iterator[Door]:
    """The directory's gateway over S3 servers by name, in a process of its own."""
    encoded = {
        name: base64.b64encode(value.encode()).decode()
        for name, value in (("aws_access_key_id", ACCESS_KEY), ("aws_secret_access_key", SECRET_KEY))
    }
    config = {
        "namespace": "bench", "name": "lab", "uid": "u", "installation": "i", "allowPrivate": True,
        "stores": [
            {
                "name": name, "kind": "s3", "prefix": "lab/", "credentials": encoded,
                "settings": {"endpoint": url, "bucket": BUCKET, "region": "us-east-1"},
            }
            for name, url in stores.items()
        ],
        "rules": [{"name": "default", "copies": copies, "minCopies": copies, "prefer": "Sequential"}],
        "auth": {"basic": {USER: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="cloudmesh-bench-") as folder:
        file, port = Path(folder, "config.json"), _free_port()
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "cloudmesh.data.gateway", "--config", str(file), "--folder", f"{folder}/data",
                   "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
        environment = os.environ | ALLOCATOR | {"CLOUDMESH_LOG_LEVEL": "WARNING"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr, stderr=sys.stderr)
        headers = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        try:
            _wait(f"http://127.0.0.1:{port}/v1/usage", headers, process)
            yield Door(f"http://127.0.0.1:{port}", process.pid, headers)
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def rclone(url: str) -> Iterator[Door]:
    """`rclone serve webdav` over the same S3 server."""
    root, environment = artifacts.dav_clients()
    environment.pop("AWS_CA_BUNDLE", None)  # rclone 1.60 can't use one, and speaks to this machine only
    port = _free_port()
    keys = {
        "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_S_TYPE": "s3", "RCLONE_CONFIG_S_PROVIDER": "Other",
        "RCLONE_CONFIG_S_ENDPOINT": url, "RCLONE_CONFIG_S_ACCESS_KEY_ID": ACCESS_KEY,
        "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": SECRET_KEY, "RCLONE_CONFIG_S_REGION": "us-east-1",
    }  # fmt: skip
    command = [str(root / "usr/bin/rclone"), "serve", "webdav", f"s:{BUCKET}/peer", "--addr", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, env=environment | keys, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/", {}, process)
        yield Door(f"http://127.0.0.1:{port}", process.pid, {})
    finally:
        process.terminate()
        process.wait(30)


async def _content(size: int) -> AsyncIterator[bytes]:
    piece, left = os.urandom(MIB), size
    while left > 0:
        yield piece[: min(left, MIB)]
        left -= MIB


async def _put(session: aiohttp.ClientSession, url: str, data: Any, size: int) -> None:
    async with session.put(url, data=data, headers={"Content-Length": str(size)}) as answer:
        if answer.status not in (200, 201, 204):
            raise RuntimeError(f"PUT {url}: {answer.status} {(await answer.text())[:500]}")


async def _get(session: aiohttp.ClientSession, url: str) -> int:
    size = 0
    async with session.get(url) as answer:
        if answer.status != 200:
            raise RuntimeError(f"GET {url}: {answer.status} {(await answer.text())[:500]}")
        async for chunk in answer.content.iter_any():
            size += len(chunk)
    return size


async def _timed(act: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


def _session(door: Door) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers=door.headers, timeout=aiohttp.ClientTimeout(total=3600), read_bufsize=MIB)


def _store(url: str) -> S3Store:
    return S3Store(
        BUCKET, endpoint=url, access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY, region="us-east-1",
        virtual_hosted_style_request=False, client_options={"allow_http": True},
    )  # fmt: skip


async def large(door: Door, urls: list[str]) -> None:
    """One large file, written to two stores and read from one."""
    path = f"{door.url}/v1/files/large"
    stores = [_store(url) for url in urls]
    puts, gets, direct_puts, direct_gets = [], [], [], []

    def direct_put(store: S3Store) -> None:
        piece = os.urandom(MIB)
        obstore.put(store, "peer/large", (piece for _ in range(LARGE // MIB)), chunk_size=8 * MIB, max_concurrency=4)

    def direct_get() -> None:
        if sum(len(chunk) for chunk in obstore.get(stores[0], "lab/large").stream(min_chunk_size=MIB)) != LARGE:
            raise RuntimeError("the peer read another size")

    async with _session(door) as session:
        for _ in range(REPEATS):
            puts.append(await _timed(lambda: _put(session, path, _content(LARGE), LARGE)))
            with ThreadPoolExecutor(2) as pool:
                began = time.perf_counter()
                list(pool.map(direct_put, stores))
                direct_puts.append(time.perf_counter() - began)
            gets.append(await _timed(lambda: _get(session, path)))
            began = time.perf_counter()
            direct_get()
            direct_gets.append(time.perf_counter() - began)
            say(f"put {puts[-1]:.1f} s (direct {direct_puts[-1]:.1f})")
            say(f"get {gets[-1]:.1f} s (direct {direct_gets[-1]:.1f})")
        before = door.written()
        async with session.get(f"{path}?redirect=allow", allow_redirects=False) as answer:
            body, link = await answer.read(), answer.headers.get("Location", "")
            if answer.status != 307:
                raise RuntimeError(f"no redirect: {answer.status}")
    async with aiohttp.ClientSession(read_bufsize=MIB) as other:
        if await _get(other, link) != LARGE:
            raise RuntimeError("the link gave another size")
    size = LARGE / MIB
    put, get = statistics.median(puts), statistics.median(gets)
    peer_put, peer_get = statistics.median(direct_puts), statistics.median(direct_gets)
    figure("get_1g", size / get, "MiB/s", peer="obstore", peer_value=round(size / peer_get, 2),
           ratio=round(peer_get / get, 3))  # fmt: skip
    figure("put_1g_2copies", size / put, "MiB/s", peer="obstore to both stores at once",
           peer_value=round(size / peer_put, 2), ratio=round(peer_put / put, 3))  # fmt: skip
    figure("redirect_get", len(body), "bytes of the file through the gateway")
    say(f"the gateway wrote {door.written() - before} bytes in all for the redirect, headers and logs included")


async def _many(door: Door, base: str) -> tuple[float, float]:
    """Seconds to put and to get the small files."""
    content, queue = os.urandom(SMALL), asyncio.Semaphore(AT_ONCE)
    async with _session(door) as session:

        async def put(number: int) -> None:
            async with queue:
                await _put(session, f"{base}/{number}", content, SMALL)

        async def get(number: int) -> None:
            async with queue:
                if await _get(session, f"{base}/{number}") != SMALL:
                    raise RuntimeError(f"file {number} has another size")

        async with session.request("MKCOL", base) as answer:
            if answer.status != 201:
                raise RuntimeError(f"MKCOL {base}: {answer.status} {(await answer.text())[:500]}")
        written = await _timed(lambda: asyncio.gather(*(put(n) for n in range(SMALL_FILES))))
        return written, await _timed(lambda: asyncio.gather(*(get(n) for n in range(SMALL_FILES))))


async def _watch(door: Door) -> None:
    async with _session(door) as session:
        for begin in range(0, WATCHED, WATCHED_AT_ONCE):
            size, url = min(WATCHED_AT_ONCE, WATCHED - begin), f"{door.url}/v1/files/watched-{begin}"
            await _put(session, url, _content(size), size)
            if await _get(session, url) != size:
                raise RuntimeError("the stream has another size")


def main() -> int:
    """Runs all parts."""
    with contextlib.ExitStack() as stack:
        east, west = (stack.enter_context(s3("127.0.0.1", BUCKET)) for _ in range(2))
        door = stack.enter_context(gateway({"east": east.url, "west": west.url}, 2))
        asyncio.run(large(door, [east.url, west.url]))
    with s3("127.0.0.1", BUCKET) as store:
        ours, theirs = [], []
        with gateway({"store": store.url}, 1) as door, rclone(store.url) as peer:
            began = door.cpu(), peer.cpu()
            for turn in range(REPEATS):
                ours.append(sum(asyncio.run(_many(door, f"{door.url}/dav/small-{turn}"))))
                theirs.append(sum(asyncio.run(_many(peer, f"{peer.url}/small-{turn}"))))
                say(f"small files: {ours[-1]:.1f} s, rclone {theirs[-1]:.1f} s")
            spent = [
                1000 * (one.cpu() - at) / (2 * REPEATS * SMALL_FILES)
                for one, at in zip((door, peer), began, strict=True)
            ]
        count, here, there = 2 * SMALL_FILES, statistics.median(ours), statistics.median(theirs)
        figure("small_files", count / here, "requests/s", peer="rclone serve webdav",
               peer_value=round(count / there, 2), ratio=round(there / here, 2),
               cpu_ms_each=round(spent[0], 2), peer_cpu_ms_each=round(spent[1], 2))  # fmt: skip
    with s3("127.0.0.1", BUCKET) as store, gateway({"store": store.url}, 1) as door:
        asyncio.run(_watch(door))
        figure("rss", door.memory(), "MiB", streamed_gib=WATCHED >> 30)
    return 0
