"""A directory that is deleted with its files: what goes, what stays, and what is waited for. Stores are memory."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.data.gateway_scene import OPERATOR_TOKEN, Served, until

from cloudmesh.data import emptying as emptying_module
from cloudmesh.data import names
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.config import StoreConfig
from cloudmesh.data.emptying import Emptying
from cloudmesh.data.mesh import HIDDEN, MARKER, Marker, Member, State, make
from cloudmesh.data.model import Copy, Intent, Target
from cloudmesh.data.stores.memory import PLACES, MemoryStore, Place
from cloudmesh.data.stores.ports import Ours
from cloudmesh.engine import Transient
from cloudmesh.engine.endpoints import Guard

_numbers = itertools.count(1)
MINE = {"id": "a" * 16, "version": "1", "write": "b" * 16}


def mine(key: str) -> dict[str, str]:
    """What we keep with an object at a key."""
    return MINE | {"at": names.mark_of("lab/", key)}


def member(state: State = "Up", **config: Any) -> tuple[Member, Place]:
    """A store of a directory, with its marker, a journal, a file of its own, one that was adopted and one of somebody
    else; and its place."""
    at = f"emptying-{os.getpid()}-{next(_numbers)}"
    asked = StoreConfig("one", "memory", {"place": at}, prefix="lab/", **config)
    made = Member(asked, make(asked, Guard()), lambda: 0.0)
    made.state = state
    place = PLACES[at]
    place.put(f"lab/{MARKER}", b"{}")
    place.put("lab/.cloudmesh/journal/1.jsonl", b"{}")
    place.put("lab/a/mine.csv", b"1", mine("lab/a/mine.csv"))
    place.put("lab/b/adopted.csv", b"2")
    place.put("lab/b/theirs.csv", b"2")
    place.put("labels/x", b"3", mine("labels/x"))
    return made, place


async def known(folder: Path, *members: Member) -> SqliteCatalog:
    """A catalogue that has the adopted files on record."""
    catalog = SqliteCatalog(folder / f"{next(_numbers)}.sqlite", readers=1)
    await catalog.open()
    for one in members:
        seen = await one.store.stat("lab/b/adopted.csv")
        if seen is not None:
            copy = Copy("", one.name, seen.key, 1, "Whole", seen.tag, seen.size)
            await catalog.adopt(f"b/{next(_numbers)}", copy, mtime=1)
    return catalog


def rounds(folder: Path, *members: Member, most: int = 4) -> tuple[bool, int]:
    """Whether all is gone after some rounds, and how much of others stays."""

    async def main() -> tuple[bool, int]:
        catalog = await known(folder, *members)
        emptying = Emptying(lambda: members, catalog)
        try:
            for _ in range(most):
                if await emptying.round():
                    return True, emptying.strangers
            return False, emptying.strangers
        finally:
            await catalog.close()

    return asyncio.run(main())


STAYS = ["lab/b/theirs.csv", "labels/x"]


def test_all_goes_but_what_lies_beside(tmp_path: Path) -> None:
    one, place = member()
    two, other = member()
    two.config = msgspec.structs.replace(two.config, name="two")
    assert rounds(tmp_path, one, two) == (True, 2)
    assert list(place.objects) == list(other.objects) == STAYS


def test_what_somebody_copied_renamed_or_overwrote_stays(tmp_path: Path) -> None:
    one, place = member()
    place.put("lab/a/copied.csv", b"1", mine("lab/a/mine.csv"))

    async def main() -> int:
        catalog = await known(tmp_path, one)
        place.put("lab/b/adopted.csv", b"overwritten")
        emptying = Emptying(lambda: [one], catalog)
        while not await emptying.round():
            pass
        await catalog.close()
        return emptying.strangers

    assert asyncio.run(main()) == 3
    assert sorted(place.objects) == ["lab/a/copied.csv", "lab/b/adopted.csv", *STAYS]


@pytest.mark.parametrize("lacking", ["id", "version", "write"])
def test_attributes_of_others_that_look_like_ours(tmp_path: Path, lacking: str) -> None:
    one, place = member()
    key = "lab/photos/p.jpg"
    place.put(key, b"somebody's", {name: text for name, text in mine(key).items() if name != lacking})
    place.put("lab/photos/q.jpg", b"somebody's", {"id": "42"})
    place.put("lab/photos/r.jpg", b"somebody's", MINE)
    assert rounds(tmp_path, one) == (True, 4)
    assert sorted(place.objects) == sorted([key, "lab/photos/q.jpg", "lab/photos/r.jpg", *STAYS])


def test_objects_that_do_not_tell_where_they_were_put_go_if_their_file_is_on_record(tmp_path: Path) -> None:
    one, place = member()

    async def main() -> int:
        catalog = await known(tmp_path, one)
        (copy,) = await catalog.held("one")
        folder = await catalog.mkdir("folder")
        place.put("lab/old.csv", b"1", MINE | {"id": copy.entry})
        place.put("lab/folder.csv", b"1", MINE | {"id": folder.id})
        place.put("lab/other.csv", b"1", MINE)
        emptying = Emptying(lambda: [one], catalog)
        while not await emptying.round():
            pass
        await catalog.close()
        return emptying.strangers

    assert asyncio.run(main()) == 3
    assert sorted(place.objects) == sorted(["lab/folder.csv", "lab/other.csv", *STAYS])


def test_what_others_are_just_writing_goes_on(tmp_path: Path) -> None:
    one, place = member()
    place.put(f"lab/sub/{MARKER}", msgspec.json.encode(Marker("m", "i", "ns", "other", "u")))
    place.put("lab/sub/f", b"1")
    place.put("lab/linked", b"1")
    uploads = {"lab/b/adopted.csv", "lab/b/new", f"lab/{HIDDEN}kept/1", "lab/linked", "lab/photos/large", "lab/sub/f"}

    class Sweeping(MemoryStore):
        async def sweep(self, prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
            assert (prefix, older_than_seconds) == ("lab/", 0)
            assert ours is not None
            uploads.difference_update([key for key in sorted(uploads) if await ours(key)])
            return 0

    one.store = Sweeping(place)

    async def main() -> None:
        catalog = await known(tmp_path, one)
        await catalog.adopt("linked", Copy("", "one", "lab/linked", 1, "Linked", "t", 1), mtime=1)
        await catalog.adopt("foreign", Copy("", "one", "lab/sub/f", 1, "Whole", "t", 1), mtime=1)
        await catalog.begin(Intent("c" * 16, "Put", "d" * 16, "b", "new", 1, (Target("one", "lab/b/new"),), 0))
        emptying = Emptying(lambda: [one], catalog)
        while not await emptying.round():
            pass
        await catalog.close()

    asyncio.run(main())
    assert uploads == {"lab/linked", "lab/photos/large", "lab/sub/f"}


def test_another_directory_within_this_one_stays(tmp_path: Path) -> None:
    one, place = member()
    place.put("lab/sub/!first", b"1", mine("lab/sub/!first"))
    place.put(f"lab/sub/{MARKER}", msgspec.json.encode(Marker("m", "i", "ns", "other", "u")))
    place.put("lab/sub/z/f", b"1", mine("lab/sub/z/f"))
    assert rounds(tmp_path, one) == (True, 1)
    assert sorted(place.objects) == sorted(["lab/sub/!first", f"lab/sub/{MARKER}", "lab/sub/z/f", *STAYS])


def test_many_pages(tmp_path: Path) -> None:
    one, place = member()
    for number in range(2500):
        place.put(f"lab/many/{number}", b"", mine(f"lab/many/{number}"))
    assert rounds(tmp_path, one)[0]
    assert list(place.objects) == STAYS


def test_the_journals_and_markers_go_last_of_all(tmp_path: Path) -> None:
    one, place = member()
    two, other = member("Unknown")
    two.config = msgspec.structs.replace(two.config, name="two")
    assert not rounds(tmp_path, one, two)[0]
    assert sorted(place.objects) == ["lab/.cloudmesh/journal/1.jsonl", f"lab/{MARKER}", *STAYS]
    assert len(other.objects) == 6
    two.state = "Up"
    assert rounds(tmp_path, one, two)[0]
    assert list(place.objects) == list(other.objects) == STAYS


@pytest.mark.parametrize(("state", "config"), [("Claimed", {}), ("Up", {"access": "ReadOnly"})])
def test_what_is_not_ours_to_delete_stays(tmp_path: Path, state: State, config: dict[str, Any]) -> None:
    one, place = member(state, **config)
    assert rounds(tmp_path, one)[0]
    assert len(place.objects) == 6


def test_a_store_that_is_not_believed_is_waited_for_unless_nothing_is_left(tmp_path: Path) -> None:
    one, place = member("Suspicious")
    assert not rounds(tmp_path, one)[0]
    assert len(place.objects) == 6
    for key in [key for key in place.objects if key.startswith("lab/")]:
        place.remove(key)
    assert rounds(tmp_path, one)[0]


def test_a_fault_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, place = member()
    faults = iter([Transient("away"), Transient("away")])

    async def hook(moment: str, operation: str, _: str) -> None:
        if (moment, operation) == ("before", "delete") and (fault := next(faults, None)) is not None:
            raise fault

    async def main() -> None:
        catalog = await known(tmp_path, one)
        waits = iter(["a store", RuntimeError("a defect")])

        async def ready() -> str:
            why = next(waits, "")
            if isinstance(why, RuntimeError):
                raise why
            return why

        emptying = Emptying(lambda: [one], catalog, ready)
        place.hook = hook
        running = asyncio.create_task(emptying.run())
        while not emptying.done:
            await asyncio.sleep(0.05)
        running.cancel()
        await catalog.close()

    monkeypatch.setattr(emptying_module, "ROUND_SECONDS", 0.05)
    asyncio.run(asyncio.wait_for(main(), 30))
    assert list(place.objects) == STAYS


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


def test_a_new_catalogue_is_filled_first_and_adopts_nothing(tmp_path: Path) -> None:
    """The volume of the catalogue was lost: what the directory adopted is in its journal."""
    headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    with Served(tmp_path) as served:
        served.place("one").put("adopted", b"1")
        served.gateway.following.soon("one")
        until(lambda: served.ask("GET", "/v1/stat/adopted").status == 200)
        served.vdir().mkdir("so that the journal is written")
        served.call(served.gateway.catalog.clear(["store/"]))
        served.place("one").put("stranger", b"2")
        served.reconfigure(emptying=True)
        told = until(
            lambda: (s := served.ask("GET", "/internal/summary", headers=headers, user="").json)["emptied"] and s
        )
        assert told["strangers"] == 1
        assert list(served.place("one").objects) == ["stranger"]
