"""How a file comes to another rule of its directory: by tags, by a path, or by both. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cloudmesh.data.config import PlacementRule
from cloudmesh.data.placement import Chosen, Facts, StoreView, choose, path_matches, rule_of

_FOLDER = re.compile(r"([^*?]+/)\*\*")


@dataclass(frozen=True, slots=True)
class Way:
    """How a file comes to one rule.

    Args:
        rule: The rule.
        facts: The file as it has to be for that; None where neither tags nor a path bring it there, but its size, its
            age or its type alone.
        chosen: Where it would lie; None without a way.
    """

    rule: PlacementRule
    facts: Facts | None = None
    chosen: Chosen | None = None


def ways(
    facts: Facts, rules: Sequence[PlacementRule], stores: Sequence[StoreView], now: int, holding: frozenset[str]
) -> list[Way]:
    """A way to each rule, in their order; that of the rule which places the file already changes nothing.

    Args:
        facts: The file.
        rules: Of the directory.
        stores: All stores, in the user's order.
        now: Microseconds.
        holding: Stores that hold it whole.
    """
    current = rule_of(facts, rules, now)[0]
    found = []
    for rule in rules:
        other = next(
            (one for one in _changed(facts, current, rule, rules) if rule_of(one, rules, now)[0] is rule), None
        )
        if other is None:
            found.append(Way(rule))
        else:
            found.append(Way(rule, other, choose(other, rules, stores, now, holding=holding, explain=True)))
    return found


def _changed(
    facts: Facts, current: PlacementRule, rule: PlacementRule, rules: Sequence[PlacementRule]
) -> Iterator[Facts]:
    """The file with what may bring it to a rule, the least change first."""
    for path in dict.fromkeys(_paths(facts.path, current, rule)):
        for tags in _tags(facts.tags, rule, rules):
            yield replace(facts, path=path, tags=tags)


def _paths(path: str, current: PlacementRule, rule: PlacementRule) -> Iterator[str]:
    yield path
    at = _folder(current)
    rest = path.removeprefix(at)
    if not path_matches(rule.match.path, path):
        yield _folder(rule) + rest
    if at:
        yield rest


def _folder(rule: PlacementRule) -> str:
    """The folder that a rule is for, with a slash at its end; empty if its pattern is of another form."""
    found = _FOLDER.fullmatch(rule.match.path)
    return found[1] if found else ""


def _tags(tags: Mapping[str, str], rule: PlacementRule, rules: Sequence[PlacementRule]) -> Iterator[dict[str, str]]:
    yield dict(tags)
    asked = rule.match.tags
    yield {**tags, **asked}
    # those by which a rule before it takes the file
    taken = {key for other in rules for key, value in other.match.tags.items() if tags.get(key) == value}
    yield {**{key: value for key, value in tags.items() if key not in taken}, **asked}
