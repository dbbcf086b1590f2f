"""Cases of reading and looking."""

from __future__ import annotations

import asyncio

from cloudmesh.data.errors import Changed, Missing
from cloudmesh.engine.errors import AuthFailed, InvalidRequest
from cloudmesh.testing.stores.case import Bench, case, need, noise, refused


@case("read/ranges", "Ranges give exactly their bytes, at the ends too.")
async def ranges(bench: Bench) -> None:
    content = noise(3_000_000)
    await bench.put("x", content)
    for start, length in (
        (0, None),
        (0, 1),
        (1, 10),
        (1_048_575, 2),
        (2_999_999, 5),
        (1_500_000, None),
        (7, 2_900_000),
    ):
        got = await bench.got("x", start=start, length=length)
        end = None if length is None else start + length
        need(got == content[start:end], f"from {start} for {length}: {len(got)} other bytes")


@case("read/outside", "A range of no bytes, or behind the end, gives none.")
async def outside(bench: Bench) -> None:
    await bench.put("x", b"12345")
    for start, length in ((0, 0), (3, 0), (5, None), (5, 1), (99, 3)):
        need(await bench.got("x", start=start, length=length) == b"", f"from {start} for {length}")


@case("read/large", "An object of several parts is read whole, in pieces.")
async def large(bench: Bench) -> None:
    content = noise(2 * bench.harness.part + 12345)
    await bench.put("x", content)
    pieces = [piece async for piece in bench.store.read("x")]
    need(b"".join(pieces) == content, "other bytes")
    need(len(pieces) >= 2 and all(pieces), f"{len(pieces)} pieces, or empty ones")


@case("read/missing", "Reading what isn't there is Missing, whatever the range.")
async def missing(bench: Bench) -> None:
    await bench.put("there/x")
    for key in ("nothing", "there", "there/x/y", "there/nothing"):
        await refused(Missing, bench.got(key), f"reading {key}")
    await refused(Missing, bench.got("nothing", start=3, length=0), "reading no bytes of nothing")
    await refused(Missing, bench.got("nothing", start=3, length=2, if_tag="x"), "reading nothing by a tag")


@case("read/tag", "A read by the tag gives the bytes, by another one it is Changed.")
async def tag(bench: Bench) -> None:
    old = await bench.put("x", b"old")
    new = await bench.put("x", b"newer")
    need(await bench.got("x", if_tag=new.tag) == b"newer", "other bytes")
    await refused(Changed, bench.got("x", if_tag=old.tag), "reading by an old tag")
    await refused(Changed, bench.got("x", if_tag=old.tag, start=1, length=1), "reading a range by an old tag")
    await refused(Changed, bench.got("x", if_tag=old.tag, length=0), "reading nothing by an old tag")


@case("read/replaced", "A read never mixes the bytes of two contents.")
async def replaced(bench: Bench) -> None:
    size = 20_000_000
    old, new = noise(size), noise(size, 1)
    await bench.put("x", old)
    got = b""
    try:
        async for piece in bench.store.read("x"):
            if not got:
                await bench.put("x", new)
            got += piece
        need(got == old, "the bytes are of both, or of the new one")
    except Changed:
        need(old.startswith(got), "the bytes before the error aren't the old ones")


@case("read/left", "A read that is left in the middle holds nothing up.")
async def left(bench: Bench) -> None:
    await bench.put("x", noise(9_000_000))
    for _ in range(30):
        source = bench.store.read("x")
        async for _piece in source:
            break
        await source.aclose()  # type: ignore[attr-defined]
    need(len(await bench.got("x")) == 9_000_000, "it isn't whole")


@case("read/many", "30 reads at the same moment all give their bytes.")
async def many(bench: Bench) -> None:
    await asyncio.gather(*(bench.put(f"k{number}", noise(50_000, number)) for number in range(10)))
    got = await asyncio.gather(*(bench.got(f"k{number % 10}") for number in range(30)))
    need(all(got[number] == noise(50_000, number % 10) for number in range(30)), "other bytes")


@case("read/meddled", "What somebody else has written is read as it is.")
async def meddled(bench: Bench) -> None:
    await bench.harness.meddle("theirs/x", b"by hand")
    found = await bench.seen("theirs/x")
    need(found.size == 7 and found.tag and not found.attributes, f"stat tells {found}")
    need(await bench.got("theirs/x", if_tag=found.tag) == b"by hand", "other bytes")
    await bench.harness.meddle("theirs/x", b"by HAND")
    await refused(Changed, bench.got("theirs/x", if_tag=found.tag), "reading by the tag of before")


@case("read/meddled-ours", "Attributes of ours say nothing of a content that somebody else has put in its place.")
async def meddled_ours(bench: Bench) -> None:
    await bench.put("x", b"ours", attributes={"sha256": "0" * 64} if bench.store.info.attributes else None)
    await bench.harness.meddle("x", b"theirs")
    found = await bench.store.stat("x")
    need(found is not None and not found.attributes, f"stat tells {found}")


@case("stat/none", "Absence is None, also below and above what is there.")
async def none(bench: Bench) -> None:
    await bench.put("d/e/x")
    for key in ("nothing", "d", "d/e", "d/e/x/y", "d/e/x.txt", "d/e/X2"):
        need(await bench.store.stat(key) is None, f"{key} is there")


@case("stat/place", "A missing place is an error and no absence.", needs=["place"])
async def place(bench: Bench) -> None:
    lost = await bench.harness.store(bad_place=True)
    await refused(InvalidRequest, lost.probe(), "probe")
    await refused(InvalidRequest, lost.stat("x"), "stat")
    await refused(InvalidRequest, lost.list(""), "list")
    await refused(InvalidRequest, bench.__class__(bench.harness, lost).got("x"), "read")
    await refused(InvalidRequest, bench.__class__(bench.harness, lost).put("x"), "write")
    await refused(InvalidRequest, lost.delete("x"), "delete")


@case("probe/good", "A probe of a good store tells a time and no complaint.")
async def good(bench: Bench) -> None:
    probe = await bench.store.probe()
    need(probe.latency_ms >= 0 and probe.message == "" and probe.writable is not False, f"{probe}")
    need(probe.skew_ms is None or abs(probe.skew_ms) < 2000, f"the clock is off by {probe.skew_ms} ms")


@case(
    "probe/credentials",
    "Wrong credentials are AuthFailed at each call, and no error shows them.",
    needs=["credentials"],
)
async def credentials(bench: Bench) -> None:
    await bench.put("x")
    bad = await bench.harness.store(bad_credentials=True)
    view = bench.__class__(bench.harness, bad)
    calls = {
        "probe": bad.probe(), "stat": bad.stat("x"), "list": bad.list(""), "read": view.got("x"),
        "write": view.put("y"), "large write": view.put("y", noise(2 * bench.harness.part)), "delete": bad.delete("x"),
    }  # fmt: skip
    for name, call in calls.items():
        error = await refused(AuthFailed, call, name)
        for secret in bench.harness.secrets:
            need(secret not in str(error), f"the error of {name} shows a secret")
    await bench.there("x", b"content")
    await bench.absent("y")
