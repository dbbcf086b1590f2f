"""Cases of errors: each in the one taxonomy, raised or observed, with words for people."""

from __future__ import annotations

from dataclasses import replace

from cloudmesh.compute.ports import Node, NodeSpec
from cloudmesh.engine.errors import (
    AuthFailed,
    CapacityUnavailable,
    CloudmeshError,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    Transient,
)
from cloudmesh.testing.providers.case import Bench, CaseFailed, case, need, refused


@case(
    "errors/capacity",
    "No room is CapacityUnavailable: at the create, and nothing is made, or as the failure of the machine.",
    needs=["capacity"],
)
async def capacity(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("capacity", "create", times=None)
    if await no_room(bench, spec) is None:
        need(not [seen for seen in await bench.truth(spec.token) if not seen.ended], "a machine was made")


async def no_room(bench: Bench, spec: NodeSpec) -> Node | None:
    """Asks for a machine that there is no room for; gives the one that failed, None if it was refused at once."""
    try:
        await bench.provider.ensure_node(spec)
    except CapacityUnavailable:
        return None
    except CloudmeshError as error:
        raise CaseFailed(f"no room: {error.reason} instead of CapacityUnavailable") from error
    need(bench.has("LateFailures"), "no room: it made a machine, and no late failures are declared")
    node = await bench.in_state(spec, "Failed", "Deleted")
    need(isinstance(node.failure, CapacityUnavailable), f"its failure is {node.failure!r}")
    return node


@case(
    "errors/capacity-comes-back",
    "When there is room again, the same token gets its machine, or another one where the first failed late.",
    needs=["capacity"],
)
async def capacity_comes_back(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("capacity", "create", times=None)
    failed = await no_room(bench, spec)
    await bench.harness.heal()
    if failed is not None:
        await bench.provider.delete_node(failed.id, bench.scope)
        await bench.ended(spec.token)
        spec = await bench.spec()
    node = await bench.provider.ensure_node(spec)
    need((await bench.one(spec.token)).id == node.id, "another machine was returned")


@case(
    "errors/capacity-late",
    "No room, said after the create, is a Failed machine with CapacityUnavailable.",
    needs=["capacity-late"],
)
async def capacity_late(bench: Bench) -> None:
    await bench.inject("capacity-late", "create", times=None)
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    node = await bench.in_state(spec, "Failed", "Deleted")
    need(isinstance(node.failure, CapacityUnavailable), f"its failure is {node.failure!r}")
    need(str(node.failure).strip(), "the failure has no words")


@case("errors/capacity-late-listed", "A machine that failed late is listed with its failure.", needs=["capacity-late"])
async def capacity_late_listed(bench: Bench) -> None:
    await bench.inject("capacity-late", "create", times=None)
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    await bench.in_state(spec, "Failed", "Deleted")  # some clouds end it themselves
    failures = [node.failure for node in await bench.listed() if node.state in ("Failed", "Deleted")]
    need(len(failures) == 1 and isinstance(failures[0], CapacityUnavailable), f"listed are the failures {failures}")


@case("errors/working-has-no-failure", "A machine that works has no failure.")
async def working_has_no_failure(bench: Bench) -> None:
    _, node = await bench.running()
    need(node.failure is None, f"its failure is {node.failure!r}")


@case("errors/quota", "The account's limit is QuotaExceeded, and nothing is made.", needs=["quota"])
async def quota(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("quota", "create", times=None)
    await refused(QuotaExceeded, bench.provider.ensure_node(spec), "over the quota")
    await bench.none(spec.token)


@case(
    "errors/auth-create",
    "A create with wrong credentials is AuthFailed, and nothing is made.",
    traits=["Credentials"],
)
async def auth_create(bench: Bench) -> None:
    spec = await bench.spec()
    provider = await bench.harness.provider(bad_credentials=True)
    await refused(AuthFailed, provider.ensure_node(spec), "wrong credentials")
    await bench.none(spec.token)


@case("errors/auth-list", "A listing with wrong credentials is AuthFailed, never an empty one.", traits=["Credentials"])
async def auth_list(bench: Bench) -> None:
    provider = await bench.harness.provider(bad_credentials=True)
    await refused(AuthFailed, provider.list_nodes(bench.scope), "wrong credentials")


@case("errors/auth-find", "A look-up with wrong credentials is AuthFailed, never `none`.", traits=["Credentials"])
async def auth_find(bench: Bench) -> None:
    spec = await bench.spec()
    provider = await bench.harness.provider(bad_credentials=True)
    await refused(AuthFailed, provider.find_node(spec), "wrong credentials")


@case(
    "errors/auth-delete",
    "A delete with wrong credentials is AuthFailed, and the machine lives.",
    traits=["Credentials"],
)
async def auth_delete(bench: Bench) -> None:
    spec, node = await bench.running()
    provider = await bench.harness.provider(bad_credentials=True)
    await refused(AuthFailed, provider.delete_node(node.id, bench.scope), "wrong credentials")
    need(not (await bench.one(spec.token)).ended, "it ended all the same")


@case(
    "errors/auth-offers",
    "Offers with wrong credentials are AuthFailed, unless they are public.",
    traits=["Credentials"],
)
async def auth_offers(bench: Bench) -> None:
    provider = await bench.harness.provider(bad_credentials=True)
    try:
        need(await provider.offers(), "there are no offers and no error")
    except AuthFailed as error:
        need(str(error).strip(), "the error has no words")


@case("errors/revoked", "Credentials that stop being valid in use are AuthFailed at the next call.", needs=["revoked"])
async def revoked(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("revoked", times=None)
    await refused(AuthFailed, bench.provider.list_nodes(bench.scope), "credentials that were revoked")
    await refused(AuthFailed, bench.provider.delete_node(node.id, bench.scope), "credentials that were revoked")
    await bench.harness.heal()
    await bench.listed_tokens(spec.token)


@case(
    "errors/unknown-type",
    "A machine type that doesn't exist is InvalidRequest or CapacityUnavailable.",
)
async def unknown_type(bench: Bench) -> None:
    spec = await bench.spec()
    wrong = replace(spec, offer=replace(spec.offer, type="no-such-type.9x"))
    await refused((InvalidRequest, CapacityUnavailable), bench.provider.ensure_node(wrong), "an unknown type")
    await bench.none(spec.token)


@case(
    "errors/unknown-region",
    "A region that doesn't exist is InvalidRequest or CapacityUnavailable.",
)
async def unknown_region(bench: Bench) -> None:
    spec = await bench.spec()
    wrong = replace(spec, offer=replace(spec.offer, region="nowhere-1", zone="nowhere-1a"))
    await refused((InvalidRequest, CapacityUnavailable), bench.provider.ensure_node(wrong), "an unknown region")
    await bench.none(spec.token)


@case("errors/unknown-zone", "A zone that doesn't exist is InvalidRequest or CapacityUnavailable.")
async def unknown_zone(bench: Bench) -> None:
    spec = await bench.spec()
    wrong = replace(spec, offer=replace(spec.offer, zone="nowhere-zz"))
    await refused((InvalidRequest, CapacityUnavailable), bench.provider.ensure_node(wrong), "an unknown zone")
    await bench.none(spec.token)


@case("errors/unknown-image", "An image that doesn't exist is InvalidRequest.", traits=["ImageChoice"])
async def unknown_image(bench: Bench) -> None:
    spec = await bench.spec(image="ami-0000000000000dead")
    await refused(InvalidRequest, bench.provider.ensure_node(spec), "an unknown image")
    await bench.none(spec.token)


@case(
    "errors/limit-without-time", "Too many calls without a time to wait is RateLimited all the same.", needs=["limit"]
)
async def limit_without_time(bench: Bench) -> None:
    await bench.inject("limit", "list", times=None, seconds=0)
    error = await refused(RateLimited, bench.provider.list_nodes(bench.scope), "too many calls")
    need(error.retry_after is None or error.retry_after > 0, f"retry_after is {error.retry_after!r}")


@case("errors/limit-passes", "After too many calls the same provider works again.", needs=["limit"])
async def limit_passes(bench: Bench) -> None:
    await bench.inject("limit", "list", times=None, seconds=1)
    await refused(RateLimited, bench.provider.list_nodes(bench.scope), "too many calls")
    await bench.harness.heal()
    await bench.harness.wait(1)
    need(await bench.listed() == (), "the listing isn't empty")


@case(
    "errors/taxonomy",
    "Whatever call fails in whatever way, only errors of the taxonomy come out.",
    needs=["fail", "drop"],
)
async def taxonomy(bench: Bench) -> None:
    spec, node = await bench.running()
    other = await bench.spec()
    for fault in ("fail", "drop"):
        for call in (
            lambda: bench.provider.check(),
            lambda: bench.provider.offers(),
            lambda: bench.provider.list_nodes(bench.scope),
            lambda: bench.provider.find_node(spec),
            lambda: bench.provider.ensure_node(other),
            lambda: bench.provider.delete_node(node.id, bench.scope),
        ):
            await bench.inject(fault, times=None)
            try:
                await call()
            except CloudmeshError as error:
                need(type(error).reason != "Error", "the bare base of the taxonomy was raised")
            await bench.harness.heal()


@case("errors/recovers", "After an outage of all calls the same provider works again.", needs=["drop"])
async def recovers(bench: Bench) -> None:
    spec, _ = await bench.running()
    await bench.inject("drop", times=None)
    for _ in range(3):
        await refused(Transient, bench.provider.list_nodes(bench.scope), "an outage")
    await bench.harness.heal()
    await bench.listed_tokens(spec.token)
