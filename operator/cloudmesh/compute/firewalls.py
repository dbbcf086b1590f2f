"""Looks at what clusters have besides machines, firewalls, names and keys, and puts right what somebody changed."""

from __future__ import annotations

import asyncio
import logging

from cloudmesh.compute.accounts import Account, Accounts, Busy
from cloudmesh.compute.kinds import VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_calls import Calls
from cloudmesh.engine import CloudmeshError, Key, NameConflict, Obj, is_deleting

log = logging.getLogger(__name__)

INSPECT_SECONDS = 45.0


class Firewalls:
    """One look an account and 45 seconds, whatever the number of clusters.

    Args:
        accounts: All accounts.
        calls: Prepares clusters.
    """

    def __init__(self, accounts: Accounts, calls: Calls) -> None:
        self._accounts = accounts
        self._engine = accounts.engine
        self._calls = calls

    async def run(self) -> None:
        """Runs while this process leads."""
        while True:
            await asyncio.sleep(INSPECT_SECONDS)
            for account in self._accounts.all():
                if account.ready and (account.info.ssh or "Groundwork" in account.powers):
                    await self._inspect(account)

    async def _inspect(self, account: Account) -> None:
        owners = self._owners(account)
        if not owners:
            return
        try:
            for owner in owners.values():
                await self._restore(owner, account)
            changed = await self._calls.grounds.inspect(account)
        except Busy:
            return
        except CloudmeshError as error:
            told = {"account": account.name, "error": str(error)}
            log.warning("what clusters have besides machines can't be looked at", extra=told)
            return
        for obj in self._accounts.machines(account) if changed else ():
            if self._calls.owner_uid(obj) in changed:
                self._engine.enqueue(Key(VIRTUAL_MACHINE.kind, account.namespace, obj["metadata"]["name"]))

    async def _restore(self, owner: Obj, account: Account) -> None:
        """Makes what is gone again; what somebody else put in its place is told."""
        try:
            await self._calls.ground(owner, account, again=True)
        except Busy as busy:
            await asyncio.sleep(busy.seconds)
        except NameConflict as error:
            self._engine.events.emit(owner, "Warning", error.reason, str(error))

    def _owners(self, account: Account) -> dict[str, Obj]:
        """Clusters, and machines that stand alone, with a machine that lives in the account."""
        found: dict[str, Obj] = {}
        for obj in self._accounts.machines(account):
            status = obj.get("status") or {}
            if is_deleting(obj) or not status.get("providerID") or status.get("state") == "Deleted":
                continue
            name = (obj["spec"].get("clusterRef") or {}).get("name")
            owner = self._engine.cache.get(VIRTUAL_CLUSTER, account.namespace, name) if name else obj
            if owner is not None and not is_deleting(owner):
                found[owner["metadata"]["uid"]] = owner
        return found
