"""Numbers by which modes rank offers, see `modes`: one for each row that suits a pool.

| score of mode Weighted | best is |
|---|---|
| Price | the cheapest unit |
| Speed | the shortest observed time to Ready |
| DataNear | the region nearest to the data |
| Confidence | the most trusted price |
| Order | the first account of the user's order |
| OnDemand | on demand rather than spot |
| Free | the account with the most free capacity, as it is used up |
| Spread | the account with the fewest machines of the pool, as they are placed |

Each score runs from 0 to 1000 and counts as often as its weight says. What isn't known scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.filters import Sifted
from cloudmesh.policy.model import Policy, Request, Score
from cloudmesh.policy.offers import CONFIDENCE, UNKNOWN_COST, UNLIMITED, Coded, OfferTable
from cloudmesh.policy.problem import Resources

Floats = NDArray[np.float64]
BEST = 1000
NEVER = 1e9
"""Key of what isn't known; it comes last."""

Column = NDArray[Any]
Plugin = Callable[[Mapping[str, Column]], Column]
"""A policy of somebody else's: columns of the offers that serve a pool (see `Columns`), and back a score each, the
highest first."""
_TEXTS = ("account", "type", "region", "zone", "arch", "gpu_model", "network")
_NUMBERS = ("spot", "milli_vcpu", "memory_mib", "gpu_count", "disk_gib", "nanos", "free", "start_seconds")


@dataclass(frozen=True)
class View:
    """The offers that serve a pool, as modes see them.

    Args:
        request: The request.
        table: The table.
        sifted: Its offers that serve the pool.
        resources: Shared limits.
    """

    request: Request
    table: OfferTable
    sifted: Sifted
    resources: Resources

    @cached_property
    def unit(self) -> Floats:
        """Cost of a unit by row."""
        return self.sifted.costs(self.table, self.request.currency) / np.maximum(1, self.sifted.units)

    @cached_property
    def room(self) -> NDArray[np.int64]:
        """Machines that each account has room for, by its code, `UNLIMITED` at most."""
        table, rows = self.table, self.sifted.rows
        caps = np.minimum(self.resources.caps[rows], UNLIMITED).astype(np.float64)
        room = np.bincount(table.account.codes[rows], weights=caps, minlength=len(table.account.values))
        found = np.minimum(room, UNLIMITED).astype(np.int64)
        for account, left in self.resources.limits().items():
            found[account] = min(found[account], max(0, left))
        return found


def known_scores() -> tuple[str, ...]:
    """Names of all scores of mode Weighted."""
    return tuple(sorted({*_SCORES, *MOVING}))


def check_scores(policy: Policy) -> None:
    """Refuses scores that can't be used.

    Raises:
        PolicyError: A score isn't there, or has parameters; the message names it.
    """
    for score in policy.scores:
        if score.name not in known_scores():
            raise PolicyError(f"score '{score.name}' must be one of {', '.join(known_scores())}")
        if score.parameters:
            raise PolicyError(f"score {score.name} has no parameter '{min(score.parameters)}'")


MOVING = ("Free", "Spread")
"""Scores that change while machines are placed."""


def weight(request: Request, name: str) -> int:
    """The weight of a score in mode Weighted, 0 without it or in another mode."""
    scores = request.policy.scores if request.policy.mode == "Weighted" else ()
    return sum(score.weight for score in scores if score.name == name)


class Columns(Mapping[str, Column]):
    """What a plug-in gets: read-only columns of the offers that serve the pool, made when they are asked for.

    Texts are `account`, `type`, `region`, `zone`, `arch`, `gpu_model`, `network`; numbers are `milli_vcpu`,
    `memory_mib`, `gpu_count`, `disk_gib`, `nanos` (-1 if not known), `free` (2147483647 if not known),
    `start_seconds` (-1 if not known), `units` (what a machine counts as), and `spot`.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    def __getitem__(self, name: str) -> Column:
        table, rows = self._view.table, self._view.sifted.rows
        if name in _TEXTS:
            coded: Coded[str] = getattr(table, name)
            column: Column = np.array(coded.values or ("",))[coded.codes[rows]]
        elif name == "units":
            column = self._view.sifted.units.copy()
        elif name in _NUMBERS:
            column = getattr(table, name)[rows]
        else:
            raise KeyError(name)
        column.flags.writeable = False
        return column

    def __iter__(self) -> Iterator[str]:
        return iter((*_TEXTS, *_NUMBERS, "units"))

    def __len__(self) -> int:
        return len(_TEXTS) + len(_NUMBERS) + 1


def weighted(view: View) -> Floats:
    """Sum of scores times weights, without what moves.

    Raises:
        PolicyError: A score isn't there.
    """
    check_scores(view.request.policy)
    total = np.zeros(len(view.sifted.rows))
    for score in view.request.policy.scores:
        if score.name not in MOVING:
            total += score.weight * _score(view, score)
    return total


def _score(view: View, score: Score) -> Floats:
    return np.floor(_SCORES[score.name](view))


def ask(view: View, plugin: Plugin | None) -> Floats:
    """A plug-in's scores, the highest first.

    Raises:
        PolicyError: It isn't loaded, or its answer can't be used.
    """
    name = view.request.policy.plugin
    if plugin is None:
        raise PolicyError(f"the plug-in '{name}' isn't loaded")
    try:
        answer = np.asarray(plugin(Columns(view)), dtype=np.float64)
    except Exception as error:
        raise PolicyError(f"the plug-in '{name}' failed: {type(error).__name__}: {error}") from error
    if answer.shape != (len(view.sifted.rows),):
        raise PolicyError(f"the plug-in '{name}' must answer {len(view.sifted.rows)} scores, one for each offer")
    if not np.isfinite(answer).all():
        raise PolicyError(f"the plug-in '{name}' must answer finite scores")
    return answer


def _least_is_best(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """1000 for the least, and the less the greater; 0 where it isn't known."""
    if not known.any():
        return np.zeros(len(values))
    least = float(values[known].min())
    score = np.where(values > 0, BEST * least / np.where(values > 0, values, 1.0), float(BEST))
    return np.where(known, score, 0.0)


def _price(view: View) -> Floats:
    return _least_is_best(view.unit, view.unit * view.sifted.units < UNKNOWN_COST)


def _speed(view: View) -> Floats:
    start = view.table.start_seconds[view.sifted.rows].astype(np.float64)
    return _least_is_best(start, start >= 0)


def distance(view: View) -> Floats:
    """How far each row's region is from the data, 0 for the nearest; `NEVER` if that isn't told."""
    near = {region: float(n) for n, region in reversed(list(enumerate(view.request.policy.data_location)))}
    regions = view.table.region
    return np.array([near.get(r, NEVER) for r in regions.values] or [0.0])[regions.codes[view.sifted.rows]]


def _near(view: View) -> Floats:
    known = max(1, len(view.request.policy.data_location))
    return np.maximum(0.0, BEST * (known - distance(view)) / known)


def _confidence(view: View) -> Floats:
    return BEST * view.table.confidence[view.sifted.rows] / (len(CONFIDENCE) - 1.0)


def account_order(view: View) -> Floats:
    """Place of each row's account in the user's order, from 0."""
    order = {name: float(n) for n, name in reversed(list(enumerate(view.request.accounts)))}
    accounts = view.table.account
    return np.array([order.get(a, NEVER) for a in accounts.values] or [0.0])[accounts.codes[view.sifted.rows]]


def _order(view: View) -> Floats:
    known = max(1, len(view.request.accounts))
    return BEST * (known - account_order(view)) / known


def _on_demand(view: View) -> Floats:
    return np.where(view.table.spot[view.sifted.rows], 0.0, float(BEST))


def mix(ids: NDArray[np.uint64], seed: int) -> Floats:
    """Numbers that look random, the same for the same seed and id (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = ids ^ np.uint64(seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64)


_SCORES: Mapping[str, Callable[[View], Floats]] = {
    "Price": _price,
    "Speed": _speed,
    "DataNear": _near,
    "Confidence": _confidence,
    "Order": _order,
    "OnDemand": _on_demand,
}
