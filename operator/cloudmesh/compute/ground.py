"""What a cluster needs in an account besides its machines: made before the first one, taken away after the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloudmesh.compute.accounts import Account
from cloudmesh.compute.ports import ClusterSpec, Groundwork

PREPARE_SECONDS = 60.0


@dataclass(slots=True)
class _Place:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    given: Mapping[str, str] | None = None
    fingerprint: object = None


class Grounds:
    """Prepares each cluster once in each account, and clears up after it."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], _Place] = {}

    async def prepare(self, account: Account, cluster: ClusterSpec) -> Mapping[str, str]:
        """Makes what is needed, or gives what was made.

        Raises:
            CloudmeshError: As the provider raises it.
        """
        provider = account.provider
        if not isinstance(provider, Groundwork):
            return {}
        place = self._place(account, cluster.uid)
        fingerprint = (provider, cluster.source_ranges, cluster.public_key)
        async with place.lock:
            if place.given is None or place.fingerprint != fingerprint:
                place.given = await account.call(
                    "prepare",
                    lambda: provider.prepare(cluster),
                    caller=cluster.uid,
                    seconds=PREPARE_SECONDS,
                    effect=True,
                )
                place.fingerprint = fingerprint
            return place.given

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
            place.given = None
            cleared = await account.call(
                "clear", lambda: provider.clear(cluster), caller=cluster.uid, seconds=PREPARE_SECONDS, effect=True
            )
        if cleared and not place.lock.locked():
            self._places.pop((account.uid, cluster.uid), None)
        return cleared

    def _place(self, account: Account, uid: str) -> _Place:
        return self._places.setdefault((account.uid, uid), _Place())
