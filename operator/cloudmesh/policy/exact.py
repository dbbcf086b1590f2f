"""The exact optimum of mode Cheapest as an integer program (HiGHS): the oracle of the tests, and a polish outside the
hot path.

It needs the extra `optimizer`, and takes from milliseconds to seconds. Columns are machines of a pool by offer, units
that are missing, and binaries for colocation, networks and spread.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cloudmesh.policy.choose import Choice, narrow, pinned_nanos, reduced_task
from cloudmesh.policy.filters import Sieve
from cloudmesh.policy.model import NANO, Placement, Request
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.place import assemble
from cloudmesh.policy.problem import Fill, Item, Resources, Task

MISSING_COST = 1e5
"""What a missing unit costs in the program, in currency units per hour: more than any machine should."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """What the solver found.

    Args:
        fills: Machines by task, None if it found nothing in time.
        proven: Whether nothing better exists.
        gap: Relative distance to the best bound known.
    """

    fills: list[Fill] | None
    proven: bool
    gap: float


@dataclass(slots=True)
class _Program:
    """Columns and rows as they are added."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    rows: list[tuple[float, float, dict[int, float]]] = field(default_factory=list)

    def column(self, upper: float, cost: float = 0.0) -> int:
        """An integer from 0 to `upper`."""
        self.cost.append(cost)
        self.upper.append(upper)
        return len(self.cost) - 1

    def row(self, low: float, high: float, terms: Iterable[tuple[int, float]]) -> None:
        """low <= sum of coefficient x column <= high."""
        merged: dict[int, float] = {}
        for column, factor in terms:
            merged[column] = merged.get(column, 0.0) + factor
        self.rows.append((low, high, merged))


INFINITY = float("inf")


def polish(
    request: Request, table: OfferTable, placement: Placement, *, now: str = "", seconds: float = 1.0
) -> Placement:
    """A cheaper placement if the exact solver finds one in time, else the same.

    Only mode Cheapest is polished, in the network that was chosen; the offers that can't matter are left out.

    Args:
        request: What was asked for.
        table: The table.
        placement: The answer of `place`.
        now: As given to `place`.
        seconds: Time limit of the solver.
    """
    if request.policy.mode != "Cheapest" or placement.hourly_nanos is None or not placement.decisions:
        return placement
    sieve = Sieve(request, table, now)
    whole = [sieve.sift(pool) for pool in request.pools]
    network = placement.decisions[0].offer.network if request.same_network else ""
    code = table.network.code(network)
    sifted = [narrow(s, table.network.codes[s.rows] == code) if network else s for s in whole]
    resources = Resources(request, table)
    tasks = [reduced_task(request, table, s, resources, 3) for s in sifted]
    held = pinned_nanos(request)
    rest = None if request.max_hourly_nanos is None else request.max_hourly_nanos - (held or 0)
    start = _as_fills(tasks, table, placement)
    found = optimum(tasks, resources.left, limit=rest, seconds=seconds, start=start)
    if found.fills is None:
        return placement
    choice = Choice(tuple(sifted), tuple(tasks), tuple(found.fills), resources, network)
    better = assemble(request, table, whole, choice)
    if better.hourly_nanos is None or _value(better) >= _value(placement):
        return placement
    return replace(better, cheapest_nanos=placement.cheapest_nanos, cheapest=placement.cheapest)


def _value(placement: Placement) -> tuple[int, int]:
    return sum(placement.missing.values()), placement.hourly_nanos or 0


def _as_fills(tasks: Sequence[Task], table: OfferTable, placement: Placement) -> list[Fill] | None:
    """The placement in terms of the tasks, None if it uses an offer that they left out."""
    fills = []
    for task in tasks:
        at = {table.ids[item.row]: n for n, item in enumerate(task.items)}
        mine = [d for d in placement.decisions if d.pool == task.pool.name]
        if any(d.offer.id not in at for d in mine):
            return None
        counts = {at[d.offer.id]: d.count for d in mine}
        fills.append(Fill(counts, placement.missing.get(task.pool.name, 0)))
    return fills


def optimum(
    tasks: Sequence[Task],
    left: Sequence[int],
    *,
    networks: Mapping[int, int] | None = None,
    limit: int | None = None,
    seconds: float = 60.0,
    start: Sequence[Fill] | None = None,
) -> Optimum:
    """The cheapest machines for all tasks, of which as little as possible is missing.

    Args:
        tasks: The tasks; make them with `everything=True` for the true optimum.
        left: Room by resource.
        networks: Network by row of the table, where all machines must share one.
        limit: Most that all may cost, in nano-units per hour.
        seconds: Time limit.
        start: A solution to begin with.
    """
    program = _Program()
    columns = [[_machines(program, task, item, left) for item in task.items] for task in tasks]
    short = [program.column(task.need, MISSING_COST) for task in tasks]
    for task, mine, missing in zip(tasks, columns, short, strict=True):
        _cover(program, task, mine, missing)
        _colocate(program, task, mine)
    used: dict[int, list[tuple[int, float]]] = {}
    for task, mine in zip(tasks, columns, strict=True):
        for item, column in zip(task.items, mine, strict=True):
            for resource, amount in item.uses:
                used.setdefault(resource, []).append((column, float(amount)))
    for resource, terms in used.items():
        program.row(-INFINITY, left[resource], terms)
    for task, mine in zip(tasks, columns, strict=True):
        if task.pool.spread != "None":
            _spread(program, task, mine)
    if networks is not None:
        _one_network(program, tasks, columns, networks)
    if limit is not None:
        program.row(-INFINITY, limit / NANO, [
            (column, item.cost / NANO)
            for task, mine in zip(tasks, columns, strict=True)
            for item, column in zip(task.items, mine, strict=True)
        ])  # fmt: skip
    return _solve(program, tasks, columns, short, seconds, start)


def _machines(program: _Program, task: Task, item: Item, left: Sequence[int]) -> int:
    most = min([-(-task.need // item.units), *(left[resource] // amount for resource, amount in item.uses)])
    return program.column(max(0, most), item.cost / NANO)


def _cover(program: _Program, task: Task, columns: Sequence[int], missing: int) -> None:
    units = [(column, float(item.units)) for item, column in zip(task.items, columns, strict=True)]
    steady = [(c, u) for (c, u), item in zip(units, task.items, strict=True) if not item.spot]
    program.row(task.need, INFINITY, [*units, (missing, 1.0)])
    if task.base:
        program.row(task.base, INFINITY, [*steady, (missing, 1.0)])
    if not task.spot_only:
        return
    if not task.base:
        program.row(0, 0, [(column, 1.0) for column, _ in steady])
        return
    # Without any one on-demand machine the base wouldn't be met.
    many = float(task.base + 2 * max((u for _, u in steady), default=0.0))
    for size in {u for _, u in steady}:
        used = program.column(1)
        program.row(-INFINITY, 0, [*((c, 1.0) for c, u in steady if u == size), (used, -many)])
        program.row(-INFINITY, task.base - 1 + size + many, [*steady, (used, many)])


def _domains(task: Task, columns: Sequence[int], over: str) -> dict[int, list[tuple[Item, int]]]:
    found: dict[int, list[tuple[Item, int]]] = {}
    for item, column in zip(task.items, columns, strict=True):
        found.setdefault(task.domain(item, over), []).append((item, column))
    return found


def _colocate(program: _Program, task: Task, columns: Sequence[int]) -> None:
    over = task.pool.colocate
    if over == "None":
        return
    held = {domain for domain, count in task.held(over).items() if count}
    chosen = []
    for domain, inside in _domains(task, columns, over).items():
        one = program.column(1 if not held or domain in held else 0)
        chosen.append((one, 1.0))
        program.row(-INFINITY, 0, [*((column, 1.0) for _, column in inside), (one, -float(max(1, task.need)))])
    program.row(0, 1, chosen)


def _one_network(
    program: _Program, tasks: Sequence[Task], columns: Sequence[Sequence[int]], networks: Mapping[int, int]
) -> None:
    inside: dict[int, list[tuple[int, float]]] = {}
    for task, mine in zip(tasks, columns, strict=True):
        for item, column in zip(task.items, mine, strict=True):
            inside.setdefault(networks[item.row], []).append((column, 1.0))
    many = float(max(1, sum(task.need for task in tasks)))
    chosen = []
    for terms in inside.values():
        one = program.column(1)
        chosen.append((one, 1.0))
        program.row(-INFINITY, 0, [*terms, (one, -many)])
    program.row(0, 1, chosen)


def _spread(program: _Program, task: Task, columns: Sequence[int]) -> None:
    """Domains have `level` or one more; one whose room the pool takes whole may have fewer, one with more pinned gets
    none."""
    over = task.pool.spread
    held = task.held(over)
    many = float(task.need + sum(held.values()) + 1)
    level = program.column(many)
    for domain, inside in _domains(task, columns, over).items():
        there = held.get(domain, 0)
        new = [(column, 1.0) for _, column in inside]
        if there:
            open_ = program.column(1)
            program.row(-INFINITY, 0, [*new, (open_, -many)])
            program.row(-INFINITY, 1 - there + many, [*new, (level, -1.0), (open_, many)])
        else:
            program.row(-INFINITY, 1, [*new, (level, -1.0)])
        room = task.rooms.get(domain, 0)
        full = program.column(1)
        program.row(-there, INFINITY, [*new, (level, -1.0), (full, many)])
        program.row(0, INFINITY, [*new, (full, -float(room))])


def _solve(
    program: _Program,
    tasks: Sequence[Task],
    columns: Sequence[Sequence[int]],
    short: Sequence[int],
    seconds: float,
    start: Sequence[Fill] | None,
) -> Optimum:
    highspy: Any = importlib.import_module("highspy")
    solver = highspy.Highs()
    for option, setting in (("output_flag", False), ("threads", 1), ("mip_rel_gap", 0.0), ("time_limit", seconds)):
        solver.setOptionValue(option, setting)
    solver.passModel(_model(highspy, program))
    if start is not None:
        where, values = [], []
        for mine, missing, fill in zip(columns, short, start, strict=True):
            where.extend([*mine, missing])
            values.extend([*(float(fill.counts.get(n, 0)) for n in range(len(mine))), float(fill.missing)])
        solver.setSolution(len(where), np.array(where, dtype=np.int32), np.array(values))
    solver.run()
    info = solver.getInfo()
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return Optimum(None, proven=False, gap=INFINITY)
    found = [round(value) for value in solver.getSolution().col_value]
    fills = [
        Fill({n: found[column] for n, column in enumerate(mine) if found[column]}, found[missing])
        for mine, missing in zip(columns, short, strict=True)
    ]
    return Optimum(fills, solver.getModelStatus() == highspy.HighsModelStatus.kOptimal, float(info.mip_gap))


def _model(highspy: Any, program: _Program) -> Any:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(program.cost), len(program.rows)
    lp.col_cost_ = np.array(program.cost)
    lp.col_lower_ = np.zeros(len(program.cost))
    lp.col_upper_ = np.array(program.upper, dtype=np.float64)
    lp.row_lower_ = np.array([low for low, _, _ in program.rows], dtype=np.float64)
    lp.row_upper_ = np.array([high for _, high, _ in program.rows], dtype=np.float64)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.cumsum([0, *(len(terms) for _, _, terms in program.rows)]).astype(np.int32)
    lp.a_matrix_.index_ = np.array([c for _, _, terms in program.rows for c in terms], dtype=np.int32)
    lp.a_matrix_.value_ = np.array([f for _, _, terms in program.rows for f in terms.values()], dtype=np.float64)
    lp.integrality_ = [highspy.HighsVarType.kInteger] * len(program.cost)
    return lp
