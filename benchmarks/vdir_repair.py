"""A store is lost that holds a copy of every file: how long until all have two again, and whether readers notice.

The peer copies the same objects between the same two servers in the same run, with obstore, while the same clients go
on reading. Servers, gateway and clients share this machine's cores. BENCH_FILES sets the number of files (10,000),
BENCH_KIB the size of each (32).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import obstore
from obstore.store import S3Store
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY, s3

from benchmarks.vdir_parts.served import BUCKET, Served, of_s3
from cloudmesh.data.config import PlacementRule

FILES = int(os.environ.get("BENCH_FILES", "10000"))
SIZE = int(os.environ.get("BENCH_KIB", "32")) << 10
WRITERS, COPIERS = 16, 8
"""As many copies at once by the peer as the gateway makes."""
READERS, PAUSE = 4, 0.02
"""Clients, and how long each waits after a read, in seconds."""
LIMIT_SECONDS = 3600.0


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    """Prints one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 3), "unit": unit} | more) + "\n")
    sys.stdout.flush()


def path_of(number: int) -> str:
    """Of a file; a hundred are in a directory."""
    return f"{number // 100}/{number}"


def content_of(number: int) -> bytes:
    """Of a file, no two the same."""
    return hashlib.shake_128(str(number).encode()).digest(SIZE)


@dataclass
class Readers:
    """Clients that read files at random all the time.

    Args:
        served: The gateway.
    """

    served: Served
    reads: int = 0
    failed: int = 0
    slowest: float = 0.0
    words: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Readers]:
        """While this lasts they read."""
        async with aiohttp.ClientSession(headers=self.served.headers) as session:
            tasks = [asyncio.create_task(self._read(session, seed)) for seed in range(READERS)]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, session: aiohttp.ClientSession, seed: int) -> None:
        numbers = random.Random(seed)
        while True:
            number, began = numbers.randrange(FILES), time.monotonic()
            try:
                async with session.get(f"{self.served.url}/v1/files/{path_of(number)}") as answer:
                    body = await answer.read()
                right = answer.status == 200 and body == content_of(number)
                words = f"{path_of(number)}: {answer.status} {body[:200]!r}"
            except (aiohttp.ClientError, TimeoutError) as error:
                right, words = False, f"{path_of(number)}: {error!r}"
            self.reads += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            if not right:
                self.failed += 1
                self.words.append(words)
            await asyncio.sleep(PAUSE)


async def load(served: Served) -> None:
    """Writes all files."""
    numbers = iter(range(FILES))

    async def write(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            url = f"{served.url}/v1/files/{path_of(number)}"
            async with session.put(url, data=content_of(number)) as answer:
                if answer.status not in (200, 201):
                    raise RuntimeError(f"PUT {url}: {answer.status} {(await answer.text())[:500]}")
            if number % 1000 == 999:
                say(f"{number + 1} files are written")

    async with aiohttp.ClientSession(headers=served.headers) as session:
        for first in range(0, FILES, 100):
            async with session.put(f"{served.url}/v1/directories/{first // 100}") as answer:
                answer.raise_for_status()
        await asyncio.gather(*(write(session) for _ in range(WRITERS)))


def held(summary: dict[str, Any], store: str) -> tuple[int, str]:
    """Whole copies in a store, and how it is."""
    found = next(one for one in summary["stores"] if one["name"] == store)
    return found.get("files", 0), found["state"]


async def until_whole(served: Served, spare: str, lost: str, began: float) -> tuple[float, float]:
    """Seconds after `began` at which the store was given up and at which the last copy was made anew."""
    given_up, before = 0.0, -1
    while True:
        summary = await asyncio.to_thread(served.summary)
        now = time.monotonic() - began
        if not given_up and held(summary, lost)[1] == "Gone":
            given_up = now
            say(f"the store is given up after {now:.0f} s")
        files = held(summary, spare)[0]
        if files // 1000 != before // 1000:
            say(f"{files} copies are made anew after {now:.0f} s")
        if files < before:
            raise RuntimeError(f"{before} copies became {files}")
        before = files
        if files >= FILES:
            return given_up, now
        if now > LIMIT_SECONDS:
            raise RuntimeError(f"after {now:.0f} s only {files} copies: {summary}")
        await asyncio.sleep(0.5)


def _client(url: str) -> S3Store:
    return S3Store(
        BUCKET, endpoint=url, access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY, region="us-east-1",
        virtual_hosted_style_request=False, client_options={"allow_http": True},
    )  # fmt: skip


def copy_directly(source: str, target: str) -> float:
    """Seconds that a client needs for the same objects."""
    here, there = _client(source), _client(target)

    def copy(number: int) -> None:
        body = obstore.get(here, f"lab/{path_of(number)}").bytes()
        obstore.put(there, f"peer/{path_of(number)}", bytes(body))

    began = time.monotonic()
    with ThreadPoolExecutor(COPIERS) as pool:
        list(pool.map(copy, range(FILES)))
    return time.monotonic() - began


async def run(folder: Path) -> bool:
    """The whole; says whether nothing went wrong."""
    with s3("127.0.0.1", BUCKET) as east, s3("127.0.0.1", BUCKET) as west, s3("127.0.0.1", BUCKET) as north:
        stores = tuple(of_s3(n, s.url) for n, s in (("east", east), ("west", west), ("north", north)))
        rule = PlacementRule(copies=2, min_copies=2, prefer="Sequential")
        with Served(folder, stores, rule, verify_seconds=0) as served:
            began = time.monotonic()
            await load(served)
            say(f"{FILES} files with two copies each are written in {time.monotonic() - began:.0f} s")
            async with Readers(served).reading() as readers:
                await asyncio.sleep(5)
                began = time.monotonic()
                east.stop()  # the one that files were read from so far
                given_up, whole = await until_whole(served, "north", "east", began)
                during, failed = readers.reads, readers.failed
                direct = await asyncio.to_thread(copy_directly, west.url, north.url)
            for words in readers.words[:20]:
                say(words)
            wrong = sum(
                1 for number in range(FILES)
                if north.file(BUCKET, f"lab/{path_of(number)}").read_bytes() != content_of(number)
            )  # fmt: skip
            size, seconds = FILES * SIZE / (1 << 20), whole - given_up
            figure("repaired", seconds, "s", files=FILES, kib=SIZE >> 10, since_lost=round(whole, 1),
                   given_up_after=round(given_up, 1))  # fmt: skip
            figure("of_store_speed", direct / seconds, "share", mib_per_s=round(size / seconds, 2), peer="obstore",
                   peer_value=round(size / direct, 2))  # fmt: skip
            figure("failed_reads", failed, "reads", of=during, slowest_s=round(readers.slowest, 2))
            figure("wrong_copies", wrong, "objects")
            return not failed and not wrong


def main() -> int:
    """Prints the figures; 1 if a read failed."""
    with tempfile.TemporaryDirectory(prefix="cloudmesh-bench-") as folder:
        return 0 if asyncio.run(run(Path(folder))) else 1
