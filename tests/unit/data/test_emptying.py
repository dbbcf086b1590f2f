"""A directory that is deleted with its files: what goes, what stays, and what is waited for. Stores are memory."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.gateway_scene import OPERATOR_TOKEN, Served, until

from cloudmesh.data.config import StoreConfig
from cloudmesh.data.emptying import Emptying
from cloudmesh.data.mesh import MARKER, Member, State, make
from cloudmesh.data.stores.memory import PLACES, Place
from cloudmesh.engine import Transient

_numbers = itertools.count(1)
MINE = {"id": "a" * 16, "version": "1"}


def member(state: State = "Up", **config: Any) -> tuple[Member, Place]:
    """A store of a directory, with its marker, a journal, a file of its own and one of somebody else; and its place."""
    at = f"emptying-{os.getpid()}-{next(_numbers)}"
    asked = StoreConfig("one", "memory", {"place": at}, prefix="lab/", **config)
    made = Member(asked, make(asked, allow_private=False), lambda: 0.0)
    made.state = state
    place = PLACES[at]
    place.put(f"lab/{MARKER}", b"{}")
    place.put("lab/.cloudmesh/journal/1.jsonl", b"{}")
    place.put("lab/a/mine.csv", b"1", MINE)
    place.put("lab/b/theirs.csv", b"2")
    place.put("labels/x", b"3", MINE)
    return made, place


def rounds(*members: Member, adopted: bool = True, most: int = 4) -> bool:
    """Whether all is gone after some rounds."""

    async def main() -> bool:
        emptying = Emptying(lambda: members, adopted=adopted)
        for _ in range(most):
            if await emptying.round():
                return True
        return False

    return asyncio.run(main())


def test_all_goes_but_what_lies_beside() -> None:
    one, place = member()
    two, other = member()
    assert rounds(one, two)
    assert list(place.objects) == list(other.objects) == ["labels/x"]


def test_what_was_not_adopted_stays() -> None:
    one, place = member()
    assert rounds(one, adopted=False)
    assert sorted(place.objects) == ["lab/b/theirs.csv", "labels/x"]


def test_many_pages() -> None:
    one, place = member()
    for number in range(2500):
        place.put(f"lab/many/{number}", b"", MINE)
    assert rounds(one)
    assert list(place.objects) == ["labels/x"]


def test_the_markers_go_last_of_all() -> None:
    one, place = member()
    two, other = member("Unknown")
    assert not rounds(one, two)
    assert sorted(place.objects) == [f"lab/{MARKER}", "labels/x"]
    assert len(other.objects) == 5
    two.state = "Up"
    assert rounds(one, two)
    assert list(place.objects) == list(other.objects) == ["labels/x"]


@pytest.mark.parametrize(("state", "config"), [("Claimed", {}), ("Up", {"access": "ReadOnly"})])
def test_what_is_not_ours_to_delete_stays(state: State, config: dict[str, Any]) -> None:
    one, place = member(state, **config)
    assert rounds(one)
    assert len(place.objects) == 5


def test_a_store_that_is_not_believed_is_waited_for_unless_nothing_is_left() -> None:
    one, place = member("Suspicious")
    assert not rounds(one)
    assert len(place.objects) == 5
    for key in [key for key in place.objects if key.startswith("lab/")]:
        place.remove(key)
    assert rounds(one)


def test_a_fault_ends_nothing() -> None:
    one, place = member()
    faults = iter([Transient("away"), Transient("away")])

    async def hook(moment: str, operation: str, _: str) -> None:
        if (moment, operation) == ("before", "delete") and (fault := next(faults, None)) is not None:
            raise fault

    async def main() -> None:
        emptying = Emptying(lambda: [one], adopted=True)
        place.hook = hook
        running = asyncio.create_task(emptying.run())
        while not emptying.done:
            await asyncio.sleep(0.05)
        running.cancel()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert list(place.objects) == ["labels/x"]


def test_a_gateway_that_is_told_to_empty_lets_nobody_in_and_says_when_it_is_done(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    with Served(tmp_path) as served:
        served.vdir().write("docs/a.txt", b"content")
        assert any(key.endswith("docs/a.txt") for key in served.place("one").objects)
        served.reconfigure(emptying=True)
        assert served.ask("GET", "/v1/files/docs/a.txt").status == 503
        until(lambda: served.ask("GET", "/internal/summary", headers=headers, user="").json["emptied"])
        assert not served.place("one").objects
        assert not served.place("two").objects
        assert served.ask("GET", "/healthz", user="").status == 200


def test_a_gateway_that_starts_when_the_directory_is_being_deleted(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    with Served(tmp_path, emptying=True) as served:
        until(lambda: served.ask("GET", "/internal/summary", headers=headers, user="").json["emptied"])
        assert not served.place("one").objects
