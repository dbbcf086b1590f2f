"""What a cluster needs in an account besides its machines: made before the first one, taken away after the last.

Where the provider can list firewalls, they are compared with what was made: somebody else's change is drift, shown for
one round and then undone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloudmesh.compute.accounts import Account
from cloudmesh.compute.ports import ClusterSpec, Groundwork, SecurityGroups

PREPARE_SECONDS = 60.0
MISSING = "no such group"


@dataclass(slots=True)
class _Place:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    given: Mapping[str, str] | None = None
    fingerprint: object = None
    rules: dict[str, str] = field(default_factory=dict)
    """By id of the group, as text, as they were when it had been made."""
    drift: tuple[str, str] | None = None


class Grounds:
    """Prepares each cluster once in each account, and clears up after it."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], _Place] = {}

    def knows(self, account: Account, uid: str) -> bool:
        """Whether a cluster is prepared in an account."""
        place = self._places.get((account.uid, uid))
        return place is not None and place.given is not None

    def drift(self, account: Account, uid: str) -> tuple[str, str] | None:
        """How a cluster's firewall differs: expected and found."""
        place = self._places.get((account.uid, uid))
        return place.drift if place is not None else None

    async def prepare(self, account: Account, cluster: ClusterSpec, *, again: bool = False) -> Mapping[str, str]:
        """Makes what is needed, or gives what was made.

        Args:
            account: Where.
            cluster: Whose.
            again: It may have gone since then: the provider looks, where no listing tells.

        Raises:
            CloudmeshError: As the provider raises it.
        """
        provider = account.provider
        if not isinstance(provider, Groundwork):
            return {}
        place = self._place(account, cluster.uid)
        fingerprint = (provider, cluster.source_ranges, cluster.public_key)
        async with place.lock:
            unseen = again and not isinstance(provider, SecurityGroups)
            if place.given is None or place.fingerprint != fingerprint or unseen:
                place.given = await account.call(
                    "prepare",
                    lambda: provider.prepare(cluster),
                    caller=cluster.uid,
                    seconds=PREPARE_SECONDS,
                    effect=True,
                )
                place.fingerprint = fingerprint
                place.rules = {}
            return place.given

    async def inspect(self, account: Account) -> set[str]:
        """Compares all firewalls of an account; gives the uids of clusters whose drift came or went."""
        provider = account.provider
        if not isinstance(provider, SecurityGroups):
            return set()
        begun = {uid: place.given for (owner, uid), place in self._places.items() if owner == account.uid}
        groups = await account.call("list_security_groups", provider.list_security_groups, caller="firewalls")
        found = {
            str(group["id"]): json.dumps(sorted(json.dumps(rule, sort_keys=True) for rule in group["rules"]))
            for group in groups
        }
        changed = set()
        for uid, given in begun.items():
            place = self._places.get((account.uid, uid))
            if place is None or given is None or place.given is not given:
                continue
            if not place.rules:
                place.rules = {value: found[value] for value in given.values() if value in found}
            wrong = next((id_ for id_ in place.rules if found.get(id_) != place.rules[id_]), None)
            drift = (place.rules[wrong], found.get(wrong, MISSING)) if wrong is not None else None
            if drift is not None and place.drift is not None:
                place.given = None  # told long enough: what is prepared again is as it should be
            if drift != place.drift:
                place.drift = drift
                changed.add(uid)
        return changed

    async def clear(self, account: Account, cluster: ClusterSpec, is_last: Callable[[], bool]) -> bool:
        """Takes it away; False while something still holds it.

        Args:
            account: Where.
            cluster: Whose.
            is_last: Says whether nobody else needs it; asked when nobody prepares it.
        """
        provider = account.provider
        if not isinstance(provider, Groundwork):
            return True
        place = self._place(account, cluster.uid)
        async with place.lock:
            if not is_last():
                return True
            place.given, place.drift = None, None
            cleared = await account.call(
                "clear", lambda: provider.clear(cluster), caller=cluster.uid, seconds=PREPARE_SECONDS, effect=True
            )
        if cleared and not place.lock.locked() and place.given is None:
            self._places.pop((account.uid, cluster.uid), None)
        return cleared

    def _place(self, account: Account, uid: str) -> _Place:
        return self._places.setdefault((account.uid, uid), _Place())
