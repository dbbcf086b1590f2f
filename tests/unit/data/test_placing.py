"""What of a configuration makes all files due."""

from typing import Any, get_args

import msgspec
import pytest

from cloudmesh.data.config import DirectoryConfig, Match, PlacementRule, Prefer, Prices, StoreConfig
from cloudmesh.data.model import MICROS, Copy, Entry, Work
from cloudmesh.data.placement import Facts, StoreView, choose
from cloudmesh.data.placing import DIRECTORY_APART, STORE_APART, placing
from cloudmesh.data.plan import plan
from cloudmesh.data.stores.ports import StoreInfo

NOW = 10**9 * MICROS


class Told:
    """A configuration that keeps what was asked of it."""

    def __init__(self, config: Any, asked: set[str]) -> None:
        self._config, self._asked = config, asked

    def __getattr__(self, name: str) -> Any:
        self._asked.add(name)
        return getattr(self._config, name)


def directory(**more: Any) -> DirectoryConfig:
    return DirectoryConfig("ns", "n", "u", "i", (StoreConfig("a", "memory"), StoreConfig("b", "memory")), **more)


def test_all_that_placement_and_plan_ask_for_counts():
    asked: set[str] = set()
    of_stores: set[str] = set()
    entry = Entry("e" * 16, "0" * 16, "f", "File", 10, NOW, "s", 3, created=NOW)
    for prefer in get_args(Prefer):
        for states in (("Whole", "Whole"), ("Whole", "Corrupt"), ("Stale", "Missing")):
            for more in ({}, {"capacity": 5, "must_be_priced": True}, {"placed_by": Prices()}, {"access": "Drain"}):
                configs = [StoreConfig(name, "memory", **more) for name in "abc"]
                views = [StoreView(Told(config, of_stores), StoreInfo("memory", "Full")) for config in configs]
                rules = (PlacementRule(prefer=prefer, spread="Region" if "access" in more else "Provider"),)
                config = Told(directory(rules=rules, verify_seconds=5), asked)
                held = [Copy(entry.id, "ab"[n], "k", 3, state, "t", 10) for n, state in enumerate(states)]  # type: ignore[arg-type]
                chosen = choose(Facts("f", 10), config.rules, views, NOW, holding=frozenset("a"), explain=True)
                for trashed in (0, NOW - MICROS, 1):
                    plan(Work(entry, "f", tuple(held), trashed, NOW), chosen, views, config, NOW)
    assert {"rules", "verify_seconds", "trash_seconds"} <= asked
    assert {"access", "prices", "placed_by", "awaits_approval", "must_be_priced", "prefix", "domain"} <= of_stores
    assert not asked & DIRECTORY_APART
    assert not of_stores & STORE_APART


OTHER: dict[str, Any] = {
    "rules": (PlacementRule(copies=1),), "trash_seconds": 5, "versions": 3, "settle_names": False, "verify_seconds": 7,
    "name": "other", "prefix": "p/", "access": "Drain", "domain": "d", "region": "r", "capacity": 5,
    "prices": Prices("EUR"), "must_be_priced": True, "placed_by": Prices(), "awaits_approval": True,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(DirectoryConfig.__struct_fields__) - DIRECTORY_APART - {"stores"}))
def test_a_member_of_the_directory_counts(name: str):
    before = directory()
    assert placing(msgspec.structs.replace(before, **{name: OTHER.get(name, "other")})) != placing(before)


@pytest.mark.parametrize("name", sorted(set(StoreConfig.__struct_fields__) - STORE_APART))
def test_a_member_of_a_store_counts(name: str):
    before = directory()
    stores = (msgspec.structs.replace(before.stores[0], **{name: OTHER.get(name, "other")}), before.stores[1])
    assert placing(msgspec.structs.replace(before, stores=stores)) != placing(before)


def test_what_is_apart_is_there_and_does_not_count():
    assert set(DirectoryConfig.__struct_fields__) > DIRECTORY_APART
    before = directory()
    stores = (msgspec.structs.replace(before.stores[0], credentials={"k": "djE="}), before.stores[1])
    other = msgspec.structs.replace(before, stores=stores, quota_files=5, web=False)
    assert placing(other) == placing(before)


def test_a_pattern_of_a_rule_counts():
    one, two = (directory(rules=(PlacementRule(match=Match(path=path)),)) for path in ("a/**", "b/**"))
    assert placing(one) != placing(two)
