"""Which CloudAccounts a cluster may use, and why others can't be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudmesh.api import conditions as c
from cloudmesh.compute.accounts import Account, Accounts
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.cluster_status import Trouble
from cloudmesh.compute.kinds import CLOUD_ACCOUNT
from cloudmesh.compute.providers.registry import DEFAULT_ACCOUNT_NAME
from cloudmesh.engine import Cache

LASTING = frozenset({"AuthFailed", "InvalidRequest", "Unsupported", "CheckFailed", "SecretMissing"})
"""Reasons of accounts that wait for somebody."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The accounts of a cluster.

    Args:
        names: All that it may use, in order.
        usable: Those that can be used now, in order.
        trouble: Why none can be, None if one can.
    """

    names: tuple[str, ...]
    usable: tuple[Account, ...]
    trouble: Trouble | None = None


def account_names(asked: Asked, cache: Cache) -> tuple[str, ...]:
    """Names of a cluster's accounts: as listed, else those with the labels by name, else the default."""
    if asked.accounts is not None:
        return asked.accounts
    if asked.account_labels is None:
        return (DEFAULT_ACCOUNT_NAME,)
    wanted = asked.account_labels.items()
    return tuple(
        sorted(
            obj["metadata"]["name"]
            for obj in cache.list(CLOUD_ACCOUNT, asked.namespace)
            if not obj["metadata"].get("deletionTimestamp")
            and all((obj["metadata"].get("labels") or {}).get(key) == value for key, value in wanted)
        )
    )


def choose(asked: Asked, cache: Cache, accounts: Accounts, *, patient: bool = False) -> Choice:
    """The accounts of a cluster, and which of them can be used now.

    Args:
        asked: The cluster.
        cache: Has the CloudAccounts.
        accounts: Live accounts.
        patient: One that hasn't been looked at yet is waited for in silence.
    """
    names = account_names(asked, cache)
    if not names:
        labels = ", ".join(f"{k}={v}" for k, v in (asked.account_labels or {}).items()) or "any labels"
        message = f"`spec.accountSelector`: no CloudAccount has the labels {labels}"
        return Choice(names, (), Trouble(c.REASON_NO_FEASIBLE_OFFER, message, stalled=True))
    found = [accounts.get(asked.namespace, name) for name in names]
    usable = tuple(a for a in found if a is not None and a.ready and not a.deleting and a.priced is not None)
    if usable:
        return Choice(names, usable)
    trouble = _trouble(asked, names, found, cache)
    if patient and trouble.status == "Unknown":
        unseen = [n for n, a in zip(names, found, strict=True) if a is None or a.reason == c.REASON_PENDING]
        if unseen:
            message = f"{_list(unseen)} {'is' if len(unseen) == 1 else 'are'} being looked at"
            return Choice(names, (), Trouble(c.REASON_PENDING, message, "Unknown"))
    return Choice(names, (), trouble)


def _list(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    text = quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
    return f"CloudAccount{'' if len(quoted) == 1 else 's'} {text}"


def _trouble(asked: Asked, names: Sequence[str], found: Sequence[Account | None], cache: Cache) -> Trouble:
    said, waiting, missing = [], False, 0
    for number, (name, account) in enumerate(zip(names, found, strict=True)):
        if account is not None and account.deleting:
            said.append(f"CloudAccount '{name}' is being deleted")
        elif account is not None:
            waiting = waiting or account.reason not in LASTING
            said.append(f"CloudAccount '{name}' can't be used: {account.message}")
        elif (obj := cache.get(CLOUD_ACCOUNT, asked.namespace, name)) is not None or asked.accounts is None:
            # one without a provider tells in its status why it has none
            told = c.find_condition(((obj or {}).get("status") or {}).get("conditions") or (), c.READY) or {}
            if told.get("status") == "False":
                waiting = waiting or told["reason"] not in LASTING
                said.append(f"CloudAccount '{name}' can't be used: {told['message']}")
            else:
                waiting = True
                said.append(f"CloudAccount '{name}' hasn't been looked at yet")
        else:
            missing += 1
            said.append(f"`spec.accounts[{number}].name`: there is no CloudAccount '{name}'")
    message = "; ".join(said)
    if waiting:
        return Trouble(c.REASON_CLOUD_UNAVAILABLE, message, "Unknown")
    reason = c.REASON_NO_FEASIBLE_OFFER if missing == len(names) else c.REASON_CLOUD_UNAVAILABLE
    return Trouble(reason, message, stalled=True)
