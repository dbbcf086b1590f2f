"""The verbs of the command: what each prints, and whether all is well."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.compute.command import tables
from cloudmesh.compute.command.answers import Answer, accounts_of, answer, clusters_of, is_missing
from cloudmesh.compute.command.documents import Documents
from cloudmesh.compute.command.handles import Handle, check, open_accounts, read_offers
from cloudmesh.compute.command.selection import Wanted, choose
from cloudmesh.compute.ports import Finding
from cloudmesh.compute.prices import Catalogue
from cloudmesh.compute.prices.moments import to_time
from cloudmesh.compute.prices.money import HOURS_A_MONTH, rounded, to_text
from cloudmesh.compute.providers.registry import DEFAULT_ACCOUNT_NAME
from cloudmesh.compute.quote import Line
from cloudmesh.compute.reading import read_cluster
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.policy.model import Offer

CHECKED = {"account": "ACCOUNT", "kind": "KIND", "state": "STATE", "subject": "SUBJECT", "message": "MESSAGE"}
OFFERS = {
    "account": "ACCOUNT", "type": "TYPE", "region": "REGION", "zone": "ZONE", "purchase": "PURCHASE", "arch": "ARCH",
    "vcpu": "VCPU", "memory": "MEMORY", "gpu": "GPU", "hourly": "$/H", "currency": "CURRENCY", "source": "SOURCE",
    "asOf": "AS-OF", "confidence": "CONFIDENCE", "free": "FREE",
}  # fmt: skip
PLANNED = {
    "cluster": "CLUSTER", "pool": "POOL", "alternative": "ALTERNATIVE", "machines": "MACHINES", "account": "ACCOUNT",
    "type": "TYPE", "region": "REGION", "zone": "ZONE", "purchase": "PURCHASE", "hourly": "$/H", "why": "WHY",
}  # fmt: skip
REJECTED = {"cluster": "CLUSTER", "pool": "POOL", "filter": "FILTER", "offers": "OFFERS", "example": "EXAMPLE"}
QUOTED = {
    "cluster": "CLUSTER", "machines": "MACHINES", "hourly": "$/H", "month": "$/MONTH", "currency": "CURRENCY",
    "confidence": "CONFIDENCE", "pricesAsOf": "PRICES-AS-OF", "hash": "HASH",
}  # fmt: skip
CONFIDENCE = ("unknown", "static", "fetched", "declared")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    Args:
        form: One of `tables.FORMS`.
        accounts: Names of CloudAccounts, empty for all.
        clusters: Names of VirtualClusters, empty for all.
        catalogue: Cloud whose packaged prices are shown too, empty for none.
        wanted: Which offers, in which order.
        now: RFC 3339 time of the quote.
    """

    form: str = "table"
    accounts: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    catalogue: str = ""
    wanted: Wanted = field(default_factory=Wanted)
    now: str = ""


def complain(text: str) -> None:
    """Tells something on the standard error output, after what was said on the other one before."""
    sys.stdout.flush()
    for line in text.splitlines():
        print(f"cloudmesh.compute: {line}", file=sys.stderr)  # noqa: T201


async def run_check(documents: Documents, settings: ComputeSettings, options: Options) -> int:
    """Says of each account whether it can be used, and why not."""
    async with open_accounts(documents, _accounts(documents, options), settings) as handles:
        await check(handles)
    rows = [row for handle in handles for row in _checked(handle)]
    sys.stdout.write(tables.show(rows, CHECKED, options.form))
    return 1 if any(handle.failed for handle in handles) else 0


def _checked(handle: Handle) -> list[dict[str, Any]]:
    base = {"account": handle.name, "kind": handle.kind or None}
    rows = [
        base | {"state": _state(finding), "subject": finding.subject, "message": finding.message}
        for finding in handle.findings
    ]
    if handle.unchecked:
        rows.append(base | {"state": "unchecked", "subject": "account", "message": handle.unchecked})
    return rows or [base | {"state": "ok", "subject": "account", "message": "nothing to check"}]


def _state(finding: Finding) -> str:
    return "ok" if finding.ok else "failed" if finding.failed else "unknown"


async def run_offers(documents: Documents, settings: ComputeSettings, options: Options) -> int:
    """Shows what accounts offer, with prices."""
    async with open_accounts(documents, _accounts(documents, options), settings) as handles:
        await read_offers(handles, documents, options.now)
    found = [offer for handle in handles for offer in handle.offers]
    if options.catalogue:
        packaged = Catalogue.load().offers(options.catalogue, "catalogue")
        if not packaged:
            complain(f"the catalogue has no prices of '{options.catalogue}'")
            return 1
        found += packaged
    chosen = choose(found, options.wanted)
    sys.stdout.write(tables.show([_offer_row(offer) for offer in chosen], OFFERS, options.form))
    return _troubles(handles)


def _offer_row(offer: Offer) -> dict[str, Any]:
    price = offer.price
    return {
        "account": offer.account,
        "type": offer.type,
        "region": offer.region or None,
        "zone": offer.zone or None,
        "purchase": offer.purchase,
        "arch": offer.arch,
        "vcpu": rounded(offer.milli_vcpu * 10**6, 3).rstrip("0").rstrip("."),
        "memory": _memory(offer.memory_mib),
        "gpu": f"{offer.gpu_count} {offer.gpu_model}".strip() if offer.gpu_count or offer.gpu_model else None,
        "hourly": to_text(price.nanos) if price is not None else None,
        "currency": price.currency if price is not None else None,
        "source": price.source if price is not None else None,
        "asOf": (price.as_of[:10] or None) if price is not None else None,
        "confidence": price.confidence if price is not None else "unknown",
        "free": offer.free,
    }


def _memory(mebibytes: int) -> str:
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"


async def run_plan(documents: Documents, settings: ComputeSettings, options: Options) -> int:
    """Shows which machines each cluster would get, why these, and what fell where."""
    answers, status = await _answers(documents, settings, options)
    if options.form in ("json", "yaml"):
        content = [
            {"cluster": _name(a), "replicas": a.replicas, "machines": _machine_rows(a), "rejected": _rejected_rows(a)}
            | ({"trouble": a.trouble} if a.trouble else {})
            for a in answers
        ]
        sys.stdout.write(tables.document(content, options.form))
    else:
        rows = [row | {"cluster": _name(a)} for a in answers for row in _planned_rows(a)]
        sys.stdout.write(tables.show(rows, PLANNED, options.form))
        rejected = [row | {"cluster": _name(a)} for a in answers for row in _rejected_rows(a)]
        if rejected and options.form == "table":
            sys.stdout.write("\n" + tables.table(rejected, REJECTED))
    return max([status, *(_tell(a) for a in answers)])


async def run_quote(documents: Documents, settings: ComputeSettings, options: Options) -> int:
    """Shows what each cluster would cost."""
    answers, status = await _answers(documents, settings, options)
    sys.stdout.write(tables.show([_quote_row(a) for a in answers], QUOTED, options.form))
    return max([status, *(_tell(a) for a in answers)])


async def _answers(documents: Documents, settings: ComputeSettings, options: Options) -> tuple[list[Answer], int]:
    clusters = clusters_of(documents, options.clusters)
    wanted: dict[tuple[str, str], None] = {}
    for cluster, _ in clusters:
        asked = read_cluster(cluster)
        for name in accounts_of(documents, asked):
            if is_missing(documents, asked.namespace, name):
                complain(f"VirtualCluster '{asked.name}': CloudAccount '{name}' isn't in the files")
            else:
                wanted[asked.namespace, name] = None
    if not clusters:
        complain("the files hold no such VirtualCluster")
        return [], 1
    async with open_accounts(documents, list(wanted), settings) as handles:
        await check(handles)
        await read_offers([handle for handle in handles if not handle.failed], documents, options.now)
    found = [answer(documents, cluster, obj, handles, options.now) for cluster, obj in clusters]
    for handle in handles:
        if handle.failed:
            complain(f"account '{handle.name}' can't be used: {handle.failed}")
    return found, 0


def _machine_rows(found: Answer) -> list[dict[str, Any]]:
    rows = []
    for machine in found.machines:
        offer, price = machine.offer, machine.offer.price
        row = {
            "name": machine.name,
            "pool": machine.pool,
            "alternative": machine.alternative,
            "account": offer.account,
            "type": offer.type,
            "region": offer.region or None,
            "zone": offer.zone or None,
            "purchase": offer.purchase,
            "hourly": to_text(price.nanos) if price is not None else None,
            "why": machine.why or None,
        }
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def _planned_rows(found: Answer) -> list[dict[str, Any]]:
    def row(line: Line) -> dict[str, Any]:
        return {
            "pool": line.pool,
            "alternative": line.alternative,
            "machines": line.count,
            "account": line.account,
            "type": line.type,
            "region": line.region or None,
            "zone": line.zone or None,
            "purchase": line.purchase,
            "hourly": None if line.nanos is None else to_text(line.nanos),
            "why": line.why or None,
        }

    return [row(line) for line in found.quote.lines]


def _rejected_rows(found: Answer) -> list[dict[str, Any]]:
    rejected = found.placement.rejected if found.placement is not None else ()
    return [{"pool": r.pool, "filter": r.filter, "offers": r.count, "example": r.example} for r in rejected]


def _quote_row(found: Answer) -> dict[str, Any]:
    quote = found.quote
    prices = [price for machine in found.machines if (price := machine.offer.price) is not None]
    known = [price.confidence for price in prices]
    complete = bool(quote.lines) and len(prices) == len(found.machines)
    hourly = quote.hourly if quote.lines else None
    return {
        "cluster": _name(found),
        "machines": sum(line.count for line in quote.lines),
        "hourly": None if hourly is None else to_text(hourly),
        "month": None if hourly is None else rounded(hourly * HOURS_A_MONTH, 2),
        "currency": quote.currency or None,
        "confidence": min(known, key=CONFIDENCE.index) if complete else "unknown",
        "pricesAsOf": min((price.as_of for price in prices if price.as_of), default=None),
        "hash": quote.hash if quote.lines else None,
        "expiresAt": to_time(quote.expires_at) if quote.lines else None,
    }


def _name(found: Answer) -> str:
    return found.name if found.namespace == "default" else f"{found.namespace}/{found.name}"


def _tell(found: Answer) -> int:
    if found.trouble:
        complain(f"VirtualCluster '{found.name}': {found.trouble}")
        return 1
    if found.quote.cheapest is not None:
        words = f"{to_text(found.quote.cheapest)} {found.quote.currency} per hour: {found.quote.cheapest_words}"
        complain(f"VirtualCluster '{found.name}': if only the price counted, {words}")
    return 0


def _accounts(documents: Documents, options: Options) -> list[tuple[str, str]]:
    by_itself = {
        (namespace, DEFAULT_ACCOUNT_NAME)
        for (namespace, _), obj in documents.objects.get("VirtualCluster", {}).items()
        if not obj["spec"].keys() & {"accounts", "accountSelector"}
    }
    there = sorted({*documents.models.get("CloudAccount", {}), *by_itself})
    unknown = set(options.accounts) - {name for _, name in there}
    for name in sorted(unknown):
        complain(f"there is no CloudAccount '{name}' in the files")
    return [key for key in there if not options.accounts or key[1] in options.accounts]


def _troubles(handles: Sequence[Handle]) -> int:
    for handle in handles:
        if handle.trouble:
            complain(f"account '{handle.name}': {handle.trouble}")
    return 1 if any(handle.trouble for handle in handles) else 0
