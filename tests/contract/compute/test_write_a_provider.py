"""The page that tells how to write a provider, followed word for word: a plug-in through the whole suite and in use."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.test_docs import follow
from tests.unit.compute.machine_scene import Scene

from cloudmesh.api.cloudaccount import CloudAccount
from cloudmesh.api.virtualmachine import VirtualMachine
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.providers import registry
from cloudmesh.testing import run_virtual

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/how-to/write-a-provider.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page leaves behind: the provider is installed as a plug-in, found by its entry point, and passes."""
    home = tmp_path_factory.mktemp("page")
    made = home / "work"
    made.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    assert follow(PAGE, made, environment, {}) == 10
    return made


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plug-in in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder / "plugins"))
    registry._entry_points.cache_clear()
    yield folder
    monkeypatch.undo()
    sys.modules.pop("shelf_cloud", None)
    registry._entry_points.cache_clear()


class PluginScene(Scene):
    """An operator that finds its providers where a real one does."""

    def maker(self, crash: object) -> object:  # type: ignore[override]
        """The registry's."""
        return registry.find_maker


def ready(s: Scene, name: str) -> tuple[str, str, str]:
    """Status, reason and message of an account's Ready."""
    conditions = (s.get(CLOUD_ACCOUNT, name).get("status") or {}).get("conditions") or []
    found = next((c for c in conditions if c["type"] == "Ready"), {"status": "-", "reason": "-", "message": "-"})
    return found["status"], found["reason"], found["message"]


def test_the_account_of_the_page_brings_its_machine_up_and_takes_it_away(installed: Path) -> None:
    account, machine = yaml.safe_load_all((installed / "lab.yaml").read_text())
    CloudAccount.model_validate(account, extra="forbid")
    wanted = VirtualMachine.model_validate(machine, extra="forbid").to_dict()["spec"]
    (installed / "machines").mkdir(exist_ok=True)

    async def main() -> None:
        s = PluginScene()
        s._put(CLOUD_ACCOUNT, "lab", account["spec"])
        s._put(VIRTUAL_MACHINE, "first", wanted)
        async with s.operator():
            await s.until(lambda: s.is_ready("first"))
            status = s.get(CLOUD_ACCOUNT, "lab")["status"]
            assert (status["kind"], status["powers"], status["offers"]) == ("shelf", ["Images"], 2)
            assert status["identity"] == str((installed / "machines").resolve())
            files = list((installed / "machines").iterdir())
            assert [file.name for file in files] == [s.status("first")["providerID"]]
            told = json.loads(files[0].read_text())
            assert (told["type"], told["image"]) == ("small", "plain")
            await s.delete(VIRTUAL_MACHINE, "first")
            await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "first"))
        assert list((installed / "machines").iterdir()) == []

    run_virtual(main())


def test_plug_ins_that_cannot_be_used_say_why(installed: Path) -> None:
    async def main() -> None:
        s = PluginScene()
        s._put(CLOUD_ACCOUNT, "misspelt", {"plugin": {"name": "shlef"}})
        s._put(CLOUD_ACCOUNT, "inside", {"plugin": {"name": "memory"}})
        s._put(CLOUD_ACCOUNT, "no-folder", {"plugin": {"name": "shelf"}})
        async with s.operator():
            await s.settle()
            status, reason, message = ready(s, "misspelt")
            assert (status, reason) == ("False", "Unsupported")
            assert "no plug-in 'shlef'" in message and message.endswith("installed are shelf")
            assert "use `spec.memory`" in ready(s, "inside")[2]
            status, reason, message = ready(s, "no-folder")
            assert (status, reason) == ("False", "InvalidRequest") and "KeyError: 'folder'" in message
            assert s.condition("Stalled", "misspelt", CLOUD_ACCOUNT)[0] == "True"

            def repair(obj: dict[str, object]) -> None:
                obj["spec"] = {"plugin": {"name": "shelf", "settings": {"folder": "machines"}}}

            (installed / "machines").mkdir(exist_ok=True)
            s.change(CLOUD_ACCOUNT, "no-folder", repair)
            await s.until(lambda: ready(s, "no-folder")[0] == "True")
            await asyncio.sleep(1)
            assert ready(s, "misspelt")[0] == "False"

    run_virtual(main())


def test_a_plug_in_that_is_none_is_refused(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kind in `info`, and a module that can't be imported."""
    point = next(point for point in registry._entry_points() if point.name == "shelf")
    broken = type(point)("shelf", "no_such_module:make", registry.GROUP)
    liar = type(point)("liar", point.value, registry.GROUP)
    monkeypatch.setattr(registry, "_entry_points", lambda: (broken, liar))
    assert registry.plugged_in() == ("liar", "shelf")
    with pytest.raises(registry.Unsupported, match="can't be loaded: No module named 'no_such_module'"):
        registry.find_maker("shelf")
    context = registry.Context("ns", "lab", "uid", {"folder": "machines"})
    with pytest.raises(registry.Unsupported, match=r"`info\.kind` must be 'liar'"):
        registry.find_maker("liar")(context)


def test_what_a_plug_in_says_of_its_settings_holds_no_secret(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shelf_cloud  # type: ignore[import-not-found]

    def make(context: registry.Context) -> None:
        raise ValueError(f"can't log in with {context.credentials['key'].decode()}")

    monkeypatch.setattr(shelf_cloud, "make", make)
    context = registry.Context("ns", "lab", "uid", {}, credentials={"key": b"a-key-nobody-knows"})
    with pytest.raises(registry.InvalidRequest, match="redacted") as caught:
        registry.find_maker("shelf")(context)
    assert "a-key-nobody-knows" not in str(caught.value)
    assert caught.value.__cause__ is None
