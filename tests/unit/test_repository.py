"""Rules of the house that no linter keeps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / "operator/cloudmesh"
CODE = sorted(p for folder in ("operator", "images", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py"))
GENERATORS = {"api/crds.py", "api/reference.py"}
"""They stand beside what they are made of, and write files."""
NAMED = {
    "compute": (
        "account_status asked budget_ledger budget_plan budget_status cluster_objects cluster_status cluster_words "
        "failures health lifecycle machine_plan machine_status machines members plan pools quote reading rollout tokens"
    ),
    "compute/command": "selection",
    "compute/jobs": "job_status plan runs sweep",
    "compute/prices": "moments money quarantine sheets",
    "compute/providers/kubernetes": "nodes pods sizes",
    "compute/providers/ssh": "hosts",
    "engine": "errors owners resources",
    "functions": "key plan resources revision rollout steps",
}
"""Pure whether they say so or not; others are pure if their docstring says it."""
SAYING = {p for p in OURS.rglob("*.py") if "pure" in (ast.get_docstring(ast.parse(p.read_text())) or "").lower()}
PURE = sorted(
    {
        *SAYING,
        *(p for folder in ("api", "policy") for p in (OURS / folder).rglob("*.py")),
        *(OURS / folder / f"{name}.py" for folder, names in NAMED.items() for name in names.split()),
    }
    - {OURS / name for name in GENERATORS}
)
IMPURE = {
    "aiohttp",
    "asyncio",
    "asyncssh",
    "boto3",
    "botocore",
    "io",
    "kopf",
    "kubernetes",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}
CALLS = {"now", "today", "utcnow", "open", "print", "input"}


def test_no_module_is_over_600_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in CODE if (n := len(p.read_text().splitlines())) > 600}
    assert not long, "split along what they do"


def _nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those that only a type checker sees."""
    found = [tree]
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            found += _nodes(child)
    return found


def _file(module: str) -> Path | None:
    path = ROOT / "operator" / module.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def _impure(path: Path) -> list[str]:
    """What a module uses that a pure one may not: libraries, calls, and functions of modules that aren't pure."""
    found = []
    for node in _nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.partition(".")[0] in IMPURE]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] in IMPURE:
                found.append(node.module)
            elif node.module.startswith("cloudmesh."):
                for alias in node.names:
                    home = _file(f"{node.module}.{alias.name}") or _file(node.module)
                    # types and constants of other modules do nothing by being named
                    if home not in PURE and not alias.name[0].isupper():
                        found.append(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found += [f"{name}()"] if name in CALLS else []
    return found


@pytest.mark.parametrize("path", PURE, ids=lambda p: str(p.relative_to(OURS)))
def test_pure_modules_have_no_clock_no_chance_and_no_io(path: Path) -> None:
    assert not _impure(path)


def test_those_that_say_it_are_found() -> None:
    assert len(SAYING) > 30
    assert OURS / "compute/plan.py" in SAYING and OURS / "compute/ssh.py" not in SAYING


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from random import choice",
        "import boto3",
        "def f():\n    import botocore.session",
        "x = datetime.now()",
        "x = open('f')",
        "from cloudmesh.compute.ssh import probe",
        "from cloudmesh.compute import clocks",
    ],
)
def test_what_isnt_pure_is_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.py"
    path.write_text(f"from cloudmesh.compute.ports import Node\nfrom cloudmesh.compute import tokens\n{line}\n")
    assert len(_impure(path)) == 1


@pytest.mark.parametrize("wing", ["compute", "data"])
def test_the_map_of_a_wing_names_each_module(wing: str) -> None:
    folder = OURS / wing
    map_ = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    named = re.findall(r"`([a-z_]+)(_\*)?`", map_)
    there = {p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    whole, prefixes = {name for name, star in named if not star}, tuple(f"{name}_" for name, star in named if star)
    missing = sorted(name for name in there - whole if not name.startswith(prefixes))
    assert not missing, "say what it is for"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/how-a-reconcile-reads.md"])
def test_files_that_pages_name_exist(page: str) -> None:
    named = re.findall(r"`((?:operator|tests|docs|charts|benchmarks)/[\w./-]*)`", (ROOT / page).read_text())
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_folder_operator_is_no_package() -> None:
    assert not (ROOT / "operator/__init__.py").exists(), "it would shadow the standard library's `operator`"


# -- providers -----------------------------------------------------------------------------------------------------

PROVIDERS = OURS / "compute/providers"
KINDS = {p.name for p in PROVIDERS.iterdir() if (p / "__init__.py").exists()}
NAMES = re.compile(r"(?<![a-z])(?i:aws|ec2|amazon|boto3?|botocore|moto)(?![a-z])")
"""Words that stand for one provider wherever they are; names of the others are words of Kubernetes and SSH too."""
MAY_NAME = {
    "api/cloudaccount.py": "the members of its spec",
    "compute/providers/registry.py": "the table of providers",
    "compute/prices/build.py": "makes the packaged prices, and isn't run by the operator",
    "compute/__main__.py": "an example in the help",
    "engine/endpoints.py": "the address of a metadata service",
    "api/datastore.py": "the members of its spec",
    "api/store_identity.py": "what each cloud asks for",
    "engine/logs.py": "libraries whose logs hold what is sent",
}


def _words(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and text of all identifiers and strings, but for those that only document."""
    said = [(n.lineno, n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    documents = {(n.value.lineno, n.value.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)
                 and isinstance(n.value, ast.Constant)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            said.append((node.lineno, node.id))
        elif isinstance(node, ast.Attribute):
            said.append((node.lineno, node.attr))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            said.append((node.lineno, node.name))
        elif isinstance(node, ast.ImportFrom):
            said += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Import):
            said += [(node.lineno, alias.name) for alias in node.names]
    return [found for found in said if found not in documents]


def _providers_named(source: str) -> list[str]:
    """Where a module knows one provider: by its name, its folder, or a look at the kind of an account."""
    tree = ast.parse(source)
    folder = re.compile(rf"compute\.providers\.({'|'.join(KINDS)})\b")
    found = [f"{line}: {text[:60]}" for line, text in _words(tree) if NAMES.search(text) or folder.search(text)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            # the right side of `in` is asked for a member, not which one it is
            asked = sides[:1] if isinstance(node.ops[0], ast.In | ast.NotIn) else sides
            asks = any(getattr(s, "attr", getattr(s, "id", "")) == "kind" for s in asked)
            if asks and any(isinstance(c, ast.Constant) and c.value in KINDS for s in sides for c in ast.walk(s)):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_no_provider_is_named_outside_its_folder() -> None:
    """What one cloud needs is a declaration or a power that any provider may have."""
    found = {}
    for path in sorted(OURS.rglob("*.py")):
        name = str(path.relative_to(OURS))
        if (
            not name.startswith(("compute/providers/", "data/stores/", "testing/"))
            or name == "compute/providers/registry.py"
        ):
            found[name] = _providers_named(path.read_text())
    assert {name for name, named in found.items() if named and name not in MAY_NAME} == set(), found
    assert [name for name in MAY_NAME if not found[name]] == [], "needs no exception"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_provider_knows_another(kind: str) -> None:
    others = re.compile(rf"compute\.providers\.({'|'.join(KINDS - {kind})})\b")
    for path in (PROVIDERS / kind).rglob("*.py"):
        assert not [w for _, w in _words(ast.parse(path.read_text())) if others.search(w)], path


@pytest.mark.parametrize(
    "line",
    [
        "from cloudmesh.compute.providers.kubernetes.news import listen",
        "from cloudmesh.compute.providers import x\nif info.kind == 'memory': pass",
        "if kind in ('ssh', 'memory'): pass",
        "x = 'see EC2'",
        "class AwsThing: pass",
        "import botocore.session",
    ],
)
def test_a_provider_that_is_named_is_found(line: str) -> None:
    assert len(_providers_named(f'"""Of aws."""\nmemory = bootstrap == "ssh"\n{line}\n')) == 1


def test_the_core_of_a_provider_is_short() -> None:
    cores = {p: len(p.read_text().splitlines()) for p in PROVIDERS.glob("*/core.py")}
    assert len(cores) >= 3
    assert not [str(p.relative_to(OURS)) for p, n in cores.items() if n > 400], "powers have modules of their own"
