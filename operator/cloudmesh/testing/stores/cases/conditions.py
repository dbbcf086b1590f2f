"""Cases of writes that are tied to what is there: of two writers exactly one wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from cloudmesh.data.errors import Changed, Exists
from cloudmesh.data.stores.ports import Object
from cloudmesh.testing.stores.case import Bench, case, chunks, need, noise, refused


@case("absent/one", "A write tied to absence makes an object, and doesn't touch one.", conditional="Create")
async def absent(bench: Bench) -> None:
    await bench.put("x", b"first", if_absent=True)
    await refused(Exists, bench.put("x", b"second", if_absent=True), "a write over an object")
    await bench.there("x", b"first")


@case(
    "absent/large",
    "A write of several parts tied to absence spares an object and leaves no rest.",
    conditional="Create",
)
async def absent_large(bench: Bench) -> None:
    size = 2 * bench.harness.part
    await bench.put("x", noise(size), if_absent=True)
    await refused(Exists, bench.put("x", noise(size, 1), if_absent=True), "a large write over an object")
    await bench.there("x", noise(size))


@case("absent/empty", "A write of 0 bytes tied to absence spares an object of 0 bytes.", conditional="Create")
async def absent_empty(bench: Bench) -> None:
    await bench.put("x", b"", if_absent=True)
    await refused(Exists, bench.put("x", b"", if_absent=True), "a write over an empty object")
    await bench.there("x", b"")


@case("tag/one", "A write tied to a tag replaces that content, and no other.", conditional="Full")
async def tag(bench: Bench) -> None:
    first = await bench.put("x", b"first")
    second = await bench.put("x", b"second", if_tag=first.tag)
    await refused(Changed, bench.put("x", b"third", if_tag=first.tag), "a write tied to an old tag")
    await bench.there("x", b"second")
    await bench.put("x", b"fourth", if_tag=second.tag)
    await bench.there("x", b"fourth")


@case(
    "tag/large", "A write of several parts tied to a tag spares another content and leaves no rest.", conditional="Full"
)
async def tag_large(bench: Bench) -> None:
    size = 2 * bench.harness.part
    first = await bench.put("x", noise(size))
    second = await bench.put("x", noise(size, 1), if_tag=first.tag)
    await refused(Changed, bench.put("x", noise(size, 2), if_tag=first.tag), "a large write tied to an old tag")
    await bench.there("x", noise(size, 1))
    need((await bench.put("x", b"small", if_tag=second.tag)).size == 5, "another size")


@case("tag/gone", "A write tied to a tag makes nothing where the object is gone.", conditional="Full")
async def tag_gone(bench: Bench) -> None:
    seen = await bench.put("x")
    await bench.store.delete("x")
    await refused(Changed, bench.put("x", b"new", if_tag=seen.tag), "a write over what is gone")
    await refused(
        Changed, bench.put("x", noise(2 * bench.harness.part), if_tag=seen.tag), "a large write over what is gone"
    )
    await bench.absent("x")


@case("tag/meddled", "A write tied to a tag spares what somebody else has put there since.", conditional="Full")
async def tag_meddled(bench: Bench) -> None:
    seen = await bench.put("x", b"ours")
    await bench.harness.meddle("x", b"theirs!")
    await refused(Changed, bench.put("x", b"new", if_tag=seen.tag), "a write over another's content")
    await refused(Changed, bench.store.delete("x", if_tag=seen.tag), "a delete of another's content")
    await bench.there("x", b"theirs!")


@case("tag/same-size", "Many contents of one size, written one after the other, have tags that differ.")
async def same_size(bench: Bench) -> None:
    tags = [(await bench.put("x", noise(100, number))).tag for number in range(12)]
    need(len(set(tags)) == 12, f"{12 - len(set(tags))} tags came twice")


async def _race(bench: Bench, size: int, writers: int, **tied: str | bool) -> None:
    other = await bench.harness.store()
    ready = asyncio.Barrier(writers)

    async def source(number: int) -> AsyncIterator[bytes]:
        async for piece in chunks(noise(size, number)):
            yield piece
        await ready.wait()  # all end at the same moment

    answers = await asyncio.gather(
        *((bench.store, other)[n % 2].write("x", source(n), **tied) for n in range(writers)),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    won = [number for number, answer in enumerate(answers) if isinstance(answer, Object)]
    need(len(won) == 1, f"{len(won)} of {writers} writers won: {answers!r:.300}")
    for number, answer in enumerate(answers):
        need(number in won or isinstance(answer, Changed), f"a loser got {answer!r:.200}")
    await bench.there("x", noise(size, won[0]))
    found = await bench.store.stat("x")
    winner = answers[won[0]]
    need(isinstance(winner, Object) and found is not None and found.tag == winner.tag, "the winner has another tag")


@case("absent/race", "Of eight writers that want absence exactly one wins.", conditional="Create")
async def absent_race(bench: Bench) -> None:
    await _race(bench, 1000, 8, if_absent=True)


@case("absent/race-large", "Of two writers of several parts that want absence exactly one wins.", conditional="Create")
async def absent_race_large(bench: Bench) -> None:
    await _race(bench, 2 * bench.harness.part, 2, if_absent=True)


@case("tag/race", "Of eight writers that want the same tag exactly one wins.", conditional="Full")
async def tag_race(bench: Bench) -> None:
    seen = await bench.put("x", b"old")
    await _race(bench, 1000, 8, if_tag=seen.tag)


@case("tag/race-large", "Of two writers of several parts that want the same tag exactly one wins.", conditional="Full")
async def tag_race_large(bench: Bench) -> None:
    seen = await bench.put("x", b"old")
    await _race(bench, 2 * bench.harness.part, 2, if_tag=seen.tag)


@case("tag/counter", "Ten writers that each add one to a number, by tag, lose none.", conditional="Full")
async def counter(bench: Bench) -> None:
    await bench.put("n", b"0", attributes=None)

    async def add() -> None:
        for _ in range(100):
            seen = await bench.seen("n")
            try:
                number = int(await bench.got("n", if_tag=seen.tag))
                await bench.put("n", str(number + 1).encode(), if_tag=seen.tag)
            except Changed:
                continue
            return
        need(False, "100 tries weren't enough")

    await asyncio.gather(*(add() for _ in range(10)))
    await bench.there("n", b"10")
