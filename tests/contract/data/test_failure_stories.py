"""What others lost, tried here: each test is a public report of lost files, through a gateway over volumes and S3.

The whole list, with the tests that are elsewhere, is a table in docs/explanation/guarantees.md.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.contract.data.test_gateway_process import Process
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY, S3Server, s3
from tests.unit.data.gateway_scene import Served, basic, until

from cloudmesh.data.client import Vdir
from cloudmesh.data.config import PlacementRule, StoreConfig
from cloudmesh.data.errors import Missing
from cloudmesh.data.mover import Mover
from cloudmesh.data.scan import scan
from cloudmesh.engine.errors import CloudmeshError

OLD, NEW = b"old content " * 50, b"new content, longer " * 60


def secret(**values: str) -> dict[str, str]:
    return {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}


class Lab:
    """A gateway over volumes.

    Args:
        folder: An empty one.
        volumes: Their names.
        copies: Wanted of each file.
        more: Other stores.
    """

    def __init__(self, folder: Path, volumes: str, copies: int, *more: StoreConfig) -> None:
        self.folder = folder
        for name in volumes.split():
            (folder / name).mkdir()
        stores = [StoreConfig(name, "local", mount=str(folder / name), prefix="lab/") for name in volumes.split()]
        self.served = Served(folder, verify_seconds=0)
        self.served.config = msgspec.structs.replace(
            self.served.config, stores=(*stores, *more), rules=(self.rule(copies),), allow_private=True
        )

    @staticmethod
    def rule(copies: int) -> PlacementRule:
        return PlacementRule(copies=copies, prefer="Sequential")

    def __enter__(self) -> Lab:
        self.served.__enter__()
        self.vdir: Vdir = self.served.vdir()
        return self

    def __exit__(self, *error: object) -> None:
        self.served.__exit__(*error)

    def unmount(self, name: str) -> None:
        """An empty folder is left where the volume was."""
        (self.folder / name).rename(self.folder / f"{name}-elsewhere")
        (self.folder / name).mkdir()

    def mount(self, name: str) -> None:
        assert not list((self.folder / name).iterdir()), "something was written where nothing was mounted"
        (self.folder / name).rmdir()
        (self.folder / f"{name}-elsewhere").rename(self.folder / name)

    def state(self, name: str) -> str:
        return self.served.gateway.mesh.members[name].state

    def until_up(self, *names: str) -> None:
        until(lambda: all(self.state(name) == "Up" for name in names), 40)

    def names(self) -> set[str]:
        return {one["path"] for one in self.vdir.list("", recursive=True) if one["kind"] == "File"}

    def propfind(self) -> str:
        """What WebDAV lists."""
        answer = self.served.ask("PROPFIND", "/dav/", headers={"Authorization": basic(), "Depth": "1"})
        assert answer.status == 207
        return answer.body.decode()

    def whole(self, path: str) -> set[str]:
        """Stores with a whole copy."""
        return {copy["store"] for copy in self.vdir.where(path)["copies"] if copy["state"] == "Whole"}

    def until_whole(self, path: str, *stores: str) -> None:
        until(lambda: self.whole(path) == set(stores), 40)

    def file(self, store: str, path: str) -> Path:
        """Of a copy, under the file's own name."""
        return self.folder / store / "lab" / path

    def objects(self, store: str) -> set[str]:
        """Names of what lies in a volume for users."""
        root = self.folder / store / "lab"
        found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        return {name for name in found if not name.startswith(".cloudmesh/")}

    def access(self, store: str, access: str) -> None:
        stores = tuple(
            msgspec.structs.replace(one, access=access) if one.name == store else one
            for one in self.served.config.stores
        )
        self.served.reconfigure(stores=stores)


Make = Callable[..., Lab]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda volumes="one two", copies=2, *more: Lab(tmp_path, volumes, copies, *more)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3("127.0.0.1", "lab", "other") as started:
        yield started


def bucket(server: S3Server, name: str = "lab") -> StoreConfig:
    settings = {"endpoint": server.url, "bucket": name, "region": "us-east-1"}
    keys = secret(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY)
    return StoreConfig("cloud", "s3", settings, keys, prefix="lab/")


def test_a_volume_that_vanished_is_no_empty_directory(make: Make) -> None:
    """nextcloud/server #20995, #5141, #37934: a storage vanished and WebDAV went on to answer, with nothing in it; the
    clients that synchronised deleted everything."""
    with make(copies=1) as lab:
        lab.vdir.write("alone", OLD)
        assert lab.whole("alone") == {"one"}
        lab.unmount("one")
        for _ in range(3):
            assert lab.names() == {"alone"}
            assert "alone" in lab.propfind()
            answer = lab.served.ask("GET", "/v1/files/alone")
            assert answer.status == 503, "it isn't known to be gone"
        lab.vdir.write("meanwhile", NEW)
        assert lab.whole("meanwhile") == {"two"}
        until(lambda: lab.state("one") == "Suspicious")
        assert lab.names() == {"alone", "meanwhile"}
        lab.mount("one")
        lab.until_up("one")
        assert lab.vdir.read("alone") == OLD


@pytest.mark.parametrize("how", ["emptied", "another"])
def test_a_bucket_that_was_emptied_or_is_another_one(make: Make, server: S3Server, how: str) -> None:
    """nextcloud/server #20995: what answers is there, but isn't the storage that it was."""
    with make("one", 2, bucket(server)) as lab:
        lab.vdir.write(how, OLD)
        assert lab.whole(how) == {"one", "cloud"}
        there = server.file("lab", "")
        aside = there.with_name("aside")
        if how == "emptied":
            shutil.move(there / "lab", aside)
        else:
            stores = (lab.served.config.stores[0], bucket(server, "other"))
            lab.served.reconfigure(stores=stores)
        until(lambda: lab.state("cloud") in ("Suspicious", "Unknown") or how == "another", 30)
        assert how in lab.names()
        assert lab.vdir.read(how) == OLD
        lab.vdir.write("meanwhile", NEW)
        assert "one" in lab.whole("meanwhile")
        if how == "emptied":
            assert not (there / "lab/meanwhile").exists()
            # what was written before anybody noticed stays
            shutil.copytree(aside, there / "lab", dirs_exist_ok=True)
            lab.until_up("cloud")
        until(lambda: lab.whole(how) == {"one", "cloud"}, 40)
        assert lab.vdir.read(how) == OLD


def test_ids_and_tags_outlive_a_hundred_failed_scans(make: Make) -> None:
    """nextcloud/server #36256, #22751: a scan that failed removed rows, and the next one gave new ids: all that was
    tied to the old ones was gone."""
    with make() as lab:
        lab.vdir.write("a/f", OLD)
        lab.vdir.set_tags("a/f", {"colour": "red"})
        before = lab.vdir.stat("a/f")
        lab.unmount("one")
        tree = lab.served.gateway.tree
        for _ in range(100):
            with pytest.raises(CloudmeshError):
                lab.served.call(scan(tree, lab.served.gateway.mesh.members["one"]))
        assert lab.vdir.stat("a/f") == before
        lab.mount("one")
        lab.until_up("one")
        lab.served.call(scan(tree, lab.served.gateway.mesh.members["one"]))
        assert lab.vdir.stat("a/f") == before
        assert lab.names() == {"a/f"}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait()


def test_the_catalogue_is_lost_and_clients_go_on(process: Process) -> None:
    """juicedata/juicefs #957, #714, #560, #2200: the metadata engine was lost, and with it all files. And
    datashim-io/datashim #153, awslabs/mountpoint-s3-csi-driver #576, yandex-cloud/k8s-csi-s3 #179: what serves the
    files was started again, and everybody who used them had to be, too."""
    vdir = process.start()
    expected = {}
    for number in range(20):
        vdir.write(f"d/{number}", b"%d" % number * 100)
        expected[f"moved/{number}"] = b"%d" % number * 100
    vdir.move("d", "moved")
    vdir.set_tags("moved/3", {"colour": "red"})
    vdir.delete("moved/7")
    del expected["moved/7"]
    before = {one["path"]: one for one in vdir.list("", recursive=True)}
    assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    shutil.rmtree(process.folder / "catalog")
    process.start()
    # the client of before, with its connections
    assert {one["path"]: one for one in vdir.list("", recursive=True)} == before
    assert {path: vdir.read(path) for path in expected} == expected
    assert [one["path"] for one in vdir.trash()] == ["moved/7"]
    vdir.write("after", NEW)
    assert vdir.read("after") == NEW


def test_any_of_three_stores_may_be_away(make: Make) -> None:
    """rclone/rclone #6164: a union stops when one of its upstreams is down."""
    with make("one two three", 3) as lab:
        lab.vdir.write("f", OLD)
        until(lambda: len(lab.whole("f")) == 3)
        # each store, and each two of them
        away: set[str] = set()
        content = OLD
        for number, store in enumerate(("one", "two", "one", "three", "two", "one", "three")):
            if store in away:
                away.discard(store)
                lab.mount(store)
                lab.until_up(store)
            else:
                away.add(store)
                lab.unmount(store)
            assert len(away) < 3
            content = b"%d" % number * 500
            lab.vdir.write("f", content)
            lab.vdir.write(f"new{number}", content)
            assert lab.vdir.read("f") == content
            assert len(lab.names()) == number + 2
        for store in away:
            lab.mount(store)
        lab.until_up("one", "two", "three")
        until(lambda: lab.whole("f") == {"one", "two", "three"}, 40)
        assert lab.vdir.read("f") == content


def test_what_was_deleted_while_a_store_was_away_stays_deleted(make: Make) -> None:
    """rclone/rclone #9939, #7042: a deletion was undone by the side that hadn't heard of it."""
    with make() as lab:
        for name in ("f", "g"):
            lab.vdir.write(name, OLD)
            lab.until_whole(name, "one", "two")
        lab.unmount("two")
        lab.vdir.delete("f")
        lab.vdir.write("g", NEW)
        lab.mount("two")
        lab.until_up("two")
        assert (lab.folder / "two/lab/g").read_bytes() in (OLD, NEW)
        lab.served.call(scan(lab.served.gateway.tree, lab.served.gateway.mesh.members["two"]))
        assert lab.names() == {"g"}
        with pytest.raises(Missing):
            lab.vdir.read("f")
        until(lambda: lab.whole("g") == {"one", "two"}, 40)
        assert lab.vdir.read("g") == NEW
        assert [one["path"] for one in lab.vdir.trash()] == ["f"]


def test_a_move_to_the_same_place_removes_nothing(make: Make, tmp_path: Path) -> None:
    """animosity22/homescripts #39: a move on a merged mount, whose source and target were one: 30 TB gone."""
    alias = StoreConfig("alias", "local", mount=str(tmp_path / "one"), prefix="lab/")
    with make("one", 1, alias) as lab:
        lab.vdir.write("f", OLD)
        store = next(iter(lab.whole("f")))
        lab.access(store, "Drain")
        with pytest.raises(AssertionError, match="didn't come"):
            until(lambda: not lab.file("one", "f").exists(), 4)
        assert lab.vdir.read("f") == OLD


def test_fifty_movers_and_one_file(make: Make) -> None:
    """irods/irods #8606: ten copies of one file at once left stale replicas."""
    with make(copies=1) as lab:
        lab.vdir.write("f", OLD)
        gateway = lab.served.gateway

        async def all_at_once() -> None:
            await gateway.mesh.use(msgspec.structs.replace(gateway.mesh.config, rules=(lab.rule(2),)))
            await gateway.catalog.wake(due=gateway.tree.now())
            await asyncio.gather(*(Mover(gateway.tree).round() for _ in range(50)))

        lab.served.call(all_at_once())
        until(lambda: lab.whole("f") == {"one", "two"})
        until(lambda: not lab.served.call(gateway.catalog.intents(until=1 << 62)))
        assert [copy["state"] for copy in lab.vdir.where("f")["copies"]] == ["Whole", "Whole"]
        for store in ("one", "two"):
            assert lab.objects(store) == {"f"}
            assert lab.file(store, "f").read_bytes() == OLD


def rot(file: Path) -> None:
    """A byte changes, and neither size nor times tell of it."""
    found = file.stat()
    with file.open("r+b") as open_file:
        open_file.seek(5)
        open_file.write(b"\xff")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_what_is_damaged_is_never_copied(make: Make) -> None:
    """irods/irods #4464, #5592, #5400: a stale replica was the source of new ones, and a bad checksum was kept."""
    with make(copies=1) as lab:
        lab.vdir.write("f", OLD)
        rot(lab.file("one", "f"))
        lab.served.reconfigure(rules=(lab.rule(2),))
        until(lambda: lab.vdir.where("f")["copies"][0]["state"] == "Corrupt")
        assert lab.whole("f") == set()
        assert "f" not in lab.objects("two")
        assert lab.served.ask("GET", "/v1/files/f").status >= 500
        assert lab.names() == {"f"}


def test_a_copy_that_is_gone_is_no_copy(make: Make) -> None:
    """irods/irods #3082, #1604: a replica that was gone stayed a good one, and one with another checksum too."""
    with make("one two three", 2) as lab:
        for name in ("lost", "rotten"):
            lab.vdir.write(name, OLD)
            lab.until_whole(name, "one", "two")
        lab.file("one", "lost").unlink()
        rot(lab.file("one", "rotten"))
        for name in ("lost", "rotten"):
            for _ in range(4):  # whichever copy is read first
                assert lab.vdir.read(name) == OLD
        lab.served.reconfigure(verify_seconds=1)
        until(lambda: all(lab.file("one", name).read_bytes() == OLD for name in ("rotten",)), 40)
        until(lambda: len(lab.whole("lost")) == len(lab.whole("rotten")) == 2, 40)
        for name in ("lost", "rotten"):
            for store in lab.whole(name):
                assert lab.file(store, name).read_bytes() == OLD


def test_a_copy_goes_only_while_others_are_seen(make: Make) -> None:
    """git-annex-remote-rclone #15: nobody could prove that a remote has a file, so that another copy may be dropped."""
    with make() as lab:
        lab.vdir.write("f", OLD)
        until(lambda: lab.whole("f") == {"one", "two"})
        lab.file("two", "f").unlink()  # behind our back: on record it is there
        lab.served.reconfigure(rules=(lab.rule(1),))
        lab.access("one", "Drain")

        def moved() -> bool:
            assert lab.vdir.read("f") == OLD
            return not lab.file("one", "f").exists()

        until(moved, 40)
        assert lab.whole("f") == {"two"}
        assert lab.file("two", "f").read_bytes() == OLD


def test_a_store_whose_login_ended_waits(make: Make, server: S3Server) -> None:
    """rclone/rclone #7717, #8310, #8587: iCloud ends a login after 30 days. Here with a key of S3: what it holds is
    unknown, not gone, and nothing is dropped elsewhere."""
    with make("one", 2, bucket(server)) as lab:
        lab.vdir.write("login", OLD)
        until(lambda: lab.whole("login") == {"one", "cloud"})
        good = lab.served.config.stores[1]
        ended = secret(aws_access_key_id=ACCESS_KEY, aws_secret_access_key="another")
        lab.served.reconfigure(stores=(lab.served.config.stores[0], msgspec.structs.replace(good, credentials=ended)))
        until(lambda: lab.state("cloud") == "Unknown")
        lab.access("one", "Drain")
        assert lab.vdir.read("login") == OLD
        with pytest.raises(AssertionError, match="didn't come"):
            until(lambda: not lab.file("one", "login").exists(), 3)
        lab.served.reconfigure(stores=(lab.served.config.stores[0], good))
        lab.until_up("cloud")
        until(lambda: not lab.file("one", "login").exists(), 40)
        assert lab.vdir.read("login") == OLD
