"""Arguments to runs: ranges, letters, zeros, products, limits, and words for what is wrong."""

from __future__ import annotations

import pytest

from cloudmesh.compute.jobs.sweep import SweepError, expand, expand_runs


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("plain", ["plain"]),
        ("lr=[0.1,0.2]", ["lr=0.1", "lr=0.2"]),
        ("a[0-1]", ["a0", "a1"]),
        ("local:[a0,a1]", ["local:a0", "local:a1"]),
        ("[a,g-h,x-z]", ["a", "g", "h", "x", "y", "z"]),
        ("[A-C]", ["A", "B", "C"]),
        ("albert-[001-003]", ["albert-001", "albert-002", "albert-003"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("n[00-1]", ["n00", "n01"]),
        ("[1-2,5,07-08]", ["1", "2", "5", "07", "08"]),
        ("[ 1 , 2 ]", ["1", "2"]),
        ("r[1-2]c[a-b]", ["r1ca", "r1cb", "r2ca", "r2cb"]),
        ("x[5]", ["x5"]),
        ("x[5-5]", ["x5"]),
        ("opt=[adam,sgd]", ["opt=adam", "opt=sgd"]),
        ("v=[1e-3,-1,1.0-2.0,ab-cd,a-B]", ["v=1e-3", "v=-1", "v=1.0-2.0", "v=ab-cd", "v=a-B"]),
        ("--layers=1,2", ["--layers=1,2"]),
        ("[1,1]", ["1", "1"]),
        ("-", ["-"]),
    ],
)
def test_values(argument: str, values: list[str]) -> None:
    assert expand(argument) == values


def test_all_combinations_the_last_fastest() -> None:
    assert expand_runs(["lr=[0.1,0.2]", "go", "run-[1-2]"]) == [
        ("lr=0.1", "go", "run-1"), ("lr=0.1", "go", "run-2"), ("lr=0.2", "go", "run-1"), ("lr=0.2", "go", "run-2"),
    ]  # fmt: skip


def test_no_arguments_are_one_run() -> None:
    assert expand_runs([]) == [()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ok", "lr=[0.1,,0.2]"], r"spec\.arguments\[1\]: '\[0.1,,0.2\]' has an empty value"),
        (["[]"], r"spec\.arguments\[0\]: '\[\]' has an empty value"),
        (["[3-1]"], r"spec\.arguments\[0\]: the range '3-1' runs backwards"),
        (["[z-a]"], "the range 'z-a' runs backwards"),
        (["a[1-2"], "bracket without its partner"),
        (["a1-2]"], "bracket without its partner"),
        (["a[[1-2]]"], "bracket without its partner"),
        (["[1-1001]"], "the range '1-1001' has more than 1000 values"),
        (["[0-999999999999999999]"], "has more than 1000 values"),
        (["[1-40][1-40]"], r"'\[1-40\]\[1-40\]' has more than 1000 values"),
        (["[1-100]", "[1-11]"], r"spec\.arguments\[1\]: `spec.arguments` give more than 1000 runs"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(arguments: list[str], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        expand_runs(arguments)


def test_the_limit_is_the_callers() -> None:
    assert len(expand_runs(["[1-100]", "[1-100]"], limit=10_000)) == 10_000
    with pytest.raises(SweepError, match="more than 10000 runs"):
        expand_runs(["[1-100]", "[1-101]"], limit=10_000)
