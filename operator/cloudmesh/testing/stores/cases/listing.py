"""Cases of listings and names."""

from __future__ import annotations

import asyncio
import random

from cloudmesh.data.names import clean_path, key_of, path_of
from cloudmesh.testing.stores.case import Bench, case, need

ODD = (
    "a b", " lead", "trail ", "100%", "%", "%41", "%0A", "%250A", "%C3%A9", "plus+and&and=", "semi;colon:", "q?m#h",
    "é", "日本語", "😀", "quote\"'`", "[br]{ac}<ke>(ts)", "back\\slash", "pipe|^~", "..a", "a..", "...", ".hidden",
    "-dash", "tab\tx", "new\nline", "cr\rx", "del\x7fx", "\x01", "*star*", "$@!,", "UPPER", "upper", "x" * 200,
)  # fmt: skip


@case("list/order", "A listing has all keys in the order of their bytes.")
async def order(bench: Bench) -> None:
    keys = ["a", "a-b", "a.b", "a/1", "a/b/c", "a/b-c", "a0", "b", "é", "z", "A", "日", "a b"]
    made = [key for key in keys if not any(other.startswith(key + "/") for other in keys)]
    for key in made:
        await bench.put(key)
    need(await bench.keys() == sorted(made, key=str.encode), f"{await bench.keys()}")


@case("list/pages", "Pages of any size together are the whole listing, each key once.")
async def pages(bench: Bench) -> None:
    made = sorted([f"d{n % 3}/e{n % 2}/f{n:02}" for n in range(24)] + ["d0/e", "d0/ex", "d", "e0"])
    for key in made:
        await bench.put(key)
    for limit in (1, 2, 5, 27, 28, 29, 1000):
        need(await bench.keys(limit=limit) == made, f"pages of {limit}: {await bench.keys(limit=limit)}")


@case("list/after", "A page after a mark goes on behind it, whether or not there is such a key.")
async def after(bench: Bench) -> None:
    made = ["a/1", "a/2", "a/3", "b", "c/1"]
    for key in made:
        await bench.put(key)
    for mark in ("a/1", "a/2x", "a", "a/", "a/3", "b", "b/x", "c", "c/1", "z"):
        found = [each.key for each in (await bench.store.list("", after=mark)).objects]
        need(found == [key for key in made if key > mark], f"after {mark!r}: {found}")


@case("list/prefix", "A prefix is a beginning of keys, not a folder.")
async def prefix(bench: Bench) -> None:
    made = ["ab/1", "ab/2", "abc", "abc.d/x", "b"]
    for key in made:
        await bench.put(key)
    for begin in ("", "a", "ab", "ab/", "abc", "abc.", "ab/2", "b", "zz", "ab/1/x", "zz/"):
        expected = [key for key in made if key.startswith(begin)]
        need(await bench.keys(begin) == expected, f"{begin!r}: {await bench.keys(begin)}")
        need(await bench.keys(begin, limit=1) == expected, f"{begin!r} by one: {await bench.keys(begin, limit=1)}")


@case("list/tells", "A listing tells sizes, and the same tags as a look if it tells any.")
async def tells(bench: Bench) -> None:
    for key in ("a", "d/b"):
        await bench.put(key, b"123")
    for each in (await bench.store.list("")).objects:
        seen = await bench.seen(each.key)
        need(each.size == 3 and each.tag in ("", seen.tag), f"{each}, a look tells {seen}")
        need(not each.attributes or each.attributes == seen.attributes, f"{each}")


@case("list/empty", "An empty store has an empty listing.")
async def empty(bench: Bench) -> None:
    page = await bench.store.list("")
    need(page.objects == () and page.after == "" and page.complete, f"{page}")


@case("list/deleted", "What was deleted isn't listed, what was written since is.")
async def deleted(bench: Bench) -> None:
    for key in ("a", "d/b", "d/c"):
        await bench.put(key)
    await bench.store.delete("d/b")
    await bench.put("d/bb")
    need(await bench.keys() == ["a", "d/bb", "d/c"], f"{await bench.keys()}")


@case("names/odd", "Odd names come back from a listing as the paths they were made of.")
async def odd(bench: Bench) -> None:
    info = bench.store.info
    paths = {clean_path(f"odd/{name}/{name}") for name in ODD if len(name) < 100} | {f"odd/{'x' * 200}"}
    if info.folds_case:
        paths = {path for path in paths if path != path.lower() or path.upper() == path}
    for path in paths:
        await bench.put(key_of("ns/dir/", path, info), path.encode())
    found = {path_of("ns/dir/", key, info) for key in await bench.keys("ns/dir/odd/", limit=7)}
    need(found == paths, f"missing {sorted(paths - found)}, others {sorted(found - paths)}")
    for path in paths:
        key = key_of("ns/dir/", path, info)
        need(await bench.got(key) == path.encode(), f"{path!r} has another content")
        seen = await bench.store.stat(key)
        need(seen is not None and seen.size == len(path.encode()), f"{path!r}: {seen}")
    for path in paths:
        await bench.store.delete(key_of("ns/dir/", path, info))
    need(await bench.harness.truth() == {}, f"{list(await bench.harness.truth())} can't be deleted")


@case("names/random", "200 names of random characters come back as they were.")
async def random_names(bench: Bench) -> None:
    dice = random.Random(4)  # noqa: S311 - no secret
    letters = [chr(c) for c in range(1, 0x250) if chr(c) != "/" and not 0x7F <= c < 0xA1] + list("%%%%25ABC日😀")
    info = bench.store.info
    paths: set[str] = set()
    while len(paths) < 200:
        name = "".join(dice.choice(letters) for _ in range(dice.randint(1, 12)))
        if name not in (".", "..") and not info.folds_case:
            paths.add(clean_path(f"r/{name}"))
    await asyncio.gather(*(bench.put(key_of("", path, info), path.encode()) for path in paths))
    found = {path_of("", key, info) for key in await bench.keys("r/")}
    need(found == paths, f"missing {sorted(paths - found)[:5]}, others {sorted(found - paths)[:5]}")
    got = await asyncio.gather(*(bench.got(key_of("", path, info)) for path in sorted(paths)))
    need(got == [path.encode() for path in sorted(paths)], "other contents")
