"""What the mover does next with a file."""

import pytest

from cloudmesh.data.config import DirectoryConfig, PlacementRule, StoreConfig
from cloudmesh.data.model import MICROS, Copy, Entry, Work
from cloudmesh.data.placement import Facts, StoreView, choose
from cloudmesh.data.plan import (
    CHECK,
    RETRY,
    Check,
    Drop,
    Follow,
    Forget,
    Plan,
    Purge,
    Scrub,
    Write,
    plan,
    rules_of_trash,
)
from cloudmesh.data.stores.ports import StoreInfo

NOW = 10**9 * MICROS
STRONG = StoreInfo("memory", "Full")


def planned(copies, *, rule=None, down="", trashed=0, kind="File", access=None, latency=None, names="abc", **config):
    """Copies as `a:Whole b:Stale`, version 3 being the entry's unless written as `a:Whole@2`."""
    entry = Entry("e" * 16, "0" * 16, "f", kind, 10, NOW, "s", 3, created=NOW)
    held = []
    for text in copies.split():
        store, _, state = text.partition(":")
        state, _, version = state.partition("@")
        held.append(Copy(entry.id, store, "k", int(version or 3), state, "t", 10, verified=NOW))
    work = Work(entry, "" if trashed else "f", tuple(held), trashed, NOW)
    views = [
        StoreView(
            StoreConfig(n, "memory", access=(access or {}).get(n, "ReadWrite")), STRONG, n not in down,
            latency_ms=(latency or {}).get(n, 0),
        )
        for n in names
    ]  # fmt: skip
    rules = (rule or PlacementRule(prefer="Sequential"),)
    given = {"verify_seconds": 0, "trash_seconds": 100} | config
    directory = DirectoryConfig("ns", "n", "u", "i", (), rules, **given)
    holding = frozenset(c.store for c in held if c.state == "Whole" and c.version == 3)
    chosen = choose(Facts("f", 10, NOW), rules, views, NOW, holding=holding)
    return plan(work, chosen, views, directory, NOW)


def test_settled():
    assert planned("a:Whole b:Whole") == Plan(())


@pytest.mark.parametrize("state", ["Stale", "Missing", "Corrupt", "Deleting", "Whole@2"])
def test_what_isnt_whole_is_renewed(state):
    found = planned(f"a:{state} b:Whole")
    assert found.actions == (Write("a", ("b",)),)
    assert found.pending


def test_the_quickest_source_first():
    rule = PlacementRule(prefer="Sequential", copies=3)
    assert planned("a:Whole b:Whole", rule=rule, latency={"a": 9}).actions == (Write("c", ("b", "a")),)


def test_source_must_answer():
    found = planned("a:Whole", down="a")
    assert (found.actions, found.due, found.pending) == ((), NOW + RETRY, True)


def test_surplus_goes_when_what_is_wanted_is_whole():
    assert planned("a:Whole b:Whole c:Whole").actions == (Drop("c", 2),)
    assert planned("a:Whole b:Whole c:Stale").actions == (Drop("c", 2),)
    assert planned("a:Whole b:Stale c:Whole").actions == (Write("b", ("a", "c")),)


def test_nothing_goes_while_a_store_is_away():
    rule = PlacementRule(prefer="Sequential", copies=2, only=("a", "b"))
    found = planned("a:Whole c:Whole", rule=rule, down="b")
    assert (found.actions, found.due, found.pending) == ((), NOW + RETRY, True)
    # one that is away and isn't needed keeps nobody waiting
    assert planned("a:Whole b:Whole c:Whole", down="d", names="abcd").actions == (Drop("c", 2),)


def test_drain():
    assert planned("a:Whole b:Whole", access={"a": "Drain"}).actions == (Write("c", ("a", "b")),)
    assert planned("a:Whole b:Whole c:Whole", access={"a": "Drain"}).actions == (Drop("a", 2),)
    # all that is left is one store: better there than nowhere
    assert planned("a:Whole b:Whole", access={"a": "Drain"}, names="ab").actions == (Drop("a", 1),)


def test_nothing_is_removed_from_a_read_only_store():
    rule = PlacementRule(prefer="Sequential", only=("a", "b"))
    assert planned("a:Whole b:Whole c:Whole", rule=rule, access={"c": "ReadOnly"}).actions == ()


def test_store_that_isnt_in_the_directory_is_left_alone():
    assert planned("a:Whole b:Whole x:Whole").actions == ()


def test_no_whole_copy():
    found = planned("a:Stale b:Missing", down="c")
    assert found.actions == (Check("a"), Check("b"))
    assert found.due == NOW + RETRY


def test_copy_that_was_checked_is_left_for_a_while():
    entry = Entry("e" * 16, "0" * 16, "f", "File", 10, version=3)
    views = [StoreView(StoreConfig("a", "memory"), STRONG)]
    directory = DirectoryConfig("ns", "n", "u", "i", (), verify_seconds=0)
    for scrubbed, actions in ((NOW - 5, ()), (NOW - CHECK, (Check("a"),))):
        work = Work(entry, "f", (Copy(entry.id, "a", "k", 3, "Corrupt", scrubbed=scrubbed),), 0, NOW)
        chosen = choose(Facts("f", 10), directory.rules, views, NOW)
        assert plan(work, chosen, views, directory, NOW).actions == actions


def test_verification_is_due():
    found = planned("a:Whole b:Whole", verify_seconds=50)
    assert found == Plan((), NOW + 50 * MICROS)
    entry = Entry("e" * 16, "0" * 16, "f", "File", 10, version=3)
    views = [StoreView(StoreConfig("a", "memory"), STRONG)]
    directory = DirectoryConfig("ns", "n", "u", "i", (), (PlacementRule(copies=1),), verify_seconds=50)
    chosen = choose(Facts("f", 10), directory.rules, views, NOW, holding=frozenset("a"))
    # its time has come; and one that was verified by a clock far ahead may be of any age
    for verified in (NOW - 50 * MICROS, NOW + 2 * CHECK):
        copy = Copy(entry.id, "a", "k", 3, "Whole", verified=verified)
        assert plan(Work(entry, "f", (copy,), 0, NOW), chosen, views, directory, NOW).actions == (Scrub("a"),)


def test_trash():
    assert planned("a:Whole b:Whole", trashed=NOW - 99 * MICROS) == Plan((), NOW + MICROS)
    over = NOW - 100 * MICROS
    found = planned("a:Whole b:Stale x:Whole", trashed=over, down="b")
    assert found.actions == (Drop("a", 0), Drop("x", 0))
    assert found.pending
    assert planned("", trashed=over) == Plan((Purge(),))
    assert planned("", trashed=over, kind="Directory") == Plan((Purge(),), NOW + RETRY)


def test_trash_in_a_read_only_store_waits():
    over = NOW - 100 * MICROS
    alone = Plan((), NOW + CHECK)
    assert planned("a:Whole", trashed=over, access={"a": "ReadOnly"}) == alone
    assert planned("a:Whole", trashed=over, access={"a": "ReadOnly"}, down="a") == alone
    both = planned("a:Whole b:Whole", trashed=over, access={"a": "ReadOnly"})
    assert both == Plan((Drop("b", 0),), NOW + RETRY, pending=True)
    away = planned("a:Whole b:Whole", trashed=over, access={"a": "ReadOnly"}, down="b")
    assert away == Plan((), NOW + RETRY, pending=True)


def test_what_a_write_over_a_link_left_waits_in_a_read_only_store():
    assert Drop("b", 0) in planned("a:Linked b:Stale").actions
    found = planned("a:Linked b:Stale", access={"b": "ReadOnly"})
    assert (found.actions, found.pending) == ((Follow("a"),), False)


def test_trash_that_is_not_well_is_mended_until_its_time_is_over():
    since = NOW - 60 * MICROS
    end = NOW + 40 * MICROS
    assert planned("a:Corrupt b:Whole", trashed=since).actions == (Write("a", ("b",)),)
    assert planned("a:Corrupt b:Whole", trashed=since).pending
    # nobody can do anything for it, and nobody waits
    assert planned("a:Corrupt b:Missing", trashed=since) == Plan((Check("a"), Check("b")), end)
    assert planned("a:Whole b:Whole", trashed=since, access={"a": "Drain"}).actions == (Write("c", ("a", "b")),)
    assert planned("a:Whole b:Whole c:Whole", trashed=since, access={"a": "Drain"}).actions == (Drop("a", 2),)
    assert planned("a:Linked", trashed=since) == Plan((), end)
    assert planned("a:Linked", trashed=since, access={"a": "Drain"}).actions == (Forget("a"),)


def test_trash_is_verified():
    found = planned("a:Whole b:Whole", trashed=NOW - 60 * MICROS, verify_seconds=10)
    assert found == Plan((), NOW + 10 * MICROS)


def test_trash_never_has_more_copies_than_it_had():
    entry = Entry("e" * 16, "0" * 16, "f", "File", 10, version=3)
    copies = (Copy(entry.id, "a", "k", 3, "Whole"), Copy(entry.id, "b", "k", 3, "Corrupt"))
    rules = (PlacementRule(copies=3, min_copies=3), PlacementRule(copies=1))
    kept = rules_of_trash(Work(entry, "", copies, 5, NOW), rules)
    assert [(rule.copies, rule.min_copies) for rule in kept] == [(2, 2), (1, 1)]
