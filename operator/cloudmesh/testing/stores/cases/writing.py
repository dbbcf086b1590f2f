"""Cases of writing and deleting: all at once or not at all, whatever happens to the source."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator

from cloudmesh.data.errors import Changed
from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.testing.stores.case import Bench, SourceBroke, case, chunks, need, noise, refused


@case("write/one", "A written object is there, byte for byte, with its size and a tag.")
async def one(bench: Bench) -> None:
    content = noise(5000)
    seen = await bench.put("a/b.csv", content)
    need((seen.key, seen.size) == ("a/b.csv", 5000) and seen.tag, f"{seen}")
    await bench.there("a/b.csv", content)
    found = await bench.store.stat("a/b.csv")
    need(found is not None and (found.size, found.tag) == (5000, seen.tag), f"stat tells {found}")


@case("write/empty", "An object of 0 bytes can be written, read and looked at.")
async def empty(bench: Bench) -> None:
    seen = await bench.put("empty", b"", size=0)
    await bench.there("empty", b"")
    need(await bench.got("empty") == b"", "it isn't empty")
    found = await bench.store.stat("empty")
    need(found is not None and found.size == 0 and found.tag == seen.tag, f"stat tells {found}")


@case("write/no-chunks", "Empty chunks among others change nothing.")
async def no_chunks(bench: Bench) -> None:
    await bench.store.write("x", chunks([b"", b"one", b"", b"two", b""]))
    await bench.there("x", b"onetwo")


def _of_size(name: str, words: str, more: int, parts: int) -> None:
    @case(f"write/{name}", f"An object of {words} is whole.", attributes=True)
    async def run(bench: Bench) -> None:
        content = noise(parts * bench.harness.part + more)
        seen = await bench.put("big", content, size=len(content), attributes={"id": "1"})
        need(seen.size == len(content), f"its size is told as {seen.size}")
        await bench.there("big", content)
        found = await bench.store.stat("big")
        need(found is not None and found.tag == seen.tag and found.attributes == {"id": "1"}, f"stat tells {found}")


_of_size("one-part", "exactly one part", 0, 1)
_of_size("one-part-and-a-byte", "one part and a byte", 1, 1)
_of_size("three-parts", "three parts and some, its size known", 4711, 3)


@case("write/unknown-size", "An object of several parts is whole although nobody knew its size.")
async def unknown_size(bench: Bench) -> None:
    content = noise(2 * bench.harness.part + 99)
    await bench.store.write("big", chunks(content, size=700_001))
    await bench.there("big", content)


@case("write/over", "A write over an object replaces it, with another tag.")
async def over(bench: Bench) -> None:
    first = await bench.put("x", b"first")
    second = await bench.put("x", b"second, longer")
    need(first.tag != second.tag, "both have the same tag")
    await bench.there("x", b"second, longer")


@case("write/over-by-less", "A shorter content over a longer one leaves nothing of it.")
async def over_by_less(bench: Bench) -> None:
    await bench.put("x", noise(bench.harness.part + 5))
    await bench.put("x", b"short")
    await bench.there("x", b"short")


async def _broken(bench: Bench, size: int, before: bytes | None) -> None:
    if before is not None:
        await bench.put("x", before)

    async def source() -> AsyncIterator[bytes]:
        async for piece in chunks(noise(size)):
            yield piece
        raise SourceBroke("in the middle")

    with contextlib.suppress(SourceBroke):
        await bench.store.write("x", source())
        need(False, "the exception of the source got lost")
    if before is None:
        await bench.absent("x")
    else:
        await bench.there("x", before)


@case("write/source-breaks", "An exception of the source is raised, and nothing is published.")
async def source_breaks(bench: Bench) -> None:
    await _broken(bench, 1000, None)


@case("write/source-breaks-over", "An exception of the source leaves the old content.")
async def source_breaks_over(bench: Bench) -> None:
    await _broken(bench, 1000, b"old")


@case("write/source-breaks-at-once", "A source that breaks before its first chunk leaves the old content.")
async def source_breaks_at_once(bench: Bench) -> None:
    await _broken(bench, 0, b"old")


@case("write/source-breaks-late", "An exception after several parts leaves the old content and no rest.")
async def source_breaks_late(bench: Bench) -> None:
    await _broken(bench, 3 * bench.harness.part + 7, b"old")


async def _cancelled(bench: Bench, size: int) -> None:
    await bench.put("x", b"old")
    stuck = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        async for piece in chunks(noise(size)):
            yield piece
        stuck.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(bench.store.write("x", source()))
    await stuck.wait()
    task.cancel()
    (error,) = await asyncio.gather(task, return_exceptions=True)
    need(isinstance(error, asyncio.CancelledError), f"the cancelled write gave {error!r:.100}")
    await bench.there("x", b"old")
    await bench.put("x", b"new")
    await bench.there("x", b"new")


@case("write/cancelled", "A write that is cancelled leaves the old content.")
async def cancelled(bench: Bench) -> None:
    await _cancelled(bench, 1000)


@case("write/cancelled-late", "A write that is cancelled after several parts leaves the old content and no rest.")
async def cancelled_late(bench: Bench) -> None:
    await _cancelled(bench, 2 * bench.harness.part + 7)


@case("write/cancelled-twice", "A second cancellation while the first one cleans up leaves no rest either.")
async def cancelled_twice(bench: Bench) -> None:
    stuck = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        async for piece in chunks(noise(2 * bench.harness.part)):
            yield piece
        stuck.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(bench.store.write("x", source()))
    await stuck.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)
    need(task.cancelled(), "the write wasn't cancelled")
    await bench.absent("x")


async def _size(bench: Bench, told: int, size: int) -> None:
    await bench.put("x", b"old")
    await refused(InvalidRequest, bench.put("x", noise(size), size=told), f"{size} bytes, announced as {told}")
    await bench.there("x", b"old")


@case("write/too-few", "Fewer bytes than announced publish nothing.")
async def too_few(bench: Bench) -> None:
    await _size(bench, 1001, 1000)


@case("write/too-many", "More bytes than announced publish nothing.")
async def too_many(bench: Bench) -> None:
    await _size(bench, 999, 1000)


@case("write/too-few-late", "Fewer bytes than announced, after several parts, publish nothing and leave no rest.")
async def too_few_late(bench: Bench) -> None:
    size = 2 * bench.harness.part + 10
    await _size(bench, size + 1, size)


@case("write/too-many-late", "More bytes than announced, after several parts, publish nothing and leave no rest.")
async def too_many_late(bench: Bench) -> None:
    size = 2 * bench.harness.part + 10
    await _size(bench, size - 1, size)


@case("write/unseen", "Nobody sees a content before its last chunk was given.")
async def unseen(bench: Bench) -> None:
    async def source() -> AsyncIterator[bytes]:
        async for piece in chunks(noise(2 * bench.harness.part + 1)):
            yield piece
        need("x" not in await bench.harness.truth(), "it is there before its end")
        need(await bench.store.stat("x") is None, "stat sees it before its end")
        need(await bench.keys() == [], "a listing shows it before its end")
        yield b"end"

    await bench.store.write("x", source())
    need("x" in await bench.harness.truth(), "it isn't there")


async def _killed(bench: Bench, parts: int) -> None:
    old = await bench.put("x", b"old")
    size = min(1 << 20, bench.harness.part)
    asked = {
        "store": dict(bench.harness.recipe()), "key": "x", "chunk": size, "chunks": parts * bench.harness.part // size,
        "if_tag": old.tag if bench.store.info.conditional == "Full" else "",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cloudmesh.testing.stores.victim",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate(json.dumps(asked).encode())
    need(process.returncode == -9, f"it ended with {process.returncode}: {errors.decode()[-500:]}")
    need((await bench.harness.truth()).get("x") == b"old", "the old content is lost")
    sweep = getattr(bench.store, "sweep", None)
    if sweep is not None:
        await sweep("", 0)
    await bench.there("x", b"old")
    if bench.store.info.conditional == "Full":
        await bench.put("x", b"new", if_tag=old.tag)


@case("write/killed", "A writer that is killed after its first chunk leaves the old content.", needs=["process"])
async def killed(bench: Bench) -> None:
    await _killed(bench, 1)


@case(
    "write/killed-late",
    "A writer that is killed after several parts leaves the old content, and what it leaves is swept.",
    needs=["process"],
)
async def killed_late(bench: Bench) -> None:
    await _killed(bench, 4)


@case("write/many", "40 writes at the same moment all arrive.")
async def many(bench: Bench) -> None:
    contents = {f"d/{number:02}": noise(300, number) for number in range(40)}
    await asyncio.gather(*(bench.put(key, content) for key, content in contents.items()))
    need(await bench.harness.truth() == contents, "another content, or none")


@case("write/attributes", "Attributes come back as they were.", attributes=True)
async def attributes(bench: Bench) -> None:
    texts = {"id": "00ff", "version": "12", "mtime": "1700000000123456", "odd": 'a/b=c; d, "e" 100% ~\'|', "x-1": "-"}
    seen = await bench.put("x", attributes=texts)
    need(seen.attributes == texts, f"the write tells {seen.attributes}")
    found = await bench.store.stat("x")
    need(found is not None and found.attributes == texts, f"stat tells {found}")
    await bench.put("x", b"again", attributes={"id": "1"})
    found = await bench.store.stat("x")
    need(found is not None and found.attributes == {"id": "1"}, f"after another write: {found}")


@case("write/attributes-refused", "Attributes that not every store could keep are refused.")
async def attributes_refused(bench: Bench) -> None:
    for texts in ({"Upper": "x"}, {"a b": "x"}, {"x": "é"}, {"x": "a\nb"}, {"x": " a"}, {"x": "y" * 1024}):
        await refused(InvalidRequest, bench.put("x", attributes=texts), f"{texts!r:.40}")
    await bench.absent("x")


@case("delete/one", "A deleted object is gone, and its neighbours aren't.")
async def delete(bench: Bench) -> None:
    for key in ("d/a", "d/b", "d/a.txt"):
        await bench.put(key)
    await bench.store.delete("d/a")
    need(sorted(await bench.harness.truth()) == ["d/a.txt", "d/b"], "another one is gone, or none")
    need(await bench.store.stat("d/a") is None, "stat still sees it")


@case("delete/absent", "To delete what isn't there is fine, with a tag and without.")
async def delete_absent(bench: Bench) -> None:
    await bench.store.delete("nothing")
    await bench.store.delete("no/such/folder")
    seen = await bench.put("x")
    await bench.store.delete("x")
    await bench.store.delete("x")
    await bench.store.delete("x", if_tag=seen.tag)


@case("delete/tag", "A delete tied to a tag spares another content, and takes that one.")
async def delete_tag(bench: Bench) -> None:
    old = await bench.put("x", b"old")
    new = await bench.put("x", b"newer")
    await refused(Changed, bench.store.delete("x", if_tag=old.tag), "a delete tied to an old tag")
    await bench.there("x", b"newer")
    await bench.store.delete("x", if_tag=new.tag)
    await bench.absent("x")


@case("delete/again", "What was deleted can be written again.")
async def delete_again(bench: Bench) -> None:
    await bench.put("d/x", b"first", if_absent=bench.store.info.conditional != "None")
    await bench.store.delete("d/x")
    await bench.put("d/x", b"second", if_absent=bench.store.info.conditional != "None")
    await bench.there("d/x", b"second")
