"""The pages of the documentation: links and named tests exist, tables and the generated page say what the code does."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.e2e import test_docs

from cloudmesh.api import reference
from cloudmesh.compute.budget_controller import BudgetReconciler
from cloudmesh.compute.budgets import Budgets
from cloudmesh.compute.cloud_metrics import CloudMetrics
from cloudmesh.compute.cluster_metrics import ClusterMetrics
from cloudmesh.data.directory_metrics import DirectoryMetrics
from cloudmesh.engine import metrics
from cloudmesh.functions.signatures import Expose, SourceError, read
from cloudmesh_function.metrics import Metrics as FunctionMetrics

ROOT = Path(__file__).resolve().parent.parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \|(?: (yes|no) \|)?$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ADDRESS = re.compile(r"https?://([^\s/:)`'\"<>]+)")
# Hosts that pages may name. A package index isn't among them: installs go to whatever a machine is set up for.
HOSTS = re.compile(
    r"localhost|127\.0\.0\.1|(.+\.)?example\.org|[-a-z0-9.]+(\.NAMESPACE)?\.svc|[-a-z0-9]+-vdir|keepachangelog\.com|github\.com|.+\.readthedocs\.io"
    r"|.+\.github\.io|.+\.blob\.core\.[a-z]+\.(net|cn)|(storage\.(.+\.)?|iam\.)googleapis\.com"
)
PLACES = re.compile(r"/(work|root|home)/")
IMPORTS = """\
import array, datetime, decimal, fractions, ipaddress, pathlib, uuid
import numpy, pandas
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Optional, Union
"""


def pages() -> list[Path]:
    """All Markdown files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(ROOT / name for name in listed.stdout.split() if (ROOT / name).is_file())


def _anchors(page: Path) -> set[str]:
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(page.read_text())}


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that exist and headings that they have."""
    for target in LINK.findall(_without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target}: there is no {found}"
        assert found.is_relative_to(ROOT), f"{target} leads out of the repository"
        assert not anchor or anchor in _anchors(found), f"{target}: {found.name} has no such heading"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_no_registry_and_no_place_of_this_machine(page: Path) -> None:
    """Installs go to whatever index a machine is set up for."""
    text = page.read_text()
    assert not PLACES.search(text)
    assert not [host for host in ADDRESS.findall(text) if not HOSTS.fullmatch(host)]


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    """Following links from README.md leads to every page."""
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        targets = (target.partition("#")[0] for target in LINK.findall(_without_code(page.read_text())))
        waiting += [(page.parent / target).resolve() for target in targets if target.endswith(".md")]
    assert {page for page in pages() if "docs" in page.relative_to(ROOT).parts} <= reached


@cache
def _functions(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_named_tests_exist() -> None:
    """Every test that a page names as proof is there."""
    named = {(page, *match) for page in pages() for match in NAMED_TEST.findall(page.read_text())}
    assert len({test for _, _, test in named}) >= 25
    for page, file, test in sorted(named):
        assert (ROOT / file).is_file(), f"{page.name}: there is no {file}"
        assert test in _functions(ROOT / file), f"{page.name}: {file} has no {test}"


def test_every_promise_names_its_proof() -> None:
    """Each row of the tables of guarantees.md names a test, and each of threats.md that is about what is in the way."""
    rows = (ROOT / "docs/explanation/guarantees.md").read_text().splitlines()
    promises = [row for row in rows if row[:2] == "| " and not row.startswith("| promise")]
    text = (ROOT / "docs/explanation/threats.md").read_text()
    tables = re.findall(r"^\|.* proof \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    threats = [row for table in tables for row in table.splitlines()]
    assert min(len(promises), len(threats)) >= 20
    assert [row for row in promises + threats if not NAMED_TEST.search(row)] == []


def test_generated_reference_is_current(tmp_path: Path) -> None:
    """`python -m cloudmesh.api.reference --check` finds nothing, and finds a page that was changed by hand."""
    assert reference.main(["--check", "--root", str(ROOT)]) == 0
    assert reference.main(["--root", str(tmp_path)]) == 0
    page = tmp_path / "docs/reference/functionservice.md"
    assert page.read_text() == (ROOT / "docs/reference/functionservice.md").read_text()
    page.write_text(page.read_text().replace("`replicas`", "`copies`"))
    assert reference.main(["--check", "--root", str(tmp_path)]) == 1


def test_reference_has_every_field() -> None:
    """A row for each property of the schema, at any depth."""
    text = next(iter(reference.make_pages().values()))
    for field in ("source.configMapRef.key", "runtime.env[].valueFrom.secretKeyRef.name", "build.error.line"):
        assert f"`{field}`" in text
    assert "`default`" not in text
    assert "| `timeoutSeconds` |" not in text, "fields have their whole path"
    assert "| `runtime.timeoutSeconds` | integer, 1 to 3600 | `30` |" in text


def _without_patterns(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_patterns(value) for key, value in schema.items() if key != "pattern"}
    return [_without_patterns(item) for item in schema] if isinstance(schema, list) else schema


def _document(annotation: str) -> dict[str, Any]:
    source = f"{IMPORTS}\n\ndef f(x: {annotation}) -> None: ...\n"
    parsed = read(source, name="f", module="f", expose=Expose(("f",)), requirements=("numpy", "pandas"))
    found: dict[str, Any] = parsed.document["paths"]["/f"]
    return found


def _rows(heading: str) -> list[tuple[str, str, str]]:
    text = (ROOT / "docs/reference/types.md").read_text()
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [(a.replace("\\|", "|"), b, c) for a, b, c in ROW.findall(section)]


@pytest.mark.parametrize("heading", ["Scalars", "Containers", "Choices"])
def test_types_are_what_the_table_says(heading: str) -> None:
    """Each annotation gives the schema, and has GET or not, as in docs/reference/types.md."""
    rows = _rows(heading)
    assert len(rows) >= 5
    for annotation, schema, query in rows:
        operations = _document(annotation)
        body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert json.loads(schema.strip("`")) == _without_patterns(body["properties"]["x"]), annotation
        assert query == ("yes" if "get" in operations else "no"), annotation


def test_refused_types_are_refused() -> None:
    """With the reason that the page gives, and a place."""
    rows = _rows("Refused")
    assert len(rows) >= 4
    for annotation, reason, _ in rows:
        with pytest.raises(SourceError) as caught:
            _document(annotation)
        assert reason in caught.value.message, annotation
        assert caught.value.line, annotation


def _table_of_metrics(heading: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    section = (ROOT / "docs/reference/metrics.md").read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([\w, ]*)\|", section, re.MULTILINE)
    return {name: (kind, tuple(re.findall(r"\w+", labels))) for name, kind, labels in rows}


def _told_by(collectors: Iterable[Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
    told = {}
    for collector in collectors:
        if (kind := getattr(collector, "_type", "")) and isinstance(kind, str):
            name = collector._name + ("_total" if kind == "counter" else "")
            told[name] = (kind, tuple(collector._labelnames))
    return told


def test_metrics_of_the_operator_are_those_of_the_page() -> None:
    """Name, type and labels."""
    told = _told_by(vars(metrics.Metrics()).values())
    assert len(told) >= 10
    assert _table_of_metrics("Operator") == told


def test_metrics_of_clusters_are_those_of_the_page() -> None:
    """Name, type and labels of what accounts, clusters and Budgets tell."""
    engine: Any = SimpleNamespace(metrics=metrics.Metrics())
    budgets = BudgetReconciler(engine, Budgets(engine, now=str))._gauges.values()
    clusters = {family.name: ("gauge", tuple(family._labelnames)) for family in ClusterMetrics({}).collect()}
    told = _told_by([*vars(CloudMetrics(engine.metrics)).values(), *budgets])
    assert _table_of_metrics("Clusters") == told | clusters
    assert not told.keys() & clusters.keys()


def test_metrics_of_directories_are_those_of_the_page() -> None:
    """Name, type and labels."""
    told = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, tuple(family._labelnames))
        for family in DirectoryMetrics({}).collect()
    }
    assert _table_of_metrics("Directories") == told


def test_metrics_of_a_function_are_those_of_the_page() -> None:
    """Name and type."""
    figures = FunctionMetrics(["f"])
    figures.observe("f", 200, 0.1)
    told = dict(re.findall(r"^# TYPE (\w+) (\w+)$", figures.render().decode(), re.MULTILINE))
    assert {name: kind for name, (kind, _) in _table_of_metrics("Function").items()} == told


def test_every_example_is_run() -> None:
    """Each page with something to follow is followed end to end."""
    followed = {ROOT / name for name in (*test_docs.PAGES, *test_docs.ELSEWHERE)}
    assert all(page.is_file() for page in followed)
    for page in {path for path in pages() if "docs" in path.relative_to(ROOT).parts} - followed:
        assert page.parent.name not in ("tutorials", "how-to"), page.name
        assert {block[1] for block in test_docs.FENCE.finditer(page.read_text())} <= {"text", "json"}, page.name


RIGHT = """\
Save this as `name.yaml`:

```yaml
name: Ada
```

```console
$ cat name.yaml
name: Ada
$ NAME=Ada; date +%s
…
$ printf 'a   b\\nc\\nd\\nHello, %s, it is %s\\n' $NAME $$
a b
…
Hello, Ada, it is …
```
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("", "", ""),
        ("name: Ada\n$", "name: Eve\n$", "name: Eve"),
        ("Hello, Ada, it is …", "Hello, Ada", "the page says"),
        ("a b\n…", "a b\nc", "the page says"),
        ("$ cat name.yaml", "$ cat name.yaml; false", "status 1"),
        ("$ cat", "cat", "begins with"),
        ("Save this as `name.yaml`", "A file", "names the file"),
        ("```yaml", "```json", "neither run nor just shown"),
    ],
)
def test_runner_of_pages_finds_what_is_wrong(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """The end-to-end test of the pages fails where a page and the world differ."""
    page, folder = test_docs.install.ROOT / "docs" / "unused.md", tmp_path / "work"
    folder.mkdir()
    text = RIGHT.replace(old, new, 1) if old else RIGHT
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    if not complaint:
        assert test_docs.follow(page, folder, environment, {}, text=text) == 3
        return
    with pytest.raises(AssertionError, match=complaint):
        test_docs.follow(page, folder, environment, {}, text=text)
