"""What a gateway tells the operator, and the status of a VirtualDirectory that is made of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import msgspec

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.names import gateway_url
from cloudmesh.data.approval import Decision, quote_status, quote_words
from cloudmesh.data.config import DirectoryConfig, StoreSummary, Summary
from cloudmesh.data.money import say
from cloudmesh.data.words import amount_text, apart, size_text, time_text
from cloudmesh.engine.answers import whole
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, Transient
from cloudmesh.engine.resources import Obj
from cloudmesh.policy.amounts import to_nanos

LIMIT_SECONDS = 5.0
MOST_BYTES = 1 << 20
COUNTERS_SECONDS = 15.0
COUNTERS = (
    "files", "directories", "bytes", "size", "pendingCopies", "corrupted", "underReplicated", "unreachable", "cost",
    "catalog",
)  # fmt: skip
IN_STORES = ("files", "bytes", "monthly")
MAX_MESSAGE = 1024
MAX_STORES = 32


class Reader(Protocol):
    """Asks gateways."""

    async def read(self, namespace: str, name: str, token: str) -> Summary:
        """What the gateway of a directory tells.

        Raises:
            Transient: It doesn't answer.
            AuthFailed: It doesn't know the token (yet).
        """


class HttpReader:
    """Over HTTP, by the directory's Service."""

    async def read(self, namespace: str, name: str, token: str) -> Summary:
        """See `Reader`."""
        limit = aiohttp.ClientTimeout(total=LIMIT_SECONDS)
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{gateway_url(namespace, name)}/internal/summary"
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(url, headers=headers, allow_redirects=False) as answer,
            ):
                body = await whole(answer.content, MOST_BYTES)
                if answer.status == 401:
                    raise AuthFailed("the gateway doesn't know the operator's token")
                if answer.status != 200:
                    raise Transient(f"the gateway answers {answer.status}{_detail(body)}")
                return msgspec.json.decode(body, type=Summary)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"the gateway doesn't answer: {type(error).__name__}") from error
        except msgspec.DecodeError as error:
            raise Transient(f"the gateway's answer can't be read: {error}") from error


def _detail(body: bytes) -> str:
    """What a problem document tells, such as that the catalogue's database is away."""
    with contextlib.suppress(msgspec.DecodeError):
        told = msgspec.json.decode(body)
        if isinstance(told, dict) and isinstance(told.get("detail"), str):
            return f": {told['detail'][:300]}"
    return ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a directory can't be as asked; what was there before goes on."""

    reason: str
    message: str

    @classmethod
    def of(cls, error: CloudmeshError, about: str = "") -> Trouble:
        """An error of the taxonomy."""
        return cls(error.reason, f"{about}: {error}" if about else str(error))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reconcile has seen of a directory.

    Args:
        trouble: Why it can't be as asked; None if it can.
        summary: What its gateway told; None if it doesn't answer.
        silence: Why it doesn't.
        config: What the gateway is to be told; None if nothing ever was.
        fingerprint: Of that.
        served: The gateway has answered before.
        decision: What of a change may be told; None if that wasn't decided.
        approval: Changes of where files belong wait for approval.
        deleted: Stores of its spec whose DataStore waits to be deleted.
    """

    trouble: Trouble | None
    summary: Summary | None
    silence: str
    config: DirectoryConfig | None
    fingerprint: str
    served: bool
    decision: Decision | None = None
    approval: bool = False
    deleted: tuple[str, ...] = ()


def make_status(obj: Obj, seen: Seen, now: str) -> dict[str, Any]:
    """The whole status as it should be now; what nobody can tell now stays as it was told last.

    Args:
        obj: The VirtualDirectory.
        seen: What was seen.
        now: RFC 3339 time.
    """
    old = obj.get("status") or {}
    conditions = c.Conditions.of(obj, now)
    status: dict[str, Any] = {key: old[key] for key in (*COUNTERS, "stores", "url") if key in old}
    summary = seen.summary
    if summary is None or seen.config is None:
        for type_ in (c.STORES_READY, c.PLACED, c.VERIFIED):
            conditions.put(type_, "Unknown", c.REASON_PENDING, seen.silence or "not known yet")
    else:
        status |= _counters(summary)
        status["stores"] = [_store(store, seen.config) for store in summary.stores[:MAX_STORES]]
        _parts(conditions, summary, seen.config)
    if seen.approval:
        status |= _approval(old, seen)
    if seen.config is not None:
        status["url"] = gateway_url(obj["metadata"]["namespace"], obj["metadata"]["name"])
    _ready(conditions, seen, status.get("quote"))
    return {"observedGeneration": conditions.generation, "conditions": conditions.list, **status}


def _counters(summary: Summary) -> dict[str, Any]:
    catalog: dict[str, Any] = {"entries": summary.entries}
    if summary.snapshot_at:
        catalog["snapshotAt"] = time_text(summary.snapshot_at)
    return {
        "files": summary.files,
        "directories": summary.directories,
        "bytes": summary.bytes,
        "size": size_text(summary.bytes),
        "pendingCopies": summary.pending,
        "corrupted": summary.corrupted,
        "underReplicated": summary.under_replicated,
        "unreachable": summary.unreachable,
        "cost": _cost(summary),
        "catalog": catalog,
    }


def _cost(summary: Summary) -> dict[str, Any]:
    told: dict[str, Any] = {"currency": summary.currency, "confidence": summary.confidence}
    if summary.monthly_nanos is not None:
        told["monthly"] = amount_text(summary.monthly_nanos)
    if summary.egress_nanos is not None:
        told["egress"] = amount_text(summary.egress_nanos)
    return told


def _store(store: StoreSummary, config: DirectoryConfig) -> dict[str, Any]:
    prefix = next((s.prefix for s in config.stores if s.name == store.name), "")
    made: dict[str, Any] = {"name": store.name}
    if prefix:
        made["prefix"] = prefix
    made["state"] = store.state
    if store.message:
        made["message"] = store.message[:MAX_MESSAGE]
    made |= {"files": store.files, "bytes": store.bytes}
    return made | ({} if store.monthly_nanos is None else {"monthly": amount_text(store.monthly_nanos)})


def _told(stores: Sequence[StoreSummary]) -> str:
    return "; ".join(
        f"{store.name} is {store.state}" + (f": {store.message}" if store.message else "") for store in stores
    )


def _clock(summary: Summary) -> str:
    """That the gateway's clock isn't believed; empty if it is."""
    if not summary.clock_ahead_ms:
        return ""
    ahead = f"{summary.clock_ahead_ms // 60_000} minutes"
    return f"nothing is removed for its age, since the clock of the gateway's machine is {ahead} ahead of the stores'"


def _parts(conditions: c.Conditions, summary: Summary, config: DirectoryConfig) -> None:
    away = [store for store in summary.stores if store.state not in ("Up", "Slow")]
    clock = f"; {words}" if (words := _clock(summary)) else ""
    if not away:
        told = f"{len(summary.stores)} stores answer{clock}"
        conditions.put(c.STORES_READY, "True", c.REASON_AS_SPECIFIED, told)
    else:
        wrong = any(store.state in ("Claimed", "Suspicious") for store in away)
        conditions.put(c.STORES_READY, "False" if wrong else "Unknown", _away_reason(away), _told(away) + clock)
    if summary.pending or summary.waking:
        # without numbers, which move all the time: `status.pendingCopies` has them
        conditions.put(c.PLACED, "False", c.REASON_PLACING, "files are being copied, checked or removed")
    else:
        conditions.put(c.PLACED, "True", c.REASON_AS_SPECIFIED, "all files lie as the rules want")
    if summary.corrupted:
        conditions.put(c.VERIFIED, "False", c.REASON_REPAIRING, "copies read back otherwise than they were written")
    elif not summary.verified_at:
        how = "copies are verified as they come of age" if config.verify_seconds else "`verify.everySeconds` is 0"
        conditions.put(c.VERIFIED, "Unknown", c.REASON_PENDING, f"no copy was read and compared yet: {how}")
    else:
        conditions.put(c.VERIFIED, "True", c.REASON_AS_SPECIFIED, "no copy is known to be damaged")


def _quota(conditions: c.Conditions, config: DirectoryConfig, summary: Summary) -> str:
    """Sets WithinQuota; gives what is over, empty if nothing is."""
    over = ""
    if config.quota_bytes is not None and summary.bytes > config.quota_bytes:
        over = f"{size_text(summary.bytes)} of {size_text(config.quota_bytes)} are used"
    if config.quota_files is not None and summary.files > config.quota_files:
        over = f"{summary.files} of {config.quota_files} files are there"
    if config.quota_bytes is None and config.quota_files is None:
        conditions.remove(c.WITHIN_QUOTA)
    elif over:
        conditions.put(c.WITHIN_QUOTA, "False", c.REASON_QUOTA_EXCEEDED, over)
    else:
        conditions.put(c.WITHIN_QUOTA, "True", c.REASON_AS_SPECIFIED, "there is room")
    return over


def _budget(conditions: c.Conditions, config: DirectoryConfig, summary: Summary) -> str:
    """Sets WithinBudget; gives what is over, empty if nothing is."""
    limit = config.max_monthly_nanos
    if limit is None:
        conditions.remove(c.WITHIN_BUDGET)
        return ""
    unpriced = [store.name for store in summary.stores if store.bytes and store.monthly_nanos is None]
    known = sum(store.monthly_nanos or 0 for store in summary.stores)
    if known > limit:
        over = (
            f"all copies cost more than {say(limit, config.currency)} a month, the `maxMonthlyCost`: what would cost"
            " more is refused, repair goes on, nothing is deleted"
        )
        conditions.put(c.WITHIN_BUDGET, "False", c.REASON_BUDGET_EXCEEDED, over)
        return over
    if summary.unaffordable:
        waits = (
            "copies that the rules ask for wait, since all would cost more than"
            f" {say(limit, config.currency)} a month, the `maxMonthlyCost`: let it cost more, or ask for fewer copies"
        )
        conditions.put(c.WITHIN_BUDGET, "False", c.REASON_BUDGET_EXCEEDED, waits)
        return waits
    if unpriced:
        told = f"the price isn't known of {', '.join(unpriced)}"
        conditions.put(c.WITHIN_BUDGET, "Unknown", c.REASON_PENDING, told)
    else:
        conditions.put(c.WITHIN_BUDGET, "True", c.REASON_AS_SPECIFIED, "all copies cost less than the limit")
    return ""


def _away_reason(away: Sequence[StoreSummary]) -> str:
    states = {store.state for store in away}
    if "Claimed" in states:
        return c.REASON_STORE_CLAIMED
    return c.REASON_SUSPICIOUS_SHRINK if "Suspicious" in states else c.REASON_STORE_UNAVAILABLE


def _approval(old: Mapping[str, Any], seen: Seen) -> dict[str, Any]:
    """`quote`, `approvedQuote` and `approvedQuestion`."""
    told = {name: old[name] for name in ("approvedQuote", "approvedQuestion", "quote") if name in old}
    if seen.decision is None:
        return told
    told["approvedQuestion"] = seen.decision.placed
    if seen.decision.approved:
        told["approvedQuote"] = seen.decision.approved
    proposal = seen.decision.config.proposal
    if proposal is None:
        told.pop("quote", None)
        return told
    if seen.summary is not None and seen.summary.quote is not None and seen.summary.quote.question == proposal.question:
        told["quote"] = quote_status(seen.summary.quote, seen.decision.approved)
    elif told.get("quote", {}).get("question") != proposal.question:
        told.pop("quote", None)
    return told


def _ready(conditions: c.Conditions, seen: Seen, quote: Mapping[str, Any] | None) -> None:
    summary, config = seen.summary, seen.config
    over, dear = "", ""
    if summary is not None and config is not None:
        over, dear = _quota(conditions, config, summary), _budget(conditions, config, summary)
    if seen.trouble is not None:
        conditions.ready("False", seen.trouble.reason, seen.trouble.message, stalled=True)
    elif summary is None:
        reason = c.REASON_GATEWAY_UNAVAILABLE if seen.served else c.REASON_PENDING
        conditions.ready("Unknown", reason, seen.silence, reconciling=True)
    elif summary.config != seen.fingerprint and summary.error:
        conditions.ready("False", "InvalidRequest", f"the gateway: {summary.error}", stalled=True)
    elif summary.config != seen.fingerprint:
        told = "the gateway takes up its new configuration"
        conditions.ready("Unknown", c.REASON_PENDING, told, reconciling=True)
    elif summary.error:
        conditions.ready("Unknown", c.REASON_STORE_UNAVAILABLE, f"the gateway: {summary.error}", reconciling=True)
    elif away := [store for store in summary.stores if store.state not in ("Up", "Slow")]:
        reason = _away_reason(away)
        if reason == c.REASON_STORE_CLAIMED:
            conditions.ready("False", reason, _told(away), stalled=True)
        else:
            # what waits can be approved all the same
            asks = quote is not None and config is not None and config.proposal is not None
            words = f"; {quote_words(quote, names.ANNOTATION_APPROVED_QUOTE)}" if asks and quote is not None else ""
            conditions.ready("Unknown", reason, _told(away) + words, reconciling=True)
    elif summary.unreachable:
        # without numbers, which move: `status.unreachable` has them
        told = "files can't be read: no store that answers has a whole copy of them"
        conditions.ready("False", c.REASON_UNREACHABLE, told, stalled=True)
    elif over:
        conditions.ready("False", c.REASON_QUOTA_EXCEEDED, over, stalled=True)
    elif dear:
        conditions.ready("False", c.REASON_BUDGET_EXCEEDED, dear, stalled=True)
    elif config is not None and config.proposal is not None:
        told = summary.quote_waits or "what the change takes is being counted"
        words = told if quote is None else quote_words(quote, names.ANNOTATION_APPROVED_QUOTE)
        conditions.ready("False", c.REASON_AWAITING_APPROVAL, words, reconciling=True)
    elif summary.never_written:
        conditions.ready("False", "InvalidRequest", summary.never_written, stalled=True)
    elif summary.corrupted:
        conditions.ready("False", c.REASON_REPAIRING, "damaged copies are made anew", reconciling=True)
    else:
        left = ", ".join(f"'{name}'" for name in seen.deleted)
        left = left and f"DataStore {left} waits to be deleted until `spec.stores` no longer names it"
        troubles = "; ".join(filter(None, (_clock(summary), left, summary.troubles)))
        trouble = f"; but {troubles}"[:MAX_MESSAGE] if troubles else ""
        conditions.ready("True", c.REASON_AS_SPECIFIED, f"it is served, over {_stores(len(summary.stores))}{trouble}")


def _stores(count: int) -> str:
    return f"{count} {'store' if count == 1 else 'stores'}"


def settle(status: dict[str, Any], old: Mapping[str, Any], counted: float, clock: float) -> tuple[dict[str, Any], bool]:
    """The status to be written now, and whether its counters are new: all at once, or the old ones for a while.

    Args:
        status: As it should be.
        old: As it is.
        counted: When counters were written last, on the loop's clock.
        clock: Now.
    """
    if "files" not in status:
        return status, False
    if "files" not in old or _turned(status, old) or (_differ(status, old) and clock >= counted + COUNTERS_SECONDS):
        return status, True
    held = {name: value for name, value in status.items() if name not in COUNTERS}
    known = {store["name"]: store for store in old.get("stores") or ()}
    held["stores"] = [
        _held(store, known[store["name"]]) if store["name"] in known else store for store in status.get("stores") or ()
    ]
    return held | {name: old[name] for name in COUNTERS if name in old}, False


def _held(store: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in store.items() if k not in IN_STORES} | {k: old[k] for k in IN_STORES if k in old}


def _turned(status: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a condition came to another result, or a price became known or unknown: then the numbers are told too."""
    if _shape(status) != _shape(old):
        return True
    before = {x["type"]: (x["status"], x["reason"]) for x in old.get("conditions") or ()}
    return any(before.get(x["type"]) != (x["status"], x["reason"]) for x in status["conditions"])


def _shape(status: Mapping[str, Any]) -> tuple[Any, ...]:
    cost = status.get("cost") or {}
    return ("monthly" in cost, "egress" in cost, cost.get("currency"), cost.get("confidence"))


def _differ(status: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    if _written_down(status) != _written_down(old):
        return True
    for name in ("monthly", "egress"):
        new, before = ((told.get("cost") or {}).get(name, "0") for told in (status, old))
        if apart(to_nanos(new), to_nanos(before)):
            return True
    numbers = [n for n in COUNTERS if n not in ("size", "catalog", "cost")]
    if any(apart(int(status.get(n, 0)), int(old.get(n, 0))) for n in numbers):
        return True
    known = {store["name"]: store for store in old.get("stores") or ()}
    return any(
        apart(int(store[n]), int(known.get(store["name"], {}).get(n, 0)))
        for store in status.get("stores") or ()
        for n in ("files", "bytes")
    )


def _written_down(status: Mapping[str, Any]) -> str:
    """When the catalogue was written into the stores last, empty if nobody knows."""
    return str((status.get("catalog") or {}).get("snapshotAt", ""))
