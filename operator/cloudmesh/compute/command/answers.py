"""What the command answers for a VirtualCluster: the machines that would be made, why, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.budget_plan import selects, verdict
from cloudmesh.compute.command.documents import Documents, Obj
from cloudmesh.compute.command.handles import Handle
from cloudmesh.compute.plan import NewMachine, machines, plan, request
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.providers.registry import DEFAULT_ACCOUNT_NAME
from cloudmesh.compute.quote import Quote, lines_of, make_quote
from cloudmesh.compute.reading import read_cluster, read_policy
from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.model import Placement, Policy
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.place import place
from cloudmesh.policy.plugins import plugin_of


@dataclass(frozen=True, slots=True)
class Answer:
    """What a cluster would get.

    Args:
        namespace: Its namespace.
        name: Its name.
        replicas: Units asked for.
        accounts: Names of its accounts, in order.
        quote: The machines and their prices.
        machines: The VirtualMachines that would be made.
        placement: What the scheduler said, None if it wasn't asked.
        trouble: Why it gets less than it asks for, empty if it gets all.
    """

    namespace: str
    name: str
    replicas: int
    accounts: tuple[str, ...]
    quote: Quote
    machines: tuple[NewMachine, ...] = ()
    placement: Placement | None = None
    trouble: str = ""


def accounts_of(documents: Documents, asked: Asked) -> tuple[str, ...]:
    """Names of a cluster's accounts: as listed, else those with the labels by name, else the default."""
    if asked.accounts is not None:
        return asked.accounts
    if asked.account_labels is None:
        return (DEFAULT_ACCOUNT_NAME,)
    wanted = asked.account_labels.items()
    return tuple(
        obj["metadata"]["name"]
        for obj in documents.of("CloudAccount", asked.namespace)
        if all((obj["metadata"].get("labels") or {}).get(key) == value for key, value in wanted)
    )


def clusters_of(documents: Documents, names: Sequence[str] = ()) -> list[tuple[VirtualCluster, Obj]]:
    """The VirtualClusters of the files, all or those named."""
    return [
        (documents.model("VirtualCluster", namespace, name), obj)
        for (namespace, name), obj in sorted(documents.objects.get("VirtualCluster", {}).items())
        if not names or name in names
    ]


def is_missing(documents: Documents, namespace: str, name: str) -> bool:
    """Whether an account is neither in the files nor the one that is made by itself."""
    return name != DEFAULT_ACCOUNT_NAME and documents.model("CloudAccount", namespace, name) is None


def answer(documents: Documents, cluster: VirtualCluster, obj: Obj, handles: Sequence[Handle], now: str) -> Answer:
    """Plans and quotes a cluster as if none of its machines was there.

    Args:
        documents: The files.
        cluster: The cluster.
        obj: The same as plain data.
        handles: Its accounts, checked and with offers.
        now: RFC 3339 time of the quote.
    """
    asked, seconds = read_cluster(cluster), to_seconds(now)
    wanted = accounts_of(documents, asked)
    by_name = {handle.name: handle for handle in handles if handle.namespace == asked.namespace}
    usable = [by_name[name] for name in wanted if name in by_name and not by_name[name].failed]
    nothing = Answer(asked.namespace, asked.name, asked.replicas, wanted, make_quote((), seconds))

    def refuse(text: str) -> Answer:
        return Answer(nothing.namespace, nothing.name, nothing.replicas, wanted, nothing.quote, trouble=text)

    if not usable:
        said = [f"{name}: {by_name[name].failed if name in by_name else 'not in the files'}" for name in wanted]
        return refuse("no account can be used" + (f" ({'; '.join(said)})" if said else ""))
    policy = _policy(documents, asked)
    if isinstance(policy, str):
        return refuse(policy)
    needed = plan(asked, (), seconds)
    currency = asked.currency or _budget_currency(documents, asked.namespace, obj)
    limit, limit_words = _limit(documents, asked, obj, currency)
    if limit_words and limit == 0:
        return refuse(limit_words)
    question = request(
        asked,
        needed,
        accounts=[handle.name for handle in usable],
        policy=policy,
        max_hourly=limit,
        account_limits=_account_limits(usable),
        blocks=(),
        currency=currency,
    )
    table = OfferTable.merge([OfferTable.from_offers(handle.offers) for handle in usable])
    try:
        placement = place(question, table, now=now, plugin=plugin_of(question.policy))
    except PolicyError as error:
        return refuse(f"`spec.placement`: {error}")
    quote = make_quote(
        lines_of((), placement.decisions),
        seconds,
        cheapest=placement.cheapest_nanos,
        cheapest_words=placement.cheapest,
    )
    trouble = f"{placement.reason}: {placement.message}" if placement.missing else ""
    if trouble and limit_words:
        trouble += f"; {limit_words}"
    made = machines(asked, needed, placement.decisions)
    return Answer(asked.namespace, asked.name, asked.replicas, wanted, quote, made, placement, trouble)


def _policy(documents: Documents, asked: Asked) -> Policy | str:
    policy = _told_policy(documents, asked)
    if isinstance(policy, Policy) and policy.data_directory:
        return "`dataNear.directoryRef` needs a cluster to look the regions up in: name them in `dataNear.regions` here"
    return policy


def _told_policy(documents: Documents, asked: Asked) -> Policy | str:
    if not asked.policy_ref:
        return asked.policy
    found = documents.model("PlacementPolicy", asked.namespace, asked.policy_ref)
    if found is None:
        return f"`spec.placement.policyRef.name`: PlacementPolicy '{asked.policy_ref}' isn't in the files"
    return read_policy(found.spec)


def _budgets(documents: Documents, namespace: str) -> list[Obj]:
    """The Budgets of the files; what they don't say was spent is nothing."""
    return [
        {**obj, "spec": {**obj["spec"], "currency": obj["spec"].get("currency", "USD")},
         "status": {"spent": "0", "reserved": "0", **(obj.get("status") or {})}}
        for obj in documents.of("Budget", namespace)
    ]  # fmt: skip


def _budget_currency(documents: Documents, namespace: str, obj: Obj) -> str:
    labels = obj["metadata"].get("labels") or {}
    found = [b["spec"]["currency"] for b in _budgets(documents, namespace) if selects(b, labels)]
    return str(found[0]) if found else "USD"


def _limit(documents: Documents, asked: Asked, obj: Obj, currency: str) -> tuple[int | None, str]:
    """The most that an hour may cost, and the Budget that says so."""
    said = verdict(
        _budgets(documents, asked.namespace),
        obj["metadata"].get("labels") or {},
        extra_hourly_nanos=0,
        currency=currency,
    )
    if said.remaining_nanos is None:
        return asked.max_hourly, ""
    if asked.max_hourly is not None and said.allowed and asked.max_hourly <= said.remaining_nanos:
        return asked.max_hourly, ""
    return said.remaining_nanos, said.message or f"the limit is what Budget '{said.budget}' has left"


def _account_limits(usable: Sequence[Handle]) -> dict[str, int]:
    limits = {handle.name: (handle.obj["spec"].get("limits") or {}).get("machines") for handle in usable}
    return {name: limit for name, limit in limits.items() if limit is not None}
