"""What the status of a directory says of money, and of files that can't be read."""

from __future__ import annotations

from typing import Any

from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data.config import StoreSummary

NANO = 10**9


def stores(*told: tuple[str, int, int | None]) -> tuple[StoreSummary, ...]:
    """Stores with bytes and what those cost a month."""
    return tuple(StoreSummary(name, "Up", files=1, bytes=size, monthly_nanos=cost) for name, size, cost in told)


def tells(s: Scene, **told: Any) -> None:
    """The gateway tells this from now on."""
    s.gateways.known["lab-vdir"].summary |= told


@scene
async def test_cost_is_told_by_store_and_in_all(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        assert s.status()["cost"] == {"currency": "USD", "confidence": "unknown"}
        tells(
            s, stores=stores(("aws", 10, 2_345_678)), monthly_nanos=2_345_678, egress_nanos=1, confidence="static",
            verified_at=1,
        )  # fmt: skip
        await s.settle(30)
        assert s.status()["cost"] == {
            "currency": "USD", "monthly": "0.002346", "egress": "0.000001", "confidence": "static",
        }  # fmt: skip
        assert s.status()["stores"][0]["monthly"] == "0.002346"
        # figures that move are told every 15 s, and when they moved by over 1 %
        tells(s, monthly_nanos=2_350_000, stores=stores(("aws", 10, 2_350_000)))
        await s.settle(400)
        assert s.status()["cost"]["monthly"] == "0.002346"
        tells(s, monthly_nanos=3 * NANO, stores=stores(("aws", 10, 3 * NANO)))
        await s.settle(30)
        assert s.status()["cost"]["monthly"] == "3"
        tells(s, monthly_nanos=None, confidence="unknown")
        await s.settle(30)
        assert s.status()["cost"] == {"currency": "USD", "egress": "0.000001", "confidence": "unknown"}


@scene
async def test_the_limit_goes_to_the_gateway_and_is_told(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory(maxMonthlyCost={"amount": "40.50", "currency": "USD"})
    async with s.operator():
        await s.settle()
        config = s.config()
        assert (config.max_monthly_nanos, config.currency) == (40_500_000_000, "USD")
        assert all(store.must_be_priced for store in config.stores)
        assert s.condition("WithinBudget")[:2] == ("True", "AsSpecified")
        assert s.condition()[0] == "True"
        tells(s, stores=stores(("aws", 10, 41 * NANO)), monthly_nanos=41 * NANO, confidence="static")
        await s.settle(30)
        assert s.condition("WithinBudget")[:2] == ("False", "BudgetExceeded")
        status, reason, message = s.condition()
        assert (status, reason) == ("False", "BudgetExceeded")
        assert message == (
            "all copies cost more than 40.5 USD a month, the `maxMonthlyCost`: what would cost more is refused, repair"
            " goes on, nothing is deleted"
        )
        assert s.condition("Stalled")[0] == "True"
        tells(s, stores=stores(("aws", 10, 40 * NANO)), monthly_nanos=40 * NANO, unaffordable=3)
        await s.settle(30)
        assert s.condition("WithinBudget") == s.condition()
        assert s.condition()[2] == (
            "copies that the rules ask for wait, since all would cost more than 40.5 USD a month, the `maxMonthlyCost`:"
            " let it cost more, or ask for fewer copies"
        )
        tells(s, unaffordable=0)
        await s.settle(30)
        assert s.condition("WithinBudget")[:2] == ("True", "AsSpecified")
        s.directory()
        await s.settle(30)
        assert s.config().max_monthly_nanos is None
        assert s.condition("WithinBudget") == ("", "", "")
        assert s.condition()[0] == "True"


@scene
async def test_a_limit_over_copies_whose_price_nobody_knows_is_unknown(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory(maxMonthlyCost={"amount": "40.50", "currency": "EUR"})
    async with s.operator():
        await s.settle()
        # the store's price is in dollars, and can't be added to euros
        assert [store.prices.gib_month for store in s.config().stores] == [None]
        tells(s, stores=stores(("aws", 10, None)), currency="EUR")
        await s.settle(30)
        assert s.condition("WithinBudget") == ("Unknown", "Pending", "the price isn't known of aws")


@scene
async def test_ready_is_never_true_while_files_cant_be_read(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        assert s.condition()[0] == "True"
        tells(s, unreachable=3, under_replicated=4)
        await s.settle(30)
        status, reason, message = s.condition()
        assert (status, reason) == ("False", "Unreachable")
        assert message == "files can't be read: no store that answers has a whole copy of them"
        assert (s.status()["unreachable"], s.status()["underReplicated"]) == (3, 4)
        tells(s, unreachable=0, under_replicated=0)
        await s.settle(30)
        assert s.condition()[0] == "True"


@scene
async def test_verified_is_unknown_before_anything_was(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        assert s.condition("Verified")[0] == "Unknown"
        tells(s, verified_at=1)
        await s.settle(30)
        assert s.condition("Verified")[0] == "True"
        tells(s, corrupted=1)
        await s.settle(30)
        assert s.condition("Verified")[0] == "False"


@scene
async def test_rules_that_nothing_can_be_written_by_are_told_before_anybody_writes(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        tells(s, never_written="rule 'default' needs copies in 1 strong stores")
        await s.settle(30)
        assert s.condition() == ("False", "InvalidRequest", "rule 'default' needs copies in 1 strong stores")
        assert s.condition("Stalled")[0] == "True"
        tells(s, never_written="")
        await s.settle(30)
        assert s.condition()[0] == "True"
