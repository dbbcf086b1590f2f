"""All that operator and gateway tell each other is read by the other one."""

import ast
from functools import cache
from pathlib import Path

import pytest

import cloudmesh.data
from cloudmesh.data.config import Counters, DirectoryConfig, StoreConfig, StoreSummary, Summary
from cloudmesh.data.directory_metrics import COUNTERS, DirectoryMetrics
from cloudmesh.engine import Key

FOLDER = Path(cloudmesh.data.__file__).parent
OPERATOR = (
    "controller.py", "summary.py", "directory_metrics.py", "notable.py", "approval.py", "remote.py", "store_status.py",
    "store_controller.py", "using.py", "asked.py", "resources.py",
)  # fmt: skip

OWN = {"latency_ms", "used", "free"}
"""For the gateway's own doors; DataStores are asked by the operator itself."""


@cache
def read_in(files: tuple[Path, ...]) -> set[str]:
    """Names of attributes that are read."""
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


BY_OPERATOR = tuple(FOLDER / file for file in OPERATOR)
BY_GATEWAY = tuple(set(FOLDER.rglob("*.py")) - {*BY_OPERATOR, FOLDER / "config.py"})


@pytest.mark.parametrize("name", [*DirectoryConfig.__struct_fields__, *StoreConfig.__struct_fields__])
def test_the_gateway_reads_what_it_is_told(name: str) -> None:
    assert name in read_in(BY_GATEWAY)


@pytest.mark.parametrize("name", [*Summary.__struct_fields__, *sorted(set(StoreSummary.__struct_fields__) - OWN)])
def test_the_operator_reads_what_it_is_told(name: str) -> None:
    assert name in read_in(BY_OPERATOR)


def test_each_counter_is_a_metric() -> None:
    assert tuple(COUNTERS) == Counters.__struct_fields__
    numbers = range(1, len(COUNTERS) + 1)
    summaries = {Key("VirtualDirectory", "ns", "lab"): Summary("x", beyond_repair=9, done=Counters(*numbers))}
    found = {sample.name: sample for metric in DirectoryMetrics(summaries).collect() for sample in metric.samples}
    for number, (name, _) in zip(numbers, COUNTERS.values(), strict=True):
        sample = found[f"cloudmesh_directory_{name}_total"]
        assert (sample.value, sample.labels) == (number, {"namespace": "ns", "directory": "lab"})
    assert found["cloudmesh_directory_beyond_repair_files"].value == 9
    page = (FOLDER.parents[2] / "docs/reference/metrics.md").read_text()
    assert all(f"`cloudmesh_directory_{name}_total`" in page for name, _ in COUNTERS.values())
