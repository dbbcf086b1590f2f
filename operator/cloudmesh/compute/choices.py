"""Reconcilers of PriceSheet and PlacementPolicy, which make nothing: they say whether the object can be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from cloudmesh.api import conditions as c
from cloudmesh.api.placementpolicy import PlacementPolicy
from cloudmesh.compute.accounts import Accounts, shared
from cloudmesh.compute.kinds import DATA_STORE, PLACEMENT_POLICY, PRICE_SHEET
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.prices.sheets import is_valid, next_change, prices_in
from cloudmesh.compute.reading import read_policy
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import Done, Engine, Key, Obj, Settings, utc_now
from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.plugins import plugin_of
from cloudmesh.policy.rules import rule_mask
from cloudmesh.policy.scores import check_scores

REASON_POLICY_INVALID = "PolicyInvalid"
REASON_EXPIRED = "Expired"
REASON_NOT_YET_VALID = "NotYetValid"
LONGEST_SECONDS = 86400.0


class PriceSheetReconciler:
    """Counts prices, tells when none of them holds any more, and lets accounts and stores be priced anew.

    Args:
        engine: Access to the cluster.
        accounts: Those that it may be about.
        now: RFC 3339 time.
    """

    resource = PRICE_SHEET
    owns = ()

    def __init__(self, engine: Engine, accounts: Accounts, *, now: Callable[[], str] = utc_now) -> None:
        self._engine = engine
        self._accounts = accounts
        self._now = now

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """Writes the status; comes back when a price begins or ceases to hold."""
        if obj["metadata"].get("deletionTimestamp"):
            return Done()
        now, items = self._now(), list(prices_in(obj))
        holding = sum(is_valid(item, now) for item in items)
        change = next_change([obj], now)
        if holding:
            reason, message = c.REASON_AS_SPECIFIED, f"{holding} of {len(items)} prices hold now"
        elif change:
            reason, message = REASON_NOT_YET_VALID, f"no price holds before {change}"
        else:
            reason, message = REASON_EXPIRED, f"none of {len(items)} prices holds any more: see `validTo`"
        status = _status(obj, reason, message, now) | {"items": len(items)}
        await self._engine.status.write(PRICE_SHEET, obj, status)
        self._wake(key.namespace)
        return Done(requeue_after=min(to_seconds(change) - to_seconds(now) + 1.0, LONGEST_SECONDS) if change else None)

    def forget(self, key: Key) -> None:
        """The object is gone: its prices hold no more."""
        self._wake(key.namespace)

    def _wake(self, namespace: str) -> None:
        for account in self._accounts.in_namespace(namespace):
            self._engine.enqueue(account.key)
        for store in self._engine.cache.list(DATA_STORE, namespace):
            self._engine.enqueue(Key(DATA_STORE.kind, namespace, store["metadata"]["name"]))


class PlacementPolicyReconciler:
    """Tries a policy on no offers: filters are read, plug-ins are loaded.

    Args:
        engine: Access to the cluster.
        now: RFC 3339 time.
    """

    resource = PLACEMENT_POLICY
    owns = ()

    def __init__(self, engine: Engine, *, now: Callable[[], str] = utc_now) -> None:
        self._engine = engine
        self._now = now

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """Writes the status."""
        if obj["metadata"].get("deletionTimestamp"):
            return Done()
        reason, message = c.REASON_AS_SPECIFIED, f"mode {obj['spec'].get('mode', 'Cheapest')} can be used"
        try:
            _try(obj)
        except (PolicyError, ValidationError) as error:
            reason, message = REASON_POLICY_INVALID, str(error)
        await self._engine.status.write(PLACEMENT_POLICY, obj, _status(obj, reason, message, self._now()))
        return Done()

    def forget(self, key: Key) -> None:
        """Holds nothing."""


def _try(obj: Obj) -> None:
    policy = read_policy(PlacementPolicy.model_validate(obj | {"status": {}}).spec)
    for rule in policy.filters:
        rule_mask(rule, OfferTable.from_offers(()))
    check_scores(policy)
    plugin_of(policy)


def _status(obj: Obj, reason: str, message: str, now: str) -> dict[str, Any]:
    conditions = c.Conditions.of(obj, now)
    good = reason == c.REASON_AS_SPECIFIED
    conditions.ready("True" if good else "False", reason, message, stalled=not good)
    return {"observedGeneration": conditions.generation, "conditions": conditions.list}


def price_sheets(engine: Engine, settings: Settings) -> PriceSheetReconciler:
    """The reconciler of PriceSheets of an operator."""
    return PriceSheetReconciler(engine, shared(engine, settings=ComputeSettings.from_environ()))


def policies(engine: Engine, settings: Settings) -> PlacementPolicyReconciler:
    """The reconciler of PlacementPolicies of an operator."""
    return PlacementPolicyReconciler(engine)
