"""`python -m cloudmesh.functions spec`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from cloudmesh.functions.__main__ import main
from cloudmesh.functions.signatures import read

SOURCE = "def f(x: int) -> int: ...\ndef g(y) -> int: ...\nclass K:\n    def m(self) -> int: ...\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "my_stats.py"
    found.write_text(SOURCE)
    return found


def test_spec(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", str(file)]) == 0
    out = capsys.readouterr()
    document = json.loads(out.out)
    assert document == read(SOURCE, name="my-stats", module="my_stats").document
    assert "warning: g: the parameter 'y' has no type" in out.err
    assert main(["spec", str(file), "--format", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == document


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [([":f"], ["/f"]), (["", "--expose", "f,g"], ["/f", "/g"]), (["", "--class", "K"], ["/K/m"])],
)
def test_what_is_exposed(file: Path, arguments: list[str], paths: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [
        "spec",
        f"{file}{arguments[0]}",
        *arguments[1:],
        "-o",
        str(out),
        "--format",
        "canonical",
        "--module",
        "m",
    ]
    assert main(command) == 0
    document = json.loads(out.read_text())
    assert list(document["paths"]) == paths
    assert document["paths"][paths[0]]["get"]["operationId"] == "m" + paths[0].replace("/", ".")


def test_errors_have_a_place(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("def f(x: Foo): ...\n")
    assert main(["spec", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"cloudmesh.functions: {file}:1:10: parameter 'x' of f")
    assert main(["spec", f"{file}:f", "--class", "K"]) == 2
    assert main(["spec", str(file) + ".nothing"]) == 2


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("def f(): ...\n"))
    assert main(["spec", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["info"]["title"] == "function"
