"""Machines that carry our tags though their VirtualMachine is gone: found slowly, deleted carefully."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from cloudmesh.compute.accounts import Account, Accounts, Busy
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.ports import GONE, Complete, Listing, Node, Release
from cloudmesh.compute.tokens import NOTE_LEFT, TAG_ADOPTED, TAG_MACHINE, TAG_UID
from cloudmesh.engine import CloudmeshError

log = logging.getLogger(__name__)

SHARE = 10
"""Of so many machines at most one is collected a round; one at least."""
AGAIN_SECONDS = 60.0


class Orphans:
    """Looks for orphans after each listing of an account.

    One is collected only if two Complete listings in a row showed it, it was without an owner for longer than a new
    machine or a listing can lag, the cache is whole, the lease is held, and the API server itself says that no
    VirtualMachine of its uid is there. A failed read of our own records proves nothing. A machine that was taken over
    is given back instead, and one whose tags name no VirtualMachine to be asked for is left alone. So is one that is
    noted as left behind: only its tags are taken off.

    Args:
        accounts: All accounts.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._engine = accounts.engine
        self._since: dict[str, dict[str, tuple[float, int]]] = {}
        self._asked: dict[str, float] = {}
        self._noted: dict[str, dict[str, float]] = {}

    def suspects(self, account: Account) -> bool:
        """Whether some machine may be an orphan, so that the next listing should come soon."""
        return bool(self._since.get(account.uid))

    def forget(self, account: Account) -> None:
        """The account is gone."""
        self._since.pop(account.uid, None)
        self._noted.pop(account.uid, None)

    async def look(self, account: Account, listing: Listing) -> int:
        """Looks through a listing; gives how many orphans were asked to end."""
        if not self._engine.synced.is_set() or not isinstance(listing, Complete):
            return 0
        now = asyncio.get_running_loop().time()
        known = {obj["metadata"]["uid"] for obj in self._engine.cache.list(VIRTUAL_MACHINE, account.namespace)}
        before = self._since.get(account.uid, {})
        found: dict[str, tuple[float, int]] = {}
        ripe = []
        left = self._left(account, now)
        for node in listing.nodes:
            uid = node.tags.get(TAG_UID, "")
            if node.state in GONE or not node.token or not uid or uid in known or not node.tags.get(TAG_MACHINE):
                continue
            if node.token in left:
                await self._let_go(account, node, now)
                continue
            if TAG_ADOPTED in node.tags and not isinstance(account.provider, Release):
                continue
            since, times = before.get(node.id, (now, 0))
            found[node.id] = (since, times + 1)
            lag = max(account.info.grace_seconds, account.info.create_seconds)
            if times >= 1 and now - since >= lag and now - self._asked.get(node.id, float("-inf")) >= AGAIN_SECONDS:
                ripe.append(node)
        self._since[account.uid] = found
        cap = max(1, len(listing.nodes) // SHARE)
        await self._settle(account, left)
        collected = 0
        for node in sorted(ripe, key=lambda node: node.id)[:cap]:
            collected += await self._collect(account, node, now)
        self._asked = {key: at for key, at in self._asked.items() if now - at < 10 * AGAIN_SECONDS}
        return collected

    def _left(self, account: Account, now: float) -> dict[str, float]:
        """Tokens of machines that are noted as left behind, and when that was first seen here."""
        obj = self._engine.cache.get(CLOUD_ACCOUNT, account.namespace, account.name) or {"metadata": {}}
        notes = obj["metadata"].get("annotations") or {}
        before = self._noted.get(account.uid, {})
        tokens = [key.removeprefix(NOTE_LEFT) for key in notes if key.startswith(NOTE_LEFT)]
        self._noted[account.uid] = found = {token: before.get(token, now) for token in tokens}
        return found

    async def _let_go(self, account: Account, node: Node, now: float) -> None:
        if now - self._asked.get(node.id, float("-inf")) < AGAIN_SECONDS:
            return
        self._asked[node.id] = now
        try:
            await self._release(account, node)
        except Busy:
            del self._asked[node.id]
        except CloudmeshError as error:
            log.warning("a machine that was left behind keeps its tags", extra={"node": node.id, "error": str(error)})

    async def _settle(self, account: Account, left: Mapping[str, float]) -> None:
        """Takes notes away of machines that are proven not to carry our tags any more."""
        lag = account.info.create_seconds
        over = [
            token
            for token, since in left.items()
            if token not in account.keys and account.nodes.absent(token, since + lag)
        ]
        if not over:
            return
        patch = {"metadata": {"uid": account.uid, "annotations": dict.fromkeys((NOTE_LEFT + t for t in over), None)}}
        try:
            await self._engine.kube.patch(CLOUD_ACCOUNT, account.namespace, account.name, patch)
        except CloudmeshError as error:
            log.warning("a note of a machine that is gone stays", extra={"account": account.name, "error": str(error)})

    async def _collect(self, account: Account, node: Node, now: float) -> int:
        name = node.tags[TAG_MACHINE]
        try:
            live = await self._engine.kube.get(VIRTUAL_MACHINE, account.namespace, name)
            if live is not None and live["metadata"]["uid"] == node.tags[TAG_UID]:
                return 0
            if TAG_ADOPTED in node.tags:
                await self._release(account, node)
            else:
                await account.call(
                    "delete_node",
                    lambda: account.provider.delete_node(node.id, account.scope),
                    caller=node.token,
                    effect=True,
                )
        except Busy:
            return 0
        except CloudmeshError as error:
            log.warning("an orphan can't be collected", extra={"node": node.id, "error": str(error)})
            return 0
        self._asked[node.id] = now
        self._accounts.metrics.orphans.labels(account.namespace, account.name).inc()
        self._tell(account, node, name)
        return 1

    async def _release(self, account: Account, node: Node) -> None:
        provider = account.provider
        if isinstance(provider, Release):
            await account.call("release_node", lambda: provider.release_node(node.id), caller=node.token, effect=True)

    def _tell(self, account: Account, node: Node, name: str) -> None:
        obj: Mapping[str, object] | None = self._engine.cache.get(CLOUD_ACCOUNT, account.namespace, account.name)
        if obj is not None:
            done = "given back" if TAG_ADOPTED in node.tags else "deleted"
            self._engine.events.emit(
                dict(obj),
                "Warning",
                "OrphanCollected",
                f"{node.id} carried the tags of VirtualMachine '{name}', which is gone: it was {done}",
            )
