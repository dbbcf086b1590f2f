"""Each filter by itself: what falls, how many, and one of them by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.policy.offers import ask, but, fallen, offer, pool, price, solve, types

from cloudmesh.compute.failures import FailureMemory
from cloudmesh.engine import AuthFailed, CapacityUnavailable, QuotaExceeded
from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.model import Alternative, Block, FilterRule, Needs, Offer, Policy, PoolRequest, Request
from cloudmesh.policy.rules import known_rules

GOOD = offer("a", "good", 0.5)
LATER = "2026-01-01T01:00:00Z"


def needing(**needs: object) -> Request:
    return ask(pool(needs=Needs(**needs)))  # type: ignore[arg-type]


def blocking(key: str, error: str = "CapacityUnavailable") -> Request:
    return ask(pool(), blocks=(Block(key, error, LATER, "no room"),))


CASES: list[tuple[str, Request, Offer, str]] = [
    ("Account", ask(pool(), accounts=("a",)), offer("b"), "account b"),
    ("Type", needing(type="good"), offer(type_="m"), "type m, not good"),
    ("Arch", needing(arch=("amd64",)), offer(arch="arm64"), "architecture arm64, not amd64"),
    ("Vcpu", needing(vcpu=(4000, None)), offer(milli_vcpu=2000), "2 virtual CPUs, at least 4 asked for"),
    ("Vcpu", needing(vcpu=(0, 4000)), offer(milli_vcpu=8000), "8 virtual CPUs, at most 4 asked for"),
    (
        "Memory",
        needing(memory_mib=(16384, None)),
        offer(memory_mib=1024),
        "1024 MiB of memory, at least 16384 asked",
    ),
    ("Memory", needing(memory_mib=(0, 16384)), offer(memory_mib=32768), "32768 MiB of memory, at most 16384 asked for"),
    ("Gpu", needing(), offer(gpu_count=1, gpu_model="T4"), "1 GPU T4, none asked for"),
    ("Disk", needing(disk_gib=100), offer(disk_gib=50), "disk of 50 GiB"),
    ("Image", ask(pool(image="ubuntu")), offer(images=frozenset({"debian"})), "image ubuntu"),
    ("Region", ask(pool(regions=("r1",))), offer(region="r2"), "region r2, not r1"),
    ("Zone", ask(pool(zones=("z1",))), offer(zone="z2"), "zone z2, not z1"),
    ("Purchase", ask(pool()), offer(purchase="Spot"), "Spot, not OnDemand"),
    ("Priced", ask(pool(), max_hourly_nanos=10**10), offer(hourly=None), "price isn't known"),
    ("Currency", ask(pool(), max_hourly_nanos=10**10), replace(offer(), price=price(0.1, "EUR")), "EUR"),
    ("Blocked", blocking("a/m/z1/OnDemand"), offer(), "CapacityUnavailable until"),
    ("Blocked", blocking("a/r2/standard"), offer(region="r2", quota="standard"), "no room"),
    ("Blocked", blocking("a/r2/"), offer(region="r2"), "no room"),
    ("Blocked", blocking("b", "AuthFailed"), offer("b"), "AuthFailed"),
    ("Free", ask(pool()), offer(free=0), "no machine more fits"),
    ("AccountLimit", ask(pool(), account_limits={"b": 0}), offer("b"), "account b is at its limit"),
    ("Network", ask(pool(), same_network=True), offer(), "its network isn't known"),
]


@pytest.mark.parametrize(("name", "request_", "bad", "says"), CASES)
def test_an_offer_falls_at_its_filter(name: str, request_: Request, bad: Offer, says: str) -> None:
    good = replace(GOOD, network="n1")
    placement = solve(request_, good, bad, replace(bad, type=bad.type, account=bad.account))
    assert types(placement) == {"good": 1}
    assert fallen(placement) == {name: 1}
    assert placement.rejected[0].example.startswith(f"{bad.id}: ")
    assert says in placement.rejected[0].example


def test_an_offer_with_gpus_is_taken_by_type_or_by_gpu() -> None:
    gpu = offer(type_="gpu", gpu_count=2, gpu_model="A100")
    assert types(solve(needing(type="gpu"), gpu)) == {"gpu": 1}
    assert types(solve(needing(gpu_model="a100", gpu_count=2), gpu)) == {"gpu": 1}
    assert types(solve(needing(gpu_model="A100"), gpu)) == {"gpu": 1}
    assert fallen(solve(needing(gpu_model="A100", gpu_count=4), gpu)) == {"Gpu": 1}
    assert fallen(solve(needing(gpu_model="T4"), gpu)) == {"Gpu": 1}


def test_a_disk_of_unknown_size_and_all_images_pass() -> None:
    assert types(solve(ask(pool(needs=Needs(disk_gib=100), image="ubuntu")), offer(disk_gib=0, images=None))) == {
        "m": 1
    }


def test_an_offer_falls_at_the_furthest_filter_of_all_alternatives() -> None:
    request = ask(
        PoolRequest("p", 1, (Alternative("x", Needs(arch=("arm64",))), Alternative("y", Needs(vcpu=(64000, None)))))
    )
    assert fallen(solve(request, offer(), offer(type_="n", arch="arm64", milli_vcpu=1000, gpu_count=1))) == {
        "Vcpu": 1,
        "Gpu": 1,
    }


def test_what_is_said_of_an_offer_is_of_the_alternative_that_it_came_furthest_with() -> None:
    small = Alternative("small", Needs(arch=("amd64",), vcpu=(2000, 8000)))
    large = Alternative("large", Needs(arch=("arm64",), vcpu=(64_000, None), gpu_model="A100"))
    gpus = Alternative("gpus", Needs(gpu_model="A100", gpu_count=2))
    said = {
        r.filter: r.example.partition(": ")[2]
        for r in solve(ask(PoolRequest("p", 1, (small, large))), offer(arch="arm64", milli_vcpu=1000)).rejected
    }
    assert said == {"Vcpu": "1 virtual CPUs, at least 64 asked for"}
    [one] = solve(ask(PoolRequest("p", 1, (small,))), offer(milli_vcpu=16_000)).rejected
    assert one.example.endswith("16 virtual CPUs, at least 2 and at most 8 asked for")
    [two] = solve(ask(PoolRequest("p", 1, (gpus,))), offer()).rejected
    assert two.example.endswith("0 GPUs, at least 2 GPUs A100 asked for")
    [far] = solve(ask(pool(regions=tuple(f"x{n}" for n in range(5)))), offer()).rejected
    assert far.example.endswith("region r1, not x0, x1, x2 or 2 more")


def test_a_block_is_over_at_its_time() -> None:
    request = blocking("a")
    assert solve(request, offer(), now="2026-01-01T00:59:59Z").missing
    assert not solve(request, offer(), now=LATER).missing


@pytest.mark.parametrize(
    ("error", "key", "others"),
    [
        (CapacityUnavailable("full"), "a/family/m/z1/Spot", 0),
        (QuotaExceeded("no more"), "a/r1/std", 1),
        (AuthFailed("who?"), "a", 2),
    ],
)
def test_what_a_failure_is_about_is_blocked_and_nothing_else(error: CloudmeshError, key: str, others: int) -> None:
    some = offer("a", "family/m", quota="std", purchase="Spot")
    near = [replace(some, type="n"), replace(some, zone="z2", quota="gpu"), replace(some, account="b")]
    memory = FailureMemory()
    memory.remember(some, error, "2026-01-01T00:00:00Z")
    held = memory.blocks("2026-01-01T00:00:01Z")
    assert [block.key for block in held] == [key]
    placement = solve(ask(pool(9, above_base="Spot"), blocks=held), some, *near, now="2026-01-01T00:00:01Z")
    assert fallen(placement) == {"Blocked": 1 + others}


RULES: list[tuple[FilterRule, Offer]] = [
    (FilterRule("Region", {"in": "r1, r3"}), offer(region="r2")),
    (FilterRule("NotRegion", {"in": "r2"}), offer(region="r2")),
    (FilterRule("Type", {"in": "g*"}), offer(type_="m")),
    (FilterRule("NotType", {"in": "m?,x*"}), offer(type_="m5")),
    (FilterRule("Zone", {"in": "z1"}), offer(zone="z2")),
    (FilterRule("Account", {"in": "a"}), offer("b")),
    (FilterRule("NotArch", {"in": "arm64"}), offer(arch="arm64")),
    (FilterRule("Purchase", {"in": "OnDemand"}), offer(purchase="Spot")),
    (FilterRule("MaxPrice", {"hourly": "0.5"}), offer(hourly=0.6)),
    (FilterRule("MaxPrice", {"hourly": "0.5"}), offer(hourly=None)),
    (FilterRule("MaxPrice", {"hourly": "0.5", "currency": "USD"}), replace(offer(), price=price(0.1, "EUR"))),
    (FilterRule("MinVcpu", {"count": "4"}), offer(milli_vcpu=2000)),
    (FilterRule("MaxVcpu", {"count": "4"}), offer(milli_vcpu=8000)),
    (FilterRule("MinMemory", {"mib": "16384"}), offer(memory_mib=1024)),
    (FilterRule("MaxMemory", {"mib": "16384"}), offer(memory_mib=32768)),
    (FilterRule("MaxStart", {"seconds": "60"}), offer(start_seconds=61)),
    (FilterRule("Confidence", {"atLeast": "fetched"}), replace(offer(), price=price(0.1, confidence="static"))),
]


@pytest.mark.parametrize(("rule", "bad"), RULES)
def test_a_policy_adds_filters_by_name(rule: FilterRule, bad: Offer) -> None:
    good = replace(GOOD, start_seconds=60)
    request = ask(pool(above_base="SpotWithFallback"), policy=Policy(filters=(rule,)))
    placement = solve(request, good, bad)
    assert types(placement) == {"good": 1}
    assert fallen(placement) == {f"Policy{rule.name}": 1}


def test_gpu_models_and_networks_are_filtered_by_name_too() -> None:
    request = ask(pool(needs=Needs(gpu_count=1)), policy=Policy(filters=(FilterRule("NotGpuModel", {"in": "T4"}),)))
    placement = solve(request, offer(gpu_count=1, gpu_model="T4"), offer(type_="good", gpu_count=1, gpu_model="A100"))
    assert types(placement) == {"good": 1}
    request = ask(pool(), policy=Policy(filters=(FilterRule("Network", {"in": "n1"}),)))
    assert types(solve(request, offer(network="n2"), offer(type_="good", network="n1"))) == {"good": 1}


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (FilterRule("Color", {}), "filter 'Color' must be one of Account"),
        (FilterRule("Region", {}), "filter Region must have the parameter 'in'"),
        (FilterRule("Region", {"in": "r1", "out": "r2"}), "filter Region has no parameter 'out'"),
        (FilterRule("Region", {"in": " , "}), "parameter 'in': it must name something"),
        (FilterRule("MaxPrice", {"hourly": "cheap"}), "'cheap' must be an amount"),
        (FilterRule("MaxPrice", {"hourly": "-1"}), "'-1' must be an amount"),
        (FilterRule("MinVcpu", {"count": "many"}), "'many' must be a whole number"),
        (FilterRule("Purchase", {"in": "Stolen"}), "it must name OnDemand or Spot"),
        (FilterRule("Confidence", {"atLeast": "unknown"}), "must be one of static"),
    ],
)
def test_a_wrong_filter_is_named(rule: FilterRule, says: str) -> None:
    with pytest.raises(PolicyError, match="filter") as error:
        solve(but(ask(pool()), policy=Policy(filters=(rule,))), offer())
    assert says in str(error.value)


def test_all_names_of_filters_can_be_told() -> None:
    assert {"NotType", "MaxPrice", "Confidence"} < set(known_rules())
