"""Tells what is so of a cluster: its status, its events, logins and inventory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.compute import lifecycle
from cloudmesh.compute.access import ClusterAccess, ensure_access, publish_logins
from cloudmesh.compute.approved import to_told
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.cluster_cost import (
    WRITE_SECONDS,
    accrued,
    grown,
    make_cost,
    read_books,
    same_machines,
    write_books,
)
from cloudmesh.compute.cluster_memory import Machines, Memory, numbers
from cloudmesh.compute.cluster_offers import Chosen, Offers, over_limit
from cloudmesh.compute.cluster_status import Boot, Facts, Trouble, Verdict, clash, make_status, not_adopted, verdict
from cloudmesh.compute.cluster_words import Event, events_of
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.plan import Plan
from cloudmesh.compute.shrink import smaller, with_quote
from cloudmesh.engine import Engine, Key, Obj
from cloudmesh.policy.model import Rejection

SLOW_SECONDS = 2.0
"""While machines come up, the status follows at most so often."""
LOGIN_SECONDS = 5.0
NOTHING_TO_DO = Boot()
GRANTED = ("approved", "approvedHourly")


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over a cluster.

    Args:
        memory: What is remembered of it.
        obj: The VirtualCluster.
        there: Its machines.
        needed: Its plan.
        life: Whether it runs, rests or ends.
        now: Seconds since 1970.
        now_text: The same as RFC 3339.
        budget: Which Budget forbids more, in words.
        kept: The plan is that of what was approved, while something else waits.
    """

    memory: Memory
    obj: Obj
    there: Machines
    needed: Plan
    life: lifecycle.Lifecycle
    now: int
    now_text: str
    budget: str = ""
    kept: bool = False


class Teller:
    """Writes what people read.

    Args:
        engine: Access to the cluster.
        offers: Knows the quote that holds.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, engine: Engine, offers: Offers, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._offers = offers
        self._clock = clock

    def emit(self, obj: Obj, event: Event) -> None:
        """Tells an event."""
        self._engine.events.emit(obj, event.type, event.reason, event.message)

    async def access(self, memory: Memory, obj: Obj) -> ClusterAccess:
        """The cluster's keys; made before its first machine."""
        asked = memory.asked
        return await ensure_access(self._engine, obj, public_keys=asked.public_keys, slurm=asked.bootstrap == "slurm")

    async def book(self, memory: Memory, obj: Obj, there: Machines) -> Obj:
        """Books what machines cost that have ended, or vanished; gives the object as it is then."""
        runs = [*there.runs, *memory.vanished.values()]
        obj = await write_books(self._engine, obj, runs, (run.uid for run in there.runs))
        memory.vanished.clear()
        labels = dict(obj["metadata"].get("labels") or {})
        if labels != memory.labels:
            if memory.labels is not None:  # what they cost so far stays with the Budgets of before
                for run in there.runs:
                    self._engine.enqueue(Key(VIRTUAL_MACHINE.kind, obj["metadata"]["namespace"], run.name))
            memory.labels = labels
        return obj

    async def shrink(self, memory: Memory, obj: Obj, would: Plan, keeping: Callable[[Asked], Plan]) -> Obj:
        """Takes off the quote what isn't asked for any more; gives the object as it is then.

        Args:
            memory: What is remembered of it.
            obj: The VirtualCluster.
            would: What it needs to run.
            keeping: What another Asked of the cluster would need.
        """
        held, status = self._offers.held(memory, obj), obj.get("status") or {}
        if held is None or (status.get("quote") or {}).get("hash") != held.hash:
            return obj
        acted = memory.approved
        if acted is not None and acted.quote.hash != held.hash and (kept := memory.keep()) is not None:
            fitted = smaller(acted.quote, keeping(kept.asked), acted.quote.hash)
            acted = acted if fitted is None else replace(acted, quote=fitted)
            found = smaller(held, would, acted.quote.hash, acted.quote)
            if found is None and fitted is None:
                return obj
        else:
            found = smaller(held, would, status.get("approvedQuote", ""))
            if found is None:
                return obj
            acted = replace(acted, quote=found) if acted is not None else None
        new = with_quote(status, found) if found is not None else dict(status)
        if acted is not None:
            new |= to_told(acted, found or held)
        memory.quote_read = False  # until it is sure what the API server has
        obj = await self._engine.status.write(VIRTUAL_CLUSTER, obj, new)
        memory.quote, memory.approved, memory.quote_read = found or held, acted, True
        return obj

    async def publish_quote(self, at: Pass, chosen: Chosen) -> Obj:
        """Writes the quote that is about to be acted on; gives the object as it is then."""
        approved = chosen.quote.hash if chosen.quote is not None else ""
        facts = self._facts(at, chosen.trouble, NOTHING_TO_DO, approved)
        said = verdict(at.memory.asked, facts)
        status = make_status(at.obj, at.memory.asked, facts, at.now_text, said)
        return await self._write(at.memory, at.obj, status)

    async def tell(self, at: Pass, trouble: Trouble | None, boot: Boot) -> float | None:
        """Writes the status and tells what is new of Ready; gives how long to wait where that was put off."""
        memory, obj = at.memory, at.obj
        facts = self._facts(at, trouble, boot)
        before = (obj.get("status") or {}).get("conditions") or ()
        said = verdict(memory.asked, facts)
        if said.reconciling and not _turned(before, said):
            wait = memory.written_at + SLOW_SECONDS - self._clock()
            if wait > 0:
                return wait
        status = make_status(obj, memory.asked, facts, at.now_text, said)
        await self._write(memory, obj, status)
        for event in events_of(before, said, _hourly(status)):
            self.emit(obj, event)
        for name in (c.HEALTHY, c.WITHIN_BUDGET):
            found = c.find_condition(status["conditions"], name) or {}
            worse = found.get("status") == "False" or found.get("reason") == "Drifted"
            # of machines that differ only in what: they are noticed one after the other
            news = found["message"].rpartition(" in ")[2] if found.get("reason") == "Drifted" else found.get("message")
            if memory.tell(name, f"{found['reason']}: {news}" if worse else ""):
                self.emit(obj, Event("Warning", found["reason"], found["message"]))
        return None

    async def publish_logins(self, at: Pass) -> float | None:
        """Writes logins and inventory; gives how long to wait where that was put off."""
        views, memory = at.there.views, at.memory
        if not any(v.host for v in views):
            return None
        now = self._clock()
        if not all(v.host for v in views if not v.deleting and not v.failed):
            # more will come in a moment: they are written together
            memory.logins_due = memory.logins_due or now + LOGIN_SECONDS
            if now < memory.logins_due:
                return memory.logins_due - now
        memory.logins_due = 0.0
        access = await self.access(memory, at.obj)
        await publish_logins(self._engine, at.obj, access, views, memory.asked.outputs)
        return None

    # -- what is so ----------------------------------------------------------------------------------------------------

    def _facts(self, at: Pass, trouble: Trouble | None, boot: Boot, approved: str = "") -> Facts:
        memory, asked, status = at.memory, at.memory.asked, at.obj.get("status") or {}
        members, budget = at.there.members, at.budget
        if trouble is None and at.life.state == "Run":
            trouble = over_limit(asked, members, self._offers.guests(asked))
            trouble = trouble or clash(next((m.clash for m in members if m.clash and not m.deleting), memory.clash))
            trouble = trouble or not_adopted(members)
        if trouble is not None and trouble.reason == c.REASON_BUDGET_EXCEEDED:
            budget = budget or trouble.message
        quote, acted = self._offers.held(memory, at.obj), memory.approved if asked.approval else None
        approved = approved or status.get("approvedQuote", "")
        if acted is not None and acted.quote.hash == approved:
            granted = to_told(acted, quote)
        else:
            granted = {name: status[name] for name in GRANTED if name in status} if asked.approval else {}
        return Facts(
            members=members,
            views=at.there.views,
            plan=at.needed,
            rest=at.life.why,
            trouble=trouble,
            quote=quote,
            approved=approved,
            granted=granted,
            rejected=memory.placement.rejected if memory.placement is not None else _told_rejections(at.obj),
            boot=boot,
            budget=budget,
            uncounted=self._offers.uncounted(asked, at.obj, members),
            stale=self._stale(asked.namespace, at.there),
            cost=self._cost(memory, status, at.there, at.now),
            keep=lifecycle.told(at.life, status, at.now_text, resume_of(at.obj), used_at=memory.used_at),
        )

    def _stale(self, namespace: str, there: Machines) -> str:
        """Which accounts' prices are old, in words."""
        said = []
        for name in sorted({m.offer.account for m in there.members}):
            account = self._engine.cache.get(CLOUD_ACCOUNT, namespace, name)
            found = c.find_condition(((account or {}).get("status") or {}).get("conditions") or (), c.PRICES_FRESH)
            if found is not None and found.get("status") == "False":
                said.append(f"CloudAccount '{name}': {found.get('message', '')}")
        return "; ".join(said)

    def _cost(self, memory: Memory, status: Obj, there: Machines, now: int) -> Obj:
        """`status.cost`: as it was, unless the machines have changed or it is time."""
        books = read_books(status)
        running = accrued(there.runs, books, now)
        new = make_cost(there.members, books, running, memory.asked.currency)
        memory.hourly, memory.accrued = numbers(there.members), books.ended + running
        memory.currency = new["currency"]
        memory.machines = sum(1 for m in there.members if not m.deleting)
        memory.ready = sum(m.counts_as for m in there.members if m.ready == "True" and m.power == "Running")
        old: Obj = status.get("cost") or {}
        if old and same_machines(old, new):
            due = self._clock() - memory.cost_at >= WRITE_SECONDS
            if not due or not grown(old, new):
                return old
        return new

    async def _write(self, memory: Memory, obj: Obj, status: Obj) -> Obj:
        old = obj.get("status") or {}
        written = await self._engine.status.write(VIRTUAL_CLUSTER, obj, status)
        memory.written_at = self._clock()
        if status.get("cost") != old.get("cost"):
            memory.cost_at = self._clock()
        return written


def resume_of(obj: Obj) -> str:
    """Value of annotation `cloudmesh.org/resume-requested`."""
    return str((obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_RESUME_REQUESTED, ""))[:253]


def _told_rejections(obj: Obj) -> tuple[Rejection, ...]:
    """Where offers fell when an earlier process asked the scheduler for this very spec."""
    status = obj.get("status") or {}
    if status.get("observedGeneration") != obj["metadata"].get("generation"):
        return ()
    told = (status.get("placement") or {}).get("rejected") or ()
    return tuple(Rejection(r["pool"], r["filter"], r["count"], r["example"]) for r in told)


def _turned(before: Sequence[Obj], said: Verdict) -> bool:
    """Whether Ready says something else than before."""
    old = c.find_condition(before, c.READY) or {}
    return (old.get("status"), old.get("reason")) != (said.status, said.reason)


def _hourly(status: Obj) -> str:
    cost = status.get("cost") or {}
    return f"{cost['hourly']} {cost['currency']}/h" if cost.get("hourly") else ""
