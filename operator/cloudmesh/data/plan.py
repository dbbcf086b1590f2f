"""What the mover does next with one file: pure, level-based, never more than what is sure to be safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from cloudmesh.data.balance import Shift, shift
from cloudmesh.data.config import DirectoryConfig, PlacementRule
from cloudmesh.data.model import MICROS, Copy, Work, link_of
from cloudmesh.data.placement import Chosen, Facts, StoreView, by_way_out

CHECK = 3600 * MICROS
"""A copy that was read and isn't whole is read again so much later, if no other one can be read."""
RETRY = 30 * MICROS
"""After a failure or while a store is away, a file is looked at again so much later."""
SETTLE_AFTER = 10 * MICROS
"""A copy that was just written gets another key so much later at the earliest."""
FOLLOW = 3600 * MICROS
"""A linked object is looked at again so much later."""


@dataclass(frozen=True, slots=True)
class Write:
    """Makes or renews the copy in a store, from the best of `sources`."""

    store: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Removes the copy in a store.

    Args:
        store: Where.
        keep: So many counting copies elsewhere have to be proved first; 0 for what was deleted too long ago.
        weak: Copies in weak stores count too.
    """

    store: str
    keep: int
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Scrub:
    """Reads a copy and compares its digest."""

    store: str


@dataclass(frozen=True, slots=True)
class Check:
    """No copy can be read: looks whether this one, which isn't whole by the record, is after all."""

    store: str


@dataclass(frozen=True, slots=True)
class Purge:
    """Ends a trashed file that has no copies any more."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Looks whether a linked object is still the one on record."""

    store: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Ends a link to an object of a store that is to leave; the object stays."""

    store: str


Action = Write | Drop | Scrub | Check | Purge | Follow | Forget


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again in any case.

    Args:
        actions: What to do.
        due: When to look again, in microseconds; 0: when something changes.
        pending: The file isn't where it belongs yet.
        settles: At leisure: stores in which its object should get the file's own name, and that key.
        shift: At leisure: a copy that should lie in an emptier store.
    """

    actions: tuple[Action, ...]
    due: int = 0
    pending: bool = False
    settles: tuple[tuple[str, str], ...] = ()
    shift: Shift | None = None


def _takes_deletes(view: StoreView) -> bool:
    return view.up and view.config.access != "ReadOnly"


def ends_at(work: Work, config: DirectoryConfig) -> int:
    """When something in the trash is over, in microseconds: from then on nobody can restore it."""
    return work.trashed + config.trash_seconds * MICROS


def _over(work: Work, views: Mapping[str, StoreView], now: int) -> Plan:
    if not work.copies:
        return Plan((Purge(),), now + RETRY if work.entry.kind == "Directory" else 0)
    # a store that isn't in the directory any more is not waited for: nobody could ever tell
    # nor for that of a linked object, since nothing is done to it
    drops = tuple(
        Drop(c.store, 0) for c in work.copies
        if c.state == "Linked" or c.store not in views or _takes_deletes(views[c.store])
    )  # fmt: skip
    if not drops and all(views[c.store].config.access == "ReadOnly" for c in work.copies):
        # it waits until they may be written again, or leave the directory: either makes it due
        return Plan((), now + CHECK)
    return Plan(drops, now + RETRY, pending=True)


def is_kept_well(work: Work, stores: Sequence[StoreView]) -> bool:
    """Whether all copies of something in the trash are whole, in stores that answer and stay: so they lie on."""
    staying = {view.config.name for view in stores if view.up and view.config.access != "Drain"}
    return all(c.state == "Whole" and c.version == work.entry.version and c.store in staying for c in work.copies)


def as_it_lies(work: Work, rules: Sequence[PlacementRule]) -> Chosen:
    """Where something in the trash belongs that is kept well: where it is."""
    number = len(work.copies)
    rule = msgspec.structs.replace(rules[-1], copies=number, min_copies=number)
    return Chosen(rule, tuple(c.store for c in work.copies), number)


def rules_of_trash(work: Work, rules: Sequence[PlacementRule]) -> tuple[PlacementRule, ...]:
    """Rules by which something in the trash is placed that isn't kept well: never more copies than it had."""
    most = len(work.copies)
    return tuple(
        msgspec.structs.replace(rule, copies=min(rule.copies, most), min_copies=min(rule.min_copies, most))
        for rule in rules
    )


def _linked(work: Work, link: Copy, views: Mapping[str, StoreView], now: int) -> Plan:
    view = views.get(link.store)
    if view is not None and view.config.access == "Drain":
        return Plan((Forget(link.store),), now + RETRY, pending=True)
    # what a write over it left behind
    rests = [
        Drop(c.store, 0) for c in work.copies
        if c != link and (c.store not in views or _takes_deletes(views[c.store]))
    ]  # fmt: skip
    if view is None or not view.up:
        return Plan(tuple(rests), now + RETRY, bool(rests))
    return Plan((*rests, Follow(link.store)), now + FOLLOW, bool(rests))


def readable(work: Work, views: Mapping[str, StoreView]) -> list[Copy]:
    """Copies of the entry's content in stores that answer, those that cost least to read first, then the quickest."""
    found = [
        c for c in work.copies
        if c.state == "Whole" and c.version == work.entry.version and c.store in views and views[c.store].up
    ]  # fmt: skip
    return by_way_out(found, views)


def plan(
    work: Work, chosen: Chosen, stores: Sequence[StoreView], config: DirectoryConfig, now: int,
    own: Mapping[str, str] | None = None,
) -> Plan:  # fmt: skip
    """What to do with a file.

    Args:
        work: The file with its copies.
        chosen: Where it belongs.
        stores: All stores.
        config: The directory.
        now: Microseconds.
        own: By store, the key that its object should have; stores in which that is dear are left out.
    """
    views = {view.config.name: view for view in stores}
    end = ends_at(work, config) if work.trashed else 0
    if end and (now >= end or work.entry.kind == "Directory"):
        return _over(work, views, now) if now >= end else Plan((), end)
    if (link := link_of(work.copies)) is not None:
        found_link = _linked(work, link, views, now)
        # nobody reads it in the trash
        return found_link if not end or Forget(link.store) in found_link.actions else Plan((), end)
    sources = readable(work, views)
    whole = {c.store for c in sources}
    wanted = [name for name in chosen.stores if name not in whole]
    dues = [at for at in (chosen.changes_at, end) if at]
    actions: list[Action] = []
    if wanted and sources:
        actions += [Write(name, tuple(c.store for c in sources)) for name in wanted]
    if not sources:
        actions += [
            Check(c.store)
            for c in work.copies
            if c.store in views and views[c.store].up and (not c.scrubbed or c.scrubbed + CHECK <= now)
        ]
    if end and not sources:
        # nobody waits for it: a store that comes back makes it due
        return Plan(tuple(actions), min(end, now + CHECK))
    short = len(chosen.stores) < chosen.rule.copies
    if short or (wanted and not sources):
        dues.append(now + RETRY)
    # a store that is away may be where the file belongs: until it is back or gone from the directory, all copies count
    if not wanted and chosen.enough and not (short and any(not view.up for view in stores)):
        actions += [
            Drop(c.store, chosen.counting, chosen.rule.weak_copies == "Count")
            for c in work.copies
            if c.store not in chosen.stores and c.store in views and _takes_deletes(views[c.store])
        ]  # fmt: skip
    dropped = {action.store for action in actions if isinstance(action, Drop)}
    if config.verify_seconds:
        for copy in sources:
            last = max(copy.scrubbed, copy.verified)
            # a clock that was far ahead for a while puts nothing off
            at = now if last > now + CHECK else last + config.verify_seconds * MICROS
            if at <= now:
                if copy.store not in dropped:
                    actions.append(Scrub(copy.store))
            else:
                dues.append(at)
    pending = bool(wanted or dropped) or short
    settles: list[tuple[str, str]] = []
    found: Shift | None = None
    if not actions and not pending and not end:
        for copy in sources:
            key = (own or {}).get(copy.store, copy.key)
            # a clock that was far ahead for a while puts nothing off
            at = 0 if copy.verified > now + CHECK else copy.verified + SETTLE_AFTER
            if key == copy.key or views[copy.store].config.access != "ReadWrite":
                continue
            if at <= now:
                settles.append((copy.store, key))
            else:
                dues.append(at)
        if chosen.rule.prefer == "Balanced" and not settles:
            entry = work.entry
            facts = Facts(work.path, entry.size, entry.mtime, entry.content_type, entry.tags)
            found = shift(facts, config.rules, stores, now, frozenset(whole))
    return Plan(tuple(actions), min(dues) if dues else 0, pending or found is not None, tuple(settles), found)
