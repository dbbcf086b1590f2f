"""Cases of the powers that act on an account: groundwork, keys, firewalls, networks, addresses, volumes, lists; and of
whose account it is."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, Transient
from cloudmesh.testing.providers.case import Bench, case, need, refused
from cloudmesh.testing.providers.harness import KEY

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOtherOtherOtherOtherOtherOtherOtherOther00 other@example"
RULES: list[dict[str, Any]] = [
    {"protocol": "tcp", "from": 22, "to": 22, "source": "192.0.2.0/24"},
    {"protocol": "tcp", "from": 443, "to": 443, "source": "198.51.100.0/24"},
]


def power(bench: Bench) -> Any:
    """The provider, with the powers that the runner has made sure of."""
    return bench.provider


def named(bench: Bench, name: str) -> str:
    """A name that no other case uses."""
    return f"suite-{name}-{bench.scope.installation[-8:]}"


@case("groundwork/twice", "Groundwork that is prepared twice, and by two processes, is there once.", power="Groundwork")
async def groundwork_twice(bench: Bench) -> None:
    first = await power(bench).prepare(bench.cluster())
    need(dict(await power(bench).prepare(bench.cluster())) == dict(first), "the second time gave something else")
    other: Any = await bench.harness.provider()
    need(dict(await other.prepare(bench.cluster())) == dict(first), "the other process got something else")
    need(all(isinstance(value, str) for value in first.values()), f"it isn't text: {first}")


@case("groundwork/machine", "A machine is made on its cluster's groundwork and runs.", power="Groundwork")
async def groundwork_machine(bench: Bench) -> None:
    ground = await power(bench).prepare(bench.cluster())
    await bench.running(await bench.spec(ground=ground))


@case(
    "groundwork/held",
    "Groundwork that a machine stands on stays until the machine is gone, and goes then.",
    power="Groundwork",
)
async def groundwork_held(bench: Bench) -> None:
    ground = await power(bench).prepare(bench.cluster())
    spec, node = await bench.running(await bench.spec(ground=ground))
    await power(bench).clear(bench.cluster())  # True where nothing of it is held by machines
    need(not (await bench.one(spec.token)).ended, "the machine was ended with it")
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)

    async def cleared() -> bool:
        return bool(await power(bench).clear(bench.cluster()))

    await bench.until("the groundwork is gone", cleared)


@case("groundwork/clear-twice", "Groundwork that is gone, or never was, can be cleared.", power="Groundwork")
async def groundwork_clear_twice(bench: Bench) -> None:
    need(await power(bench).clear(bench.cluster("never")), "what never was can't be cleared")
    await power(bench).prepare(bench.cluster())
    for _ in range(2):
        need(await power(bench).clear(bench.cluster()), "it isn't cleared")


@case("groundwork/neighbours", "Clearing one cluster's groundwork leaves another's.", power="Groundwork")
async def groundwork_neighbours(bench: Bench) -> None:
    await power(bench).prepare(bench.cluster("one"))
    two = dict(await power(bench).prepare(bench.cluster("two")))
    need(await power(bench).clear(bench.cluster("one")), "it isn't cleared")
    need(dict(await power(bench).prepare(bench.cluster("two"))) == two, "the other cluster's was made anew")
    spec = await bench.spec(ground=two, cluster="two")
    await bench.running(spec)


@case(
    "groundwork/lost-answer",
    "Groundwork whose answer is lost is there once when it is prepared again.",
    power="Groundwork",
    needs=["lose"],
)
async def groundwork_lost(bench: Bench) -> None:
    await bench.inject("lose")
    with contextlib.suppress(Transient):
        await power(bench).prepare(bench.cluster())
    await bench.harness.heal()
    first = dict(await power(bench).prepare(bench.cluster()))
    need(dict(await power(bench).prepare(bench.cluster())) == first, "it was made twice")
    need(await power(bench).clear(bench.cluster()), "it isn't cleared")


@case("groundwork/changed", "Groundwork for other sources of logins is changed in place.", power="Groundwork")
async def groundwork_changed(bench: Bench) -> None:
    first = dict(await power(bench).prepare(bench.cluster()))
    second = dict(await power(bench).prepare(replace(bench.cluster(), source_ranges=("203.0.113.0/24",))))
    need(first == second, "it was made anew")


@case(
    "images/listed", "Images are listed, each with id, name and architecture, the suite's among them.", power="Images"
)
async def images(bench: Bench) -> None:
    found = await power(bench).list_images()
    need(found, "there are none")
    need(
        all(image["id"] and image["name"] and image["arch"] in ("amd64", "arm64") for image in found),
        "one lacks a column",
    )
    need(bench.harness.image in [image["id"] for image in found], "the suite's image isn't there")


@case("images/architecture", "An image that the machine's type can't run is InvalidRequest.", power="Images")
async def architecture(bench: Bench) -> None:
    offers, images = await bench.offers(), await power(bench).list_images()
    known = {image["arch"] for image in images}
    need({offer.arch for offer in offers} <= known, f"there are images for {', '.join(sorted(known))} only")
    for other in sorted(known - {offers[0].arch}):
        spec = await bench.spec(image=next(image["id"] for image in images if image["arch"] == other))
        await refused(InvalidRequest, bench.provider.ensure_node(spec), f"an image for {other}")
        await bench.none(spec.token)


@case(
    "flavors/listed",
    "Machine types are listed with CPUs, memory and architecture, those of the offers among them.",
    power="Flavors",
)
async def flavors(bench: Bench) -> None:
    found = {flavor["name"]: flavor for flavor in await power(bench).list_flavors()}
    for offer in (await bench.offers())[:20]:
        flavor = found.get(offer.type)
        need(flavor is not None, f"the type {offer.type} of an offer isn't there")
        if flavor is not None:
            need(float(flavor["vcpu"]) * 1000 == offer.milli_vcpu, f"{offer.type} has {flavor['vcpu']} vCPU")
            need(int(flavor["memoryMiB"]) == offer.memory_mib, f"{offer.type} has {flavor['memoryMiB']} MiB")
            need(flavor["arch"] == offer.arch, f"{offer.type} is {flavor['arch']}")


@case(
    "identity/stable",
    "The cloud's own account has a name that fits a status, and another process is told the same.",
    power="Identity",
)
async def identity(bench: Bench) -> None:
    first = await power(bench).identity()
    need(0 < len(first) <= 253, f"{first!r} is no name")
    other: Any = await bench.harness.provider()
    need(await other.identity() == first == await power(bench).identity(), "it isn't always the same")


@case("networks/listed", "Networks are listed with id, name, range and zone.", power="Networks")
async def networks(bench: Bench) -> None:
    found = await power(bench).list_networks()
    need(found, "there are none")
    need(
        all({"id", "name", "cidr", "zone"} <= set(network) and network["id"] for network in found), "one lacks a column"
    )


@case(
    "key-pairs/round-trip",
    "A key that is imported is listed once, with a fingerprint, and no more when deleted.",
    power="KeyPairs",
)
async def key_pairs(bench: Bench) -> None:
    name = named(bench, "key")
    for _ in range(2):
        await power(bench).import_key_pair(name, KEY, bench.scope.tags())
    mine = [pair for pair in await power(bench).list_key_pairs() if pair["name"] == name]
    need(len(mine) == 1 and mine[0]["fingerprint"], f"listed is {mine}")
    await power(bench).delete_key_pair(name)
    need(name not in [pair["name"] for pair in await power(bench).list_key_pairs()], "it is still there")


@case(
    "key-pairs/other-key", "Another key under the same name is a Conflict, and the first one stays.", power="KeyPairs"
)
async def key_pairs_other(bench: Bench) -> None:
    name = named(bench, "key")
    await power(bench).import_key_pair(name, KEY, bench.scope.tags())
    before = [pair for pair in await power(bench).list_key_pairs() if pair["name"] == name]
    await refused(Conflict, power(bench).import_key_pair(name, OTHER_KEY, bench.scope.tags()), "another key")
    need([pair for pair in await power(bench).list_key_pairs() if pair["name"] == name] == before, "it was replaced")
    await power(bench).delete_key_pair(name)


@case("key-pairs/absent", "The delete of a key that isn't there is fine.", power="KeyPairs")
async def key_pairs_absent(bench: Bench) -> None:
    await power(bench).delete_key_pair(named(bench, "never"))


def _sorted(rules: Any) -> list[tuple[Any, ...]]:
    return sorted((rule["protocol"], rule["from"], rule["to"], rule["source"]) for rule in rules)


async def group(bench: Bench, name: str) -> Any:
    """The firewall of a name, None if there is none."""
    found = [each for each in await power(bench).list_security_groups() if each["name"] == name]
    need(len(found) <= 1, f"there are {len(found)} of that name")
    return found[0] if found else None


@case(
    "security-groups/rules",
    "A firewall has exactly the rules that were asked for, also after a change.",
    power="SecurityGroups",
)
async def security_groups(bench: Bench) -> None:
    name = named(bench, "group")
    first = await power(bench).ensure_security_group(name, RULES, bench.scope.tags())
    need(_sorted((await group(bench, name))["rules"]) == _sorted(RULES), "it has other rules")
    second = await power(bench).ensure_security_group(name, RULES[:1], bench.scope.tags())
    need(first == second, "the change made another one")
    need(_sorted((await group(bench, name))["rules"]) == _sorted(RULES[:1]), "a rule stayed")
    need(await power(bench).delete_security_group(name), "it isn't deleted")
    need(await group(bench, name) is None, "it is still there")


@case("security-groups/twice", "A firewall that is ensured twice is there once.", power="SecurityGroups")
async def security_groups_twice(bench: Bench) -> None:
    name = named(bench, "group")
    ids = {await power(bench).ensure_security_group(name, RULES, bench.scope.tags()) for _ in range(2)}
    need(len(ids) == 1 and await group(bench, name) is not None, f"it has the ids {ids}")
    await power(bench).delete_security_group(name)


@case("security-groups/absent", "The delete of a firewall that isn't there is fine.", power="SecurityGroups")
async def security_groups_absent(bench: Bench) -> None:
    need(await power(bench).delete_security_group(named(bench, "never")), "it isn't called deleted")


@case("addresses/round-trip", "An address is allocated, bound, freed and given back.", power="Addresses")
async def addresses(bench: Bench) -> None:
    _, node = await bench.running()
    token = named(bench, "address")
    address_id = await power(bench).allocate_address(token, bench.scope.tags())
    await power(bench).attach_address(address_id, node.id)
    mine = [each for each in await power(bench).list_addresses() if each["id"] == address_id]
    need(len(mine) == 1 and mine[0]["address"] and mine[0]["nodeId"] == node.id, f"listed is {mine}")
    await power(bench).detach_address(address_id)
    mine = [each for each in await power(bench).list_addresses() if each["id"] == address_id]
    need(len(mine) == 1 and not mine[0]["nodeId"], f"listed is {mine}")
    for _ in range(2):
        await power(bench).release_address(address_id)
    need(address_id not in [each["id"] for each in await power(bench).list_addresses()], "it is still there")


@case("addresses/once", "One token is one address, also when an answer is lost.", power="Addresses", needs=["lose"])
async def addresses_once(bench: Bench) -> None:
    token = named(bench, "address")
    before = len(await power(bench).list_addresses())
    await bench.inject("lose")
    with contextlib.suppress(CloudmeshError):
        await power(bench).allocate_address(token, bench.scope.tags())
    await bench.harness.heal()
    ids = {await power(bench).allocate_address(token, bench.scope.tags()) for _ in range(2)}
    need(len(ids) == 1, f"it has the ids {ids}")
    need(len(await power(bench).list_addresses()) == before + 1, "there is more than one")
    await power(bench).release_address(ids.pop())


@case("volumes/round-trip", "A volume is made, bound, freed and deleted.", power="Volumes")
async def volumes(bench: Bench) -> None:
    _, node = await bench.running()
    volume = await power(bench).ensure_volume(named(bench, "volume"), 8, node.zone, bench.scope.tags())

    async def listed(**expected: str) -> None:
        async def ready() -> bool:
            mine = [each for each in await power(bench).list_volumes(bench.scope) if each["id"] == volume]
            return len(mine) == 1 and all(mine[0].get(key) == value for key, value in expected.items())

        await bench.until(f"the volume is listed with {expected}", ready)

    await listed(sizeGiB="8", nodeId="", zone=node.zone)
    await power(bench).attach_volume(volume, node.id, "/dev/sdf")
    await listed(nodeId=node.id)
    await power(bench).detach_volume(volume)
    await listed(nodeId="")
    for _ in range(2):
        await power(bench).delete_volume(volume)

    async def gone() -> bool:
        return volume not in [each["id"] for each in await power(bench).list_volumes(bench.scope)]

    await bench.until("the volume is gone", gone)


@case("volumes/once", "One token is one volume, also when an answer is lost.", power="Volumes", needs=["lose"])
async def volumes_once(bench: Bench) -> None:
    zone = (await bench.offers())[0].zone
    token = named(bench, "volume")
    await bench.inject("lose")
    with contextlib.suppress(CloudmeshError):
        await power(bench).ensure_volume(token, 8, zone, bench.scope.tags())
    await bench.harness.heal()
    ids = {await power(bench).ensure_volume(token, 8, zone, bench.scope.tags()) for _ in range(2)}
    need(len(ids) == 1, f"it has the ids {ids}")
    need(len(await power(bench).list_volumes(bench.scope)) == 1, "there is more than one")
    await power(bench).delete_volume(ids.pop())


@case("volumes/other-scope", "Volumes of another account aren't listed.", power="Volumes")
async def volumes_other_scope(bench: Bench) -> None:
    zone = (await bench.offers())[0].zone
    volume = await power(bench).ensure_volume(named(bench, "volume"), 8, zone, bench.scope.tags())
    other = replace(bench.scope, account="other")
    need(volume not in [each["id"] for each in await power(bench).list_volumes(other)], "it is listed")
    await power(bench).delete_volume(volume)
