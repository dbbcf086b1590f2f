"""Cases of a machine's life and of the provider's own: states, addresses, tags, closing, the event loop."""

from __future__ import annotations

import asyncio
import datetime
import time
from dataclasses import replace

from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.testing.providers.case import Bench, case, need

BLOCKED_SECONDS = 0.25


@case("life/info", "What the provider declares makes sense.")
async def info(bench: Bench) -> None:
    declared = bench.provider.info
    need(declared.kind == bench.harness.kind, f"its kind is {declared.kind!r}")
    need(declared.grace_seconds >= 0, f"grace_seconds is {declared.grace_seconds}")
    need(0 < declared.create_seconds <= 600, f"create_seconds is {declared.create_seconds}")
    need(declared.poll_seconds > 0, f"poll_seconds is {declared.poll_seconds}")
    need(not declared.ssh or declared.user, "there are logins, but no user")


@case("life/runs", "A machine comes to Running, and then has an address for logins.")
async def runs(bench: Bench) -> None:
    _, node = await bench.running()
    need(node.host and 0 < node.port < 65536, f"its host is {node.host!r}, its port {node.port}")
    need(node.private_address or node.public_address, "it has no address")


@case("life/states", "Before it runs, a machine is Pending; it is nothing else by mistake.")
async def states(bench: Bench) -> None:
    spec = await bench.spec()
    seen = {(await bench.provider.ensure_node(spec)).state}

    async def ready() -> bool:
        node = await bench.provider.find_node(spec)
        if node is not None:
            seen.add(node.state)
        return "Running" in seen

    await bench.until("the machine runs", ready)
    need(seen <= {"Pending", "Running"}, f"it was {sorted(seen)}")


@case("life/created-at", "A machine says when it was made, as an RFC 3339 time in UTC.")
async def created_at(bench: Bench) -> None:
    _, node = await bench.running()
    need(node.created_at.endswith("Z"), f"it says {node.created_at!r}")
    datetime.datetime.fromisoformat(node.created_at)


@case("life/list-agrees", "Listing and look-up tell the same of a machine.")
async def list_agrees(bench: Bench) -> None:
    spec, _ = await bench.running()

    async def ready() -> bool:
        found = await bench.provider.find_node(spec)
        return any(found == node for node in await bench.listed())

    await bench.until("both tell the same", ready)


@case("life/boot-id", "Between two looks a machine that wasn't started anew keeps its boot id.")
async def boot_id(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.wait(1)
    found = await bench.provider.find_node(spec)
    need(found is not None and found.boot_id == node.boot_id, "it changed")


@case("life/different-ids", "Two machines have different ids.")
async def different_ids(bench: Bench) -> None:
    (_, one), (_, two) = await bench.running(), await bench.running()
    need(one.id != two.id, "they have one id")


@case("life/different", "Two machines have different ids, and addresses of their own unless they share a host.")
async def different(bench: Bench) -> None:
    (_, one), (_, two) = await bench.running(), await bench.running()
    need(one.id != two.id, "they have one id")
    if bench.has("OwnAddresses"):
        need((one.host, one.port) != (two.host, two.port), f"both are reached at {one.host}:{one.port}")


@case("life/close-twice", "A provider can be closed twice.")
async def close_twice(bench: Bench) -> None:
    await bench.provider.list_nodes(bench.scope)
    await bench.provider.close()
    await bench.provider.close()


@case("life/close-unused", "A provider that was never used can be closed.")
async def close_unused(bench: Bench) -> None:
    await (await bench.harness.provider()).close()


@case("life/after-close", "A call after the close fails with an error of the taxonomy, or works; it never hangs.")
async def after_close(bench: Bench) -> None:
    await bench.provider.close()
    async with asyncio.timeout(bench.harness.call_seconds):
        try:
            await bench.provider.list_nodes(bench.scope)
        except CloudmeshError as error:
            need(str(error).strip(), "the error has no words")


@case("life/close-leaves-machines", "Closing a provider ends no machine.")
async def close_leaves_machines(bench: Bench) -> None:
    spec, _ = await bench.running()
    await bench.provider.close()
    await bench.harness.wait(2)
    need(not (await bench.one(spec.token)).ended, "the machine ended")


@case("life/close-of-one", "Closing one provider leaves another of the same account working.")
async def close_of_one(bench: Bench) -> None:
    other = await bench.harness.provider()
    await other.list_nodes(bench.scope)
    await bench.provider.list_nodes(bench.scope)
    await other.close()
    need(await bench.listed() == (), "the listing isn't empty")


@case("life/event-loop", "No call holds the event loop up for a quarter of a second.")
async def event_loop(bench: Bench) -> None:
    worst = 0.0
    for _ in range(3):  # a busy machine may hold up anything once; code that blocks does it each time
        worst = await longest_pause(bench)
        if worst <= BLOCKED_SECONDS:
            return
    need(worst <= BLOCKED_SECONDS, f"the event loop stood still for {worst:.2f} s")


async def longest_pause(bench: Bench) -> float:
    """The longest time that the event loop didn't get to another task during a machine's life."""
    worst, last = 0.0, time.perf_counter()

    async def beat() -> None:
        nonlocal worst, last
        while True:
            last = time.perf_counter()
            await asyncio.sleep(0.01)
            worst = max(worst, time.perf_counter() - last - 0.01)

    heart = asyncio.ensure_future(beat())
    try:
        provider = await bench.harness.provider()
        spec = await bench.spec()
        await provider.check()
        await provider.offers()
        node = await provider.ensure_node(spec)
        await provider.find_node(spec)
        await provider.list_nodes(bench.scope)
        await provider.delete_node(node.id, bench.scope)
        await provider.close()
    finally:
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)
    return max(worst, time.perf_counter() - last - 0.01)


@case("life/side-by-side", "Many calls of all kinds at once don't disturb each other.")
async def side_by_side(bench: Bench) -> None:
    specs = [await bench.spec() for _ in range(4)]
    await asyncio.gather(
        *(bench.provider.ensure_node(spec) for spec in specs),
        *(bench.provider.list_nodes(bench.scope) for _ in range(4)),
        bench.provider.offers(),
        bench.provider.check(),
    )
    await bench.listed_tokens(*(spec.token for spec in specs))


async def carries(bench: Bench, **tags: str) -> None:
    """Makes a machine with these tags besides ours, and reads them back."""
    base = await bench.spec()
    spec = replace(base, tags={**base.tags, **{"example.org/" + key: value for key, value in tags.items()}})
    await bench.provider.ensure_node(spec)
    node = await bench.in_state(spec, "Pending", "Running")
    for key, value in tags.items():
        found = node.tags.get("example.org/" + key)
        need(found == value, f"the tag {key!r} came back as {found!r}, not {value!r}")


@case("tags/odd", "Tags with odd characters come back as they were.")
async def odd_tags(bench: Bench) -> None:
    await carries(bench, note="a/b: c=d, e+f@g._-h")


@case("tags/words", "Tags with spaces, quotes and letters of other alphabets come back as they were.")
async def words(bench: Bench) -> None:
    await carries(bench, team='Gruppe "Süd" ночь')


@case("tags/long", "A tag of 200 characters comes back whole.")
async def long_tag(bench: Bench) -> None:
    await carries(bench, text="0123456789" * 20)


@case("tags/empty", "A tag with an empty value comes back empty.")
async def empty_tag(bench: Bench) -> None:
    await carries(bench, nothing="")


@case("tags/case", "Upper and lower case in tags are kept apart.")
async def letter_case(bench: Bench) -> None:
    await carries(bench, Mixed="CamelCase", mixed="lower")
