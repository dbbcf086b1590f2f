"""Runs of a ClusterJob under any sequence of signs: none starts twice under one token, none is done without a word."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudmesh.compute.jobs.plan import Place, Rules, World, plan
from cloudmesh.compute.jobs.runs import Run, Seen, count_runs, read_runs, write_runs
from cloudmesh.compute.jobs.sweep import expand, expand_runs

NOW = "2026-11-23T10:00:00Z"
SIGNS = ("Unknown", "None", "Waiting", "Running", "Ended", "Lost", "Preempted", "Timeout", "Refused")

seens = st.builds(
    Seen,
    sign=st.sampled_from(SIGNS),
    node=st.sampled_from(["", "a", "b"]),
    exit_code=st.sampled_from([None, 0, 1, 124, 137]),
    began=st.one_of(st.none(), st.integers(0, 2**33)),
    ended=st.one_of(st.none(), st.integers(-(2**40), 2**40)),
)
rules = st.builds(
    Rules,
    parallelism=st.one_of(st.none(), st.integers(1, 4)),
    retries=st.integers(0, 3),
    requeue=st.booleans(),
    timeout=st.sampled_from([0, 60]),
    choice=st.sampled_from(["Sequential", "Random", "Smart", "Frugal"]),
)
worlds = st.lists(st.dictionaries(st.integers(0, 3), seens, max_size=4), max_size=30)
places = st.one_of(
    st.none(), st.lists(st.builds(Place, st.sampled_from("abc"), st.integers(1, 3)), unique_by=lambda p: p.name)
)


@settings(max_examples=300, deadline=None)
@given(rules=rules, worlds=worlds, places=places)
def test_any_sequence_keeps_what_is_promised(rules: Rules, worlds: list[dict[int, Seen]], places: Any) -> None:
    runs: tuple[Run, ...] = tuple(Run(index) for index in range(4))
    begun: set[str] = set()
    for seen in worlds:
        before = runs
        decided = plan(runs, rules, World(seen, places), NOW)
        runs = decided.runs
        for old, new in zip(before, runs, strict=True):
            sign = seen[old.index].sign if old.index in seen and old.active else ""
            if old.over:
                assert new == old
            if new.state == "Done" and old.state != "Done":
                assert sign == "Ended"
                assert seen[old.index].exit_code == 0
            if sign == "Unknown":
                assert new == old
            assert new.attempts >= old.attempts
            if new.attempts > old.attempts:  # a new attempt is a new token, and never beside a living one
                assert new.attempts == old.attempts + 1
                assert new.token("u") not in begun
                begun.add(new.token("u"))
                assert new in decided.start
            assert new.attempts - new.preemptions <= rules.retries + 1
        for run in decided.start:
            assert run.state == "Submitted"
            assert run.token("u") in begun
        if places is not None and not any(r.active for r in before):
            for place in places:
                assert sum(r.active and r.node == place.name for r in runs) <= place.slots
        if rules.parallelism is not None and sum(r.active for r in before) <= rules.parallelism:
            assert sum(r.active for r in runs) <= rules.parallelism
        assert read_runs([()] * 4, write_runs(runs)) == runs
        counts = count_runs(runs)
        assert counts["total"] == 4 == sum(v for k, v in counts.items() if k not in ("total", "unsuccessful"))


@given(st.text(alphabet=st.characters(exclude_characters="[]"), max_size=20))
def test_text_without_brackets_is_itself(text: str) -> None:
    assert expand(text) == [text]


@given(st.integers(0, 5000), st.integers(0, 999), st.integers(0, 6))
def test_ranges_count_and_keep_their_width(first: int, more: int, width: int) -> None:
    low = str(first).zfill(width)
    values = expand(f"n[{low}-{first + more}]")
    assert [int(v[1:]) for v in values] == list(range(first, first + more + 1))
    if low.startswith("0"):
        assert all(len(v) - 1 >= len(low) for v in values)


@given(st.lists(st.lists(st.sampled_from(["a", "b1", "0.1"]), min_size=1, max_size=4), max_size=4))
def test_runs_are_the_product(choices: list[list[str]]) -> None:
    runs = expand_runs([f"x=[{','.join(values)}]" for values in choices])
    count = 1
    for values in choices:
        count *= len(values)
    assert len(runs) == count
    assert all(len(run) == len(choices) for run in runs)
