"""All modes: how each ranks offers, and its words; one that isn't in this table can't be asked for.

Cheapest minimises the cost of the whole instead, see `solve`; its entry is for words and for comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cloudmesh.policy.model import Mode
from cloudmesh.policy.scores import NEVER, Floats, Plugin, View, account_order, ask, distance, mix, weighted

Key = Callable[[View, Plugin | None], Floats]


@dataclass(frozen=True, slots=True)
class ModeSpec:
    """One mode.

    Args:
        words: What its first choice is called.
        key: Number of each row, the least first; what changes while machines are placed is not in it.
        room: 1 if the account with the least room comes first, as it is used up, -1 for the most.
        even: The account with the fewest machines of the pool comes first.
    """

    words: str
    key: Key
    room: int = 0
    even: bool = False

    @property
    def flat(self) -> bool:
        """Keys are equal within an account, and accounts change places while machines are placed."""
        return self.room != 0 or self.even


def _fastest(view: View, _: Plugin | None) -> Floats:
    start = view.table.start_seconds[view.sifted.rows].astype(np.float64)
    return np.where(start < 0, NEVER, start)


def _in_order(view: View, _: Plugin | None) -> Floats:
    return account_order(view) * len(view.sifted.pool.alternatives) + view.sifted.alternative


def _random(view: View, _: Plugin | None) -> Floats:
    return mix(view.table.mixed[view.sifted.rows], view.request.policy.seed)


def _by_room(sign: int) -> Key:
    def key(view: View, _: Plugin | None) -> Floats:
        return sign * view.room[view.table.account.codes[view.sifted.rows]].astype(np.float64)

    return key


def _equal(view: View, _: Plugin | None) -> Floats:
    return np.zeros(len(view.sifted.rows))


MODES: Mapping[Mode, ModeSpec] = {
    "Cheapest": ModeSpec("cheapest", lambda view, _: view.unit),
    "Fastest": ModeSpec("fastest", _fastest),
    "Spread": ModeSpec("evenly over the accounts", _equal, even=True),
    "DataNear": ModeSpec("nearest to the data", lambda view, _: distance(view)),
    "Sequential": ModeSpec("first in order", _in_order),
    "Random": ModeSpec("at random", _random),
    "Smart": ModeSpec("account with the most free capacity", _by_room(-1), room=-1),
    "Frugal": ModeSpec("account with the least free capacity", _by_room(1), room=1),
    "Weighted": ModeSpec("best score", lambda view, _: -weighted(view)),
    "Plugin": ModeSpec("ranked by the plug-in", lambda view, plugin: -ask(view, plugin)),
}
