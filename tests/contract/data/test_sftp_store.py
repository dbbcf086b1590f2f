"""What only SFTP has: keys and host keys, seconds, links, cuts at any place of a transfer, servers that come and go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import asyncssh
import pytest
from tests.testbed.sftpserver import PASSWORD, UID, USER, SftpServer, sftp

from cloudmesh.compute.access import make_key_pair
from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing, ReadOnly
from cloudmesh.data.stores import records
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.records import RECORDS, TEMPORARY
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.data.stores.sftp import SftpStore
from cloudmesh.data.stores.sftp_link import Link, Login
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, NameConflict, Transient, Unsupported
from cloudmesh.testing.stores import chunks, noise
from cloudmesh.testing.stores.sftp import SftpHarness


@pytest.fixture(scope="module")
def server() -> Iterator[SftpServer]:
    with sftp() as started:
        yield started


@pytest.fixture
def login(server: SftpServer) -> Login:
    return Login(server.host, server.port, USER, server.host_key, private_key=server.client_key)


@pytest.fixture
async def harness(server: SftpServer, login: Login) -> AsyncIterator[SftpHarness]:
    made = SftpHarness(login, server.path, server.files, room=False)
    await made.start()
    await made.open()
    yield made
    await made.shut()
    await made.stop()


async def read(store: Store, key: str) -> bytes:
    return b"".join([piece async for piece in store.read(key)])


def settings(server: SftpServer, path: str) -> dict[str, object]:
    return {"host": server.host, "port": server.port, "user": USER, "hostKey": server.host_key, "path": path}


# -- logging in


@pytest.mark.parametrize("by", ["ssh-privatekey", "password"])
async def test_by_key_or_password(server: SftpServer, harness: SftpHarness, by: str) -> None:
    secret = {"ssh-privatekey": server.client_key, "password": PASSWORD}[by].encode()
    context = StoreContext("s", settings(server, str(harness.root)), {by: secret, "hosts": b"x"}, allow_private=True)
    store = maker("sftp")(context)
    await store.write("x", chunks(b"1"), if_absent=True)
    assert (await harness.truth()) == {"x": b"1"} and PASSWORD not in repr(store)
    await store.close()


async def test_another_host_key_is_sent_nothing(server: SftpServer, login: Login) -> None:
    _, other = make_key_pair("other")
    store = SftpStore(Link(replace(login, private_key="", password=PASSWORD, host_key=other)), server.path)
    before = (server.folder / "log").read_text().count("Accepted password")
    with pytest.raises(AuthFailed, match=r"another host key than `spec\.sftp\.hostKey`"):
        await store.probe()
    assert (server.folder / "log").read_text().count("Accepted password") == before
    await store.close()


async def test_a_key_that_nobody_knows(server: SftpServer, login: Login) -> None:
    private, _ = make_key_pair("stranger")
    store = SftpStore(Link(replace(login, private_key=private)), server.path)
    with pytest.raises(AuthFailed, match="refuses the key") as caught:
        await store.stat("x")
    assert private not in str(caught.value)
    await store.close()


def test_a_secret_that_can_not_be_used(server: SftpServer) -> None:
    def made(**secret: bytes) -> None:
        maker("sftp")(StoreContext("s", settings(server, "/"), {k.replace("_", "-"): v for k, v in secret.items()}))

    with pytest.raises(AuthFailed, match="neither"):
        made(hosts=b"x")
    with pytest.raises(InvalidRequest, match="'token' isn't used"):
        made(password=b"x", token=b"y")
    with pytest.raises(InvalidRequest, match="without a passphrase") as caught:
        made(ssh_privatekey=b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----")
    assert "c2VjcmV0" not in str(caught.value)
    locked = asyncssh.generate_private_key("ssh-ed25519").export_private_key(passphrase="open")
    with pytest.raises(InvalidRequest, match="without a passphrase"):
        made(ssh_privatekey=locked)


async def test_this_machine_is_refused_unless_allowed(server: SftpServer) -> None:
    store = maker("sftp")(StoreContext("s", settings(server, "/"), {"password": b"x"}))
    with pytest.raises(InvalidRequest, match="refused as an endpoint"):
        await store.probe()
    await store.close()


async def test_many_calls_share_one_connection(harness: SftpHarness) -> None:
    store = await harness.store()
    await asyncio.gather(*(store.write(f"k{number}", chunks(b"1")) for number in range(30)))
    await store.list("")
    assert harness.proxy.accepted == 1
    harness.proxy.cut()
    await asyncio.gather(*(read(store, f"k{number}") for number in range(30)))
    assert harness.proxy.accepted == 2


async def test_who_waits_for_a_server_that_is_away_learns_it_together(harness: SftpHarness) -> None:
    store = await harness.store()
    harness.proxy.refuse = True
    answers = await asyncio.gather(*(store.stat(f"k{number}") for number in range(20)), return_exceptions=True)
    assert all(isinstance(answer, Transient) for answer in answers) and harness.proxy.accepted == 1


# -- seconds


async def test_tags_differ_within_a_second_also_of_other_stores_and_after_a_delete(harness: SftpHarness) -> None:
    one, other = await harness.store(), await harness.store()
    tags = []
    for number in range(6):
        store = (one, other)[number % 2]
        tags.append((await store.write("x", chunks(noise(50, number)))).tag)
        if number == 3:
            await other.delete("x")
    assert len(set(tags)) == 6
    seen = await one.stat("x")
    assert seen is not None and seen.tag == tags[-1]
    for old in tags[:-1]:
        with pytest.raises(Changed):
            await one.delete("x", if_tag=old)
    assert await harness.leftovers() == 0 and len(list((harness.root / RECORDS).glob("*/*"))) == 1


async def test_a_file_from_tomorrow_is_replaced(harness: SftpHarness) -> None:
    store = await harness.store()
    await harness.meddle("x", b"theirs")
    os.utime(harness.root / "x", (2**31, 2**31))
    made = await store.write("x", chunks(b"mine!!"), attributes={"id": "1"})
    assert made.modified == (2**31 + 1) * 1_000_000
    seen = await store.stat("x")
    assert seen is not None and (seen.tag, seen.attributes) == (made.tag, {"id": "1"})


# -- names and what is in the way


@pytest.mark.parametrize(
    "key", ["../out", "a/../../out", "/out", "a//b", "a/./b", "", "a/", f"{TEMPORARY}x", f"{RECORDS}00/x", "a\0b"]
)
async def test_no_way_out(harness: SftpHarness, key: str) -> None:
    store = await harness.store()
    for call in (store.stat(key), read(store, key), store.write(key, chunks(b"x")), store.delete(key)):
        with pytest.raises(InvalidName):
            await call
    assert harness.proxy.accepted == 0


async def test_links_are_no_objects(harness: SftpHarness, tmp_path: Path) -> None:
    store = await harness.store()
    (tmp_path / "x").write_bytes(b"secret")
    (harness.root / "file").symlink_to(tmp_path / "x")
    (harness.root / "folder").symlink_to(tmp_path)
    os.mkfifo(harness.root / "pipe")
    for key in ("file", "pipe"):
        assert await store.stat(key) is None
        with pytest.raises(Missing):
            await read(store, key)
        for absent in (False, True):
            with pytest.raises(NameConflict):
                await store.write(key, chunks(b"mine"), if_absent=absent)
        await store.delete(key)
    assert (await store.list("")).objects == ()
    assert (harness.root / "file").is_symlink() and (tmp_path / "x").read_bytes() == b"secret"


async def test_a_file_and_a_folder_of_one_name(harness: SftpHarness) -> None:
    store = await harness.store()
    await store.write("a", chunks(b"1"))
    await store.write("c/d", chunks(b"3"))
    for absent in (False, True):
        with pytest.raises(NameConflict):
            await store.write("a/b", chunks(b"2"), if_absent=absent)
        with pytest.raises(NameConflict):
            await store.write("c", chunks(b"4"), if_absent=absent)
    assert await harness.truth() == {"a": b"1", "c/d": b"3"} and await harness.leftovers() == 0


async def test_what_is_in_the_way_is_told(harness: SftpHarness) -> None:
    store = await harness.store()
    await store.write("a", chunks(b"1"))
    await store.write("d/e/f", chunks(b"2"))
    (harness.root / "link").symlink_to("d")
    asked = ["a", "a/b", "a/b/c", "d", "d/e", "d/e/f", "d/e/f/g", "d/x", "x/y", "link"]
    found = [await store.blocked(key) for key in asked]  # type: ignore[attr-defined]
    assert found == ["", "a", "a", "d", "d/e", "", "d/e/f", "", "", "link"]


async def test_folders_go_with_their_last_file_and_come_back(harness: SftpHarness) -> None:
    store = await harness.store()
    for key in ("a/b/c/x", "a/y"):
        await store.write(key, chunks(b"1"))
    await store.delete("a/b/c/x")
    assert sorted(path.name for path in (harness.root / "a").iterdir()) == ["y"]
    await asyncio.gather(*(store.write(f"a/b/c/{number}", chunks(b"1")) for number in range(8)))
    await asyncio.gather(*(store.delete(f"a/b/c/{number}") for number in range(8)), store.delete("a/y"))
    assert [path.name for path in harness.root.iterdir()] == [".cloudmesh"]


async def test_too_long_names(harness: SftpHarness) -> None:
    store = await harness.store()
    deep = "/".join(["d" * 200] * 15)
    await store.write(deep, chunks(b"1"))
    assert await read(store, deep) == b"1" and [each.key for each in (await store.list("d")).objects] == [deep]
    for key in ("x" * 256, "/".join("d" * 1800)):
        assert await store.stat(key) is None
        with pytest.raises(InvalidName):
            await store.write(key, chunks(b"1"))


# -- listings


async def test_what_is_no_name_of_ours_is_not_listed(harness: SftpHarness) -> None:
    store = await harness.store()
    (harness.root / "lost+found").mkdir()
    (harness.root / "lost+found/#1").write_bytes(b"?")
    (harness.root / os.fsdecode(b"latin-\xe9")).write_bytes(b"?")
    await store.write("x", chunks(b"1"))
    assert [each.key for each in (await store.list("")).objects] == ["x"]


async def test_a_folder_that_may_not_be_read_makes_a_listing_incomplete(harness: SftpHarness) -> None:
    store = await harness.store()
    await store.write("a/x", chunks(b"1"))
    await store.write("b", chunks(b"1"))
    os.chown(harness.root / "a", 0, 0)
    (harness.root / "a").chmod(0o700)
    page = await store.list("")
    assert [each.key for each in page.objects] == ["b"] and not page.complete
    for call in (store.list("a/"), store.stat("a/x"), read(store, "a/x")):
        with pytest.raises(AuthFailed):
            await call
    with pytest.raises((AuthFailed, ReadOnly)):
        await store.write("a/y", chunks(b"1"))


async def test_a_large_folder_is_read_once_for_all_pages(harness: SftpHarness) -> None:
    store = await harness.store()
    (harness.root / "many").mkdir()
    for number in range(3000):
        (harness.root / f"many/f{number:04}").write_bytes(b"12")
    found, after, down = [], "", []
    while True:
        before = harness.proxy.moved["down"]
        page = await store.list("many/", after=after, limit=500)
        down.append(harness.proxy.moved["down"] - before)
        found += page.objects
        after = page.after
        if not after:
            break
    assert [each.key for each in found] == [f"many/f{number:04}" for number in range(3000)]
    assert all(each.size == 2 and each.modified for each in found)
    assert down[0] > 100_000 and max(down[1:]) < 10_000
    (harness.root / "many/f0000").unlink()
    assert len((await store.list("many/")).objects) == 1000  # a new listing looks anew
    assert (await store.list("many/")).objects[0].key == "many/f0001"


# -- what breaks


@pytest.mark.parametrize("tenth", range(11))
async def test_a_cut_at_each_tenth_of_an_overwrite_leaves_the_old_or_the_new(harness: SftpHarness, tenth: int) -> None:
    """Each further connection is refused, so that nothing is mended."""
    store = await harness.store()
    old, new = noise(300_000), noise(400_000, 1)
    await store.write("x", chunks(old), attributes={"id": "old"})
    harness.proxy.cut_after("up", 1 + tenth * 40_300)
    answer = await asyncio.gather(_refused_then(harness, store, new), return_exceptions=True)
    there = (await harness.truth())["x"]
    assert there in (old, new)
    if not isinstance(answer[0], Transient):
        assert there == new
    harness.proxy.clear()
    fresh = await harness.store()
    seen = await fresh.stat("x")
    assert seen is not None and seen.attributes == {"id": "old" if there == old else "new"}
    await fresh.sweep("", 0)  # type: ignore[attr-defined]
    assert await harness.leftovers() == 0 and await read(fresh, "x") == there


async def _refused_then(harness: SftpHarness, store: Store, content: bytes) -> object:
    harness.proxy.refuse = True
    return await store.write("x", chunks(content), attributes={"id": "new"})


async def test_a_transfer_goes_on_over_new_connections(harness: SftpHarness) -> None:
    store = await harness.store()
    content = noise(5_000_000)
    for count in (1_000_000, 3_000_000):
        harness.proxy.cut_after("up", count)
        await store.write("x", chunks(content))
        assert (await harness.truth())["x"] == content and await harness.leftovers() == 0
    for count in (700_000, 4_000_000):
        harness.proxy.cut_after("down", count)
        assert await read(store, "x") == content
    assert harness.proxy.accepted == 5


async def test_a_read_that_goes_on_does_not_take_another_content(harness: SftpHarness) -> None:
    store = await harness.store()
    other = await harness.store()
    await store.write("x", chunks(noise(9_000_000)))
    got = b""

    async def meddled() -> None:
        nonlocal got
        async for piece in store.read("x"):
            if not got:
                await other.write("x", chunks(noise(9_000_000, 1)))
                harness.proxy.cut()
            got += piece

    with pytest.raises(Changed):
        await meddled()
    assert noise(9_000_000).startswith(got)


async def test_a_file_that_is_changed_in_place_while_it_is_read(harness: SftpHarness) -> None:
    store = await harness.store()
    await store.write("x", chunks(noise(6 << 20)))

    async def meddled() -> None:
        async for _ in store.read("x"):
            with (harness.root / "x").open("r+b") as file:
                file.write(b"somebody else")
            os.utime(harness.root / "x", (2**30, 2**30))

    with pytest.raises(Changed):
        await meddled()


async def test_a_server_that_is_killed_in_mid_transfer_and_comes_back(tmp_path: Path) -> None:
    with sftp() as server:
        login = Login(server.host, server.port, USER, server.host_key, private_key=server.client_key)
        store = SftpStore(Link(login, seconds=5.0), server.path)
        await store.write("x", chunks(b"old"))

        async def source() -> AsyncIterator[bytes]:
            for number in range(6):
                yield noise(1 << 20, number)
                if number == 3:
                    server.stop()

        with pytest.raises(Transient):
            await store.write("x", source())
        with pytest.raises(Transient):
            await store.stat("x")
        assert (server.files / "x").read_bytes() == b"old"
        server.start()
        assert await read(store, "x") == b"old"
        assert await store.sweep("", 3600) == 0 and await store.sweep("", 0) == 1
        assert (await store.write("x", chunks(b"new"))).size == 3
        await store.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncssh.SFTPFailure("Failure"), Transient),
        (asyncssh.SFTPFailure("No space left on device"), Full),
        (asyncssh.SFTPFailure("Disk quota exceeded"), Full),
        (asyncssh.SFTPNoSpaceOnFilesystem("x"), Full),
        (asyncssh.SFTPQuotaExceeded("x"), Full),
        (asyncssh.SFTPWriteProtect("x"), ReadOnly),
        (asyncssh.SFTPPermissionDenied("x"), ReadOnly),
        (asyncssh.SFTPOpUnsupported("POSIX rename not supported"), Unsupported),
        (asyncssh.SFTPBadMessage("Bad message"), InvalidName),
        (asyncssh.SFTPConnectionLost("x"), Transient),
        (asyncssh.ConnectionLost("x"), Transient),
        (asyncssh.ChannelOpenError(1, "open failed"), Transient),
        (ConnectionResetError("x"), Transient),
    ],
)
async def test_the_servers_words(harness: SftpHarness, error: Exception, kind: type[CloudmeshError]) -> None:
    store = await harness.store()
    await store.write("x", chunks(b"old"))
    perform = store._link._perform  # type: ignore[attr-defined]

    async def broken(which: str, function: object) -> object:
        if which == "publish":
            raise error
        return await perform(which, function)

    store._link._perform = broken  # type: ignore[attr-defined]
    with pytest.raises(kind):
        await store.write("x", chunks(b"new"))
    assert await harness.truth() == {"x": b"old"} and await harness.leftovers() == 0


async def test_a_file_system_without_hard_links_is_told(harness: SftpHarness) -> None:
    store = await harness.store()
    perform = store._link._perform  # type: ignore[attr-defined]

    async def broken(which: str, function: object) -> object:
        if which == "publish":
            raise asyncssh.SFTPFailure("Failure")
        return await perform(which, function)

    store._link._perform = broken  # type: ignore[attr-defined]
    with pytest.raises(Transient, match="no hard links"):
        await store.write("x", chunks(b"new"), if_absent=True)
    await harness.meddle("x", b"theirs")
    with pytest.raises(Exists):
        await store.write("x", chunks(b"new"), if_absent=True)
    assert await harness.truth() == {"x": b"theirs"} and await harness.leftovers() == 0


class _Held:
    """Holds a store's next call of one kind until it may go on."""

    def __init__(self, store: Store, kind: str) -> None:
        self._perform, self._kind = store._link._perform, kind  # type: ignore[attr-defined]
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        store._link._perform = self  # type: ignore[attr-defined]

    async def __call__(self, kind: str, function: object) -> object:
        if kind == self._kind and not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()
        return await self._perform(kind, function)


async def test_a_record_made_anew_at_the_path_of_an_old_one_stays(harness: SftpHarness) -> None:
    """One replaces what a second removes meanwhile, and a third writes as much within the same second."""
    for _ in range(20):
        one, second, third = [await harness.store() for _ in range(3)]
        await asyncio.sleep(1 - time.time() % 1)
        old = await second.write("x", chunks(b"0"))
        replacing, writing = _Held(one, "publish"), _Held(third, "publish")
        first = asyncio.create_task(one.write("x", chunks(b"1")))
        await replacing.reached.wait()
        await second.delete("x")
        last = asyncio.create_task(third.write("x", chunks(b"2"), attributes={"id": "third"}))
        await writing.reached.wait()
        replacing.go_on.set()
        await first
        writing.go_on.set()
        made = await last
        seen = await second.stat("x")
        assert seen is not None and (seen.tag, seen.attributes) == (made.tag, {"id": "third"})
        await second.delete("x")
        if made.modified == old.modified:
            return
    raise AssertionError("no two writes were within one second")


async def test_a_record_that_another_writer_has_just_begun_stays(harness: SftpHarness) -> None:
    store = await harness.store()
    await store.write("other", chunks(b"1"))
    perform, begun = store._link._perform, list[Path]()  # type: ignore[attr-defined]

    async def broken(kind: str, function: object) -> object:
        if kind == "reserve":
            raise ConnectionResetError("gone")
        return await perform(kind, function)

    path_of = records.Record.path.fget  # type: ignore[attr-defined]

    def begin(record: records.Record) -> str:
        path = str(path_of(record))
        if not begun:
            begun.append(harness.root / path)
            begun[0].parent.mkdir(exist_ok=True)
            begun[0].touch()
            for each in (begun[0].parent, begun[0]):
                os.chown(each, UID, UID)
        return path

    store._link._perform = broken  # type: ignore[attr-defined]
    with mock.patch.object(records.Record, "path", property(begin)), pytest.raises(Transient):
        await store.write("x", chunks(b"1"))
    assert begun[0].exists()


async def anybodys(_: str) -> bool:
    """Says of each key that it is ours."""
    return True


async def test_records_of_files_that_are_gone_are_swept_and_strange_ones(harness: SftpHarness) -> None:
    store = await harness.store()
    for key in ("x", "y"):
        await store.write(key, chunks(b"1"), attributes={"id": key})
    (harness.root / "x").unlink()
    (harness.root / TEMPORARY / "left").write_bytes(b"half")
    strange = harness.root / RECORDS / "00"
    strange.mkdir(exist_ok=True)
    (strange / "strange").write_bytes(b'{"key": "../../etc/passwd", "mark": "1-1", "write": "", "attributes": {}}')
    for path in (strange, strange / "strange"):
        os.chown(path, UID, UID)
    assert await store.sweep("", 3600) == 0  # type: ignore[attr-defined]
    # these tell no key, and others may just be writing them
    assert await store.sweep("", 0, ours=anybodys) == 0  # type: ignore[attr-defined]
    assert await store.sweep("", 0) == 3  # type: ignore[attr-defined]
    assert await store.sweep("", 0) == 0  # type: ignore[attr-defined]
    seen = await store.stat("y")
    assert seen is not None and seen.attributes == {"id": "y"}


async def test_memory_stays_small_whatever_the_size(server: SftpServer, harness: SftpHarness) -> None:
    """96 MiB: at most the pieces in flight, and what the library has on its way, are held."""
    program = f"""
import asyncio, resource
from cloudmesh.data.stores.sftp import SftpStore
from cloudmesh.data.stores.sftp_link import Link, Login
async def source(count):
    for _ in range(count): yield bytes(1 << 20)
async def main():
    login = Login({server.host!r}, {server.port}, {USER!r}, {server.host_key!r}, password={PASSWORD!r})
    store = SftpStore(Link(login), {str(harness.root)!r})
    await store.write("warm", source(8))
    assert sum([len(c) async for c in store.read("warm")]) == 8 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await store.write("x", source(96))
    assert sum([len(c) async for c in store.read("x")]) == 96 << 20
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await store.close()
asyncio.run(main())
"""
    run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    assert int(run.stdout) < 32 << 10, f"{int(run.stdout)} KiB"
