"""Snapshots and new catalogues by hand, listings that a person believes, and work in the background that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.gateway_scene import AUTH, OPERATOR_TOKEN, Served, basic, until

from cloudmesh.data.catalog.journal import JOURNAL, SNAPSHOT
from cloudmesh.data.config import AccessRule, AuthConfig, Summary
from cloudmesh.data.gateway import service
from cloudmesh.data.mesh import MARKER
from cloudmesh.data.model import Totals
from cloudmesh.engine.errors import Conflict, Transient


def summary(served: Served) -> Any:
    """What the operator is told."""
    headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    return served.ask("GET", "/internal/summary", headers=headers, user="").json


def ready(served: Served) -> None:
    """Waits until the doors are open again."""
    until(lambda: served.ask("GET", "/v1/usage").status == 200)


def snapshots(served: Served, store: str) -> list[str]:
    """Keys of snapshots in a store."""
    return [key for key in served.place(store).objects if SNAPSHOT in key]


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (False, False)])
def test_a_summary_owns_up_to_what_is_not_due_yet(tmp_path: Path, before: bool, after: bool) -> None:
    with Served(tmp_path) as served:
        gateway = served.gateway
        member, sums = gateway.mesh.members["one"], gateway.catalog.totals

        async def totals() -> Totals:
            # a store comes back, or is done with, while the sums are read
            found = await sums()
            member.unanswered = after
            return found

        async def told() -> Summary:
            gateway.catalog.totals = totals  # type: ignore[method-assign]
            member.unanswered = before
            return await gateway.summary()

        assert served.call(told()).waking is (before or after)


def test_a_snapshot_by_hand(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.vdir().write("a/f", b"1")
        assert summary(served)["snapshotAt"] == 0
        told = served.vdir().snapshot()
        assert told["record"] >= 2
        assert len(snapshots(served, "one")) == len(snapshots(served, "two")) == 1
        assert summary(served)["snapshotAt"] > 1_700_000_000_000_000
        # it takes the place of what was before
        assert [key for key in served.place("one").objects if JOURNAL in key] == snapshots(served, "one")


def test_the_time_of_the_last_snapshot_is_known_to_the_next_process(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.vdir().write("f", b"1")
        served.vdir().snapshot()
        at = summary(served)["snapshotAt"]
        journal = served.gateway.journal
        served.call(journal.stop())
        journal.snapshot_at, journal._covered = 0, frozenset()
        served.call(journal.start())
        until(lambda: summary(served)["snapshotAt"] == at)


def test_a_new_catalogue_by_hand(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        vdir = served.vdir()
        vdir.write("a/f", b"content")
        vdir.move("a", "b")
        vdir.set_tags("b/f", {"colour": "red"})
        known = served.call(served.gateway.catalog.get("store/one"))
        assert vdir.rebuild() == {"directory": "lab", "state": "Rebuilding"}
        assert served.ask("GET", "/healthz", user="").status == 200
        ready(served)
        assert vdir.read("b/f") == b"content"
        assert vdir.stat("b/f")["tags"] == {"colour": "red"}
        assert served.call(served.gateway.catalog.get("store/one")) == known
        # and it goes on as before
        vdir.write("after", b"2")
        vdir.move("b", "c")
        vdir.rebuild()
        ready(served)
        assert {entry["path"] for entry in vdir.list("", recursive=True)} == {"after", "c", "c/f"}
        assert served.ask("GET", "/healthz", user="").status == 200


def test_a_damaged_catalogue_is_thrown_away_too(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        vdir = served.vdir()
        vdir.write("a/f", b"content")
        vdir.move("a", "b")
        with served.gateway.catalog.path.open("r+b") as file:
            file.write(b"nonsense" * 1000)
        Path(f"{served.gateway.catalog.path}-wal").write_bytes(b"nonsense")
        vdir.rebuild()
        ready(served)
        assert vdir.read("b/f") == b"content"


def test_what_keeps_a_catalogue_from_being_thrown_away(tmp_path: Path) -> None:
    rules = (AccessRule(path="secret/**", users=("bob",), access="None"),)
    auth = AuthConfig(kubernetes=False, basic=AUTH.basic, rules=rules)
    with Served(tmp_path, auth=auth) as served:
        served.vdir().write("f", b"1")
        for target in ("rebuild", "snapshot", "believe"):
            body = {"directory": "lab", "store": "one", "seen": "1-a"}
            assert served.ask("POST", f"/v1/{target}", body, user="").status == 401
            # who may not change all of it may not do this to it
            headers = {"Authorization": basic("bob")}
            assert served.ask("POST", f"/v1/{target}", body, headers=headers).status == 403
        for body in ({}, {"directory": "other"}, {"directory": None}):
            assert served.ask("POST", "/v1/rebuild", body).problem == (400, "InvalidRequest")
        assert served.ask("POST", "/v1/believe", {"store": "one", "seen": "1-a"}).problem[0] == 404
        for body in ({}, {"store": "one"}, {"store": "one", "seen": 3}):
            assert served.ask("POST", "/v1/believe", body).problem[0] == 400

        async def down(*_: object) -> None:
            raise Transient("away")

        served.place("two").hook = down
        served.gateway.mesh.members["two"].doubt(Transient("away"))
        answer = served.ask("POST", "/v1/rebuild", {"directory": "lab"})
        assert answer.problem == (503, "Transient")
        assert "while all stores answer: two: " in answer.json["detail"]
        assert served.vdir().read("f") == b"1"


def test_a_store_without_its_marker_is_not_taken_for_a_new_one_by_a_new_catalogue(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.vdir().write("f", b"1")
        served.vdir().rebuild()
        ready(served)
        served.place("two").remove(MARKER)
        served.gateway.mesh.members["two"].doubted.set()
        until(lambda: summary(served)["stores"][1]["state"] == "Suspicious")
        assert MARKER not in served.place("two").objects


def test_a_listing_is_believed_by_a_person(tmp_path: Path) -> None:
    with Served(tmp_path, stores=("one",)) as served:
        vdir = served.vdir()
        for number in range(20):
            vdir.write(f"f{number}", b"%d" % number)
        for number in range(15):
            served.place("one").remove(f"f{number}")
        served.gateway.following.soon("one")
        (store,) = until(lambda: [s for s in summary(served)["stores"] if s["state"] == "Suspicious"])
        assert store["message"].startswith("SuspiciousShrink: its listing lacks 15 of 20 objects")
        assert store["shrunk"] is True
        assert vdir.read("f19") == b"19"
        with pytest.raises(Conflict, match=r"by now it is something else .* lacks 15 of 20"):
            vdir.believe("one", "14-abcdef")
        word = store["message"].partition("--seen ")[2].partition("`")[0]
        assert vdir.believe("one", word) == {"store": "one"}
        until(lambda: summary(served)["stores"][0]["state"] == "Up")
        assert served.ask("GET", "/v1/where/f0").json["copies"][0]["state"] == "Missing"


def test_work_that_fails_ends_nothing_and_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "RECOVERY_SECONDS", 0.05)
    monkeypatch.setattr(service, "COUNT_SECONDS", 0.05)
    monkeypatch.setattr(service, "AGAIN_SECONDS", (0.05, 5.0))
    with Served(tmp_path) as served:
        gateway, calls = served.gateway, []

        async def fails(*_: object, **__: object) -> int:
            calls.append(1)
            if len(calls) % 2:
                raise RuntimeError("a defect of lab/private.txt")
            raise Transient("lab/private.txt can't be read with very-secret-key")

        monkeypatch.setattr(gateway.recovery, "run", fails)
        monkeypatch.setattr(gateway.mesh, "count", lambda _: 1 / 0)
        until(lambda: len(calls) > 2)
        told: list[str] = []
        kinds = ("open writes: RuntimeError", "open writes: Transient", "counting: ZeroDivisionError")
        until(lambda: told.append(summary(served)["troubles"]) or all(why in " ".join(told) for why in kinds))
        words = " ".join(told)
        # what failed may name a file, which rules by path may hide
        assert "private" not in words
        assert "secret" not in words
        assert all(f"{why} (the gateway's log tells more)" in words for why in kinds)
        assert "lab/private.txt can't be read" in caplog.text
        assert served.ask("GET", "/healthz", user="").status == 200
        served.vdir().write("f", b"1")
        assert served.vdir().read("f") == b"1"
