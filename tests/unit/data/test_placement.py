"""Which stores hold a file: rules, filters, scores, spread, words."""

from dataclasses import replace

import pytest

from cloudmesh.data import plugins
from cloudmesh.data.config import Match, PlacementRule, Prices, StoreConfig
from cloudmesh.data.model import MICROS
from cloudmesh.data.placement import Facts, StoreView, choose, nameless, never_written, path_matches, rule_of
from cloudmesh.data.stores.ports import StoreInfo
from cloudmesh.engine.errors import InvalidRequest

NOW = 1_000_000 * MICROS
STRONG, WEAK = StoreInfo("memory", "Full"), StoreInfo("memory", "None")


def view(name, *, info=STRONG, up=True, used=0, free=None, latency_ms=0, **config):
    return StoreView(StoreConfig(name, "memory", **config), info, up, used, free, latency_ms, plugins.score)


def chosen(stores, facts=None, holding="", **rule):
    facts = facts or Facts("d/f", 1000)
    return choose(facts, (PlacementRule(**rule),), stores, NOW, holding=frozenset(holding), explain=True)


def price(month=None, writes=0, reads=0, egress=0):
    return Prices(gib_month=month, thousand_writes=writes, thousand_reads=reads, gib_egress=egress)


PREFERENCES = {
    "Cheapest": (
        [
            view("a", prices=price(30)),
            view("b", prices=price()),
            view("c", prices=price(10)),
            view("d", prices=price(20)),
        ],
        "cdab",
    ),
    "Nearest": ([view("a", region="x"), view("b", region="y"), view("c"), view("d", region="y")], "bdac"),
    "Fastest": ([view("a", latency_ms=9), view("b", latency_ms=3), view("c", latency_ms=5)], "bca"),
    "Balanced": ([view("a", used=500), view("b", used=10), view("c", used=100)], "bca"),
    "Sequential": ([view("a", used=500), view("b"), view("c")], "abc"),
}


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_preferences(prefer):
    stores, order = PREFERENCES[prefer]
    facts = Facts("d/f", 1 << 30)
    assert "".join(chosen(stores, facts, copies=9, prefer=prefer, near=("y",)).stores) == order
    assert "".join(chosen(stores, facts, copies=2, prefer=prefer, near=("y",)).stores) == order[:2]


def test_cheapest_counts_requests_of_small_files():
    stores = [view("a", prices=price(10, writes=50_000_000)), view("b", prices=price(1000, writes=1000))]
    assert chosen(stores, Facts("f", 10), copies=1, prefer="Cheapest").stores == ("b",)
    assert chosen(stores, Facts("f", 1 << 40), copies=1, prefer="Cheapest").stores == ("a",)


def test_balanced_goes_by_share_where_capacity_is_known():
    stores = [view("a", used=50, capacity=100), view("b", used=400, capacity=10000), view("c", used=10, free=10)]
    assert chosen(stores, Facts("f", 1), copies=3).stores == ("b", "a", "c")


def test_random_is_spread_and_stays():
    stores = [view(name) for name in "abcd"]
    first = {f"f{n}": chosen(stores, Facts(f"f{n}", 1), copies=1, prefer="Random").stores for n in range(200)}
    assert {store for found in first.values() for store in found} == set("abcd")
    again = {path: chosen(stores[::-1], Facts(path, 5), copies=1, prefer="Random").stores for path in first}
    assert again == first


@pytest.mark.parametrize("prefer", ["Balanced", "Fastest", "Random"])
def test_what_holds_it_keeps_it(prefer):
    stores = [view("a", used=900, latency_ms=90), view("b"), view("c")]
    assert chosen(stores, holding="a", copies=1, prefer=prefer).stores == ("a",)


def test_price_moves_a_file_but_equal_prices_do_not():
    stores = [view("a", prices=price(20)), view("b", prices=price(20)), view("c", prices=price(30))]
    big = Facts("f", 1 << 40)
    assert chosen(stores, big, holding="b", copies=1, prefer="Cheapest").stores == ("b",)
    assert chosen(stores, big, holding="c", copies=1, prefer="Cheapest").stores == ("a",)


FILTERS = {
    "leaves it out": view("x"),
    "being emptied": view("x", access="Drain"),
    "doesn't answer": view("x", up=False),
    "takes no files over 10 bytes": view("x", info=StoreInfo("memory", "Full", max_size=10)),
    "is read-only": view("x", access="ReadOnly"),
    "capacity of 1500 bytes": view("x", used=600, capacity=1500),
    "999 bytes left": view("x", free=999),
    "can't hold the name": view("x", info=StoreInfo("memory", "Full", max_key=2)),
}


@pytest.mark.parametrize("words", FILTERS)
def test_filters_say_why(words):
    found = chosen([FILTERS[words], view("y")], copies=2, but=("x",) if "leaves" in words else ())
    assert found.stores == ("y",)
    assert [v.chosen for v in found.verdicts] == [False, True]
    assert words in found.verdicts[0].why
    assert found.verdicts[0].score is None
    assert found.verdicts[1].why == "1. of 1 by use (rule 'default')"


@pytest.mark.parametrize("words", ["is read-only", "capacity of 1500 bytes", "999 bytes left"])
def test_what_is_there_may_stay(words):
    assert "x" in chosen([FILTERS[words], view("y")], holding="x").stores


@pytest.mark.parametrize("words", ["being emptied", "doesn't answer"])
def test_what_is_there_may_not_stay(words):
    assert chosen([FILTERS[words], view("y")], holding="x").stores == ("y",)


SHORT = StoreInfo("memory", "Full", max_part=255)


def test_names_that_no_store_can_ever_hold_are_told_with_each_store():
    facts, rule = Facts("n" * 300, 10), PlacementRule("long", but=("d",))

    def told(*stores, holding=""):
        return nameless(rule, facts, stores, frozenset(holding))

    a, b = view("a", info=SHORT), view("b", info=replace(SHORT, max_part=200), up=False)
    others = view("c", access="Drain"), view("d"), view("e", access="ReadOnly")
    each = "the name '" + "n" * 40 + "…' takes 300 bytes there:"
    expected = f"no store of rule 'long' can hold the name (a: {each} 255 are the most; b: {each} 200 are the most)"
    assert told(a, b, *others) == expected
    # it is full, away or too small for now: another time it may
    for other in (view("f", free=0), view("f", up=False), view("f", info=replace(STRONG, max_size=1))):
        assert not told(a, b, other)
    assert not told(a, b, holding="a")
    assert not told(*others)


def test_only_and_but():
    stores = [view(name) for name in "abcd"]
    assert chosen(stores, copies=9, only=("b", "c"), but=("c",), prefer="Sequential").stores == ("b",)


def test_spread():
    stores = [
        view("a", domain="p", region="1"), view("b", domain="p", region="2"), view("c", domain="q", region="1"),
        view("d", info=StoreInfo("memory", "Full", failure_domain="p"), region="3"),
    ]  # fmt: skip
    assert chosen(stores, copies=2, prefer="Sequential").stores == ("a", "b")
    assert chosen(stores, copies=2, prefer="Sequential", spread="Provider").stores == ("a", "c")
    assert chosen(stores, copies=3, prefer="Sequential", spread="Provider").stores == ("a", "c", "b")
    assert chosen(stores, copies=3, prefer="Sequential", spread="Region").stores == ("a", "b", "d")


def test_weak_copies_count_only_where_a_rule_says_so():
    stores = [view("a", info=WEAK), view("b", info=WEAK), view("c")]
    found = chosen(stores, copies=3, min_copies=2, prefer="Sequential")
    assert (found.stores, found.counting, found.enough) == (("a", "b", "c"), 1, False)
    found = chosen(stores, copies=3, min_copies=2, prefer="Sequential", weak_copies="Count")
    assert (found.counting, found.enough) == (3, True)


def test_a_strong_store_takes_the_place_of_the_last_weak_one_where_nothing_could_be_written_else():
    stores = [view("a", info=WEAK), view("b", info=WEAK), view("c"), view("d")]
    found = chosen(stores, copies=2, min_copies=1, prefer="Sequential")
    assert (found.stores, found.counting) == (("a", "c"), 1)
    assert chosen(stores, copies=2, min_copies=2, prefer="Sequential").stores == ("c", "d")
    assert chosen(stores, copies=2, prefer="Sequential", weak_copies="Count").stores == ("a", "b")
    # there are too few of them: it stays as the user's order says
    assert chosen(stores[:3], copies=2, min_copies=2, prefer="Sequential").stores == ("a", "b")


def test_rules_that_only_weak_stores_could_meet_are_told():
    stores = [view("a", info=WEAK), view("b", info=WEAK), view("c")]
    rules = [
        PlacementRule("fine", only=("a", "c")), PlacementRule("weak", only=("a", "b")),
        PlacementRule("counts", only=("a", "b"), weak_copies="Count"), PlacementRule("more", copies=3, min_copies=2),
    ]  # fmt: skip
    told = never_written(rules, stores)
    assert told.count("weakCopies: Count") == 2
    assert "rule 'weak' needs copies in 1 strong stores before a write is acknowledged, and there are 0: a, b" in told
    assert "rule 'more' needs copies in 2 strong stores before a write is acknowledged, and there are 1: a, b" in told
    # too few stores of any kind are another matter
    assert never_written([PlacementRule(copies=4, min_copies=4)], stores) == ""


RULES = (
    PlacementRule("path", Match(path="raw/**")),
    PlacementRule("big", Match(min_size=1000)),
    PlacementRule("tiny", Match(max_size=10)),
    PlacementRule("picture", Match(content_type="image/*")),
    PlacementRule("tagged", Match(tags={"keep": "long"})),
    PlacementRule("old", Match(older_than_seconds=100)),
    PlacementRule("rest"),
)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (Facts("raw/x/y", 5, NOW), "path"),
        (Facts("d/raw/x", 1000, NOW), "big"),
        (Facts("x", 10, NOW), "tiny"),
        (Facts("x", 11, NOW, "image/png"), "picture"),
        (Facts("x", 11, NOW, "text/image", {"keep": "long", "a": "b"}), "tagged"),
        (Facts("x", 11, NOW - 100 * MICROS, "", {"keep": "short"}), "old"),
        (Facts("x", 11, NOW - 99 * MICROS), "rest"),
    ],
)
def test_first_rule_that_matches(facts, name):
    assert rule_of(facts, RULES, NOW)[0].name == name


def test_age_says_when_it_will_matter():
    assert rule_of(Facts("x", 11, NOW - 40 * MICROS), RULES, NOW)[1] == NOW + 60 * MICROS
    assert rule_of(Facts("raw/x", 11, NOW), RULES, NOW)[1] == 0
    assert rule_of(Facts("x", 11, 0), RULES, NOW)[1] == 0
    # the last rule takes what no other matches
    assert rule_of(Facts("x", 11, NOW), RULES[:2], NOW)[0].name == "big"


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**", "a/b", True), ("*", "a/b", False), ("*", "a", True), ("a/*", "a/b", True), ("a/*", "a/b/c", False),
        ("a/**", "a/b/c", True), ("a/**", "a", False), ("**/*.csv", "x.csv", True), ("**/*.csv", "a/b/x.csv", True),
        ("a?c", "abc", True), ("a?c", "a/c", False), ("a.c", "abc", False), ("[a]", "a", False), ("a\nb", "a\nb", True),
    ],
)  # fmt: skip
def test_patterns(pattern, path, fits):
    assert path_matches(pattern, path) is fits


def test_patterns_mean_the_same_in_every_form_of_unicode():
    composed, apart = "s\u00e9cret/**", "se\u0301cret/**"
    assert path_matches(apart, "s\u00e9cret/a")
    assert Match(apart) == Match(composed)
    rules = (PlacementRule("named", Match(apart)), PlacementRule("else"))
    assert rule_of(Facts("s\u00e9cret/a", 1), rules, NOW)[0].name == "named"


def test_cheapest_counts_the_way_out_too():
    near, far = view("a", prices=price(30)), view("b", prices=price(10, egress=40))
    assert chosen([far, near], Facts("f", 1 << 30), copies=1, prefer="Cheapest").stores == ("a",)


def test_cheapest_says_scores_prices_and_whose_price_nobody_knows():
    stores = [view("a", prices=price()), view("b", prices=price(30, egress=7)), view("c", prices=price(20))]
    found = {v.store: v for v in chosen(stores, Facts("f", 1 << 30), copies=2, prefer="Cheapest").verdicts}
    assert [found[name].chosen for name in "abc"] == [False, True, True]
    assert (found["b"].score, found["b"].monthly) == (37, 30)
    assert found["a"].monthly is None
    assert found["a"].why == "3. of 3 by price (rule 'default'): its price isn't known"
    assert "isn't known" not in found["c"].why
    # a price of which a part isn't known isn't known either
    partly = view("d", prices=Prices(gib_month=1))
    assert chosen([partly, stores[1]], Facts("f", 1), copies=1, prefer="Cheapest").stores == ("b",)


# -- what somebody else says


@pytest.fixture
def says(monkeypatch):
    """Sets what the plug-in `p` is."""
    found = {}
    monkeypatch.setattr(plugins, "load", lambda name: found.get(name) or _none(name))
    return lambda function: found.update(p=function)


def _none(name):
    raise InvalidRequest(f"there is no plug-in '{name}'")


def by_plugin(stores, holding=""):
    return chosen(stores, Facts("raw/f", 5), holding=holding, copies=2, prefer="Plugin", plugin="p")


def test_a_plug_in_ranks_and_leaves_out(says):
    says(lambda file, store: {"a": 3, "b": 1, "c": None}[store.config.name] if file.path == "raw/f" else 0)
    found = by_plugin([view("a"), view("b"), view("c")])
    assert found.stores == ("b", "a")
    assert [v.score for v in found.verdicts] == [3, 1, None]
    assert found.verdicts[0].why == "2. of 2 by the plug-in's score (rule 'default')"
    assert found.verdicts[2].why == "the plug-in 'p' leaves it out"
    # it is asked about a store that holds the file too
    assert by_plugin([view("a"), view("b"), view("c")], holding="c").stores == ("b", "a")


@pytest.mark.parametrize("wrong", [-1, 1.5, "x", True, 1 << 62, ValueError("no")])
def test_a_plug_in_that_fails_moves_nothing(says, wrong):
    def plugin(file, store):
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    says(plugin)
    found = by_plugin([view("a"), view("b"), view("c")], holding="ac")
    assert found.stores == ("a", "c")
    assert found.verdicts[1].why.startswith("the plug-in 'p' ")


def test_a_plug_in_that_isnt_there_takes_no_files():
    found = by_plugin([view("a"), view("b")])
    assert found.stores == ()
    assert "there is no plug-in 'p' in group cloudmesh.placement" in found.verdicts[0].why
    with pytest.raises(InvalidRequest):
        plugins.check(["", "p"])


def test_near_is_any_of_the_regions_and_unknown_is_told():
    stores = [view("a", region="x"), view("b", region="y"), view("c", region="z")]
    assert chosen(stores, copies=2, prefer="Nearest", near=("y", "z")).stores == ("b", "c")
    found = chosen(stores, copies=1, prefer="Nearest")
    assert found.stores == ("a",)
    assert found.verdicts[0].why == "1. of 3 by nearness, and nobody knows yet to what (rule 'default')"
