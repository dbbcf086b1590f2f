"""Locks: real uv against an index on loopback; addresses and options never reach it."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.functions.fake_index import FakeIndex
from tests.unit.functions.wheels import wheel_bytes

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.oci import Platform
from cloudmesh.functions.lock import (
    DependenciesUnsatisfiable,
    Index,
    IndexUnavailable,
    Lock,
    LockedWheel,
    Locker,
    Target,
    check_requirements,
)

_TARGET = Target("3.11", (2, 36), Platform("linux", "amd64"))


@pytest.fixture
async def index() -> AsyncIterator[FakeIndex]:
    async with FakeIndex().running() as running:
        yield running


@pytest.fixture
def locker(tmp_path: Path) -> Locker:
    return Locker(tmp_path / "uv", {"click": "8.5.1"}, seconds=30)


@pytest.mark.parametrize(
    "text",
    [
        "x @ git+https://host.example/x.git",
        "x @ https://host.example/x.whl",
        "x @ file:///etc/passwd",
        "-e .",
        "--index-url https://host.example",
        "--find-links /",
        "./local",
        "../x",
        "/etc",
        "git+https://host.example/x",
        "x; exec('1')",
        "x\n-e .",
        "",
        "x; nonsense == '1'",
    ],
)
def test_what_is_not_a_name_with_versions_is_refused(text: str) -> None:
    with pytest.raises(DependenciesUnsatisfiable) as caught:
        check_requirements(["numpy>=2", text])
    assert repr(text) in str(caught.value)


def test_names_with_versions_extras_and_markers_are_taken() -> None:
    texts = ["numpy>=2,<3", "requests[socks]", "x; python_version < '3.12'", "Flask"]
    assert [item.name for item in check_requirements(texts)] == ["numpy", "requests", "x", "Flask"]


async def test_the_best_wheel_of_the_target_is_locked(index: FakeIndex, locker: Locker) -> None:
    universal = index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    other = "cp312-cp312-manylinux_2_17_x86_64"
    index.add(f"demo-1.0-{other}.whl", wheel_bytes(tag=other))
    native_tag = "cp311-cp311-manylinux_2_28_x86_64"
    native = index.add(f"demo-1.0-{native_tag}.whl", wheel_bytes(tag=native_tag))
    too_new = "cp311-cp311-manylinux_2_39_x86_64"
    index.add(f"demo-1.0-{too_new}.whl", wheel_bytes(tag=too_new))
    index.add("demo-1.0-cp311-cp311-macosx_11_0_arm64.whl", wheel_bytes(tag="cp311-cp311-macosx_11_0_arm64"))
    lock, urls = await locker.lock(["demo"], _TARGET, Index(index.url))
    (wheel,) = lock.wheels
    assert (wheel.filename, wheel.sha256) == (f"demo-1.0-{native_tag}.whl", native)
    assert urls[native].endswith(f"/files/demo-1.0-{native_tag}.whl")
    assert universal != native


async def test_dependencies_extras_and_markers(index: FakeIndex, locker: Locker) -> None:
    requires = ("helper>=2", "winonly; sys_platform == 'win32'", "more; extra == 'more'")
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes(requires=requires))
    for name, version in (("helper", "1.0"), ("helper", "2.0"), ("more", "1.0")):
        index.add(f"{name}-{version}-py3-none-any.whl", wheel_bytes(name, version))
    lock, _ = await locker.lock(["demo"], _TARGET, Index(index.url))
    assert [(wheel.name, wheel.version) for wheel in lock.wheels] == [("demo", "1.0"), ("helper", "2.0")]
    lock, _ = await locker.lock(["demo[more]"], _TARGET, Index(index.url))
    assert [wheel.name for wheel in lock.wheels] == ["demo", "helper", "more"]


async def test_a_package_without_a_wheel_is_named_with_its_platform(index: FakeIndex, locker: Locker) -> None:
    index.add("sourceonly-1.0.tar.gz", b"never opened")
    index.add("elsewhere-1.0-cp311-cp311-win_amd64.whl", wheel_bytes("elsewhere", tag="cp311-cp311-win_amd64"))
    with pytest.raises(DependenciesUnsatisfiable, match="sourceonly"):
        await locker.lock(["sourceonly"], _TARGET, Index(index.url))
    with pytest.raises(DependenciesUnsatisfiable, match=r"elsewhere.*platform"):
        await locker.lock(["elsewhere"], _TARGET, Index(index.url))
    assert "/files/sourceonly-1.0.tar.gz" not in index.log


async def test_an_old_release_with_a_wheel_wins_over_a_new_one_without(index: FakeIndex, locker: Locker) -> None:
    index.add("demo-2.0.tar.gz", b"never opened")
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    lock, _ = await locker.lock(["demo"], _TARGET, Index(index.url))
    assert [wheel.version for wheel in lock.wheels] == ["1.0"]


async def test_conflicts_and_unknown_names_say_so(index: FakeIndex, locker: Locker) -> None:
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    index.add("click-8.5.1-py3-none-any.whl", wheel_bytes("click", "8.5.1"))
    index.add("click-7.0-py3-none-any.whl", wheel_bytes("click", "7.0"))
    with pytest.raises(DependenciesUnsatisfiable, match=r"demo>2"):
        await locker.lock(["demo>2"], _TARGET, Index(index.url))
    with pytest.raises(DependenciesUnsatisfiable, match="nosuchthing was not found"):
        await locker.lock(["nosuchthing"], _TARGET, Index(index.url))
    with pytest.raises(DependenciesUnsatisfiable, match=r"click==8\.5\.1"):
        await locker.lock(["click<8"], _TARGET, Index(index.url))


async def test_an_index_that_does_not_answer_is_no_fault_of_the_user(index: FakeIndex, tmp_path: Path) -> None:
    locker = Locker(tmp_path, {}, seconds=20, retries=0)
    index.broken = True
    with pytest.raises(IndexUnavailable):
        await locker.lock(["demo"], _TARGET, Index(index.url))
    with pytest.raises(IndexUnavailable, match="Connection refused"):
        await locker.lock(["demo"], _TARGET, Index("http://127.0.0.1:9/simple"))
    with pytest.raises(IndexUnavailable, match="within"):
        await Locker(tmp_path, {}, seconds=0.01).lock(["demo"], _TARGET, Index("http://127.0.0.1:9/simple"))


async def test_credentials_reach_the_index_and_no_message(tmp_path: Path) -> None:
    async with FakeIndex(login="user:s3cr3t").running() as index:
        index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
        locker = Locker(tmp_path, {})
        lock, _ = await locker.lock(["demo"], _TARGET, Index(index.url, "user", "s3cr3t"))
        assert len(lock.wheels) == 1
        with pytest.raises((IndexUnavailable, DependenciesUnsatisfiable)) as caught:
            await Locker(tmp_path / "2", {}).lock(["demo"], _TARGET, Index(index.url, "user", "wr0ng"))
        assert "wr0ng" not in str(caught.value)
    assert "s3cr3t" not in repr(Index(index.url, "user", "s3cr3t"))


async def test_without_requirements_nothing_is_asked(locker: Locker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudmesh.functions.lock.find_uv_bin", lambda: "/nonexistent/uv")
    lock, urls = await locker.lock([], _TARGET, Index("http://127.0.0.1:9/simple"))
    assert (lock.wheels, urls) == ((), {})


async def test_a_lock_finds_its_wheels_again_behind_another_address(index: FakeIndex, locker: Locker) -> None:
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    lock, _ = await locker.lock(["demo"], _TARGET, Index(index.url))
    text = lock.text()
    assert index.url not in text
    assert "127.0.0.1" not in text
    async with FakeIndex().running() as mirror:
        mirror.files = dict(index.files)
        urls = await locker.locate(Lock.parse(text).wheels, _TARGET, Index(mirror.url))
        assert urls[lock.wheels[0].sha256].startswith(mirror.url.removesuffix("/simple"))
        mirror.files = {"demo-1.0-py3-none-any.whl": wheel_bytes(files={"demo.py": b"other"})}
        with pytest.raises(DependenciesUnsatisfiable, match=r"cloudmesh\.org/relock"):
            await Locker(Path(locker._cache) / "2", {}).locate(lock.wheels, _TARGET, Index(mirror.url))


def test_the_text_comes_back_and_is_toml() -> None:
    wheels = tuple(
        LockedWheel(name, "1.0", f"{name}-1.0-py3-none-any.whl", digit * 64, 10)
        for name, digit in (("a", "1"), ("b", "2"))
    )
    lock = Lock("3.11", Platform("linux", "amd64"), wheels)
    assert Lock.parse(lock.text()) == lock
    assert lock.text() == Lock.parse(lock.text()).text()
    value = tomllib.loads(lock.text())
    assert value["lock-version"] == "1.0"
    assert [package["name"] for package in value["packages"]] == ["a", "b"]


@pytest.mark.parametrize(
    "change",
    [
        ("1" * 64, "xyz"),
        ('name = "a"', 'name = "b"'),
        ("a-1.0-py3-none-any.whl", "../../a-1.0-py3-none-any.whl"),
        ('version = "1.0"', 'version = "1.0 --index-url x"'),
        ("size = 10", "size = 0"),
        ("linux/amd64", "linux"),
        ("[[packages]]", "[[packages"),
        ('"==3.11.*"', '">=3"'),
    ],
)
def test_a_forged_lock_is_refused(change: tuple[str, str]) -> None:
    wheel = LockedWheel("a", "1.0", "a-1.0-py3-none-any.whl", "1" * 64, 10)
    text = Lock("3.11", Platform("linux", "amd64"), (wheel,)).text()
    assert change[0] in text
    with pytest.raises(InvalidRequest):
        Lock.parse(text.replace(*change))


@pytest.mark.parametrize("url", ["ftp://host/x", "https://user:word@host/simple", "host/simple", "file:///x"])
def test_addresses_that_are_no_index(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"index\.url"):
        Index(url)
