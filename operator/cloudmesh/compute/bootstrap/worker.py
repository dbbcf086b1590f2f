"""The background work of one cluster: pass after pass until all machines are as asked, then a slow watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap import mounts, script, slurm
from cloudmesh.compute.bootstrap.activity import in_use
from cloudmesh.compute.bootstrap.equip import digest_of, equip, make_files
from cloudmesh.compute.bootstrap.hosts import DONE, Host, Result, for_all
from cloudmesh.compute.bootstrap.pairs import Met, blame, pairs_of
from cloudmesh.compute.mount_logins import MountOrder
from cloudmesh.compute.reach import Reach
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import CONFIG_MAP, CloudmeshError, InvalidRequest, Key, Kube
from cloudmesh.engine.status import utc_now

log = logging.getLogger(__name__)

FIRST_WAIT, LAST_WAIT = 1.0, 20.0
WATCH_SECONDS = 30.0
KEPT_SCRIPTS = 8
"""So many versions of a script may still run somewhere when the next one comes."""
SETTLE_SECONDS = 0.3
"""Machines come one after the other: a moment's wait takes several into one pass."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; an equal value needs no new pass.

    Args:
        key: The VirtualCluster.
        profile: `ssh`, `slurm` or `script`.
        hosts: Its machines.
        access: Its keys.
        script: Name and key of the ConfigMap of profile `script`.
        watch_use: Whether to tell when it was last used.
        same_network: Whether all machines must reach each other.
        uid: Uid of the VirtualCluster.
        mounts: What is to be mounted on all of them; None where nothing ever was.
    """

    key: Key
    profile: str
    hosts: tuple[Host, ...]
    access: ClusterAccess = field(repr=False)
    script: tuple[str, str] = ("", "")
    watch_use: bool = False
    same_network: bool = False
    uid: str = ""
    mounts: tuple[MountOrder, ...] | None = None


class Worker:
    """One cluster.

    Args:
        ssh: How machines are reached.
        kube: Where scripts are read.
        wanted: What is asked for first.
        results: What is known already, by uid of the machine.
        changed: Called with keys whose results changed.
        directories: Gives the directories that are mounted.
    """

    def __init__(
        self,
        ssh: Ssh,
        kube: Kube,
        wanted: Wanted,
        results: Mapping[str, Result],
        changed: Callable[[Key], None],
        directories: mounts.Reach = lambda: None,
    ) -> None:
        self.wanted = wanted
        self.results: dict[str, Result] = dict(results)
        self.trouble = ""
        self.used_at = ""
        self.slurm = slurm.SlurmState()
        self.mounts = mounts.MountState()
        self._directories = directories
        self._seen: dict[str, Host] = {}
        self._equipped: dict[str, tuple[str, str]] = {}
        self._ssh: Ssh = Reach(ssh, self._is_gone)
        self._kube = kube
        self._changed = changed
        self._wake = asyncio.Event()
        self._scripts: list[bytes] = []
        self._met = Met()

    def want(self, wanted: Wanted) -> None:
        """Takes what is asked for now."""
        if wanted == self.wanted:
            # the script may be another one now: a pass reads it, and does nothing if it isn't
            if wanted.profile == "script" and any(result.state == "Failed" for result in self.results.values()):
                self._wake.set()
            return
        self.wanted = wanted
        uids = {h.uid for h in wanted.hosts}
        self.results = {uid: result for uid, result in self.results.items() if uid in uids}
        for host in wanted.hosts:
            if (seen := self._seen.get(host.uid)) is not None and seen.boot_id != host.boot_id:
                self.results[host.uid] = Result("Pending", f"{host.name} has started anew")
        self._wake.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        wait = FIRST_WAIT
        while True:
            self._wake.clear()
            wanted = self.wanted
            try:
                results, self.trouble = await self._settle(wanted), ""
            except CloudmeshError as error:
                results, self.trouble = dict(self.results), str(error)
                log.warning("bootstrap failed", extra={"cluster": str(wanted.key), "error": str(error)})
            except Exception as error:
                results, self.trouble = dict(self.results), f"unexpected: {type(error).__name__}"
                log.exception("bootstrap failed unexpectedly", extra={"cluster": str(wanted.key)})
            self._record(wanted, results)
            done = not self.trouble and all(self._is_done(h) for h in wanted.hosts)
            done = done and not self.mounts.troubles and not self.mounts.going
            if done and not self._wake.is_set():
                await self._watch_use(wanted)
            wait = FIRST_WAIT if done else min(wait * 2, LAST_WAIT)
            rest = self._rest(wanted) if done else wait
            try:
                async with asyncio.timeout(rest):
                    await self._wake.wait()
                wait = FIRST_WAIT
                await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                pass

    def _is_gone(self, name: str) -> bool:
        """Whether a machine that a pass began with is no longer one of the cluster's, or isn't reached."""
        return not any(host.name == name and host.reachable for host in self.wanted.hosts)

    def _rest(self, wanted: Wanted) -> float | None:
        looks = wanted.profile == "slurm" or wanted.watch_use or wanted.mounts is not None
        return WATCH_SECONDS if looks else None

    def _is_done(self, host: Host) -> bool:
        result = self.results.get(host.uid)
        if not host.reachable:
            return True  # nothing can be done; when it is reached, that is news
        return result is not None and result.state != "Pending" and host.uid in self._equipped

    async def _settle(self, wanted: Wanted) -> dict[str, Result]:
        await self._equip(wanted)
        await self._mount(wanted)
        apart = await self._meet(wanted) if wanted.same_network and wanted.profile != "slurm" else {}
        if wanted.profile == "script":
            # it may need what lies there
            bare = {
                uid: Result("Pending", why) for uid, why in self.mounts.troubles.items() if not self._is_set_up(uid)
            }
            apart = bare | apart
        hosts = tuple(replace(h, reachable=h.reachable and h.uid not in apart) for h in wanted.hosts)
        match wanted.profile:
            case "slurm":
                results = await slurm.settle(self._ssh, wanted.access, wanted.hosts, self.results, self.slurm)
            case "script":
                text = await self._script(wanted)
                if text not in self._scripts[-1:]:
                    self._scripts = [*(s for s in self._scripts if s != text), text][-KEPT_SCRIPTS:]
                    self.results = {uid: result for uid, result in self.results.items() if result.state != "Failed"}
                earlier = self._scripts[:-1]
                results = await script.settle(self._ssh, wanted.access, hosts, self.results, text, earlier)
            case _:
                results = dict.fromkeys((h.uid for h in hosts), DONE)
        return results | apart

    def _is_set_up(self, uid: str) -> bool:
        found = self.results.get(uid)
        return found is not None and found.state != "Pending"

    async def _mount(self, wanted: Wanted) -> None:
        if wanted.mounts is None:
            self.mounts = mounts.MountState()
            return
        before = (self.mounts.settled, self.mounts.troubles, self.mounts.going, self.mounts.held.copy())
        await mounts.settle(
            self._ssh, wanted.access, wanted.hosts, wanted.uid, wanted.key.namespace, wanted.mounts, self.mounts,
            self._directories,
        )  # fmt: skip
        now = (self.mounts.settled, self.mounts.troubles, self.mounts.going, self.mounts.held)
        if before != now or self.mounts.left:
            self._changed(wanted.key)

    async def _meet(self, wanted: Wanted) -> dict[str, Result]:
        """Machines that aren't set up yet and don't reach the SSH port of others, or aren't reached at theirs."""
        hosts = [h for h in wanted.hosts if h.reachable]
        fresh = [h for h in hosts if (found := self.results.get(h.uid)) is None or found.state == "Pending"]
        self._met.keep(wanted.hosts)
        pairs = [(one, other, other.port) for one, other in pairs_of(hosts, fresh, hosts[0])] if fresh else []
        failed, silent = await self._met.try_all(self._ssh, wanted.access, pairs)
        return {h.uid: Result("Pending", silent[h.uid]) for h in fresh if h.uid in silent} | {
            uid: Result("Pending", message, unreachable=True) for uid, message in blame(failed, fresh).items()
        }

    async def _equip(self, wanted: Wanted) -> None:
        """Its failures show in what comes after it; machines that are used by people only don't wait for it."""
        files = make_files(wanted.key.name, wanted.access, wanted.hosts)
        digest = digest_of(files)
        lacking = [h for h in wanted.hosts if h.reachable and self._equipped.get(h.uid) != (digest, h.boot_id)]
        found = await for_all(lacking, lambda h: equip(self._ssh, wanted.access, h, wanted.key.name, files))
        uids = {h.uid for h in wanted.hosts}
        self._equipped = {uid: kept for uid, kept in self._equipped.items() if uid in uids}
        self._equipped |= {h.uid: (digest, h.boot_id) for h in lacking if not isinstance(found[h.uid], CloudmeshError)}

    async def _script(self, wanted: Wanted) -> bytes:
        name, key = wanted.script
        found = await self._kube.get(CONFIG_MAP, wanted.key.namespace, name)
        text = ((found or {}).get("data") or {}).get(key)
        if text is None:
            raise InvalidRequest(f"ConfigMap '{name}' isn't there, or has no key '{key}'")
        return str(text).encode()

    async def _watch_use(self, wanted: Wanted) -> None:
        if not wanted.watch_use or not wanted.hosts:
            return
        try:
            head = self.slurm.controller
            busy = head is not None and await slurm.is_busy(self._ssh, wanted.access, head)
            if busy or await in_use(self._ssh, wanted.access, wanted.hosts):
                self.used_at = utc_now()
        except CloudmeshError as error:
            # who can't be asked may be in use
            self.used_at = utc_now()
            log.info("use can't be told", extra={"cluster": str(wanted.key), "error": str(error)})

    def _record(self, wanted: Wanted, results: Mapping[str, Result]) -> None:
        now = {h.uid: h for h in self.wanted.hosts}
        told = False
        for host in wanted.hosts:
            # meanwhile it may have gone, or begun a new life
            if (current := now.get(host.uid)) is None or current.boot_id != host.boot_id:
                continue
            result = results.get(host.uid, Result("Pending", self.trouble))
            self._seen[host.uid] = host
            if self.results.get(host.uid) != result:
                self.results[host.uid] = result
                self._changed(Key("VirtualMachine", host.namespace, host.name))
                told = True
        self._seen = {uid: host for uid, host in self._seen.items() if uid in now}
        if told:
            self._changed(wanted.key)
