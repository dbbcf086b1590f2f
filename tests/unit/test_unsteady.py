"""What `make test` does with a test that fails and passes the next time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import run, unsteady

SOURCE = '''
from pathlib import Path

import pytest

def again(name):
    """Whether this was asked before."""
    mark = Path(__file__).parent / f"mark-{name}"
    asked = mark.exists()
    mark.touch()
    return asked

@pytest.fixture(scope="module")
def late():
    assert again("late")

@pytest.fixture
def leaky():
    yield
    assert again("leaky")

def test_good():
    assert not again("good")
'''
ONCE = "def test_once_{0}():\n    assert again({0})\n"
NEVER = "def test_never():\n    assert 0\n"
SETUP = "def test_setup(late): ...\n"
END = "def test_end(leaky): ...\n"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a part whose one file ends with the tests given; gives the exit code and what was said."""
    monkeypatch.setattr(run, "NEEDS", {})
    monkeypatch.setattr(run, "ARGUMENTS", {})
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # which takes longer than all else here
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def go(part: str, *tests: str) -> tuple[int, str]:
        folder = tmp_path / "tests" / part
        folder.mkdir(parents=True)
        (folder / "test_it.py").write_text("\n".join((SOURCE, *tests)))
        budgets = {part: 1.0}
        suite = run.Suite(budgets, tmp_path)
        suite.run()
        capsys.readouterr()
        code = run.summary(suite, budgets, 1.0)
        return code, capsys.readouterr().out

    return go


def test_what_passes_the_second_time_is_told_as_unsteady(suite, tmp_path: Path) -> None:
    code, said = suite("kube", ONCE.format(1), SETUP)
    lines = said.splitlines()
    assert code == 0
    assert lines[-1] == "3 passed, 0 failed, 2 unsteady, 0 skipped"
    log = tmp_path / "build/tests-kube.log"
    assert f"UNSTEADY: tests.kube.test_it::test_once_1, failed once: see {log}" in lines
    assert f"UNSTEADY: tests.kube.test_it::test_setup, failed once: see {log}" in lines
    assert "assert again(1)" in log.read_text()


def test_only_what_failed_is_run_again(suite) -> None:
    code, said = suite("e2e", ONCE.format(1))
    assert (code, said.splitlines()[-1]) == (0, "2 passed, 0 failed, 1 unsteady, 0 skipped")


def test_a_part_without_failures_says_so(suite, tmp_path: Path) -> None:
    code, said = suite("bed")
    assert (code, said.splitlines()[-1]) == (0, "1 passed, 0 failed, 0 unsteady, 0 skipped")
    assert "UNSTEADY" not in said
    assert not (tmp_path / "build/tests-bed-again.log").exists()


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([NEVER], "1 passed, 1 failed, 0 unsteady, 0 skipped"),
        ([NEVER, ONCE.format(1)], "1 passed, 2 failed, 0 unsteady, 0 skipped"),
        ([ONCE.format(1), ONCE.format(2), ONCE.format(3)], "1 passed, 3 failed, 0 unsteady, 0 skipped"),
        ([END], "2 passed, 1 failed, 0 unsteady, 0 skipped"),
    ],
    ids=["never passes", "one of two never passes", "too many", "end of a fixture"],
)
def test_a_part_fails(suite, tests: list[str], said: str) -> None:
    code, told = suite("e2e", *tests)
    assert (code, told.splitlines()[-1]) == (1, said)


def test_a_property_that_fails_is_a_failure(suite) -> None:
    code, said = suite("property", ONCE.format(1))
    assert (code, said.splitlines()[-1]) == (1, "1 passed, 1 failed, 0 unsteady, 0 skipped")


def test_a_run_before_is_forgotten(suite, tmp_path: Path) -> None:
    """A report that another run left says nothing of one that ends before its own."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/tests-kube.xml").write_text("<testsuite><testcase><failure/></testcase></testsuite>")
    code, said = suite("kube", "import os\nos._exit(1)")
    assert (code, said.splitlines()[-1]) == (1, "0 passed, 0 failed, 0 unsteady, 0 skipped")
    assert not unsteady.failed(tmp_path / "build/tests-kube.log").tests


def test_all_parts_but_properties_are_tried_again() -> None:
    parts = {part for lane in run.LANES.values() for part in lane}
    assert parts - set(unsteady.PARTS) == {"property"}
