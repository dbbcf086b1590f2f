"""Cases of a back end or a connection that fails: what is unknown is told as unknown, and nothing is half there."""

from __future__ import annotations

import time

from cloudmesh.data.errors import Exists, Full, ReadOnly
from cloudmesh.engine.errors import RateLimited, Transient
from cloudmesh.testing.stores.case import Bench, case, need, noise, refused


@case(
    "broken/before", "A write whose connection breaks before it arrived is Transient, and made nothing.", needs=["drop"]
)
async def before(bench: Bench) -> None:
    await bench.inject("drop", "publish", times=None)
    await refused(Transient, bench.put("x"), "a write")
    await bench.harness.heal()
    await bench.absent("x")
    await bench.put("x", b"second try")
    await bench.there("x", b"second try")


@case("broken/after", "A write whose answer is lost is Transient; a look then finds it.", needs=["lose"])
async def after(bench: Bench) -> None:
    texts = {"write": "w1"} if bench.store.info.attributes else None
    await bench.inject("lose", "publish")
    await refused(Transient, bench.put("x", b"done", attributes=texts), "a write")
    await bench.there("x", b"done")
    found = await bench.store.stat("x")
    need(found is not None and found.attributes == (texts or {}), f"stat tells {found}")


@case(
    "broken/after-absent",
    "A write tied to absence whose answer is lost is Transient and not Exists: nobody repeats it unasked.",
    needs=["lose"],
    conditional="Create",
)
async def after_absent(bench: Bench) -> None:
    await bench.inject("lose", "publish")
    await refused(Transient, bench.put("x", b"done", if_absent=True), "a write")
    await bench.there("x", b"done")
    await refused(Exists, bench.put("x", b"again", if_absent=True), "the next one")


@case(
    "broken/after-large",
    "A large write whose last answer is lost is Transient, and there, without a rest.",
    needs=["lose"],
)
async def after_large(bench: Bench) -> None:
    content = noise(2 * bench.harness.part + 1)
    await bench.inject("lose", "publish")
    await refused(Transient, bench.put("x", content), "a write")
    await bench.there("x", content)


@case(
    "broken/before-large", "A large write that can't be completed leaves the old content and no rest.", needs=["drop"]
)
async def before_large(bench: Bench) -> None:
    await bench.put("x", b"old")
    await bench.inject("drop", "publish", times=None)
    await refused(Transient, bench.put("x", noise(2 * bench.harness.part + 1)), "a write")
    await bench.harness.heal()
    await bench.there("x", b"old")


@case("broken/part", "A part that fails once is sent again.", needs=["network"])
async def part(bench: Bench) -> None:
    content = noise(3 * bench.harness.part + 1)
    await bench.inject("drop", "part")
    await bench.inject("fail", "part")
    await bench.put("x", content)
    await bench.there("x", content)


@case(
    "broken/parts", "A large write whose parts keep failing ends, with the old content and no rest.", needs=["network"]
)
async def parts(bench: Bench) -> None:
    await bench.put("x", b"old")
    await bench.inject("fail", "part", times=None)
    await refused(Transient, bench.put("x", noise(4 * bench.harness.part + 1)), "a write")
    await bench.harness.heal()
    await bench.there("x", b"old")


@case("broken/delete", "A delete whose answer is lost is Transient; the next one is fine.", needs=["lose"])
async def delete(bench: Bench) -> None:
    await bench.put("x")
    await bench.inject("lose", "delete")
    await refused(Transient, bench.store.delete("x"), "a delete")
    await bench.absent("x")
    await bench.store.delete("x")


@case("broken/read", "A read that fails once is tried again.", needs=["network"])
async def read(bench: Bench) -> None:
    await bench.put("x", noise(5_000_000))
    await bench.inject("fail", "read")
    need(await bench.got("x") == noise(5_000_000), "other bytes")
    await bench.inject("drop", "read")
    need(await bench.got("x") == noise(5_000_000), "other bytes")


@case("broken/no-absence", "What doesn't answer has not said that there is nothing.", needs=["drop", "fail"])
async def no_absence(bench: Bench) -> None:
    for what in ("drop", "fail"):
        await bench.inject(what, times=None)
        await refused(Transient, bench.store.stat("x"), f"stat, {what}")
        await refused(Transient, bench.store.list(""), f"list, {what}")
        await refused(Transient, bench.got("x"), f"read, {what}")
        await refused(Transient, bench.store.probe(), f"probe, {what}")
        await bench.harness.heal()


@case("broken/garbage", "A page of HTML is no answer, whatever its status.", needs=["garbage"])
async def garbage(bench: Bench) -> None:
    for status in (200, 404, 502):
        await bench.inject("garbage", times=None, status=status)
        await refused(Transient, bench.store.stat("x"), f"stat, {status}")
        await refused(Transient, bench.store.list(""), f"list, {status}")
        await refused(Transient, bench.got("x"), f"read, {status}")
        await refused(Transient, bench.put("x"), f"write, {status}")
        await bench.harness.heal()
    await bench.absent("x")


@case("broken/hang", "A call that never gets an answer ends by itself as Transient.", needs=["hang"])
async def hang(bench: Bench) -> None:
    await bench.inject("hang", times=None)
    begin = time.monotonic()
    await refused(Transient, bench.put("x"), "a write")
    took = time.monotonic() - begin
    need(took < bench.harness.case_seconds / 3, f"it took {took:.0f} s")
    await refused(Transient, bench.store.stat("x"), "stat")
    await bench.harness.heal()
    await bench.absent("x")


@case("broken/limit", "A store that asks for fewer calls is RateLimited.", needs=["limit"])
async def limit(bench: Bench) -> None:
    await bench.inject("limit", times=None)
    await refused(RateLimited, bench.put("x"), "a write")
    await refused(RateLimited, bench.store.list(""), "list")
    await refused(RateLimited, bench.got("x"), "read")
    await bench.harness.heal()
    await bench.absent("x")


@case("broken/full", "A write for which there is no room is Full, and leaves the old content.", needs=["full"])
async def full(bench: Bench) -> None:
    await bench.put("x", b"old")
    await bench.inject("full")
    await refused(Full, bench.put("x", noise(2 * bench.harness.part)), "a write")
    await bench.harness.heal()
    await bench.there("x", b"old")


@case("broken/read-only", "A store that takes no writes is ReadOnly, and still reads.", needs=["read-only"])
async def read_only(bench: Bench) -> None:
    await bench.put("x", b"old")
    await bench.inject("read-only")
    await refused(ReadOnly, bench.put("x", b"new"), "a write")
    await refused(ReadOnly, bench.store.delete("x"), "a delete")
    need(await bench.got("x") == b"old", "other bytes")
    await bench.harness.heal()
    await bench.there("x", b"old")


@case("list/lag", "A store whose listings come late declares it, and a look doesn't come late.", needs=["lag"])
async def lag(bench: Bench) -> None:
    await bench.inject("lag", seconds=0.2)
    late = await bench.harness.store()
    need(late.info.listing == "Eventual", "it declares listings as strong")
    await bench.__class__(bench.harness, late).put("x")
    need(await late.stat("x") is not None, "a look doesn't see it")
    need((await late.list("")).objects == (), "a listing shows it at once: the harness does nothing")
