"""Cases of check and offers: in words for people, in columns for the scheduler."""

from __future__ import annotations

import asyncio
import datetime

from cloudmesh.engine.errors import AuthFailed, CloudmeshError
from cloudmesh.policy.model import Offer
from cloudmesh.testing.providers.case import Bench, CaseFailed, case, need


async def every(bench: Bench) -> list[Offer]:
    """All offers, those that the suite makes no machines of too."""
    found = list(await bench.provider.offers())
    need(found, "there are no offers")
    return found


@case("check/good", "A check of an account that works finds everything well, and says what it tried.")
async def good(bench: Bench) -> None:
    findings = await bench.provider.check()
    need(any(finding.ok for finding in findings), "nothing was found well")
    for finding in findings:
        need(not finding.failed, f"{finding.subject}: {finding.message}")
        need(finding.subject.strip() and finding.message.strip(), "a finding has no words")


@case("check/bad-credentials", "A check with wrong credentials says so in a sentence.", traits=["Credentials"])
async def bad_credentials(bench: Bench) -> None:
    provider = await bench.harness.provider(bad_credentials=True)
    try:
        wrong = [finding.message for finding in await provider.check() if not finding.ok]
    except AuthFailed as error:
        wrong = [str(error)]
    need(wrong, "it found nothing wrong")
    need(all(len(text.split()) >= 3 for text in wrong), f"that isn't a sentence: {wrong}")


@case("check/outage", "A check during an outage fails or says so; it never finds everything well.", needs=["drop"])
async def outage(bench: Bench) -> None:
    await bench.inject("drop", times=None)
    try:
        findings = await bench.provider.check()
    except CloudmeshError:
        return
    need(not all(finding.ok for finding in findings), "it found everything well")


@case("check/hangs", "A check that is never answered ends within bounded time.", needs=["hang"])
async def hangs(bench: Bench) -> None:
    await bench.inject("hang", times=None)
    try:
        async with asyncio.timeout(bench.harness.call_seconds * 2):
            findings = await bench.provider.check()
    except CloudmeshError:
        return
    except TimeoutError:
        raise CaseFailed(f"it still hangs after {bench.harness.call_seconds * 2:g} s") from None
    need(not all(finding.ok for finding in findings), "it found everything well")


@case("check/makes-nothing", "A check makes no machine and leaves nothing behind.")
async def makes_nothing(bench: Bench) -> None:
    before = len(await bench.harness.machines())
    await bench.provider.check()
    need(len(await bench.harness.machines()) == before, "it made a machine")


@case("offers/some", "There are offers, each with a type, CPUs, memory, architecture and purchase.")
async def some(bench: Bench) -> None:
    for offer in await every(bench):
        need(offer.type and offer.arch in ("amd64", "arm64"), f"{offer.id}: type or arch {offer.arch!r}")
        need(offer.milli_vcpu > 0 and offer.memory_mib > 0, f"{offer.id}: no CPUs or no memory")
        need(offer.purchase in ("OnDemand", "Spot"), f"{offer.id}: purchase {offer.purchase!r}")
        need(offer.gpu_count >= 0 and bool(offer.gpu_count) == bool(offer.gpu_model), f"{offer.id}: GPUs don't match")
        need(offer.free is None or offer.free >= 0, f"{offer.id}: free {offer.free}")


@case("offers/account", "All offers carry the account's name.")
async def account(bench: Bench) -> None:
    names = {offer.account for offer in await every(bench)}
    need(names == {bench.scope.account}, f"they carry {names}")


@case("offers/once", "No two offers have one identity.")
async def once(bench: Bench) -> None:
    ids = [offer.id for offer in await every(bench)]
    need(len(set(ids)) == len(ids), f"{len(ids) - len(set(ids))} of {len(ids)} come twice")


@case("offers/stable", "Two calls, and another process, tell the same offers.")
async def stable(bench: Bench) -> None:
    first = {offer.id for offer in await every(bench)}
    need({offer.id for offer in await every(bench)} == first, "the second call differs")
    other = await (await bench.harness.provider()).offers()
    need({offer.id for offer in other} == first, "the other process differs")


@case("offers/never-free", "No price is 0 or less, unless its owner declared it.")
async def never_free(bench: Bench) -> None:
    for offer in await every(bench):
        if offer.price is not None:
            need(offer.price.nanos >= 0, f"{offer.id} costs {offer.price.nanos}")
            need(offer.price.nanos > 0 or offer.price.confidence == "declared", f"{offer.id} costs nothing")


@case("offers/priced", "Prices, if any are told, are whole nano-units with currency, source, date and confidence.")
async def priced(bench: Bench) -> None:
    for price in [offer.price for offer in await every(bench) if offer.price is not None]:
        need(isinstance(price.nanos, int), f"a price is {price.nanos!r}")
        need(len(price.currency) == 3 and price.currency.isupper(), f"a currency is {price.currency!r}")
        need(price.source and price.confidence in ("declared", "fetched", "static"), f"a price has no source: {price}")
        datetime.datetime.fromisoformat(price.as_of)


@case("offers/unpriced", "An offer whose price nobody knows has none, not 0.", needs=["unpriced"])
async def unpriced(bench: Bench) -> None:
    await bench.inject("unpriced", times=None)
    need(any(offer.price is None for offer in await every(bench)), "every offer has a price")


@case("offers/full", "Where there is no room, an offer doesn't promise any.", needs=["capacity"])
async def full(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("capacity", "create", times=None)
    for offer in await bench.provider.offers():
        if offer.id == spec.offer.id:
            need(not offer.free, f"{offer.free} machines are said to fit")


@case("offers/fails", "Offers that can't be had raise; they are never an empty list.", needs=["fail"])
async def fails(bench: Bench) -> None:
    await bench.inject("fail", "offers", times=None)
    try:
        need(await bench.provider.offers(), "there are no offers and no error")
    except CloudmeshError:
        return


@case("offers/spot", "Spot offers stand beside those on demand, of the same types.", traits=["Spot"])
async def spot(bench: Bench) -> None:
    found = await every(bench)
    types = {offer.type for offer in found if offer.purchase == "OnDemand"}
    spot_types = {offer.type for offer in found if offer.purchase == "Spot"}
    need(spot_types and types & spot_types, "no type is sold both ways")


@case("offers/declared", "What a cloud is said to lack isn't offered, and each such word has a sentence why.")
async def declared(bench: Bench) -> None:
    for trait, why in bench.provider.info.lacks.items():
        need(len(why.split()) >= 3, f"{trait}: {why!r} is no sentence")
    found = await every(bench)
    for trait, shown in (
        ("Spot", [offer.id for offer in found if offer.purchase == "Spot"]),
        ("Regions", [offer.id for offer in found if offer.region]),
        ("Zones", [offer.id for offer in found if offer.zone]),
    ):
        need(bench.has(trait) or not shown, f"{trait} isn't declared, and there are {shown[:3]}")
