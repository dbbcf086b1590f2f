"""Files of 50 GiB and directories of a million entries, in bounded memory."""

from __future__ import annotations

import asyncio
import http.client
import os
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from tests.unit.data.gateway_scene import Served, basic

from cloudmesh.data.config import PlacementRule, StoreConfig
from cloudmesh.data.stores.folder import Folder, Temporary

SIZE = 50 << 30
PIECE = bytes(4 << 20)
END = b"the end"
ENTRIES = 1_000_000


def peak() -> int:
    """Bytes that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# -- a large file


class Holes(Folder):
    """A folder that keeps zeros as holes, so that a large file takes no room."""

    def append(self, temporary: Temporary, chunk: bytes) -> None:
        """Adds to it."""
        if chunk is PIECE:
            os.lseek(temporary.fd, len(chunk), os.SEEK_CUR)
        else:
            super().append(temporary, chunk)


class Counted:
    """In place of a digest, whose time would be most of the test's."""

    def __init__(self) -> None:
        self.size = 0

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)

    def hexdigest(self) -> str:
        return f"{self.size:064x}"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "volume").mkdir()
    served = Served(tmp_path, rules=(PlacementRule(copies=1),), verify_seconds=0)
    store = StoreConfig("volume", "local", mount=str(tmp_path / "volume"), prefix="lab/")
    served.config = msgspec.structs.replace(served.config, stores=(store,))
    with served:
        yield served


def test_a_file_of_50_gib_goes_in_and_is_read_in_parts(
    volume: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudmesh.data.upload.hashlib", SimpleNamespace(sha256=Counted))
    folder = Holes(str(tmp_path / "volume"))
    member = volume.gateway.mesh.members["volume"]
    monkeypatch.setattr(member.store, "_folder", folder)
    # the disk itself may have less room than that
    monkeypatch.setattr(member, "used_free", None)

    async def content() -> AsyncIterator[bytes]:
        for _ in range(SIZE // len(PIECE) - 1):
            yield PIECE
        yield bytes(len(PIECE) - len(END)) + END

    before = peak()

    done = asyncio.run_coroutine_threadsafe(volume.gateway.tree.put("large", content(), size=SIZE), volume._loop)
    entry = done.result(120)
    assert (entry.size, entry.sha256) == (SIZE, f"{SIZE:064x}")
    assert (tmp_path / "volume/lab/large").stat().st_size == SIZE
    assert volume.ask("GET", "/v1/stat/large").json["size"] == SIZE
    assert volume.ask("HEAD", "/v1/files/large").headers["Content-Length"] == str(SIZE)
    for asked, start, stop in (
        (f"bytes={SIZE - 7}-", SIZE - 7, SIZE), ("bytes=-7", SIZE - 7, SIZE),
        ("bytes=4294967290-4294967300", 4294967290, 4294967301), (f"bytes={1 << 35}-{(1 << 35) + 9}", 1 << 35, None),
    ):  # fmt: skip
        stop = (1 << 35) + 10 if stop is None else stop
        answer = volume.ask("GET", "/v1/files/large", headers={"Range": asked})
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert answer.body == (END if stop == SIZE else bytes(stop - start))
    assert volume.ask("GET", "/v1/files/large", headers={"Range": f"bytes={SIZE}-"}).status == 416
    told = volume.ask("PROPFIND", "/dav/large", headers={"Depth": "0"}).body
    assert f"<D:getcontentlength>{SIZE}</D:getcontentlength>".encode() in told
    # a stretch of it, and whoever reads goes away in the middle
    connection = http.client.HTTPConnection("127.0.0.1", volume.port, timeout=30)
    connection.request("GET", "/v1/files/large", headers={"Authorization": basic()})
    answer = connection.getresponse()
    assert sum(len(answer.read(1 << 20)) for _ in range(200)) == 200 << 20
    connection.close()
    assert peak() - before < 128 << 20


# -- a large directory


def test_a_directory_of_a_million_entries_is_told_in_pages(tmp_path: Path) -> None:
    with Served(tmp_path, webdav=True) as served:
        directory = served.call(served.gateway.tree.mkdir("d"))
        path = Path(served._folder.name) / "catalog.sqlite"
        db = sqlite3.connect(path, isolation_level=None)
        columns = [row[1] for row in db.execute("PRAGMA table_info(entry)")]
        values = dict.fromkeys(columns, "0") | {
            "id": "printf('%016x', i + 16)", "parent": "?", "name": "printf('f%07d', i)", "size": "i",
            "sha256": "''", "content_type": "''", "tags": "''", "version": "1", "live": "1",
        }  # fmt: skip
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'entry'")
        kept = triggers.fetchall()
        db.execute("BEGIN IMMEDIATE")
        for name, _ in kept:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) "
            f"INSERT INTO entry ({', '.join(columns)}) "
            f"SELECT {', '.join(values[c] for c in columns)} FROM n".replace("?,", "?2,"),
            (ENTRIES, directory.id),
        )
        db.execute("UPDATE sums SET files = files + ?", (ENTRIES,))
        for _, text in kept:
            db.execute(text)
        db.execute("COMMIT")
        db.close()

        before = peak()
        after, seen = "", 0
        for _ in range(20):
            page = served.ask("GET", f"/v1/list/d?after={after}").json
            assert [entry["name"] for entry in page["entries"]] == [f"f{n:07}" for n in range(seen, seen + 1000)]
            after, seen = page["after"], seen + 1000
        last = served.ask("GET", f"/v1/list/d?after=f{ENTRIES - 501:07}").json
        assert len(last["entries"]) == 500
        assert "after" not in last
        assert len(served.ask("GET", "/v1/list/?recursive=true&after=d/f0999998").json["entries"]) == 1
        assert served.ask("GET", "/v1/usage").json["files"] == ENTRIES
        # a search ends at its bound, and goes on
        page = served.ask("GET", "/v1/search?name=f*99999").json
        assert page["truncated"] is True
        # WebDAV has no pages: it is streamed, and whoever has enough goes away
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        connection.request("PROPFIND", "/dav/d", headers={"Authorization": basic(), "Depth": "1"})
        answer = connection.getresponse()
        read, names = 0, 0
        while read < 16 << 20:
            piece = answer.read(1 << 16)
            assert piece
            read, names = read + len(piece), names + piece.count(b"<D:response>")
        connection.close()
        assert names > 10_000
        assert served.ask("GET", "/v1/stat/d/f0500000").json["size"] == 500_000
        assert peak() - before < 128 << 20
