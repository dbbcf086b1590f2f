"""When a file goes from a full store to an empty one. Pure.

Only rules that prefer `Balanced` do that, and only while the stores differ by more than a threshold, and would still
not have changed places after the move: no file ever goes back for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudmesh.data.config import PlacementRule
from cloudmesh.data.placement import Chosen, Facts, StoreView, choose

PPM = 1_000_000
GAP = PPM // 10
"""Share of their room by which two stores may differ."""
ROOMLESS = 5
"""Stores whose room nobody knows may differ by one part in so many of the fuller one,"""
ROOMLESS_BYTES = 64 << 20
"""and by so much in any case."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A copy that should go from one store to another."""

    source: str
    target: str


def _room(view: StoreView) -> int:
    if view.config.capacity is not None:
        return view.config.capacity
    return 0 if view.free is None else view.used + view.free


def fill(view: StoreView) -> int:
    """How full a store is, in millionths of its room; its bytes where nobody knows how much that is."""
    return view.used * PPM // (_room(view) or PPM)


def uneven(source: StoreView, target: StoreView, size: int) -> bool:
    """Whether a file of so many bytes should go from one store to the other, by how full they are."""
    ours, theirs = _room(source), _room(target)
    if ours and theirs:
        gap = source.used * PPM // ours - target.used * PPM // theirs
        return gap > GAP and gap > size * PPM // ours + size * PPM // theirs
    gap = source.used - target.used
    return gap > max(source.used // ROOMLESS, ROOMLESS_BYTES) and gap > 2 * size


def shift(
    facts: Facts, rules: Sequence[PlacementRule], stores: Sequence[StoreView], now: int, holding: frozenset[str]
) -> Shift | None:
    """A copy of a file that should lie elsewhere; None if there is none.

    Args:
        facts: The file.
        rules: In order.
        stores: All stores.
        now: Microseconds.
        holding: Stores that hold it whole.
    """
    chosen = choose(facts, rules, stores, now, holding=holding, explain=True)
    held = [view for view in stores if view.config.name in holding and view.config.name in chosen.stores]
    able = {verdict.store for verdict in chosen.verdicts if verdict.score is not None}
    for target in sorted(stores, key=fill):
        name = target.config.name
        if name in holding or name not in able:
            continue
        for source in held:
            if uneven(source, target, facts.size) and _is_kept(facts, rules, stores, now, chosen, source, target):
                return Shift(source.config.name, name)
    return None


def _is_kept(
    facts: Facts, rules: Sequence[PlacementRule], stores: Sequence[StoreView], now: int, chosen: Chosen,
    source: StoreView, target: StoreView,
) -> bool:  # fmt: skip
    """Whether placement itself would take the copy away from the source when the target has one."""
    both = frozenset(chosen.stores) | {target.config.name}
    after = choose(facts, rules, stores, now, holding=both)
    return set(after.stores) == both - {source.config.name}
