"""What only a volume has: links, folders in the way, other file systems, what others put there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing, ReadOnly
from cloudmesh.data.stores import local
from cloudmesh.data.stores.folder import Folder
from cloudmesh.data.stores.local import LocalStore, make
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.system_errors import told
from cloudmesh.engine.errors import AuthFailed, InvalidRequest, NameConflict, Transient
from cloudmesh.testing.stores import chunks, noise


@pytest.fixture(params=["nameless", "plain"])
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[LocalStore]:
    full = request.param == "nameless"
    made = LocalStore(Folder(str(tmp_path / "volume"), nameless=full, extended=full))
    (tmp_path / "volume").mkdir()
    yield made
    await made.close()


async def read(store: Store, key: str) -> bytes:
    return b"".join([piece async for piece in store.read(key)])


@pytest.mark.parametrize(
    "key", ["../out", "a/../../out", "/out", "a//b", "a/./b", "", "a/", ".cloudmesh/tmp/x", ".cloudmesh/lock", "a\0b"]
)
async def test_no_way_out(store: LocalStore, tmp_path: Path, key: str) -> None:
    (tmp_path / "out").write_bytes(b"secret")
    for call in (store.stat(key), read(store, key), store.write(key, chunks(b"x")), store.delete(key)):
        with pytest.raises(InvalidName):
            await call
    assert (tmp_path / "out").read_bytes() == b"secret"


async def test_links_are_no_objects_and_lead_nowhere(store: LocalStore, tmp_path: Path) -> None:
    outside, volume = tmp_path / "outside", tmp_path / "volume"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    (volume / "file").symlink_to(outside / "x")
    (volume / "folder").symlink_to(outside)
    (volume / "dangling").symlink_to(outside / "new")
    os.mkfifo(volume / "pipe")
    for key in ("file", "folder/x", "dangling", "pipe"):
        assert await store.stat(key) is None
        with pytest.raises(Missing):
            await read(store, key)
        with pytest.raises(NameConflict):
            await store.write(key, chunks(b"mine"))
        with pytest.raises(NameConflict):
            await store.write(key, chunks(b"mine"), if_absent=True)
        await store.delete(key)
    with pytest.raises(Missing):
        await store.copy("file", "copy")
    assert (await store.list("")).objects == ()
    assert [path.name for path in outside.iterdir()] == ["x"] and (outside / "x").read_bytes() == b"secret"
    assert sorted(path.name for path in volume.iterdir()) == [".cloudmesh", "dangling", "file", "folder", "pipe"]


async def test_our_own_folder_as_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/.cloudmesh").symlink_to(tmp_path / "elsewhere")
    store = LocalStore(Folder(str(tmp_path / "volume"), nameless=False, extended=False))
    with pytest.raises(NameConflict):
        await store.write("x", chunks(b"1"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    await store.close()


async def test_a_file_and_a_folder_of_one_name(store: LocalStore) -> None:
    await store.write("a", chunks(b"1"))
    with pytest.raises(NameConflict):
        await store.write("a/b", chunks(b"2"))
    await store.write("c/d", chunks(b"3"))
    with pytest.raises(NameConflict):
        await store.write("c", chunks(b"4"))
    assert await read(store, "a") == b"1" and await read(store, "c/d") == b"3"


async def test_folders_go_with_their_last_file(store: LocalStore, tmp_path: Path) -> None:
    for key in ("a/b/c/x", "a/y"):
        await store.write(key, chunks(b"1"))
    await store.delete("a/b/c/x")
    assert sorted(path.name for path in (tmp_path / "volume/a").iterdir()) == ["y"]
    await store.delete("a/y")
    assert [path.name for path in (tmp_path / "volume").iterdir()] == [".cloudmesh"]


async def test_too_long_a_name(store: LocalStore) -> None:
    assert await store.stat("x" * 256) is None
    with pytest.raises(InvalidName):
        await store.write("x" * 256, chunks(b"1"))
    deep = "/".join(["d" * 200] * 20)
    await store.write(deep, chunks(b"1"))  # longer than a path may be for one call
    assert await read(store, deep) == b"1" and [each.key for each in (await store.list("")).objects] == [deep]
    very = "/".join("d" * 1100)  # deeper than Python calls itself
    await store.write(very, chunks(b"2"))
    assert [each.key for each in (await store.list("d/")).objects] == [very]
    await store.delete(very)


async def test_what_a_file_system_leaves_is_no_object(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "volume/lost+found").mkdir()
    (tmp_path / "volume/lost+found/#1").write_bytes(b"?")
    (tmp_path / "volume" / os.fsdecode(b"latin-\xe9")).write_bytes(b"?")
    await store.write("x", chunks(b"1"))
    assert [each.key for each in (await store.list("")).objects] == ["x"]


async def test_large_folders_are_listed_page_by_page_and_changes_are_seen(store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "volume/many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"f{number:04}").write_bytes(b"")
    long_ago = folder.stat().st_mtime_ns - 10**10
    os.utime(folder, ns=(long_ago, long_ago))
    first = await store.list("many/", limit=700)
    second = await store.list("many/", after=first.after, limit=700)
    (folder / "f1450x").write_bytes(b"")
    (folder / "f1451").unlink()
    third = await store.list("many/", after=second.after, limit=700)
    keys = [each.key for page in (first, second, third) for each in page.objects]
    assert len(keys) == 1500 and "many/f1450x" in keys and "many/f1451" not in keys and keys == sorted(keys)


async def test_what_may_not_be_read_makes_a_listing_incomplete(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write("a/x", chunks(b"1"))
    await store.write("b", chunks(b"1"))
    really = os.open

    def refuse(path: str, flags: int, *args: int, **more: int) -> int:
        if path == "a":
            raise PermissionError(errno.EACCES, "no")
        return really(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    page = await store.list("")
    assert [each.key for each in page.objects] == ["b"] and not page.complete
    with pytest.raises(AuthFailed):
        await store.stat("a/x")
    with pytest.raises(AuthFailed):
        await store.write("a/y", chunks(b"1"))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, Full),
        (errno.EDQUOT, Full),
        (errno.EROFS, ReadOnly),
        (errno.EACCES, ReadOnly),
        (errno.EIO, Transient),
        (errno.ESTALE, Transient),
        (errno.ENAMETOOLONG, InvalidName),
    ],
)
async def test_the_systems_words(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="here"), told("here", writing=True):
        raise OSError(number, "x")


async def test_a_file_that_is_changed_in_place_while_it_is_read(store: LocalStore, tmp_path: Path) -> None:
    await store.write("x", chunks(noise(5 << 20)))

    async def meddled(meddle: Callable[[Path], object]) -> None:
        async for _ in store.read("x"):
            await asyncio.sleep(0.012)  # so long a file system's clock may stand still
            meddle(tmp_path / "volume/x")

    def write(path: Path) -> None:
        with path.open("r+b") as handle:
            handle.seek(4 << 20)
            handle.write(b"somebody else")

    with pytest.raises(Changed):
        await meddled(write)
    with pytest.raises(Changed):
        await meddled(lambda path: os.truncate(path, 1 << 20))


async def test_attributes_lie_with_the_file(tmp_path: Path) -> None:
    store = LocalStore(Folder(str(tmp_path)))
    await store.write("x", chunks(b"1"), attributes={"id": "7"})
    (tmp_path / "x").rename(tmp_path / "y")  # as a person would
    seen = await store.stat("y")
    assert seen is not None and seen.attributes == {"id": "7"}
    await store.close()


async def anybodys(_: str) -> bool:
    """Says of each key that it is ours."""
    return True


async def test_records_of_files_that_are_gone_are_swept(tmp_path: Path) -> None:
    store = LocalStore(Folder(str(tmp_path), nameless=False, extended=False))
    for key in ("x", "y"):
        await store.write(key, chunks(b"1"), attributes={"id": key})
    (tmp_path / "x").unlink()
    (tmp_path / ".cloudmesh/tmp/left").write_bytes(b"half")
    assert await store.sweep("", 3600) == 0
    # these tell no key, and others may just be writing them
    assert await store.sweep("", 0, ours=anybodys) == 0
    assert await store.sweep("", 0) == 2
    assert await store.sweep("", 0) == 0
    seen = await store.stat("y")
    assert seen is not None and seen.attributes == {"id": "y"}
    await store.close()


async def test_two_processes_do_not_both_win(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from cloudmesh.data.stores.folder import Folder
from cloudmesh.data.stores.local import LocalStore
from cloudmesh.data.errors import Exists
async def one(): yield sys.argv[2].encode()
async def main():
    store, won = LocalStore(Folder(sys.argv[1])), 0
    for number in range(60):
        try:
            await store.write(f"d/{number}", one(), if_absent=True)
            won += 1
        except Exists:
            pass
    print(won)
asyncio.run(main())
"""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(tmp_path), name, stdout=asyncio.subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    told_by = [(await process.communicate())[0] for process in processes]
    assert sum(map(int, told_by)) == 60, told_by


async def test_made_from_a_mount(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="isn't mounted"):
        make(StoreContext("nas", {}))
    store = make(StoreContext("nas", {}, mount=str(tmp_path)))
    assert (await store.probe()).writable
    await store.write("x", chunks(b"1"), if_absent=True)
    with pytest.raises(Exists):
        await store.write("x", chunks(b"1"), if_absent=True)
    await store.close()
    with pytest.raises(Transient, match="closed"):
        await store.stat("x")


async def test_what_is_in_the_way_of_a_key(store: LocalStore, tmp_path: Path) -> None:
    await store.write("a", chunks(b"x"))
    await store.write("d/e/f", chunks(b"x"))
    (tmp_path / "volume/link").symlink_to(tmp_path / "volume/d")
    asked = ["a", "a/b", "a/b/c", "d", "d/e", "d/e/f", "d/e/f/g", "d/new", "new", "link", "link/e/f", "n/o/t"]
    found = [await store.blocked(key) for key in asked]
    assert found == ["", "a", "a", "d", "d/e", "", "d/e/f", "", "", "link", "link", ""]


@pytest.fixture
async def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hanging]:
    monkeypatch.setattr(local, "PATIENCE", 0.2)
    store = LocalStore(Folder(str(tmp_path)), call_seconds=0.3)
    made = Hanging(store, monkeypatch)
    yield made
    made.answers.set()
    await store.close()


class Hanging:
    """A volume whose server stops to answer at a call of the system."""

    def __init__(self, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self._monkeypatch = store, monkeypatch
        self.answers, self.hangs = threading.Event(), threading.Event()

    def at(self, name: str, *, after: int = 0) -> None:
        """It hangs at the call of this name, after so many that go well."""
        call, left = getattr(os, name), itertools.count(-after)

        def hang(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                raise AssertionError("the loop would be blocked")
            if next(left) >= 0:
                self.hangs.set()
                self.answers.wait(30)
            return call(*args, **kwargs)

        self._monkeypatch.setattr(os, name, hang)


def open_below(folder: Path) -> list[str]:
    """Files of the folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(f"{folder}/")]


async def gone(folder: Path) -> None:
    """Waits until nothing of the folder is open."""
    for _ in range(200):
        if not open_below(folder):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(open_below(folder))


@pytest.mark.parametrize("call", ["open", "getxattr", "pread"])
async def test_a_read_that_hangs_is_given_up_without_the_loop(hanging: Hanging, tmp_path: Path, call: str) -> None:
    await hanging.store.write("f", chunks(b"content"))
    hanging.at(call)
    with pytest.raises(Transient, match="hangs"):
        async with asyncio.timeout(10):
            await read(hanging.store, "f")
    assert hanging.hangs.is_set()
    hanging.answers.set()
    await gone(tmp_path)
    assert await read(hanging.store, "f") == b"content"


@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_a_write_that_hangs_and_is_given_up_publishes_nothing(
    hanging: Hanging, tmp_path: Path, call: str
) -> None:
    await hanging.store.write("f", chunks(b"old"))
    hanging.at(call)
    writing = asyncio.create_task(hanging.store.write("f", chunks(b"new")))
    while not hanging.hangs.is_set():
        await asyncio.sleep(0.01)
    writing.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait({writing})
    assert writing.cancelled()
    hanging.answers.set()
    await gone(tmp_path)
    assert await read(hanging.store, "f") == b"old"
    assert not list((tmp_path / ".cloudmesh/tmp").iterdir())


async def test_a_store_that_is_closed_while_it_hangs_lets_go_of_its_files(hanging: Hanging, tmp_path: Path) -> None:
    await hanging.store.write("f", chunks(b"content"))
    hanging.at("pread")
    with pytest.raises(Transient, match="hangs"):
        await read(hanging.store, "f")
    await hanging.store.close()
    assert open_below(tmp_path)
    hanging.answers.set()
    await gone(tmp_path)


async def test_another_folder_in_its_place_is_neither_read_nor_written(store: LocalStore, tmp_path: Path) -> None:
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    await store.probe()
    await store.write("a", chunks(b"mine"))
    volume.rename(elsewhere)
    volume.mkdir()  # what is seen where nothing is mounted
    for call in (store.stat("a"), read(store, "a"), store.write("b", chunks(b"x")), store.delete("a"), store.list("")):
        with pytest.raises(Transient, match="is the volume mounted there"):
            await call
    assert list(volume.iterdir()) == []
    # one look says so, and who looks again may find out which store it is now
    with pytest.raises(Transient, match="is the volume mounted there"):
        await store.probe()
    await store.probe()
    assert await store.stat("a") is None
    volume.rmdir()
    elsewhere.rename(volume)
    with pytest.raises(Transient, match="is the volume mounted there"):
        await store.probe()
    await store.probe()
    assert await read(store, "a") == b"mine"
