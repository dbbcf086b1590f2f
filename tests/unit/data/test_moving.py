"""How a file comes to another rule: the least change that does it, and none that doesn't."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.unit.data.gateway_scene import AUTH, Served, basic

from cloudmesh.data.config import AccessRule, Match, PlacementRule, Prices, StoreConfig
from cloudmesh.data.model import MICROS
from cloudmesh.data.moving import ways
from cloudmesh.data.placement import Facts, StoreView
from cloudmesh.data.stores.ports import StoreInfo

NOW = 1_000_000 * MICROS
STORES = [StoreView(StoreConfig(name, "memory"), StoreInfo("memory", "Full")) for name in ("fast", "tape")]
RAW = PlacementRule(name="raw", match=Match(path="raw/**"), copies=1, only=("fast",))
KEPT = PlacementRule(name="kept", match=Match(tags={"keep": "long"}), copies=1, only=("tape",))
BOTH = PlacementRule(name="both", match=Match(path="arch/v1/**", tags={"keep": "no"}), copies=2)
TABLES = PlacementRule(name="tables", match=Match(path="**/*.csv"), copies=1)
LARGE = PlacementRule(name="large", match=Match(min_size=1 << 30), copies=1)
OLD = PlacementRule(name="old", match=Match(older_than_seconds=1 << 30), copies=1)
DEFAULT = PlacementRule(name="default", copies=2)


def found(facts: Facts, *rules: PlacementRule) -> dict[str, Any]:
    """By rule the path and the tags that bring the file there, None for no way."""
    told = ways(facts, rules, STORES, NOW, frozenset())
    return {one.rule.name: (one.facts.path, dict(one.facts.tags)) if one.facts else None for one in told}


@pytest.mark.parametrize(
    ("facts", "rules", "ways"),
    [
        (
            Facts("a/f", 1),
            (RAW, KEPT, DEFAULT),
            {"raw": ("raw/a/f", {}), "kept": ("a/f", {"keep": "long"}), "default": ("a/f", {})},
        ),
        # out of a rule's folder, with what is below it
        (
            Facts("raw/a/f", 1),
            (RAW, KEPT, DEFAULT),
            {"raw": ("raw/a/f", {}), "kept": ("a/f", {"keep": "long"}), "default": ("a/f", {})},
        ),
        # a tag that holds it back goes, others stay
        (
            Facts("f", 1, tags={"keep": "long", "who": "ada", "dav:x": "y"}),
            (KEPT, DEFAULT),
            {
                "kept": ("f", {"keep": "long", "who": "ada", "dav:x": "y"}),
                "default": ("f", {"who": "ada", "dav:x": "y"}),
            },
        ),
        (
            Facts("raw/f", 1, tags={"keep": "long"}),
            (RAW, KEPT, BOTH, DEFAULT),
            {
                "raw": ("raw/f", {"keep": "long"}), "kept": ("f", {"keep": "long"}),
                "both": ("arch/v1/f", {"keep": "no"}), "default": ("f", {}),
            },
        ),
        # neither tags nor a folder make a file a table, large or old
        (
            Facts("f", 1, NOW),
            (TABLES, LARGE, OLD, DEFAULT),
            {"tables": None, "large": None, "old": None, "default": ("f", {})},
        ),
        # nor does anything bring it past a rule that takes all
        (Facts("f", 1), (DEFAULT, KEPT), {"default": ("f", {}), "kept": None}),
    ],
)  # fmt: skip
def test_the_least_change(facts: Facts, rules: tuple[PlacementRule, ...], ways: dict[str, Any]) -> None:
    assert found(facts, *rules) == ways


def test_where_it_would_lie() -> None:
    told = ways(Facts("f", 1), (RAW, KEPT, DEFAULT), STORES, NOW, frozenset({"fast"}))
    assert [one.chosen.stores for one in told if one.chosen] == [("fast",), ("tape",), ("fast", "tape")]


def test_through_rest(tmp_path: Any) -> None:
    rules = (
        PlacementRule(name="raw", match=Match(path="raw/**"), copies=1, only=("one",)),
        PlacementRule(name="kept", match=Match(tags={"keep": "long"}), copies=1, only=("two",)),
        PlacementRule(name="large", match=Match(min_size=1 << 40), copies=1),
        PlacementRule(name="default", copies=2),
    )
    with Served(tmp_path, rules=rules) as served:
        vdir = served.vdir()
        vdir.write("a/f", b"x" * 1024, tags={"who": "ada"})
        told = vdir.rules("a/f")
        by_name = {rule["name"]: rule for rule in told["rules"]}
        assert told["path"] == "a/f"
        assert [name for name, rule in by_name.items() if rule["current"]] == ["default"]
        assert by_name["raw"]["to"] == "raw/a/f"
        assert "tags" not in by_name["raw"]
        assert (by_name["kept"]["tags"], by_name["kept"]["stores"]) == ({"who": "ada", "keep": "long"}, ["two"])
        assert not by_name["large"]["possible"]
        assert "stores" not in by_name["large"]
        assert "monthly" not in by_name["default"]
        # done as it is told, the rule places it
        vdir.set_tags("a/f", by_name["kept"]["tags"])
        assert vdir.why("a/f")["rule"]["name"] == "kept"
        assert {rule["name"]: rule["current"] for rule in vdir.rules("a/f")["rules"]}["kept"]
        prices = Prices(gib_month=2 * 10**9, currency="USD")
        served.reconfigure(stores=tuple(msgspec.structs.replace(one, prices=prices) for one in served.config.stores))
        monthly = {rule["name"]: rule.get("monthly") for rule in vdir.rules("a/f")["rules"]}
        assert monthly["default"] == {"amount": "0.000003816", "currency": "USD"}
        assert monthly["large"] is None

        assert served.ask("GET", "/v1/rules/a").problem == (422, "InvalidName")
        assert served.ask("GET", "/v1/rules/nothing").problem == (404, "Missing")
        served.reconfigure(
            auth=msgspec.structs.replace(served.config.auth, rules=(AccessRule(path="a/**", access="None"),))
        )
        assert served.ask("GET", "/v1/rules/a/f", headers={"Authorization": basic()}).problem == (403, "Forbidden")


def test_a_rule_of_a_hidden_folder_names_no_folder(tmp_path: Any) -> None:
    rules = (PlacementRule(name="hid", match=Match(path="hidden/**")), PlacementRule(name="default"))
    auth = msgspec.structs.replace(AUTH, kubernetes=False, rules=(AccessRule(path="hidden/**", access="None"),))
    with Served(tmp_path, rules=rules) as served:
        served.vdir().write("f", b"1")
        assert served.vdir().rules("f")["rules"][0]["to"] == "hidden/f"
        served.reconfigure(auth=auth)
        hid, default = served.ask("GET", "/v1/rules/f").json["rules"]
        assert hid == {"name": "hid", "copies": hid["copies"], "minCopies": 1, "possible": False, "current": False}
        assert default["current"]
