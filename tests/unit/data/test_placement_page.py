"""The page that tells how to write a placement, followed word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.data import plugins
from cloudmesh.data.asked import rules_of

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/how-to/write-a-placement.md").read_text()
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED = re.compile(r"[Ss]ave this[^`]*? as `([\w.-]+)`", re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS.findall(PAGE) if found == language]


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    package = tmp_path / "by-project"
    package.mkdir()
    assert SAVED.findall(PAGE) == ["by_project.py", "pyproject.toml", "try_placement.py", "lab.yaml"]
    placement, trial = blocks("python")
    (package / "by_project.py").write_text(placement)
    (package / "pyproject.toml").write_text(blocks("toml")[0])
    (tmp_path / "try_placement.py").write_text(trial)
    # the same command, but into a folder of the test's and without an index
    target = tmp_path / "site"
    command = blocks("sh")[0].split()
    assert command[:3] == ["uv", "pip", "install"]
    more = ["--quiet", "--offline", "--python", sys.executable, "--target", str(target)]
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, *command[1:3], *more, *command[3:]], cwd=tmp_path, check=True, capture_output=True)
    first, *expected = blocks("console")[0].splitlines()
    assert first == "$ python try_placement.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT / "operator")])}
    done = subprocess.run(
        [sys.executable, "try_placement.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == expected


def test_the_manifest_of_the_page_names_the_entry_point() -> None:
    directory = VirtualDirectory.model_validate(yaml.safe_load(blocks("yaml")[0]), extra="forbid")
    (rule,) = rules_of(directory)
    assert (rule.prefer, rule.plugin, rule.copies) == ("Plugin", "by-project", 2)
    assert f'[project.entry-points."{plugins.GROUP}"]' in blocks("toml")[0]
