"""The page that tells how to write a policy, followed word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from cloudmesh.api.placementpolicy import PlacementPolicy
from cloudmesh.compute.jobs.controller import CHOICES
from cloudmesh.compute.jobs.plan import Choice, Rules
from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.model import Mode, Policy
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.plugins import load_plugin, plugin_of
from cloudmesh.policy.rules import known_rules
from cloudmesh.policy.scores import Columns, View, known_scores

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/how-to/write-a-policy.md").read_text()
EXPLANATION = (ROOT / "docs/explanation/how-machines-are-chosen.md").read_text()
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED = re.compile(r"[Ss]ave this[^`]*? as `([\w.-]+)`", re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS.findall(PAGE) if found == language]


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    package = tmp_path / "frugal-memory"
    package.mkdir()
    assert SAVED.findall(PAGE) == ["frugal_memory.py", "pyproject.toml", "try_policy.py"]
    policy, trial = blocks("python")
    (package / "frugal_memory.py").write_text(policy)
    (package / "pyproject.toml").write_text(blocks("toml")[0])
    (tmp_path / "try_policy.py").write_text(trial)
    # The same command, but into a folder of the test's and without an index.
    target = tmp_path / "site"
    command = blocks("sh")[0].split()
    assert command[:3] == ["uv", "pip", "install"]
    uv = Path(sys.executable).with_name("uv")
    more = ["--quiet", "--offline", "--python", sys.executable, "--target", str(target)]
    subprocess.run([str(uv), *command[1:3], *more, *command[3:]], cwd=tmp_path, check=True, capture_output=True)
    first, *expected = blocks("console")[0].splitlines()
    assert first == "$ python try_policy.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT / "operator")])}
    done = subprocess.run(
        [sys.executable, "try_policy.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == expected


def test_the_manifest_of_the_page_is_valid() -> None:
    policy = PlacementPolicy.model_validate(yaml.safe_load(blocks("yaml")[0]))
    assert policy.spec.plugin is not None
    assert policy.spec.plugin.name in blocks("toml")[0]


def test_the_page_names_all_columns() -> None:
    table = OfferTable.from_offers(())
    told = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    names = {name for cell in told for name in re.findall(r"`(\w+)`", cell)}
    assert names == set(Columns(View(None, table, None, None)))  # type: ignore[arg-type]


def test_the_explanation_names_all_filters_and_scores() -> None:
    for name in known_rules():
        assert name.removeprefix("Not") in EXPLANATION
    for name in known_scores():
        assert name in EXPLANATION


def test_the_page_of_jobs_says_of_each_mode_how_machines_that_are_there_are_chosen() -> None:
    page = (ROOT / "docs/explanation/jobs.md").read_text()
    others = set(get_args(Mode)) - set(get_args(Choice))
    [told] = re.findall(r"The other modes \(([^)]+)\) .*?: with them it is `(\w+)`", page, re.DOTALL)
    assert (set(re.findall(r"\w+", told[0])), told[1]) == (others, Rules().choice)
    assert all(f"`{choice}`" in page for choice in get_args(Choice))
    assert {name: choice for name, choice in CHOICES.items() if name != choice} == {}


def test_the_api_says_of_each_score_what_it_prefers() -> None:
    crd = yaml.safe_load((ROOT / "crds/placementpolicies.cloudmesh.org.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    told = " ".join(spec["scores"]["items"]["properties"]["name"]["description"].split())
    assert "Spread the account with the fewest machines of the pool" in told
    assert all(f"{name} " in told for name in known_scores())


def test_a_policy_that_is_not_there_is_named() -> None:
    with pytest.raises(PolicyError, match="there is no plug-in 'nobody'"):
        load_plugin("nobody")
    assert plugin_of(Policy("Fastest", plugin="nobody")) is None


def test_a_policy_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cloudmesh.policy]\nbroken = nowhere_at_all:rank\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PolicyError, match="'broken' can't be loaded: ModuleNotFoundError"):
        load_plugin("broken")
