"""What of a changed directory waits for approval: pure, over what was told before and what is asked for now.

A change of where files belong is one question. Until its quote is approved, the gateway goes on as it was told before:
repair and new writes by the rules of then. All else of a change (quota, users, credentials) is taken up at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from cloudmesh.data.config import DirectoryConfig, Proposal, Quote, StoreConfig, StoreTerms
from cloudmesh.data.model import MICROS
from cloudmesh.data.quote import VALID_SECONDS, terms_of
from cloudmesh.data.words import amount_text, size_text, time_text
from cloudmesh.policy.moments import to_seconds

HASH_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gateway is to be told now.

    Args:
        config: That.
        approved: Hash of the quote by which files are placed, empty if none ever was.
        placed: Question that is answered: how files are placed now.
    """

    config: DirectoryConfig
    approved: str
    placed: str


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:HASH_LENGTH]


def _terms(config: DirectoryConfig) -> tuple[StoreTerms, ...]:
    """By what files are placed in stores; prices only where a rule goes by them."""
    cheapest = any(rule.prefer == "Cheapest" for rule in config.rules)
    found = []
    for store in config.stores:
        terms = terms_of(store)
        found.append(terms if cheapest else replace(terms, prices=type(terms.prices)()))
    return tuple(sorted(found, key=lambda terms: terms.name))


def question_of(config: DirectoryConfig) -> str:
    """Hash of all by which files are placed."""
    return _hash((config.rules, _terms(config)))


def decide(
    asked: DirectoryConfig, told: DirectoryConfig | None, status: Mapping[str, Any], annotation: str, now: str
) -> Decision:
    """What is told now: what is asked for, if that moves nothing or was approved; else what was told before, with a
    question.

    Args:
        asked: As the spec asks.
        told: As the gateway was told before, None if it never was.
        status: Of the directory.
        annotation: Hash that somebody approved, empty for none.
        now: RFC 3339 time.
    """
    question, approved = question_of(asked), str(status.get("approvedQuote", ""))
    if told is None:
        return Decision(asked, approved, question)
    kept = _as_before(asked, told)
    placed = question_of(replace(kept, stores=tuple(_by_what(store) for store in kept.stores)))
    quote = status.get("quote") or {}
    answers = bool(annotation) and annotation == quote.get("hash") and quote.get("question") == question
    if placed == question:
        # the gateway may have been told just before this process ended
        return Decision(asked, annotation if answers else approved, question)
    if answers and to_seconds(now) < to_seconds(quote["expiresAt"]):
        return Decision(asked, annotation, question)
    proposal = Proposal(question, asked.rules, tuple(terms_of(store) for store in asked.stores))
    return Decision(replace(kept, proposal=proposal), approved, placed)


def _by_what(store: StoreConfig) -> StoreConfig:
    return store if store.placed_by is None else replace(store, prices=store.placed_by)


def _as_before(asked: DirectoryConfig, told: DirectoryConfig) -> DirectoryConfig:
    """What is asked for, with files placed as before."""
    before = {store.name: store for store in told.stores}
    stores = []
    for store in asked.stores:
        old = before.get(store.name)
        if old is None or old.awaits_approval:
            # it is looked at, so that what it would get can be counted; nothing is put into it
            waits = old is not None or store.access != "ReadOnly"
            stores.append(replace(store, access="ReadOnly", awaits_approval=waits))
            continue
        prices = old.placed_by or old.prices
        stores.append(
            replace(
                store,
                # that nothing may be written is obeyed at once
                access="ReadOnly" if store.access == "ReadOnly" else old.access,
                domain=old.domain, region=old.region, placed_by=None if prices == store.prices else prices,
            )
        )  # fmt: skip
    return replace(asked, rules=told.rules, stores=tuple(stores))


def quote_status(quote: Quote, before: str) -> dict[str, Any]:
    """`status.quote`; its hash is of all but the time.

    Args:
        quote: As the gateway counted it.
        before: Hash that was approved last: what was approved once isn't approved for ever.
    """
    head = {"hash": _hash((before, replace(quote, made_at=0))), "question": quote.question}
    times = {
        "madeAt": time_text(quote.made_at),
        "expiresAt": time_text(quote.made_at + VALID_SECONDS * MICROS),
    }
    return head | figures(quote) | times


def figures(quote: Quote) -> dict[str, Any]:
    """The figures of a quote in the words of a status."""
    told: dict[str, Any] = {
        "files": quote.files,
        "copies": quote.copies,
        "bytes": quote.bytes,
        "size": size_text(quote.bytes),
        "removed": quote.removed,
        "currency": quote.currency,
    }
    for name, nanos in (
        ("requests", quote.requests_nanos), ("egress", quote.egress_nanos),
        ("monthlyBefore", quote.before_nanos), ("monthlyAfter", quote.after_nanos),
    ):  # fmt: skip
        if nanos is not None:
            told[name] = amount_text(nanos)
    if quote.unpriced:
        told["unpriced"] = list(quote.unpriced)
    if quote.unseen:
        told["unseen"] = list(quote.unseen)
    if quote.seconds is not None:
        told["durationSeconds"] = quote.seconds
    return told


def quote_words(told: Mapping[str, Any], annotation: str) -> str:
    """The quote in a sentence."""
    money = told["currency"]
    once = [f"{told[name]} {money} for {name}" for name in ("requests", "egress") if name in told]
    words = f"the change makes {told['copies']} copies of {told['files']} files, {told['size']} bytes in all"
    words += f", and removes {told['removed']}"
    if "durationSeconds" in told:
        words += f"; it takes {-(-told['durationSeconds'] // 3600)} h at the stores' limits"
    words += f"; it costs {' and '.join(once)}" if once else ""
    if "monthlyBefore" in told and "monthlyAfter" in told:
        words += f", then {told['monthlyAfter']} {money} a month instead of {told['monthlyBefore']}"
    if told.get("unpriced"):
        words += f"; the price isn't known of {', '.join(told['unpriced'])}"
    if told.get("unseen"):
        words += f"; {', '.join(told['unseen'])} didn't answer and wasn't looked at"
    return f"{words}; it waits until {told['expiresAt']}: set annotation {annotation} to {told['hash']}"
