"""The pages about prices: their commands are run, their example is counted."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import yaml
from tests.e2e.test_docs import follow

from cloudmesh.api.budget import Budget
from cloudmesh.compute.budget_ledger import book, count, counted, read_ledger, turn
from cloudmesh.compute.budget_plan import read_machine, unbooked
from cloudmesh.compute.budget_status import alerts, make_status
from cloudmesh.compute.prices import Catalogue
from cloudmesh.compute.prices.moments import to_seconds

ROOT = Path(__file__).parents[3]
HOW_TO = ROOT / "docs/how-to/price-before-start.md"
COST = ROOT / "docs/explanation/cost.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_how_to_page_shows_what_the_command_says(tmp_path: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "operator"),
        "LC_ALL": "C.UTF-8",
    }
    assert follow(HOW_TO, tmp_path, environment, {}) >= 6


def test_the_worked_example_is_counted_so() -> None:
    budget_text, machines_text, status_text = blocks(COST, "text")[:3]
    budget = yaml.safe_load(budget_text)
    machines = list(yaml.safe_load_all(machines_text))
    for obj in machines:
        obj["metadata"] |= {"uid": f"uid-of-{obj['metadata']['name']}", "namespace": "default"}
    [now] = re.findall(r"counted at `(\S+?Z)`", COST.read_text())
    seconds = to_seconds(now)
    Budget.model_validate(budget, extra="forbid")
    runs = [read_machine(obj) for obj in machines]
    ledger, over = turn(budget, read_ledger(budget, seconds), counted(budget, runs), seconds)
    ledger = book(ledger, counted(budget, runs))
    found = count(budget, ledger, runs, seconds)
    status = make_status(budget, ledger, over, found, alerts(budget, ledger, found), len(runs), now)
    shown = yaml.safe_load(status_text)["status"]
    assert shown == {name: status[name] for name in shown if name != "booked"} | {
        "booked": {name: status["booked"][name] for name in shown["booked"]}
    }
    after = budget | {"status": status}
    assert not any(unbooked([after], obj, {}) for obj in machines)


def test_the_figures_of_the_catalogue_are_those_of_the_file() -> None:
    header = Catalogue.load().header
    text = " ".join(COST.read_text().split())
    dropped = header["dropped"]
    assert f"price list of {header['asOf'][:10]}:" in text
    assert f"{header['rows']:,} prices of {header['types']} machine types in {header['regions']} regions" in text
    assert f"{dropped['noPrice']:,} entries of the list are 0" in text
    assert f"{dropped['noShape']} were of types" in text
