"""Statuses of a VirtualMachine: pure functions of the old status, what is seen, and the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cloudmesh.api import conditions as c
from cloudmesh.compute.machine_plan import Wanted
from cloudmesh.compute.machines import REASON_FAILED, REASON_GONE, REASON_PREEMPTED
from cloudmesh.compute.ports import Node, ProviderInfo
from cloudmesh.compute.prices.money import to_nanos, to_text
from cloudmesh.policy.model import Offer, with_disk

Status = dict[str, Any]
Power = Literal["", "start", "stop", "suspend", "resume"]
Boot = tuple[Literal["None", "Pending", "Done", "Failed"], str]
MESSAGE_LENGTH = 1024
REST = ("Stopped", "Suspended")


@dataclass(frozen=True, slots=True)
class Event:
    """To be told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Refusal(str):
    """Why a machine must not run, in words; empty if it may.

    Args:
        text: The words.
        reason: The same in a word.
    """

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, text: str = "", reason: str = c.REASON_BUDGET_EXCEEDED) -> Refusal:
        made = super().__new__(cls, text)
        made.reason = reason
        return made


@dataclass(frozen=True, slots=True)
class Living:
    """A status, what is to be done about the machine's power, and what is told."""

    status: Status
    power: Power = ""
    settled: bool = False
    """Nothing is under way: it needn't be looked at often."""
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a living machine besides its node.

    Args:
        reached: Whether its port for logins answers, None while nobody knows.
        trouble: Why it doesn't.
        boot: What its cluster's bootstrap says.
        silent: The cloud doesn't answer to listings.
        powers: Names of the powers of its provider.
        drift: What differs, by field: expected and found.
    """

    reached: bool | None = None
    trouble: str = ""
    boot: Boot = ("None", "")
    silent: bool = False
    powers: tuple[str, ...] = ()
    drift: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def price_of(offer: Offer) -> Status | None:
    """`hourlyPrice` of an offer, None if nobody knows it."""
    price = offer.price
    if price is None:
        return None
    return {
        "amount": to_text(price.nanos),
        "currency": price.currency,
        "source": price.source,
        "asOf": price.as_of,
        "confidence": price.confidence,
    }


def note_price(status: Status, offer: Offer, gib: int) -> None:
    """Adds `hourlyPrice` and `diskHourly` where the status lacks them and they are known.

    Args:
        status: A machine's status; changed.
        offer: Its offer.
        gib: The disk that is chosen for it, 0 for none.
    """
    if "hourlyPrice" not in status and (price := price_of(offer)) is not None:
        status["hourlyPrice"] = price
    known, held = with_disk(offer, gib).price, status.get("hourlyPrice")
    if "diskHourly" not in status and held and known is not None and known.disk and known.currency == held["currency"]:
        status["diskHourly"] = to_text(known.disk)


def whole_price(status: Mapping[str, Any]) -> Status | None:
    """`hourlyPrice` with the disk in its amount, None if nobody knows it."""
    price = status.get("hourlyPrice")
    if price is None:
        return None
    return {**price, "amount": to_text(to_nanos(price["amount"]) + to_nanos(status.get("diskHourly", "0")))}


def moved_price(held: Mapping[str, Any] | None, offer: Offer | None) -> Status | None:
    """What a machine's offer costs now, None if that is what it was made at, or nobody knows.

    Args:
        held: Its `hourlyPrice`.
        offer: Its offer as it is now.
    """
    now = price_of(offer) if offer is not None else None
    if held is None or now is None or (held["amount"], held["currency"]) == (now["amount"], now["currency"]):
        return None
    return now


def is_charged_more(held: Mapping[str, Any], now: Mapping[str, Any], purchase: str) -> bool:
    """Whether a cloud may charge more for a machine than `hourlyPrice`.

    Where the cloud tells prices, a spot machine is made with its own as the limit: it is taken away before that.
    """
    if held["currency"] != now["currency"]:
        return True
    capped = purchase == "Spot" and held["confidence"] == "fetched"
    return to_nanos(now["amount"]) > to_nanos(held["amount"]) and not capped


def stamped(old: Mapping[str, Any], generation: int, now: str, *, token: str, prices: Mapping[str, Any]) -> Status:
    """The status before the first call: the token, and Pending."""
    conditions = c.Conditions(old, generation, now)
    conditions.ready("Unknown", c.REASON_PENDING, "the cloud is being asked for the machine", reconciling=True)
    conditions.put(c.CREATED, "Unknown", c.REASON_PENDING, "asked for")
    status = _kept(old, generation, conditions) | {"createToken": token, "state": "Pending"}
    status.setdefault("createRequestedAt", now)
    return status | dict(prices)


def over_budget(old: Mapping[str, Any], generation: int, now: str, refusal: Refusal) -> Status:
    """The status of a machine that a Budget, or the limit of its cluster, lets not run."""
    conditions = c.Conditions(old, generation, now)
    conditions.ready("False", refusal.reason, str(refusal), stalled=True)
    return _kept(old, generation, conditions)


def waiting(old: Mapping[str, Any], generation: int, now: str, reason: str, message: str) -> Status:
    """The status of a machine that can't go on: the account or its cloud doesn't answer."""
    conditions = c.Conditions(old, generation, now)
    conditions.ready("Unknown", reason, message, reconciling=True)
    return _kept(old, generation, conditions)


def stands(old: Mapping[str, Any], generation: int) -> bool:
    """Whether a machine was found as its present spec asks: until somebody has looked anew, that is what is known."""
    return old.get("observedGeneration") == generation and c.is_true(old.get("conditions") or (), c.READY)


def held(old: Mapping[str, Any], generation: int, now: str, reason: str, message: str) -> Status:
    """The status of a machine that can't be made while something of somebody else's is in its way."""
    conditions = c.Conditions(old, generation, now)
    conditions.put(c.CREATED, "Unknown", reason, message)
    conditions.ready("False", reason, message, stalled=True)
    return _kept(old, generation, conditions)


def refused(old: Mapping[str, Any], generation: int, now: str, reason: str, message: str, *, final: bool) -> Status:
    """The status after the cloud said no: there is no machine, and with `final` there won't be one."""
    conditions = c.Conditions(old, generation, now)
    conditions.put(c.CREATED, "False" if final else "Unknown", reason, message)
    conditions.ready("False", reason, message, reconciling=not final, stalled=final)
    status = _kept(old, generation, conditions) | {"message": message[:MESSAGE_LENGTH]}
    status.pop("state", None)
    return status


def lost(old: Mapping[str, Any], generation: int, now: str, node: Node | None) -> tuple[Status, Event]:
    """The status of a machine that went behind our back."""
    preempted = node is not None and node.details.get("preempted") == "true"
    reason = REASON_PREEMPTED if preempted else REASON_GONE
    what = old.get("providerID", "the machine")
    message = f"the cloud took {what} away" if preempted else f"{what} is gone, and nobody here deleted it"
    conditions = c.Conditions(old, generation, now)
    before = c.find_condition(conditions.list, c.READY) or {}
    if before.get("reason") == c.REASON_BUDGET_EXCEEDED:
        message = f"{what} can't be stopped and was deleted: {before['message']}"
    conditions.put(c.REACHABLE, "False", reason, message)
    conditions.ready("False", reason, message)
    status = _kept(old, generation, conditions) | {"state": "Deleted", "message": message}
    status.pop("drift", None)
    if "startedAt" in status:
        status.setdefault("endedAt", now)
    return status, Event("Warning", reason, message)


def given_up(old: Mapping[str, Any], generation: int, now: str, node: Node) -> tuple[Status, Event]:
    """The status of a machine that the cloud gave up: as if it had been refused if it never ran."""
    failure = node.failure
    message = f"{node.id}: {failure}" if failure is not None else f"{node.id} failed"
    conditions = c.Conditions(old, generation, now)
    ran = conditions.is_true(c.REACHABLE) or conditions.is_true(c.READY)
    reason = REASON_FAILED if failure is None or ran else failure.reason
    if not ran and failure is not None:
        conditions.put(c.CREATED, "False", reason, message)
    conditions.put(c.REACHABLE, "False", reason, message)
    conditions.ready("False", reason, message, stalled=True)
    status = _kept(old, generation, conditions) | {
        "state": "Failed",
        "providerID": node.id,
        "message": message[:MESSAGE_LENGTH],
    }
    starts(status, node, now)
    return status, Event("Warning", reason, message)


def ending(old: Mapping[str, Any], generation: int, now: str, message: str) -> Status:
    """The status while the machine is being deleted."""
    conditions = c.Conditions(old, generation, now)
    ready = c.find_condition(conditions.list, c.READY) or {}
    reason = ready.get("reason", "")
    if reason not in (REASON_GONE, REASON_PREEMPTED, REASON_FAILED):
        conditions.ready("False", "Deleting", message, reconciling=True)
    return _kept(old, generation, conditions) | {"state": "Deleting"}


def ended(old: Mapping[str, Any], generation: int, now: str) -> Status:
    """The status of a machine that was seen gone."""
    conditions = c.Conditions(old, generation, now)
    ready = c.find_condition(conditions.list, c.READY) or {}
    if ready.get("reason") not in (REASON_GONE, REASON_PREEMPTED, REASON_FAILED):
        conditions.ready("False", "Deleted", "the machine is gone", reconciling=True)
    conditions.remove(c.REACHABLE)
    status = _kept(old, generation, conditions) | {"state": "Deleted"}
    status.pop("drift", None)
    if "startedAt" in status:
        status.setdefault("endedAt", now)
    return status


def left(old: Mapping[str, Any], generation: int, now: str, message: str) -> Status:
    """The status of a machine that goes on without us: its cost ends here for all who count it."""
    conditions = c.Conditions(old, generation, now)
    conditions.ready("False", "Abandoned", message)
    status = _kept(old, generation, conditions)
    if "startedAt" in status:
        status.setdefault("endedAt", now)
    return status


def living(
    wanted: Wanted,
    old: Mapping[str, Any],
    generation: int,
    now: str,
    node: Node,
    info: ProviderInfo,
    sight: Sight,
    *,
    network: str = "",
    booked: bool = True,
    budget: Refusal = Refusal(),  # noqa: B008 - it never changes
) -> Living:
    """The status of a machine that is there.

    Args:
        wanted: What is asked for.
        old: The status so far.
        generation: `metadata.generation`.
        now: RFC 3339 time.
        node: The machine.
        info: What its provider declares.
        sight: What else is known of it.
        network: Name of its network.
        booked: Nobody waits to book the session that ended last.
        budget: Why a Budget lets it not run, empty if it may; `wanted` asks for a rest then.
    """
    conditions = c.Conditions(old, generation, now)
    conditions.put(c.CREATED, "True", "Created", f"{node.id} was made")
    same_life = old.get("bootID", "") == node.boot_id or not node.boot_id
    power, verdict = _power(wanted, node, sight)
    _reachable(conditions, node, info, sight, same_life=same_life)
    _bootstrapped(conditions, node, sight, same_life=same_life)
    if budget and not sight.silent and not verdict:
        conditions.ready("False", budget.reason, str(budget), stalled=True)
        settled = node.state in REST
    else:
        settled = _ready(conditions, wanted, node, sight, verdict)
    status = _kept(old, generation, conditions) | {"providerID": node.id, "state": node.state}
    _addresses(status, node, info, network)
    _session(status, node, now, booked=booked)
    status.pop("message", None)
    status.pop("drift", None)
    drift = dict(sight.drift)
    if power and not budget and _was_as_specified(old, generation):
        drift["powerState"] = (wanted.power, node.state)
    if drift:
        status["drift"] = [
            {"field": name, "expected": expected[:MESSAGE_LENGTH], "found": found[:MESSAGE_LENGTH]}
            for name, (expected, found) in sorted(drift.items())
        ]
    return Living(status, power, settled and not power, _events(wanted, old, status, node))


def _power(wanted: Wanted, node: Node, sight: Sight) -> tuple[Power, str]:
    """What to do about its power, and why it can't be done."""
    can_stop, can_sleep = "StartStop" in sight.powers, "Suspend" in sight.powers
    if wanted.power == "Running":
        if node.state == "Stopped":
            return ("start", "") if can_stop else ("", "the provider can't start machines")
        if node.state == "Suspended":
            return ("resume", "") if can_sleep else ("", "the provider can't wake machines")
        return "", ""
    if node.state != "Running":
        return "", ""
    if wanted.power == "Suspended" and can_sleep:
        return "suspend", ""
    if can_stop:  # where memory can't be kept, only the disk is
        return "stop", ""
    return "", f"the provider can't bring machines to powerState {wanted.power}"


def _reachable(conditions: c.Conditions, node: Node, info: ProviderInfo, sight: Sight, *, same_life: bool) -> None:
    if node.state != "Running":
        conditions.put(c.REACHABLE, "False", node.state, f"the machine is {node.state.lower()}")
    elif not info.ssh:
        conditions.put(c.REACHABLE, "True", "Running", "the machine runs")
    elif sight.reached is None:
        if not (same_life and conditions.is_true(c.REACHABLE)):
            conditions.put(c.REACHABLE, "Unknown", c.REASON_PENDING, "not tried yet")
    elif sight.reached:
        conditions.put(c.REACHABLE, "True", "Answers", "sshd answers")
    else:
        conditions.put(c.REACHABLE, "False", c.REASON_UNREACHABLE, sight.trouble)


def _bootstrapped(conditions: c.Conditions, node: Node, sight: Sight, *, same_life: bool) -> None:
    state, message = sight.boot
    if state == "None":
        conditions.put(c.BOOTSTRAPPED, "True", "NotNeeded", "there is nothing to set up")
    elif state == "Done":
        conditions.put(c.BOOTSTRAPPED, "True", "Done", message or "it is set up")
    elif state == "Failed":
        conditions.put(c.BOOTSTRAPPED, "False", "BootstrapFailed", message or "it couldn't be set up")
    elif not (same_life and conditions.is_true(c.BOOTSTRAPPED)):
        conditions.put(c.BOOTSTRAPPED, "False", c.REASON_PENDING, message or "not begun yet")


def _ready(conditions: c.Conditions, wanted: Wanted, node: Node, sight: Sight, verdict: str) -> bool:
    """Sets Ready; gives whether nothing is under way."""
    if sight.silent:
        conditions.ready("Unknown", c.REASON_CLOUD_UNAVAILABLE, "the cloud doesn't list its machines", reconciling=True)
        return True
    if verdict:
        conditions.ready("False", "Unsupported", verdict, stalled=True)
        return True
    if wanted.power != "Running":
        if node.state in REST:
            conditions.ready("True", c.REASON_SUSPENDED, f"the machine is {node.state.lower()} as asked")
            return True
        conditions.ready("False", node.state, f"the machine is to be {wanted.power.lower()}", reconciling=True)
        return False
    if node.state in ("Deleting", "Stopping"):
        conditions.ready("False", node.state, f"the machine is {node.state.lower()}", reconciling=True)
        return False
    if node.state in REST:
        conditions.ready("False", node.state, f"the machine is {node.state.lower()}; it is started", reconciling=True)
        return False
    if node.state == "Pending":
        conditions.ready("False", c.REASON_PROVISIONING, "the machine starts", reconciling=True)
        return False
    if not conditions.is_true(c.REACHABLE):
        found = c.find_condition(conditions.list, c.REACHABLE) or {}
        message = f"{wanted.name} isn't reached: {found.get('message', '')}"
        conditions.ready("False", c.REASON_UNREACHABLE, message, reconciling=True)
        return found.get("status") == "False"
    if not conditions.is_true(c.BOOTSTRAPPED):
        found = c.find_condition(conditions.list, c.BOOTSTRAPPED) or {}
        failed = found.get("reason") == "BootstrapFailed"
        reason = "BootstrapFailed" if failed else c.REASON_BOOTSTRAPPING
        conditions.ready("False", reason, found.get("message", ""), reconciling=not failed, stalled=failed)
        return True
    conditions.ready("True", c.REASON_AS_SPECIFIED, f"{node.id} works")
    return True


def _addresses(status: Status, node: Node, info: ProviderInfo, network: str) -> None:
    found = [("Private", node.private_address), ("Public", node.public_address)]
    addresses = [{"type": type_, "address": address} for type_, address in found if address]
    for name, value in (
        ("addresses", addresses),
        ("sshHost", node.host),
        ("sshPort", node.port if node.host else None),
        ("sshUser", (node.details.get("user") or info.user) if node.host else None),
        ("sshHostKey", node.host_key),
        ("sshProxyCommand", node.details.get("proxyCommand")),
        ("bootID", node.boot_id),
        ("lastEnd", node.details.get("lastEnd", "")[:MESSAGE_LENGTH]),
        ("network", network),
    ):
        if value:
            status[name] = value
        elif name not in ("bootID", "network"):  # those of its last life, to be compared with the next
            status.pop(name, None)


def _session(status: Status, node: Node, now: str, *, booked: bool) -> None:
    """It costs from when it was made, or started again, until it is seen stopped; its disk may cost from then.

    The next run begins when the one before is booked.
    """
    stopped, rests = node.state == "Stopped", status.get("billing") == "DiskOnly"
    up = node.state in ("Pending", "Running", "Suspended")
    if "endedAt" in status:
        if stopped and not rests and booked and "diskHourly" in status:
            status |= {"startedAt": status.pop("endedAt"), "billing": "DiskOnly"}
        elif up and booked:
            ended = status.pop("endedAt")
            status["startedAt"] = ended if rests else now
            status.pop("billing", None)
    elif up if rests else stopped:
        if "startedAt" in status:
            status["endedAt"] = now
    elif not rests:
        starts(status, node, now)


def turns(status: Mapping[str, Any]) -> bool:
    """Whether a machine that there is waits for the booking of one run to begin the next."""
    return "endedAt" in status and "diskHourly" in status


def starts(status: Status, node: Node, now: str) -> None:
    """Notes since when a machine costs something, if it does."""
    if node.paid_since is not None:
        status.setdefault("startedAt", node.paid_since or node.created_at or now)


def _was_as_specified(old: Mapping[str, Any], generation: int) -> bool:
    if old.get("observedGeneration") != generation:
        return False
    ready = c.find_condition(old.get("conditions") or (), c.READY) or {}
    return ready.get("reason") in (c.REASON_AS_SPECIFIED, c.REASON_SUSPENDED) or "powerState" in _fields(old)


def _fields(status: Mapping[str, Any]) -> set[str]:
    return {item["field"] for item in status.get("drift") or ()}


def _kept(old: Mapping[str, Any], generation: int, conditions: c.Conditions) -> Status:
    return {**old, "observedGeneration": generation, "conditions": conditions.list}


def _events(wanted: Wanted, old: Mapping[str, Any], new: Status, node: Node) -> tuple[Event, ...]:
    before: Sequence[Mapping[str, Any]] = old.get("conditions") or ()
    events = []
    if not old.get("providerID"):
        place = node.zone or node.region
        events.append(Event("Normal", "Created", f"{node.id}: {node.type}" + (f" in {place}" if place else "")))
    was, now = c.find_condition(before, c.READY) or {}, c.find_condition(new["conditions"], c.READY) or {}
    if (was.get("status"), was.get("reason")) != (now.get("status"), now.get("reason")):
        newborn = was.get("reason") in (c.REASON_PENDING, c.REASON_PROVISIONING)
        if now["status"] == "True" and newborn and wanted.cluster:
            pass  # of machines that start the cluster tells
        elif now["status"] == "True":
            events.append(Event("Normal", "Ready", now["message"]))
        elif was.get("status") == "True" or now["reason"] in ("Unsupported", "BootstrapFailed"):
            events.append(Event("Warning", now["reason"], now["message"]))
    known = _fields(old)
    events += [
        Event("Warning", "Drift", f"{item['field']} is {item['found']!r}, not {item['expected']!r}")
        for item in new.get("drift") or ()
        if item["field"] not in known
    ]
    if old.get("bootID") and new.get("bootID") != old["bootID"] and node.state == "Running":
        why = f": {new['lastEnd']}" if "lastEnd" in new else ""
        events.append(Event("Warning", "Restarted", f"the machine has started anew{why}"))
    return tuple(events)
