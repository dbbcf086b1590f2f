"""Conditions of `status.conditions`: a list keyed by type, as kstatus, `kubectl wait` and Argo CD read it.

`Ready` is always there; `Reconciling`, `Stalled` and `Paused` only while they are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

Status = Literal["True", "False", "Unknown"]
Condition = dict[str, Any]

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"

READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
PAUSED: Final = "Paused"

SOURCE_VALID: Final = "SourceValid"
DEPENDENCIES_LOCKED: Final = "DependenciesLocked"
IMAGE_BUILT: Final = "ImageBuilt"
AVAILABLE: Final = "Available"

SCHEDULED: Final = "Scheduled"
PROVISIONED: Final = "Provisioned"
REACHABLE: Final = "Reachable"
BOOTSTRAPPED: Final = "Bootstrapped"
MOUNTED: Final = "Mounted"
HEALTHY: Final = "Healthy"
WITHIN_BUDGET: Final = "WithinBudget"
PRICES_FRESH: Final = "PricesFresh"
CREATED: Final = "Created"
INVENTORY_COMPLETE: Final = "InventoryComplete"

STORES_READY: Final = "StoresReady"
PLACED: Final = "Placed"
VERIFIED: Final = "Verified"
WITHIN_QUOTA: Final = "WithinQuota"
WRITABLE: Final = "Writable"
IDENTITY_CONFIRMED: Final = "IdentityConfirmed"
AUTH_EXPIRING: Final = "AuthExpiring"

REASON_PENDING: Final = "Pending"
REASON_AS_SPECIFIED: Final = "AsSpecified"
REASON_SUSPENDED: Final = "Suspended"
REASON_AWAITING_APPROVAL: Final = "AwaitingApproval"
REASON_NAME_CONFLICT: Final = "NameConflict"
REASON_SOURCE_INVALID: Final = "SourceInvalid"
REASON_DEPENDENCIES_UNSATISFIABLE: Final = "DependenciesUnsatisfiable"
REASON_BUILDER_UNAVAILABLE: Final = "BuilderUnavailable"
REASON_REGISTRY_UNAVAILABLE: Final = "RegistryUnavailable"
REASON_BUILD_FAILED: Final = "BuildFailed"
REASON_ROLLING_OUT: Final = "RollingOut"
REASON_ROLLOUT_FAILED: Final = "RolloutFailed"
REASON_NO_FEASIBLE_OFFER: Final = "NoFeasibleOffer"
REASON_OVER_MAX_HOURLY_COST: Final = "OverMaxHourlyCost"
REASON_BUDGET_EXCEEDED: Final = "BudgetExceeded"
REASON_QUOTA_EXCEEDED: Final = "QuotaExceeded"
REASON_CAPACITY_UNAVAILABLE: Final = "CapacityUnavailable"
REASON_CLOUD_UNAVAILABLE: Final = "CloudUnavailable"
REASON_PROVISIONING: Final = "Provisioning"
REASON_UNREACHABLE: Final = "Unreachable"
REASON_BOOTSTRAPPING: Final = "Bootstrapping"
REASON_NOT_MOUNTED: Final = "NotMounted"
REASON_LIFETIME_EXCEEDED: Final = "LifetimeExceeded"
REASON_STORE_UNAVAILABLE: Final = "StoreUnavailable"
REASON_STORE_CLAIMED: Final = "StoreClaimed"
REASON_SUSPICIOUS_SHRINK: Final = "SuspiciousShrink"
REASON_GATEWAY_UNAVAILABLE: Final = "GatewayUnavailable"
REASON_PLACING: Final = "Placing"
REASON_REPAIRING: Final = "Repairing"

MAX_MESSAGE_LENGTH: Final = 32768
MAX_REASON_LENGTH: Final = 1024


def find_condition(conditions: Iterable[Mapping[str, Any]], type_: str) -> Mapping[str, Any] | None:
    """The condition of that type, or None."""
    return next((c for c in conditions if c.get("type") == type_), None)


def is_true(conditions: Iterable[Mapping[str, Any]], type_: str) -> bool:
    """Whether the condition is there with status `True`."""
    found = find_condition(conditions, type_)
    return found is not None and found.get("status") == TRUE


def set_condition(
    conditions: Sequence[Mapping[str, Any]],
    type_: str,
    status: Status,
    reason: str,
    message: str,
    *,
    generation: int,
    now: str,
) -> list[Condition]:
    """The list with one condition set, in its old place or at the end; the argument stays as it is.

    Args:
        conditions: What `status.conditions` holds now.
        type_: Condition type.
        status: `True`, `False` or `Unknown`.
        reason: One CamelCase word.
        message: For people; cut at 32,768 characters.
        generation: `metadata.generation` that was looked at.
        now: RFC 3339 time; used only where the status changes, so that a repeated write is equal to the last.
    """
    if not reason:
        raise ValueError(f"condition {type_} must have a reason")
    old = find_condition(conditions, type_)
    unchanged = old is not None and old.get("status") == status
    new: Condition = {
        "type": type_,
        "status": status,
        "reason": reason[:MAX_REASON_LENGTH],
        "message": _cut(message),
        "observedGeneration": generation,
        "lastTransitionTime": old.get("lastTransitionTime", now) if old is not None and unchanged else now,
    }
    if old is None:
        return [*map(dict, conditions), new]
    return [new if c.get("type") == type_ else dict(c) for c in conditions]


def remove_condition(conditions: Sequence[Mapping[str, Any]], type_: str) -> list[Condition]:
    """The list without the condition of that type; the argument stays as it is."""
    return [dict(c) for c in conditions if c.get("type") != type_]


def _cut(message: str) -> str:
    if len(message) <= MAX_MESSAGE_LENGTH:
        return message
    return message[: MAX_MESSAGE_LENGTH - 1] + "…"


SUMMARY = (READY, RECONCILING, STALLED)


def _rank(condition: Condition) -> int:
    type_ = condition["type"]
    return SUMMARY.index(type_) if type_ in SUMMARY else len(SUMMARY)


class Conditions:
    """The conditions of a status while they are being changed.

    Args:
        old: The status that they stood in.
        generation: `metadata.generation` that is looked at.
        now: RFC 3339 time; used only where a condition's status changes.
        anew: Begins with none; one that is put keeps the time of the old one.
    """

    def __init__(self, old: Mapping[str, Any], generation: int, now: str, *, anew: bool = False) -> None:
        self.generation = generation
        self._old: list[Condition] = [dict(x) for x in old.get("conditions") or ()]
        self.list: list[Condition] = [] if anew else self._old
        self._now = now

    @classmethod
    def of(cls, obj: Mapping[str, Any], now: str, *, anew: bool = False) -> Conditions:
        """Those of an object as the API server has it."""
        return cls(obj.get("status") or {}, int(obj["metadata"].get("generation", 0)), now, anew=anew)

    def put(self, type_: str, status: Status, reason: str, message: str = "") -> None:
        """Sets one."""
        before = self.list
        if find_condition(before, type_) is None and (old := find_condition(self._old, type_)) is not None:
            before = [*before, dict(old)]
        self.list = set_condition(before, type_, status, reason, message, generation=self.generation, now=self._now)

    def remove(self, type_: str) -> None:
        """Removes one; an absent one is fine."""
        self.list = remove_condition(self.list, type_)

    def ready(
        self, status: Status, reason: str, message: str, *, reconciling: bool = False, stalled: bool = False
    ) -> None:
        """Sets Ready, and Reconciling and Stalled as they go with it, before all others; nothing is paused."""
        self.put(READY, status, reason, message)
        for type_, on in ((RECONCILING, reconciling), (STALLED, stalled)):
            if on:
                self.put(type_, TRUE, reason, message)
            else:
                self.remove(type_)
        self.remove(PAUSED)
        # where they stand mustn't hang on what was so before
        self.list = sorted(self.list, key=_rank)

    def pause(self, annotation: str) -> None:
        """Sets Paused; the others stay as they are, so that what is there is still told."""
        self.put(PAUSED, TRUE, "Annotation", f"remove the annotation {annotation} to go on")
        if find_condition(self.list, READY) is None:
            self.put(READY, UNKNOWN, REASON_PENDING, "paused")

    def is_true(self, type_: str) -> bool:
        """Whether one is True."""
        return is_true(self.list, type_)
