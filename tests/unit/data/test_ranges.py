"""Parts of files, and stores that fail while they are read or written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from tests.unit.data.gateway_scene import Served, until

from cloudmesh.data import following, mesh, writer
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.errors import Full, Missing
from cloudmesh.data.gateway import service
from cloudmesh.data.gateway.reading import span
from cloudmesh.data.model import MICROS
from cloudmesh.engine.errors import Transient

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(5 * MIB + 12345)


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-0", 10, (0, 1)), ("bytes=0-9", 10, (0, 10)), ("bytes=0-", 10, (0, 10)), ("bytes=9-", 10, (9, 10)),
        ("bytes=3-999999999999999999", 10, (3, 10)), ("bytes=-1", 10, (9, 10)), ("bytes=-10", 10, (0, 10)),
        ("bytes=-99", 10, (0, 10)), (" bytes=1-2 ", 10, (1, 3)),
        # not one range of bytes: the whole file is an answer to that
        ("bytes=-", 10, None), ("bytes=5-4", 10, None), ("bytes=0-1,3-4", 10, None), ("bytes", 10, None),
        ("lines=0-1", 10, None), ("bytes=a-b", 10, None), ("bytes=0-1;x", 10, None), ("", 10, None),
        ("bytes=1-9999999999999999999", 10, None), ("bytes=--1", 10, None), ("bytes=+1-2", 10, None),
        ("bytes=²-3", 10, None),
    ],
)  # fmt: skip
def test_span(header: str, size: int, expected: tuple[int, int] | None) -> None:
    assert span(header, size) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=99-100", "bytes=-0"])
def test_a_span_that_is_outside(header: str) -> None:
    with pytest.raises(web.HTTPRequestRangeNotSatisfiable) as caught:
        span(header, 10)
    assert caught.value.headers["Content-Range"] == "bytes */10"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("gateway")) as served:
        assert served.ask("PUT", "/v1/files/big", CONTENT).status == 201
        yield served


def test_parts_of_a_file(shared: Served) -> None:
    rest = [(0, 1), (0, len(CONTENT)), (MIB - 1, MIB + 1), (MIB, 2 * MIB), (len(CONTENT) - 1, len(CONTENT))]
    for start, stop in rest:
        got = shared.ask("GET", "/v1/files/big", headers={"Range": f"bytes={start}-{stop - 1}"})
        assert got.status == 206
        assert got.body == CONTENT[start:stop]
        assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
        assert got.headers["Content-Length"] == str(stop - start)
    outside = shared.ask("GET", "/v1/files/big", headers={"Range": f"bytes={len(CONTENT)}-"})
    assert outside.problem[0] == 416
    assert outside.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
    several = shared.ask("GET", "/v1/files/big", headers={"Range": "bytes=0-1,5-6"})
    assert (several.status, several.body == CONTENT) == (200, True)


def test_a_part_only_if_it_is_the_same_file(shared: Served) -> None:
    etag = shared.ask("HEAD", "/v1/files/big").headers["ETag"]
    for if_range, status in (
        (etag, 206), ('"other"', 200), (f"W/{etag}", 200), ("Mon, 03 Feb 2020 04:05:06 GMT", 200),
    ):  # fmt: skip
        got = shared.ask("GET", "/v1/files/big", headers={"Range": "bytes=0-9", "If-Range": if_range})
        assert (got.status, len(got.body)) == (status, 10 if status == 206 else len(CONTENT))
    # who has it needs no part, and who wants another one gets none
    held = shared.ask("GET", "/v1/files/big", headers={"Range": "bytes=0-9", "If-None-Match": etag})
    assert held.status == 304
    other = shared.ask("GET", "/v1/files/big", headers={"Range": "bytes=0-9", "If-Match": '"other"'})
    assert other.problem == (412, "Changed")


# -- stores that fail


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores are looked at more often than every 10 seconds, and what a write left open ends sooner."""
    monkeypatch.setattr(mesh, "PROBE_SECONDS", (0.1, 0.3))
    monkeypatch.setattr(writer, "LEASE", MICROS)
    monkeypatch.setattr(service, "RECOVERY_SECONDS", 0.2)


@pytest.fixture
def served(tmp_path: Any) -> Iterator[Served]:
    with Served(tmp_path, verify_seconds=0) as served:
        assert served.ask("PUT", "/v1/files/big", CONTENT).status == 201
        until(lambda: served.ask("GET", "/v1/usage").json["pending"] == 0)
        yield served


def fail(served: Served, store: str, error: Exception, *operations: str) -> list[str]:
    """From now on a store's operations fail; gives what was asked of it."""
    asked: list[str] = []

    async def hook(moment: str, operation: str, key: str) -> None:
        if moment == "before" and operation in operations and not key.startswith(".cloudmesh/journal"):
            asked.append(f"{operation} {key}")
            raise error

    served.place(store).hook = hook
    return asked


def state_of(served: Served, store: str) -> str:
    return {s["name"]: s["state"] for s in served.ask("GET", "/v1/usage").json["stores"]}[store]


@pytest.mark.parametrize("away", ["one", "two"])
def test_a_store_that_is_away_when_asked(served: Served, away: str) -> None:
    fail(served, away, Transient("it is away"), "read", "stat", "probe", "list", "publish", "delete")
    for _ in range(3):
        got = served.ask("GET", "/v1/files/big")
        assert (got.status, got.body == CONTENT) == (200, True)
    until(lambda: state_of(served, away) == "Unknown")
    # it is written to as well, and said where it lies
    assert served.ask("PUT", "/v1/files/during", b"new").status == 201
    where = {c["store"]: c for c in served.ask("GET", "/v1/where/big").json["copies"]}
    assert where[away]["up"] is False
    served.place(away).hook = None
    until(lambda: "during" in served.place(away).objects)


@pytest.mark.parametrize("away", ["one", "two"])
def test_a_read_that_breaks_goes_on_with_the_other_copy(served: Served, away: str) -> None:
    served.place(away).reads_end = MIB + 7
    other = {"one": "two", "two": "one"}[away]
    # the other one is asked second
    served.call(_slower(served, other))
    for start, stop in ((0, len(CONTENT)), (5, len(CONTENT) - 5)):
        got = served.ask("GET", "/v1/files/big", headers={"Range": f"bytes={start}-{stop - 1}"})
        assert got.body == CONTENT[start:stop]


async def _slower(served: Served, store: str) -> None:
    served.gateway.mesh.members[store].latency_ms = 1000


def test_a_read_that_can_go_on_nowhere_is_cut(served: Served) -> None:
    for store in ("one", "two"):
        served.place(store).reads_end = MIB + 7
    answer = served.raw("GET /v1/files/big HTTP/1.1\nHost: x\nAuthorization: Basic YWRhOmNvcnJlY3QgaG9yc2U=")
    head, _, body = answer.partition(b"\r\n\r\n")
    # nobody takes the part for the whole, and no second answer stands behind it
    assert f"Content-Length: {len(CONTENT)}".encode() in head
    assert len(body) < len(CONTENT)
    assert CONTENT.startswith(body)


def test_no_store_can_be_read(served: Served) -> None:
    for store in ("one", "two"):
        fail(served, store, Transient("it is away"), "read", "probe")
    for _ in range(2):
        answer = served.ask("GET", "/v1/files/big")
        assert answer.problem == (503, "Transient")
        assert answer.headers["Retry-After"] == "5"
        assert "it is away" in answer.json["detail"]


def test_a_copy_that_is_lost_is_made_again(served: Served) -> None:
    served.place("one").remove("big")
    for _ in range(5):
        assert served.ask("GET", "/v1/files/big").body == CONTENT
        served.call(_slower(served, "two"))
    until(lambda: "big" in served.place("one").objects)
    assert served.place("one").objects["big"].content == CONTENT


def test_a_copy_that_was_changed_by_somebody_else_is_never_read(served: Served) -> None:
    served.place("one").put("big", b"x" * len(CONTENT))
    served.call(_slower(served, "two"))
    got = served.ask("GET", "/v1/files/big", headers={"Range": "bytes=0-99"})
    assert got.body == CONTENT[:100]
    assert served.ask("GET", "/v1/files/big").body == CONTENT


def test_writes_that_fail_leave_what_was(served: Served) -> None:
    for store in ("one", "two"):
        fail(served, store, Full("no room"), "publish")
    assert served.ask("PUT", "/v1/files/big", b"new").problem[0] == 507
    assert served.ask("PUT", "/v1/files/other", b"new").problem[0] == 507
    for store in ("one", "two"):
        served.place(store).hook = None
    assert served.ask("GET", "/v1/files/big").body == CONTENT
    assert served.ask("GET", "/v1/stat/other").problem == (404, "Missing")
    assert served.ask("PUT", "/v1/files/big", b"new").json["version"] == 2


def test_too_few_copies(tmp_path: Any) -> None:
    with Served(tmp_path, rules=(PlacementRule(copies=2, min_copies=2),)) as served:
        fail(served, "two", Transient("it is away"), "publish", "stat", "read", "probe")
        assert served.ask("PUT", "/v1/files/a", b"x").problem[0] == 503
        assert served.ask("GET", "/v1/stat/a").problem == (404, "Missing")
        served.place("two").hook = None
        until(lambda: served.ask("PUT", "/v1/files/a", b"x").status == 201)


def test_a_store_that_loses_all_is_not_believed(served: Served) -> None:
    served.place("one").objects.clear()
    fail(served, "one", Missing("there is nothing"), "read")
    assert served.ask("GET", "/v1/files/big").body == CONTENT
    states = until(
        lambda: (
            (s := {s["name"]: s for s in served.ask("GET", "/v1/usage").json["stores"]})["one"]["state"] != "Up" and s
        ),
        30,
    )
    assert states["one"]["state"] == "Suspicious"
    assert served.ask("GET", "/v1/files/big").body == CONTENT


def test_whatever_strangers_left_is_adopted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects with attributes like ours and nonsense in them, and names that no path can have."""
    monkeypatch.setattr(following, "EVERY_SECONDS", 0.1)
    odd = [
        {"mtime": "soon"}, {"mtime": "9" * 40}, {"mtime": "-5"}, {"sha256": "zz"}, {"sha256": "a" * 63},
        {"id": "x" * 100}, {"id": "0" * 16}, {"id": "f" * 16}, {"version": "x", "write": "y", "id": ""},
    ]  # fmt: skip
    with Served(tmp_path, ("one",)) as served:
        for number, attributes in enumerate(odd):
            served.call(_left(served, f"odd/{number}", attributes))
        for key in ("odd/../up", "odd//x", "odd/./y", "odd/" + "x" * 2000, "dir/"):
            served.call(_left(served, key, {}))
        served.call(_left(served, "odd/last", {}))
        until(lambda: served.ask("GET", "/v1/files/odd/last").body == b"stranger")
        for number in range(len(odd)):
            assert served.ask("GET", f"/v1/files/odd/{number}").body == b"stranger", odd[number]
            assert served.ask("GET", f"/v1/stat/odd/{number}").status == 200
        found = {e["path"] for e in served.ask("GET", "/v1/list/?recursive=true").json["entries"]}
        assert found == {"odd", "odd/last", *(f"odd/{number}" for number in range(len(odd)))}
        assert served.ask("GET", "/healthz").body == b"ok"


async def _left(served: Served, key: str, attributes: dict[str, str]) -> None:
    served.place("one").put(key, b"stranger", attributes)


# -- quota


def test_the_quota(tmp_path: Any) -> None:
    with Served(tmp_path, quota_bytes=1000, quota_files=3) as served:
        assert served.ask("PUT", "/v1/files/a", b"x" * 600).status == 201
        assert served.ask("PUT", "/v1/files/b", b"x" * 401).problem == (507, "Full")
        assert served.ask("PUT", "/v1/files/b", iter([b"x" * 401]), {"Transfer-Encoding": "chunked"}).problem[0] == 507
        big = iter([b"x" * MIB] * 3)
        assert served.ask("PUT", "/v1/files/b", big, {"Transfer-Encoding": "chunked"}).problem == (507, "Full")
        assert served.ask("GET", "/v1/stat/b").status == 404
        assert served.ask("PUT", "/v1/files/b", b"x" * 400).status == 201
        # over itself there is as much room as it had
        assert served.ask("PUT", "/v1/files/a", b"y" * 600).status == 200
        assert served.ask("PUT", "/v1/files/a", b"y" * 601).problem == (507, "Full")
        assert served.ask("GET", "/v1/files/a").body == b"y" * 600
        assert served.ask("POST", "/v1/copy", {"from": "b", "to": "c"}).problem == (507, "Full")
        assert served.ask("PUT", "/v1/files/c", b"").status == 201
        assert served.ask("PUT", "/v1/files/d", b"").problem == (507, "Full")
        assert served.ask("DELETE", "/v1/files/a").status == 204
        assert served.ask("PUT", "/v1/files/d", b"x" * 600).status == 201


def test_requests_beside_each_other_keep_to_one_content(served: Served) -> None:
    """Whoever reads while others write gets one version whole, never a mix."""
    contents = [bytes([n]) * 300_000 for n in range(6)]

    async def many() -> list[bytes]:
        def read() -> bytes:
            answer = served.ask("GET", "/v1/files/many")
            return answer.body if answer.status == 200 else b"" if answer.status in (412, 503) else answer.problem

        writes = [asyncio.to_thread(served.ask, "PUT", "/v1/files/many", c) for c in contents]
        reads = [asyncio.to_thread(read) for _ in range(12)]
        done = await asyncio.gather(*writes, *reads)
        assert {a.status for a in done[:6]} <= {200, 201}
        return done[6:]

    assert served.ask("PUT", "/v1/files/many", contents[0]).status == 201
    for seen in asyncio.run(many()):
        assert seen in [*contents, b""]
    assert served.ask("GET", "/v1/stat/many").json["version"] == 7
