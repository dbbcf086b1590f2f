"""Cases of what happens behind our back: the next look tells the truth."""

from __future__ import annotations

import contextlib

from cloudmesh.compute.ports import Node
from cloudmesh.engine.errors import Conflict
from cloudmesh.testing.providers.case import Bench, case, need


async def listed_as(bench: Bench, token: str, what: str, **expected: str) -> Node:
    """Waits until the listing shows a machine like that."""

    async def ready() -> Node | None:
        for node in await bench.listed():
            if node.token == token and all(getattr(node, name) == value for name, value in expected.items()):
                return node
        return None

    return await bench.until(what, ready)


@case("drift/stopped", "A machine that somebody stopped is listed Stopped.", needs=["stop"])
async def stopped(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.meddle("stop", node.id)
    await listed_as(bench, spec.token, "the listing shows it stopped", state="Stopped")


@case("drift/ended", "A machine that somebody ended is listed ended, or not at all.", needs=["end"])
async def ended(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.meddle("end", node.id)
    await bench.ended(spec.token)
    await bench.listed_tokens()


@case("drift/ended-found", "A machine that somebody ended is found ended, or not at all.", needs=["end"])
async def ended_found(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.meddle("end", node.id)
    await bench.ended(spec.token)
    found = await bench.provider.find_node(spec)
    need(found is None or found.state == "Deleted", f"it is found {found.state if found else ''}")


@case("drift/resized", "A machine that somebody gave another type is listed with that type.", needs=["resize"])
async def resized(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.meddle("resize", node.id)
    truth = (await bench.one(spec.token)).type
    need(truth != spec.offer.type, "the harness didn't resize it")
    await listed_as(bench, spec.token, f"the listing shows type {truth}", type=truth)


@case("drift/image", "A machine that somebody gave another image is listed with that image.", needs=["image"])
async def image(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.meddle("image", node.id)
    truth = (await bench.one(spec.token)).image
    need(truth != spec.image, "the harness didn't change it")
    await listed_as(bench, spec.token, f"the listing shows image {truth}", image=truth)


@case(
    "drift/disk",
    "A machine that somebody gave another disk is listed with its size.",
    needs=["grow"],
    traits=["DiskChoice"],
)
async def disk(bench: Bench) -> None:
    spec, node = await bench.running(await bench.spec(disk_gib=37))

    async def has(size: str) -> bool:
        return [each.details.get("diskGiB") for each in await bench.listed() if each.token == spec.token] == [size]

    await bench.until("the listing shows a disk of 37 GiB", lambda: has("37"))
    await bench.harness.meddle("grow", node.id)
    truth = (await bench.one(spec.token)).disk_gib
    need(truth == 41, f"the harness made it {truth} GiB, not 41")
    await bench.until("the listing shows a disk of 41 GiB", lambda: has("41"))


@case("drift/untagged", "A machine that lost its tags is found no more, or told as somebody else's.", needs=["untag"])
async def untagged(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.meddle("untag", node.id)
    need(node.id not in [each.id for each in await bench.listed()], "it is listed all the same")
    with contextlib.suppress(Conflict):
        need(await bench.provider.find_node(spec) is None, "it is found all the same")


@case(
    "drift/reclaimed",
    "A spot machine that was taken away is listed ended, or not at all.",
    needs=["reclaim"],
    traits=["Spot"],
)
async def reclaimed(bench: Bench) -> None:
    spec, node = await bench.running(await bench.spec(offer=(await bench.offers("Spot"))[0]))
    await bench.harness.meddle("reclaim", node.id)

    async def gone() -> bool:
        states = [each.state for each in await bench.listed() if each.token == spec.token]
        return not states or states == ["Deleted"]

    await bench.until("the listing shows it ended", gone)


@case("drift/neighbours", "What was done to one machine changes nothing about another.", needs=["end"])
async def neighbours(bench: Bench) -> None:
    first, node = await bench.running()
    second, _ = await bench.running()
    await bench.harness.meddle("end", node.id)
    await bench.ended(first.token)
    await listed_as(bench, second.token, "the other one runs", state="Running")
