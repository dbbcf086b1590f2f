"""Limits that several offers of one pool share: surcharges on them until a way that ignores them keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloudmesh.policy.problem import Task, fits, take

RAISES = 7
HALVINGS = 3

Picked = dict[int, int]


def within_shared(
    task: Task,
    left: Sequence[int],
    costs: Sequence[float],
    among: Sequence[int],
    attempt: Callable[[Sequence[float]], Picked | None],
) -> Picked | None:
    """The cheapest machines found that keep all limits, or None.

    Args:
        task: The task.
        left: Room by resource.
        costs: Cost of a machine by item.
        among: Items to use, by index.
        attempt: Gives the cheapest machines by item for given costs; limits shared by several items it may break.
    """
    picked = attempt(costs)
    if picked is None or not (over := _over(task, picked, left)):
        return picked
    users: dict[int, list[tuple[int, int]]] = {}
    for n in among:
        for resource, amount in task.items[n].uses:
            users.setdefault(resource, []).append((n, amount))

    def with_(surcharge: dict[int, float]) -> list[float]:
        dearer = list(costs)
        for resource, extra in surcharge.items():
            for n, amount in users.get(resource, ()):
                dearer[n] += extra * amount
        return dearer

    machines = max(1, sum(picked.values()))
    mean = sum(costs[n] * count for n, count in picked.items()) / machines
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    best: Picked | None = None
    for _ in range(RAISES):
        for resource in over:
            size = _size(task, picked, resource)
            high[resource] = max(2 * high.get(resource, 0.0), 0.1 * mean / size)
        picked = attempt(with_(high))
        if picked is None:
            return None
        over = _over(task, picked, left)
        if not over:
            best = picked
            break
        low = dict(high)
    if best is None:
        return None
    for _ in range(HALVINGS):
        middle = {resource: (low.get(resource, 0.0) + top) / 2 for resource, top in high.items()}
        picked = attempt(with_(middle))
        if picked is None or _over(task, picked, left):
            low = middle
            continue
        high = middle
        if _cost(costs, picked) < _cost(costs, best):
            best = picked
    _swap(task, left, costs, among, best)
    return best


def _swap(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int], picked: Picked) -> None:
    """Takes cheaper machines of the same kind and domain where room is left: a surcharge drives all away at once."""
    items, room = task.items, list(left)
    # Within its domain a swap changes neither evenness nor colocation.
    ways = [over for over in (task.pool.spread, task.pool.colocate) if over != "None"]
    for n, count in picked.items():
        take(items[n], count, room)
    cheap = sorted(among, key=lambda n: (costs[n], n))
    for old in sorted(picked, key=lambda n: (-costs[n], n)):
        for new in cheap:
            if costs[new] >= costs[old] or not picked[old]:
                break
            same = items[new].units == items[old].units and items[new].spot == items[old].spot
            if not same or any(task.domain(items[new], over) != task.domain(items[old], over) for over in ways):
                continue
            while picked[old]:
                take(items[old], -1, room)
                if not fits(items[new], room):
                    take(items[old], 1, room)
                    break
                take(items[new], 1, room)
                picked[old] -= 1
                picked[new] = picked.get(new, 0) + 1
    for n in [n for n, count in picked.items() if not count]:
        del picked[n]


def _over(task: Task, picked: Picked, left: Sequence[int]) -> list[int]:
    """Limits that are broken."""
    room: dict[int, int] = {}
    for n, count in picked.items():
        for resource, amount in task.items[n].uses:
            room[resource] = room.get(resource, left[resource]) - amount * count
    return [resource for resource, rest in room.items() if rest < 0]


def _size(task: Task, picked: Picked, resource: int) -> float:
    """How much of a resource a machine takes."""
    amounts = [amount for n in picked for r, amount in task.items[n].uses if r == resource]
    return sum(amounts) / max(1, len(amounts))


def _cost(costs: Sequence[float], picked: Picked) -> float:
    return sum(costs[n] * count for n, count in picked.items())
