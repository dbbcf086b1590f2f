"""What a process remembers of a cluster between two passes; all of it can be had again from the API server."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.approved import Approved, kept
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.budget_plan import Machine, read_machine
from cloudmesh.compute.failures import FailureMemory
from cloudmesh.compute.machines import MachineView, view
from cloudmesh.compute.members import Member
from cloudmesh.compute.quote import Quote
from cloudmesh.compute.reading import read_member
from cloudmesh.engine import Obj
from cloudmesh.policy.model import Placement


@dataclass(slots=True)
class Machines:
    """A cluster's machines, each read once a version.

    Args:
        members: As their statuses say.
        sure: As the plan takes them: that one works is known only if this process has found it so.
        views: As other parts see them.
        runs: What they cost.
    """

    members: list[Member]
    sure: list[Member]
    views: list[MachineView]
    runs: list[Machine]


@dataclass(slots=True)
class _Read:
    version: str
    up: bool
    member: Member
    view: MachineView
    run: Machine


@dataclass(slots=True)
class Memory:
    """One cluster.

    Args:
        uid: Its uid.
        generation: Of the spec that was read.
        cluster: The object as it was read then.
        asked: What it asks for.
        labels: Its labels at the last pass, None before the first.
        vanished: Runs that this process saw, whose machines went without being booked.
        quote: The quote that holds, None for none.
        quote_read: Whether the status was looked at for it.
        approved: What was approved last, where approval is asked for; None if nothing was.
        kept: As what it is kept while another quote waits; None before that was ever so.
        keeps: This is such a one: nothing is asked for but what its quote covers.
        placement: The scheduler's last answer.
        question: What it was asked; the same question isn't asked twice in a row.
        asked_at: When, on the loop's clock.
        waits_since: Since when none of its accounts can be used, on the loop's clock; None if one can.
        written_at: When the status was last written, on the loop's clock.
        cost_at: When its cost was last written, on the loop's clock.
        logins_due: When logins are published though machines lack, on the loop's clock; 0 for no such time.
        led_at: When this process first saw it, in seconds since 1970: idle time is counted from then on.
        used_at: When it was last seen used, in seconds since 1970; 0 for never.
        deleted: Uids of machines whose deletion was asked for: the watch tells of it later.
        clash: What of somebody else's has the name of its Secret or ConfigMap, in words.
        refused: Offers that were refused for what is wrong with this very request.
        noted: Uids of machines whose refusal is in there.
        booting: Its machines are being set up, or looked after.
        tripping: Pools with so many ill machines that none is replaced.
        tripped: By pool when that was last so, in seconds since 1970.
        told: Texts that were told by an event and hold still.
        hourly: Nano-units per hour, for metrics as are the following.
        accrued: Nano-units so far.
        currency: Of both.
        machines: Number of machines.
        ready: Units that are ready.
    """

    uid: str
    generation: int
    cluster: VirtualCluster
    asked: Asked
    labels: dict[str, str] | None = None
    vanished: dict[str, Machine] = field(default_factory=dict)
    quote: Quote | None = None
    quote_read: bool = False
    approved: Approved | None = None
    kept: Memory | None = None
    keeps: bool = False
    placement: Placement | None = None
    question: Hashable = None
    asked_at: float = float("-inf")
    waits_since: float | None = None
    written_at: float = float("-inf")
    cost_at: float = float("-inf")
    logins_due: float = 0.0
    led_at: int = 0
    used_at: int = 0
    deleted: set[str] = field(default_factory=set)
    clash: str = ""
    refused: FailureMemory = field(default_factory=FailureMemory)
    noted: set[str] = field(default_factory=set)
    booting: bool = False
    tripping: frozenset[str] = frozenset()
    tripped: dict[str, int] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    hourly: int = 0
    accrued: int = 0
    currency: str = "USD"
    machines: int = 0
    ready: int = 0
    _read: dict[str, _Read] = field(default_factory=dict)
    _sessions: dict[str, Machine] = field(default_factory=dict)

    def take_in(self, objects: Sequence[Obj], now: int, known: Callable[[Member], bool]) -> Machines:
        """Reads the machines that there are; notes the runs of those that went.

        Args:
            objects: The VirtualMachines.
            now: Seconds since 1970.
            known: Whether this process has looked at a machine itself.
        """
        read: dict[str, _Read] = {}
        for obj in objects:
            uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
            held = self._read.get(uid)
            if held is None or held.version != version:
                member = read_member(obj, was_up=held is not None and held.up)
                held = _Read(version, member.was_up, member, view(obj), read_machine(obj))
            read[uid] = held
        self._read = read
        self.deleted &= read.keys()
        runs = [r.run for r in read.values()]
        sessions = {run.session: run for run in runs if run.started is not None}
        for session, run in self._sessions.items():
            if session not in sessions:
                self.vanished[session] = run if run.ended is not None else replace(run, ended=now)
        self._sessions = sessions
        members = [r.member for r in read.values()]
        views = [r.view for r in read.values()]
        if self.deleted:
            members = [replace(m, deleting=True) if m.uid in self.deleted else m for m in members]
            views = [replace(v, deleting=True) if v.uid in self.deleted else v for v in views]
        sure = [m if m.ready != "True" or m.deleting or known(m) else replace(m, ready="Unknown") for m in members]
        return Machines(members, sure, views, runs)

    def keep(self) -> Memory | None:
        """As what it is kept while it waits for something else; None if nothing was approved, or that is all."""
        if not self.asked.approval or self.approved is None:
            return None
        asked, quote = kept(self.approved, self.asked)
        same = replace(asked, policy_ref=self.asked.policy_ref, policy=self.asked.policy) == self.asked
        if same and (self.quote is None or self.quote.hash == quote.hash):
            return None
        if self.kept is None or self.kept.asked != asked or self.kept.quote != quote:
            self.kept = Memory(self.uid, self.generation, self.cluster, asked, quote=quote, quote_read=True, keeps=True)
        return self.kept

    def tell(self, name: str, text: str) -> bool:
        """Whether this is news; an empty text is never told."""
        if self.told.get(name, "") == text:
            return False
        self.told[name] = text
        return bool(text)


def numbers(members: Iterable[Member]) -> int:
    """Nano-units per hour of all that is billed at the moment."""
    return sum(price.nanos for m in members if (m.billed or m.resting) and (price := m.running) is not None)
