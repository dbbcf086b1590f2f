"""Which stores hold a file: the first rule that matches it, then filter, score, rank, explain. Pure."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cloudmesh.data import names
from cloudmesh.data.config import Match, PlacementRule, Prefer, StoreConfig
from cloudmesh.data.errors import InvalidName
from cloudmesh.data.model import MICROS, Copy
from cloudmesh.data.money import egress_nanos, month_of_use, monthly_nanos, read_nanos
from cloudmesh.data.stores.ports import StoreInfo

UNKNOWN = 1 << 62
"""Score of what nobody knows: after all that is known, since unknown is never free."""
STICKY: frozenset[Prefer] = frozenset({"Balanced", "Fastest", "Random"})
"""Preferences that change from hour to hour: a store that holds the file already comes first, or files would wander."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules see of a file; times in microseconds."""

    path: str
    size: int
    mtime: int = 0
    content_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreView:
    """What placement sees of a store.

    Args:
        config: As it was asked for.
        info: What it declares.
        up: It answers, and what it says is believed.
        used: Bytes of this directory in it.
        free: Bytes that it still has room for, None if it doesn't tell.
        latency_ms: Of a small call.
        ask: Asks the plug-in of a name about a file and this store: a score, None for not at all, or in words what is
            wrong with it.
    """

    config: StoreConfig
    info: StoreInfo
    up: bool = True
    used: int = 0
    free: int | None = None
    latency_ms: int = 0
    ask: Callable[[str, Facts, StoreView], int | str | None] | None = None

    @property
    def domain(self) -> str:
        """Stores of the same one are lost together."""
        return self.config.domain or self.info.failure_domain or self.config.name


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one store.

    Args:
        store: Its name.
        chosen: It is to hold a copy.
        score: What it was ranked by, the least first; None if it fell at a filter.
        why: In words.
        monthly: What keeping the file there costs a month, in nano-units; None if nobody knows.
    """

    store: str
    chosen: bool
    score: int | None
    why: str
    monthly: int | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where a file belongs.

    Args:
        rule: The rule that matched.
        stores: Names, the best first; at most `rule.copies`.
        counting: Those of them whose copies count toward `rule.min_copies`.
        verdicts: About all stores, in the user's order.
        changes_at: When another rule may match by age alone, in microseconds; 0 for never.
    """

    rule: PlacementRule
    stores: tuple[str, ...]
    counting: int
    verdicts: tuple[Verdict, ...] = ()
    changes_at: int = 0

    @property
    def enough(self) -> bool:
        """Whether a write can be acknowledged with these stores."""
        return self.counting >= self.rule.min_copies


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    text = unicodedata.normalize("NFC", text)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = [wild.get(token) or re.escape(token) for token in re.split(r"(\*\*/|\*\*|\*|\?)", text)]
    return re.compile("".join(parts), re.DOTALL)


def path_matches(pattern: str, path: str) -> bool:
    """Whether a path in NFC is of a pattern in any form: `*` and `?` stay within a part, `**` goes over parts."""
    return _pattern(pattern).fullmatch(path) is not None


def _matches(match: Match, facts: Facts) -> bool:
    return (
        (match.path == "**" or path_matches(match.path, facts.path))
        and facts.size >= match.min_size
        and (match.max_size is None or facts.size <= match.max_size)
        and (not match.content_type or fnmatch.fnmatchcase(facts.content_type, match.content_type))
        and all(facts.tags.get(key) == value for key, value in match.tags.items())
    )


def rule_of(facts: Facts, rules: Sequence[PlacementRule], now: int) -> tuple[PlacementRule, int]:
    """The rule that places a file, and when age alone may change that (0 for never); the last rule takes what no other
    one matches."""
    changes = 0
    for rule in rules:
        if not _matches(rule.match, facts):
            continue
        old_at = facts.mtime + rule.match.older_than_seconds * MICROS
        if rule.match.older_than_seconds and old_at > now:
            changes = min(changes or old_at, old_at)
            continue
        return rule, changes
    return rules[-1], changes


def _cheapest(view: StoreView, facts: Facts, _: PlacementRule) -> int:
    # a small file's requests cost more than its bytes, and a large one's way out more than its place
    cost = month_of_use(view.config.placed_by or view.config.prices, facts.size)
    return UNKNOWN if cost is None else cost


def _balanced(view: StoreView, facts: Facts, _: PlacementRule) -> int:
    room = view.config.capacity
    if room is None and view.free is not None:
        room = view.used + view.free
    return view.used if not room else (view.used + facts.size) * 1_000_000 // room


def _random(view: StoreView, facts: Facts, _: PlacementRule) -> int:
    return int.from_bytes(hashlib.blake2b(f"{view.config.name}\0{facts.path}".encode(), digest_size=7).digest(), "big")


_SCORES: Mapping[Prefer, tuple[str, Callable[[StoreView, Facts, PlacementRule], int]]] = {
    "Cheapest": ("price", _cheapest),
    "Nearest": ("nearness", lambda view, _, rule: 0 if view.config.region in rule.near else 1),
    "Fastest": ("latency", lambda view, _, __: view.latency_ms),
    "Balanced": ("use", _balanced),
    "Sequential": ("order", lambda _, __, ___: 0),
    "Random": ("chance", _random),
    "Plugin": ("the plug-in's score", lambda _, __, ___: 0),
}


def _unnamed(view: StoreView, facts: Facts) -> str:
    """Why a store can't hold a file's name, empty if it can."""
    try:
        names.key_of(view.config.prefix, facts.path, view.info)
    except InvalidName as error:
        return str(error)
    return ""


def _falls(view: StoreView, facts: Facts, rule: PlacementRule, held: bool, growth: int | None) -> str:
    """Why a store can't hold a copy, empty if it can."""
    config = view.config
    if not rule.allows(config.name):
        return f"rule '{rule.name}' leaves it out"
    if config.access == "Drain":
        return "it is being emptied (access Drain)"
    if not view.up:
        return "it doesn't answer, or isn't believed"
    if facts.size > view.info.max_size:
        return f"it takes no files over {view.info.max_size} bytes"
    if held and growth is None:
        return ""
    if not held and (why := _unnamed(view, facts)):
        return f"it can't hold the name: {why}"
    if config.awaits_approval:
        return "it waits for approval of the change that brings it"
    if config.access == "ReadOnly":
        return "it is read-only"
    more = growth if held and growth is not None else facts.size
    if held and more <= 0:
        # what takes no more room than what was there fits in, however full it is
        return ""
    if config.must_be_priced and config.prices.gib_month is None:
        return "its price isn't known, and the directory has a `maxMonthlyCost`"
    if config.capacity is not None and view.used + more > config.capacity:
        return f"its capacity of {config.capacity} bytes is used up"
    if view.free is not None and more > view.free:
        return f"it has {view.free} bytes left"
    return ""


def choose(
    facts: Facts,
    rules: Sequence[PlacementRule],
    stores: Sequence[StoreView],
    now: int,
    *,
    holding: frozenset[str] = frozenset(),
    growth: int | None = None,
    stays: bool = False,
    explain: bool = False,
) -> Chosen:
    """Chooses stores for a file.

    Args:
        facts: The file.
        rules: In order; at least one.
        stores: All stores, in the user's order.
        now: Microseconds.
        holding: Stores that hold it whole already; they come first where scores are equal or change all the time.
        growth: Where a new content is written: bytes that each of `holding` needs for it beyond those of the old one.
            None: the content stays, and what holds it may keep it even if it takes nothing new.
        stays: Whatever the rule prefers, `holding` come first.
        explain: Gives verdicts about all stores too.
    """
    rule, changes = rule_of(facts, rules, now)
    words, score = _SCORES[rule.prefer]
    if rule.prefer == "Nearest" and not rule.near:
        words += ", and nobody knows yet to what"
    ranked: list[tuple[tuple[int, int, int], StoreView, int]] = []
    fallen: dict[str, str] = {}
    for order, view in enumerate(stores):
        held = view.config.name in holding
        if why := _falls(view, facts, rule, held, growth):
            fallen[view.config.name] = why
            continue
        points = order if rule.prefer == "Sequential" else score(view, facts, rule)
        if rule.prefer == "Plugin":
            told = view.ask(rule.plugin, facts, view) if view.ask is not None else "nobody asks plug-ins here"
            if isinstance(told, int):
                points = told
            elif told is None or not held:
                fallen[view.config.name] = told or f"the plug-in '{rule.plugin}' leaves it out"
                continue
        stay = 0 if held else 1
        ranked.append(
            ((stay, points, order) if stays or rule.prefer in STICKY else (points, stay, order), view, points)
        )
    ranked.sort(key=lambda item: item[0])
    picked = _counting(rule, _spread(rule, [view for _, view, _ in ranked]), [view for _, view, _ in ranked])
    names = tuple(view.config.name for view in picked)
    counting = sum(1 for view in picked if counts(rule, view.info))
    verdicts: tuple[Verdict, ...] = ()
    if explain:
        points_of = {view.config.name: points for _, view, points in ranked}
        place = {view.config.name: n + 1 for n, (_, view, _) in enumerate(ranked)}
        verdicts = tuple(
            Verdict(
                name, name in names, points_of.get(name),
                fallen.get(name) or f"{place[name]}. of {len(ranked)} by {words} (rule '{rule.name}')"
                + (": its price isn't known" if points_of[name] == UNKNOWN else ""),
                monthly_nanos(view.config.prices, facts.size),
            )
            for view in stores for name in (view.config.name,)
        )  # fmt: skip
    return Chosen(rule, names, counting, verdicts, changes)


def _spread(rule: PlacementRule, ranked: Sequence[StoreView]) -> list[StoreView]:
    """The best, each of another domain as long as there are such; then whatever comes next: a copy too near is better
    than none."""
    if rule.spread == "Store":
        return list(ranked[: rule.copies])
    picked: list[StoreView] = []
    seen: set[str] = set()
    for view in ranked:
        domain = view.domain if rule.spread == "Provider" else view.config.region or view.config.name
        if domain not in seen and len(picked) < rule.copies:
            seen.add(domain)
            picked.append(view)
    picked += [view for view in ranked if view not in picked][: rule.copies - len(picked)]
    return picked


def counts(rule: PlacementRule, info: StoreInfo) -> bool:
    """Whether copies in such a store count toward the rule's `min_copies`."""
    return info.strong or rule.weak_copies == "Count"


def _counting(rule: PlacementRule, picked: list[StoreView], ranked: Sequence[StoreView]) -> list[StoreView]:
    """What was picked, the last of the copies that don't count exchanged for the best that do, where no write could be
    acknowledged else."""
    lacking = rule.min_copies - sum(1 for view in picked if counts(rule, view.info))
    better = [view for view in ranked if view not in picked and counts(rule, view.info)]
    if not 0 < lacking <= len(better):
        return picked
    idle = [view for view in picked if not counts(rule, view.info)][-lacking:]
    return [view for view in picked if view not in idle] + better[:lacking]


def weakness(rule: PlacementRule, stores: Iterable[StoreView]) -> str:
    """That so many copies as a rule needs lie in these stores only if those in weak ones count too, and which those
    are; empty if that isn't so."""
    found = list(stores)
    weak = [view.config.name for view in found if not counts(rule, view.info)]
    strong = len(found) - len(weak)
    if not weak or not strong < rule.min_copies <= len(found):
        return ""
    return (
        f"rule '{rule.name}' needs copies in {rule.min_copies} strong stores before a write is acknowledged, and there"
        f" are {strong}: {', '.join(weak)} can't tie a write to what is there, and copies in such weak stores count"
        " only if the rule says `weakCopies: Count`"
    )


def never_written(rules: Iterable[PlacementRule], stores: Sequence[StoreView]) -> str:
    """Which rules no write can ever be acknowledged by, since their stores are weak; empty if there are none."""
    told = (
        weakness(
            rule,
            [
                view for view in stores
                if view.config.access == "ReadWrite" and rule.allows(view.config.name)
            ],
        )
        for rule in rules
    )  # fmt: skip
    return "; ".join(filter(None, told))


def nameless(rule: PlacementRule, facts: Facts, stores: Iterable[StoreView], holding: frozenset[str]) -> str:
    """Why no store that a rule allows, away or not, can ever hold a file's name; empty if one can, or there are none.

    Args:
        rule: Of the file.
        facts: The file.
        stores: All stores.
        holding: Stores that hold it already.
    """
    told: list[str] = []
    for view in stores:
        name = view.config.name
        if not rule.allows(name) or view.config.access != "ReadWrite":
            continue
        why = "" if name in holding else _unnamed(view, facts)
        if not why:
            return ""
        told.append(f"{name}: {why}")
    return f"no store of rule '{rule.name}' can hold the name ({'; '.join(told)})" if told else ""


def by_way_out(copies: Iterable[Copy], views: Mapping[str, StoreView]) -> list[Copy]:
    """Sources of a copy, the one whose bytes cost least to read first; those are the quickest where nobody is paid."""

    def price(copy: Copy) -> tuple[int, int]:
        view = views[copy.store]
        way, ask = egress_nanos(view.config.prices, copy.size), read_nanos(view.config.prices, 1)
        return (UNKNOWN if way is None or ask is None else way + ask), view.latency_ms

    return sorted(copies, key=price)
