"""Rules of the house that no linter keeps."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(p for folder in ("operator", "images", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py"))
PURE = sorted(
    [
        *(p for p in (ROOT / "operator/cloudmesh/api").glob("*.py") if p.stem not in ("crds", "lint", "reference")),
        *(
            ROOT / f"operator/cloudmesh/functions/{name}.py"
            for name in ("key", "plan", "resources", "revision", "rollout", "steps")
        ),
    ]
)
IMPURE = {
    "aiohttp",
    "asyncio",
    "io",
    "kubernetes",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
    "urllib",
}


def test_no_module_is_over_600_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in CODE if (n := len(p.read_text().splitlines())) > 600}
    assert not long, "split along what they do"


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", PURE, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_pure_modules_have_no_clock_no_chance_and_no_io(path: Path) -> None:
    assert not _imports(path) & IMPURE
    text = path.read_text()
    assert not [word for word in ("open(", ".now(", ".today(", "utcnow(") if word in text]


def test_the_folder_operator_is_no_package() -> None:
    assert not (ROOT / "operator/__init__.py").exists(), "it would shadow the standard library's `operator`"
