"""What prunes the search for the cheapest: no bound may be above what it bounds."""

from __future__ import annotations

import random
from math import inf

import pytest
from tests.property.policy.cases import make_offers, make_request

from cloudmesh.policy.filters import Sieve
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.problem import Resources, make_task
from cloudmesh.policy.spread import cheapest, least


@pytest.mark.parametrize("seed", range(40))
def test_the_least_cost_of_some_offers_is_never_above_what_they_really_cost(seed: int) -> None:
    chance = random.Random(seed)
    offers, request = make_offers(chance, 60), make_request(chance, 3)
    table = OfferTable.from_offers(offers)
    sieve, resources = Sieve(request, table), Resources(request, table)
    for pool in request.pools:
        task = make_task(sieve.sift(pool), table, resources, request.currency)
        costs = [float(item.cost) for item in task.items]
        among = sorted(range(len(costs)), key=costs.__getitem__)
        fill = cheapest(task, resources.left, costs, among)
        bound = least(task, resources.left, costs, among)
        if fill.missing:
            continue
        assert bound <= fill.cost(task) * (1 + 1e-9)
        assert bound < inf
