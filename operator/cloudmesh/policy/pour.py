"""Machines handed out one by one, each to where it ranks best at that moment: spread, and modes that look at use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from cloudmesh.policy.problem import Fill, Task, drop_needless, fits, take

Rank = tuple[Any, ...]


class Tally:
    """Machines by place and by account, pinned ones included."""

    def __init__(self, task: Task) -> None:
        self.places = dict(task.held_places)
        self.accounts = dict(task.held_accounts)

    def add(self, task: Task, n: int, count: int = 1) -> None:
        """Counts machines of an item; a negative count takes them out."""
        item = task.items[n]
        self.places[item.place] = self.places.get(item.place, 0) + count
        self.accounts[item.account] = self.accounts.get(item.account, 0) + count

    def of(self, task: Task, n: int, over: str) -> int:
        """Machines in the domain of an item."""
        item = task.items[n]
        return self.accounts.get(item.account, 0) if over == "Account" else self.places.get(item.place, 0)


def pour(
    task: Task,
    among: Sequence[int],
    want: int,
    room: list[int],
    fill: Fill,
    *,
    part: Callable[[int], Any],
    rank: Callable[[int], Rank],
    placed: Callable[[int, int], None],
    each: bool,
) -> int:
    """Takes machines until the units are met and says how many units these are.

    Args:
        task: The task.
        among: Items to use, by index; in each part the better ones first.
        want: Units wanted.
        room: Room by resource, which shrinks.
        fill: Takes the machines.
        part: The part of an item; within a part the order never changes.
        rank: What an item ranks as now, the least first; it may only get worse by what is placed in its own part.
        placed: Called for machines that were placed.
        each: Machines are placed one by one; else as many as fit at once.
    """
    queues: dict[Any, list[int]] = {}
    for n in reversed(among):
        queues.setdefault(part(n), []).append(n)
    heap = [(rank(queue[-1]), queue[-1], key) for key, queue in queues.items()]
    heapify(heap)
    got = 0
    while heap and got < want:
        known, n, key = heappop(heap)
        item, queue = task.items[n], queues[key]
        most = fits(item, room)
        if most <= 0:
            queue.pop()
            if queue:
                heappush(heap, (rank(queue[-1]), queue[-1], key))
            continue
        now = rank(n)
        if now == known:
            count = 1 if each else min(most, -(-(want - got) // item.units))
            take(item, count, room)
            fill.counts[n] = fill.counts.get(n, 0) + count
            got += count * item.units
            placed(n, count)
            now = rank(n)
        heappush(heap, (now, n, key))
    return got


def pour_all(
    task: Task,
    among: Sequence[int],
    left: Sequence[int],
    *,
    part: Callable[[int], Any],
    rank: Callable[[int], Rank],
    tally: Tally,
    each: bool,
    placed: Callable[[int, int], None] = lambda n, count: None,
) -> Fill:
    """Fills a task: on-demand machines until the base is met, then what the pool allows above it; see `pour`."""
    room, fill = list(left), Fill({})

    def count(n: int, number: int) -> None:
        tally.add(task, n, number)
        placed(n, number)

    steady = [n for n in among if not task.items[n].spot]
    got = pour(task, steady, task.base, room, fill, part=part, rank=rank, placed=count, each=each) if task.base else 0
    if task.spot_only and got > task.base:
        before = dict(fill.counts)
        got -= drop_needless(task, room, fill, got - task.base)
        for n, number in before.items():
            if gone := number - fill.counts.get(n, 0):
                count(n, -gone)
    fill.missing = max(0, task.base - got)
    want = task.need - max(task.base, got)
    above = [n for n in among if task.items[n].spot] if task.spot_only else among
    if want > 0:
        got = pour(task, above, want, room, fill, part=part, rank=rank, placed=count, each=each)
        fill.missing += max(0, want - got)
    return fill
