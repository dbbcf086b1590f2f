"""What a directory costs, through a real gateway: told by file, by store and in all; counted, and limited."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.data.gateway_scene import OPERATOR_TOKEN, Served, until

from cloudmesh.data import config as configs
from cloudmesh.data.config import DirectoryConfig, PlacementRule, Prices, Proposal, Summary
from cloudmesh.data.errors import Full, Missing
from cloudmesh.data.quote import terms_of

MIB = 1 << 20
GIB_MONTH = 1024 * 10**9
"""A MiB costs 1 USD a month."""
CHEAP = Prices("USD", GIB_MONTH, 0, 0, 2 * GIB_MONTH, "PriceSheet/campus", "declared", "2026-01-01T00:00:00Z")
DEAR = Prices("USD", 3 * GIB_MONTH, 5_000_000, 0, 0, "packaged", "static")


def priced(folder: Path, prices: tuple[Prices, Prices] = (CHEAP, DEAR), **more: Any) -> Served:
    """A gateway over two stores."""
    served = Served(folder, rules=(PlacementRule(copies=1, prefer="Cheapest"),), **more)
    stores = [msgspec.structs.replace(s, prices=p) for s, p in zip(served.config.stores, prices, strict=True)]
    served.config = msgspec.structs.replace(served.config, stores=tuple(stores))
    return served


def summary(served: Served) -> Summary:
    answer = served.ask("GET", "/internal/summary", user="", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"})
    return msgspec.json.decode(answer.body, type=Summary)


def tell(served: Served, config: DirectoryConfig) -> None:
    """The operator tells another configuration."""
    text = configs.dump(config)
    part = served.file.with_suffix(".part")
    part.write_bytes(text)
    part.replace(served.file)
    served.call(served.gateway.reconfigure(text))


def test_each_file_and_store_tells_its_price_and_score(tmp_path: Path) -> None:
    with priced(tmp_path) as served:
        served.vdir().write("f", b"x" * MIB)
        where = served.vdir().where("f")["copies"]
        assert [(c["store"], c["monthly"]) for c in where] == [("one", {"amount": "1", "currency": "USD"})]
        why = {s["store"]: s for s in served.vdir().why("f")["stores"]}
        # a month with one write and one read: one has a way out to be paid, two a dear place
        assert (why["one"]["score"], why["one"]["monthly"]["amount"]) == (3 * 10**9, "1")
        assert (why["two"]["score"], why["two"]["monthly"]["amount"]) == (3 * 10**9 + 5000, "3")
        assert why["two"]["why"] == "2. of 2 by price (rule 'default')"


def test_cost_is_told_by_store_and_what_is_read_is_counted_over_restarts(tmp_path: Path) -> None:
    with priced(tmp_path, max_monthly_nanos=5 * 10**9) as served:
        vdir = served.vdir()
        vdir.write("f", b"x" * MIB)
        assert vdir.read("f") == b"x" * MIB
        assert vdir.read("f", start=0, stop=MIB // 2) == b"x" * (MIB // 2)
        assert until(lambda: vdir.cost()["stores"][0]["egressBytes"] >= MIB * 3 // 2)
        cost = vdir.cost()
        assert (cost["currency"], cost["monthly"], cost["egress"], cost["limit"]) == ("USD", "1", "3", "5")
        assert cost["confidence"] == "declared"
        one, two = cost["stores"]
        assert (one["store"], one["files"], one["bytes"], one["monthly"], one["egress"]) == ("one", 1, MIB, "1", "3")
        assert (two["files"], two["monthly"], two["egress"]) == (0, "0", "0")
        assert one["price"] == {
            "storagePerGibMonth": "1024", "writesPerThousand": "0", "readsPerThousand": "0", "egressPerGib": "2048",
            "currency": "USD", "source": "PriceSheet/campus", "confidence": "declared",
            "asOf": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        told = summary(served)
        assert (told.monthly_nanos, told.egress_nanos, told.confidence) == (10**9, 3 * 10**9, "declared")
        assert told.stores[0].monthly_nanos == 10**9
        served.call(served.gateway.meter.close())
        kept = served.call(served.gateway.catalog.get("egress"))
        assert f'"one":{MIB * 3 // 2}' in kept


def test_a_store_with_copies_and_no_price_makes_the_cost_unknown(tmp_path: Path) -> None:
    with priced(tmp_path, (CHEAP, Prices()), max_monthly_nanos=None) as served:
        vdir = served.vdir()
        vdir.write("f", b"x")
        assert (vdir.cost()["monthly"], vdir.cost()["confidence"]) == ("0.000000954", "declared")
        served.config = msgspec.structs.replace(
            served.config, rules=(PlacementRule(copies=2, prefer="Cheapest"),)
        )  # fmt: skip
        tell(served, served.config)
        assert until(lambda: vdir.usage()["pending"] == 0 and vdir.usage()["stores"][1]["files"] == 1)
        cost = vdir.cost()
        assert "monthly" not in cost
        assert cost["confidence"] == "unknown"
        assert "price" not in cost["stores"][1]
        assert summary(served).monthly_nanos is None


def test_a_write_over_the_limit_is_507_in_words(tmp_path: Path) -> None:
    with priced(tmp_path, max_monthly_nanos=2 * 10**9) as served:
        vdir = served.vdir()
        vdir.write("f", b"x" * MIB)
        answer = served.ask("PUT", "/v1/files/g", b"y" * (MIB + 1))
        assert answer.problem == (507, "BudgetExceeded")
        assert answer.json["detail"].startswith("this file would take the directory to 2.000000954 USD a month, and")
        with pytest.raises(Full, match="maxMonthlyCost"):
            vdir.write("g", (b"y" * 4096 for _ in range(MIB // 4096 + 1)))
        vdir.write("g", b"y" * MIB)
        assert vdir.read("f") == b"x" * MIB


def test_verified_is_when_a_copy_was_last_read_and_found_whole(tmp_path: Path) -> None:
    with priced(tmp_path) as served:
        served.vdir().write("f", b"x")
        assert summary(served).verified_at == 0

        async def scrub() -> None:
            served.gateway.mover.done.scrubbed += 1
            await served.gateway.meter.tick()
            await asyncio.sleep(0)

        served.call(scrub())
        at = summary(served).verified_at
        assert at > 0
        assert int(served.call(served.gateway.catalog.get("verified"))) == at


def test_a_quote_and_a_plan_over_rest(tmp_path: Path) -> None:
    with priced(tmp_path) as served:
        vdir = served.vdir()
        vdir.write("f", b"x" * MIB)
        assert served.ask("GET", "/v1/quote").problem == (404, "Missing")
        rules = msgspec.to_builtins([PlacementRule(copies=2, prefer="Cheapest")])
        told = vdir.plan(rules, ["one", "two"])
        assert told == {
            "files": 1, "copies": 1, "bytes": MIB, "size": "1Mi", "removed": 0, "currency": "USD",
            "requests": "0.000005", "egress": "2", "monthlyBefore": "1", "monthlyAfter": "4",
        }  # fmt: skip
        # a store that isn't named is emptied
        assert {k: v for k, v in vdir.plan(rules, ["two"]).items() if k in ("copies", "removed", "monthlyAfter")} == {
            "copies": 1, "removed": 1, "monthlyAfter": "3",
        }  # fmt: skip
        assert [s["files"] for s in vdir.usage()["stores"]] == [1, 0]
        with pytest.raises(Missing):
            vdir.plan(rules, ["three"])
        assert served.ask("POST", "/v1/plan", {"rules": [], "stores": []}).problem == (400, "InvalidRequest")
        assert served.ask("POST", "/v1/plan", {"rules": rules, "stores": []}, user="").problem[0] == 401

        stores = tuple(terms_of(store) for store in served.config.stores)
        asked = Proposal("ab" * 16, (PlacementRule(copies=2, prefer="Cheapest"),), stores)
        served.config = msgspec.structs.replace(served.config, proposal=asked)
        tell(served, served.config)
        assert until(lambda: summary(served).quote)
        assert vdir.quote() == told
        quote = summary(served).quote
        assert quote is not None
        assert (quote.question, quote.copies) == (asked.question, 1)
        assert [s["files"] for s in vdir.usage()["stores"]] == [1, 0]


def test_a_plug_in_that_isnt_there_keeps_what_runs(tmp_path: Path) -> None:
    with priced(tmp_path) as served:
        wanted = msgspec.structs.replace(served.config, rules=(PlacementRule(prefer="Plugin", plugin="nobody's"),))
        tell(served, wanted)
        told = summary(served)
        assert "there is no plug-in 'nobody's' in group cloudmesh.placement" in told.error
        assert told.config == configs.fingerprint(configs.dump(served.config))
        served.vdir().write("f", b"x")
