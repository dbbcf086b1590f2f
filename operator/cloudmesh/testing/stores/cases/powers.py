"""Cases of powers that not every store has, and of limits."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

from cloudmesh.data.errors import Changed, Exists, Missing
from cloudmesh.testing.stores.case import Bench, case, chunks, need, noise, refused


def _power(bench: Bench, name: str) -> Any:
    return getattr(bench.store, name)


@case("copy/one", "A copy has the bytes and attributes of its source, which stays.", power="Copier")
async def copy(bench: Bench) -> None:
    content = noise(2 * bench.harness.part + 5)
    texts = {"id": "1", "sha256": "0" * 64} if bench.store.info.attributes else {}
    await bench.put("a/x", content, attributes=texts)
    seen = await _power(bench, "copy")("a/x", "b/y")
    need(seen.size == len(content) and seen.key == "b/y", f"{seen}")
    await bench.there("b/y", content)
    await bench.there("a/x", content)
    found = await bench.store.stat("b/y")
    need(found is not None and found.attributes == texts and found.tag == seen.tag, f"{found}, the copy told {seen}")


@case("copy/attributes", "A copy can get attributes of its own.", power="Copier", attributes=True)
async def copy_attributes(bench: Bench) -> None:
    await bench.put("x", attributes={"id": "1", "version": "3"})
    await _power(bench, "copy")("x", "y", attributes={"id": "2"})
    found = await bench.store.stat("y")
    need(found is not None and found.attributes == {"id": "2"}, f"{found}")


@case("copy/over", "A copy replaces what was at its target.", power="Copier")
async def copy_over(bench: Bench) -> None:
    await bench.put("x", b"new")
    await bench.put("y", b"something old")
    await _power(bench, "copy")("x", "y")
    await bench.there("y", b"new")


@case(
    "copy/absent",
    "A copy tied to absence makes an object, small or large, and spares one that is there.",
    power="Copier",
    attributes=True,
)
async def copy_absent(bench: Bench) -> None:
    large = noise(2 * bench.harness.part + 5)
    for source, content in (("empty", b""), ("small", b"new"), ("large", large)):
        await bench.put(source, content, attributes={"id": "1"})
        await bench.put(f"there/{source}", b"somebody else's")
        made = await _power(bench, "copy")(source, f"made/{source}", if_absent=True, attributes={"id": "2"})
        await bench.there(f"made/{source}", content)
        found = await bench.store.stat(f"made/{source}")
        need(found is not None and (found.tag, found.attributes) == (made.tag, {"id": "2"}), f"{found}, told {made}")
        over = _power(bench, "copy")(source, f"there/{source}", if_absent=True)
        await refused(Exists, over, f"a copy of '{source}' over an object")
        await bench.there(f"there/{source}", b"somebody else's")


@case("copy/absent-race", "Of eight copies that want absence exactly one wins.", power="Copier", conditional="Create")
async def copy_absent_race(bench: Bench) -> None:
    for number in range(8):
        await bench.put(f"x{number}", b"%d" % number)
    copies = [_power(bench, "copy")(f"x{number}", "y", if_absent=True) for number in range(8)]
    ended = await asyncio.gather(*copies, return_exceptions=True)
    won = [number for number, one in enumerate(ended) if not isinstance(one, BaseException)]
    need(len(won) == 1, f"{len(won)} won: {ended}")
    need(all(isinstance(one, Changed) for n, one in enumerate(ended) if n not in won), f"the others heard {ended}")
    await bench.there("y", b"%d" % won[0])


@case("copy/tag", "A copy tied to a tag that has changed, or of nothing, makes nothing.", power="Copier")
async def copy_tag(bench: Bench) -> None:
    old = await bench.put("x", b"old")
    await bench.put("x", b"newer")
    await refused(Changed, _power(bench, "copy")("x", "y", if_tag=old.tag), "a copy by an old tag")
    await refused(Missing, _power(bench, "copy")("nothing", "y"), "a copy of nothing")
    await bench.absent("y")


@case("presign/get", "A link reads the object without credentials, and nothing else.", power="Presigner")
async def presign(bench: Bench) -> None:
    await bench.put("a b/é%41.txt", b"shared")
    await bench.put("a b/é%41.txu", b"secret")
    url = await _power(bench, "presign")("a b/é%41.txt", 60)

    def fetch(address: str) -> bytes:
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - of the store
            return bytes(answer.read())

    need(await asyncio.to_thread(fetch, url) == b"shared", "other bytes")
    try:
        await asyncio.to_thread(fetch, url.replace(".txt", ".txu"))
    except OSError:
        pass
    else:
        need(False, "the link opens another name")
    for secret in bench.harness.secrets:
        need(secret not in url, "the link shows a secret")


@case("sweep/young", "A sweep spares what is young, and objects.", power="Sweeper", needs=["leftovers"])
async def sweep(bench: Bench) -> None:
    stuck, go = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        async for piece in chunks(noise(2 * bench.harness.part)):
            yield piece
        stuck.set()
        await go.wait()
        yield b"end"

    await bench.put("y")
    task = asyncio.create_task(bench.store.write("x", source()))
    await stuck.wait()
    try:
        need(await _power(bench, "sweep")("", 3600) == 0, "it took something young")
    finally:
        go.set()
        await asyncio.wait([task])
    await task
    await bench.there("x", noise(2 * bench.harness.part) + b"end")
    need(await _power(bench, "sweep")("", 0) == 0, "it took something that isn't a rest")
    await bench.there("y", b"content")


@case("capacity/told", "Bytes used and free are told.", power="Capacity")
async def capacity(bench: Bench) -> None:
    told = await _power(bench, "capacity")()
    need(told is not None, "nothing is told: let the harness set a limit")
    used, free = told
    need(used >= 0 and free > 0, f"{used} used, {free} free")


@case("limits/requests", "No more requests a second than allowed.")
async def requests(bench: Bench) -> None:
    slow = await bench.harness.store(requests=20)
    await bench.put("x")
    begin = time.monotonic()
    await asyncio.gather(*(slow.stat("x") for _ in range(16)))
    took = time.monotonic() - begin
    need(took > 0.5, f"16 requests in {took:.2f} s at 20 a second")


@case("limits/bytes", "No more bytes a second than allowed, both ways.")
async def bytes_a_second(bench: Bench) -> None:
    slow = await bench.harness.store(size=1_000_000)
    begin = time.monotonic()
    await slow.write("x", chunks(noise(300_000), size=50_000))
    halfway = time.monotonic() - begin
    need(halfway > 0.1, f"300 KB written in {halfway:.2f} s at 1 MB a second")
    need(sum([len(piece) async for piece in slow.read("x")]) == 300_000, "other bytes")


@case("close/twice", "A store can be closed twice.")
async def twice(bench: Bench) -> None:
    other = await bench.harness.store()
    await other.write("x", chunks(b"1"))
    await other.close()
    await other.close()
    await bench.there("x", b"1")


@case("folders/blocked", "What is a file or a folder in the way of a key is named, and nothing else.", power="Folders")
async def blocked(bench: Bench) -> None:
    await bench.put("a", b"1")
    await bench.put("d/e", b"2")
    look = _power(bench, "blocked")
    for key, expected in (("a/b/c", "a"), ("d", "d"), ("a", ""), ("d/e", ""), ("d/f", ""), ("new/one", "")):
        found = await look(key)
        need(found == expected, f"{key}: {found!r} is in its way, not {expected!r}")
