"""`vdir://` as a file system: what is published and when, errors, big reads; pandas, pyarrow and dask on it."""

from __future__ import annotations

import errno
import gc
import gzip
import pickle
import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest
from tests.unit.data.gateway_scene import AUTH, PASSWORD, Served

from cloudmesh.data.config import AccessRule, AuthConfig
from cloudmesh.data.fs import VdirFileSystem
from cloudmesh.engine.errors import Transient

CONTENT = random.Random(3).randbytes(300_000)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    rules = (AccessRule("closed/**", access="ReadOnly"),)
    told = AuthConfig(False, AUTH.basic, "None", rules)
    with Served(tmp_path_factory.mktemp("gateway"), auth=told, quota_bytes=100 << 20) as served:
        yield served


@pytest.fixture
def options(served: Served) -> dict[str, str]:
    return {"endpoint_url": served.url, "user": "ada", "password": PASSWORD}


@pytest.fixture
def fs(options: dict[str, str]) -> VdirFileSystem:
    return fsspec.filesystem("vdir", skip_instance_cache=True, **options)


def asked(fs: VdirFileSystem, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the gateway from now on."""
    vdir, _ = fs._at("lab")
    seen: list[tuple[str, str]] = []
    inner = vdir._send

    def counted(method: str, target: str, **more):
        seen.append((method, target))
        return inner(method, target, **more)

    monkeypatch.setattr(vdir, "_send", counted)
    return seen


# -- what is published, and when


def test_a_file_is_there_when_it_is_closed(fs: VdirFileSystem) -> None:
    with fs.open("lab/p/a", "wb") as file:
        file.write(b"abc")
        file.flush()
        assert not fs.exists("lab/p/a")
        assert file.tell() == 3
    assert fs.cat_file("lab/p/a") == b"abc"
    with fs.open("vdir://lab/p/a", "ab") as file:
        file.write(b"def")
    assert fs.cat_file("lab/p/a") == b"abcdef"
    with pytest.raises(FileExistsError), fs.open("lab/p/a", "xb"):
        pass
    with fs.open("lab/p/x", "xb") as file:
        file.write(b"new")
    with pytest.raises(ValueError, match="mode"):
        fs.open("lab/p/a", "r+b")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"late")


def fail(file, part) -> None:
    file.write(part)
    raise ZeroDivisionError


OPENERS = {
    "fs, bytes": lambda fs, options: fs.open("lab/e/x", "wb"),
    "fs, text": lambda fs, options: fs.open("lab/e/x", "w", encoding="utf-8"),
    "fs, appended": lambda fs, options: fs.open("lab/e/x", "ab"),
    "fs, compressed": lambda fs, options: fs.open("lab/e/x", "wb", compression="gzip"),
    "fs, compressed text": lambda fs, options: fs.open("lab/e/x", "wt", compression="bz2"),
    "fsspec, bytes": lambda fs, options: fsspec.open("vdir://lab/e/x", "wb", **options),
    "fsspec, text": lambda fs, options: fsspec.open("vdir://lab/e/x", "w", **options),
    "fsspec, compressed": lambda fs, options: fsspec.open("vdir://lab/e/x", "wb", compression="gzip", **options),
    "closing": lambda fs, options: closing(fs.open("lab/e/x", "wb")),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_an_exception_publishes_nothing(fs: VdirFileSystem, options: dict[str, str], opener: str) -> None:
    fs.pipe_file("lab/e/x", b"old")
    part = "part" if "text" in opener else b"part"
    with pytest.raises(ZeroDivisionError), OPENERS[opener](fs, options) as file:
        fail(file, part)
    gc.collect()
    assert fs.cat_file("lab/e/x") == b"old"
    # and without one the same is published, also where another exception is being handled
    try:
        raise KeyError
    except KeyError:
        with OPENERS[opener](fs, options) as file:
            file.write(part)
    assert fs.cat_file("lab/e/x") != b"old"


def test_what_nobody_closes_is_not_published(fs: VdirFileSystem) -> None:
    file = fs.open("lab/e/open", "wb")
    file.write(b"part")
    with pytest.warns(ResourceWarning, match="never closed"):
        del file
    assert not fs.exists("lab/e/open")


def test_a_write_that_fails_is_told_at_close(fs: VdirFileSystem) -> None:
    file = fs.open("lab/closed/x", "wb")
    file.write(b"x")
    with pytest.raises(PermissionError):
        file.close()
    assert file.closed
    with pytest.raises(OSError, match="quota") as caught, fs.open("lab/full", "wb") as file:
        file.writelines([b"x" * (1 << 20)] * 101)
    assert caught.value.errno == errno.ENOSPC
    assert not fs.exists("lab/full")


def test_a_transaction_publishes_all_or_nothing(fs: VdirFileSystem) -> None:
    def twice() -> None:
        fs.open("lab/t/a", "wb").close()
        with fs.open("lab/t/b", "wb") as file:
            fail(file, b"x")

    with pytest.raises(ZeroDivisionError), fs.transaction:
        twice()
    assert not fs.exists("lab/t")
    with fs.transaction:
        with fs.open("lab/t/a", "wb") as file:
            file.write(b"1")
        with fs.open("lab/t/b", "w") as file:
            file.write("2")
        with pytest.raises(ZeroDivisionError), fs.open("lab/t/c", "wb") as file:
            file.write(bytes([1 // 0]))
        assert not fs.exists("lab/t/a")
    assert fs.cat(["lab/t/a", "lab/t/b"]) == {"lab/t/a": b"1", "lab/t/b": b"2"}


# -- reading


def test_reading_from_any_place(fs: VdirFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.pipe_file("lab/r", CONTENT)
    with fs.open("lab/r", "rb") as file:
        assert (file.size, file.mode, file.path) == (len(CONTENT), "rb", "lab/r")
        assert file.read(10) == CONTENT[:10]
        assert file.seek(-10, 2) == len(CONTENT) - 10
        assert file.read() == CONTENT[-10:]
        assert file.read(5) == b""
        assert file.seek(1000) == 1000
        assert file.seek(5, 1) == 1005
        assert file.read(7) == CONTENT[1005:1012]
        with pytest.raises(ValueError, match="seek"):
            file.seek(-1)
        file.seek(len(CONTENT) + 100)
        assert file.read() == b""
    seen = asked(fs, monkeypatch)
    with fs.open("lab/r", "rb") as file:
        assert file.read() == CONTENT
    # what is there, and all of it: not a request for each few bytes
    assert len(seen) == 2
    with fs.open("lab/r", "rb", block_size=100_000) as file:
        assert b"".join(iter(lambda: file.read(1000), b"")) == CONTENT
    assert len(seen) <= 2 + 1 + 4
    assert fs.cat_file("lab/r", 5, 10) == CONTENT[5:10]
    assert fs.cat_file("lab/r", -10) == CONTENT[-10:]
    assert fs.cat_file("lab/r", -10, -5) == CONTENT[-10:-5]
    assert fs.cat_file("lab/r", 10, 5) == b""
    assert fs.cat_ranges(["lab/r"] * 2, [0, 5], [1, 7]) == [CONTENT[:1], CONTENT[5:7]]
    assert fs.head("lab/r", 3) + fs.tail("lab/r", 3) == CONTENT[:3] + CONTENT[-3:]


def test_a_file_that_changes_while_it_is_read(fs: VdirFileSystem) -> None:
    fs.pipe_file("lab/changing", CONTENT)
    with fs.open("lab/changing", "rb", block_size=1000) as file:
        assert file.read(500) == CONTENT[:500]
        fs.pipe_file("lab/changing", CONTENT[::-1])
        with pytest.raises(OSError, match="entity tag"):
            file.read()


def test_text_and_compression(fs: VdirFileSystem) -> None:
    with fs.open("lab/c/x.csv.gz", "wt", compression="infer", encoding="utf-8", newline="") as file:
        file.write("ü\r\n")
    assert gzip.decompress(fs.cat_file("lab/c/x.csv.gz")) == b"\xc3\xbc\r\n"
    with fs.open("lab/c/x.csv.gz", "rt", compression="infer", encoding="utf-8", newline="") as file:
        assert file.read() == "ü\r\n"
    fs.write_text("lab/c/t", "ä", encoding="latin-1")
    assert fs.read_text("lab/c/t", encoding="latin-1") == "ä"


# -- the tree


def test_finding(fs: VdirFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.csv", "b/c.csv", "b/d/e.txt"):
        fs.pipe_file(f"lab/f/{name}", b"x")
    fs.mkdir("lab/f/empty")
    seen = asked(fs, monkeypatch)
    assert fs.find("lab/f") == ["lab/f/a.csv", "lab/f/b/c.csv", "lab/f/b/d/e.txt"]
    assert len(seen) == 2
    assert fs.find("lab/f", withdirs=True) == sorted(
        ["lab/f", "lab/f/a.csv", "lab/f/b", "lab/f/b/c.csv", "lab/f/b/d", "lab/f/b/d/e.txt", "lab/f/empty"]
    )
    assert fs.find("lab/f", maxdepth=2) == ["lab/f/a.csv", "lab/f/b/c.csv"]
    assert fs.find("lab/f/a.csv") == ["lab/f/a.csv"]
    assert fs.find("lab/none") == []
    assert fs.find("lab/f", detail=True)["lab/f/a.csv"]["size"] == 1
    assert fs.glob("lab/f/**/*.csv") == fs.glob("vdir://lab/f/**/*.csv") == ["lab/f/a.csv", "lab/f/b/c.csv"]
    assert fs.du("lab/f") == 3
    assert [e["name"] for e in fs.ls("lab/f", detail=True)] == ["lab/f/a.csv", "lab/f/b", "lab/f/empty"]
    assert fs.ls("lab/f/a.csv", detail=False) == ["lab/f/a.csv"]
    assert fs.isdir("lab") and fs.isdir("lab/f/b") and not fs.isdir("lab/f/a.csv")
    assert fs.isfile("lab/f/a.csv") and not fs.isfile("lab/f/none")
    info = fs.info("lab/f/a.csv")
    assert (info["type"], info["size"], fs.info("lab/f")["type"]) == ("file", 1, "directory")
    assert fs.modified("lab/f/a.csv") <= datetime.now(UTC)
    before = fs.ukey("lab/f/a.csv")
    fs.pipe_file("lab/f/a.csv", b"y")
    assert fs.ukey("lab/f/a.csv") != before


def test_changing(fs: VdirFileSystem) -> None:
    fs.makedirs("lab/g/a/b")
    with pytest.raises(FileExistsError):
        fs.makedirs("lab/g/a/b")
    with pytest.raises(FileExistsError):
        fs.mkdir("lab/g/a")
    with pytest.raises(FileNotFoundError):
        fs.mkdir("lab/g/x/y", create_parents=False)
    fs.makedirs("lab/g/a/b", exist_ok=True)
    fs.pipe_file("lab/g/a/f", b"x")
    with pytest.raises(OSError, match="empty"):
        fs.rmdir("lab/g/a")
    fs.mv("lab/g/a/f", "lab/g/new/deep/f2")
    assert fs.cat_file("lab/g/new/deep/f2") == b"x"
    # into a directory that is there, as the other file systems do
    fs.mv("lab/g/new/deep/f2", "lab/g/a")
    assert fs.cat_file("lab/g/a/f2") == b"x"
    fs.mv("lab/g/a", "lab/g/moved", recursive=True)
    assert fs.find("lab/g") == ["lab/g/moved/f2"]
    fs.cp("lab/g/moved", "lab/g/copied", recursive=True)
    assert fs.find("lab/g") == ["lab/g/copied/f2", "lab/g/moved/f2"]
    with pytest.raises(FileNotFoundError):
        fs.mv("lab/g/none", "lab/g/x")
    assert not fs.exists("lab/g/x")
    fs.touch("lab/g/touched")
    assert fs.size("lab/g/touched") == 0
    with pytest.raises(FileExistsError):
        fs.pipe_file("lab/g/touched", b"x", mode="create")
    fs.rm(["lab/g/touched", "lab/g/copied/f2"])
    fs.pipe_file("lab/g/moved/deep/er/f", b"x")
    # so many levels are meant, and no more: what lies below them isn't taken along
    with pytest.raises(OSError, match="empty"):
        fs.rm("lab/g/moved", recursive=True, maxdepth=1)
    assert fs.exists("lab/g/moved/deep/er/f")
    fs.rm("lab/g", recursive=True)
    assert not fs.exists("lab/g")
    with pytest.raises(FileNotFoundError):
        fs.rm("lab/g", recursive=True)


def test_files_of_this_machine(fs: VdirFileSystem, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "f").write_bytes(CONTENT)
    fs.put(str(tmp_path / "in"), "lab/put", recursive=True)
    assert fs.find("lab/put") == ["lab/put/deep/f"]
    fs.get("lab/put", str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out" / "deep" / "f").read_bytes() == CONTENT


def test_errors_are_those_of_files(fs: VdirFileSystem, options: dict[str, str]) -> None:
    fs.makedirs("lab/h/d", exist_ok=True)
    for ask in (fs.info, fs.ls, fs.cat_file, fs.open, fs.rm_file, fs.modified, lambda p: fs.cp_file(p, "lab/h/y")):
        with pytest.raises(FileNotFoundError) as caught:
            ask("lab/h/none")
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(IsADirectoryError):
        fs.open("lab/h/d")
    with pytest.raises(OSError, match="is a directory"):
        fs.pipe_file("lab/h/d", b"x")
    with pytest.raises(OSError, match="the part"):
        fs.pipe_file("lab/h/../x", b"x")
    with pytest.raises(PermissionError):
        fs.pipe_file("lab/closed/x", b"x")
    with pytest.raises(ValueError, match="VirtualDirectory"):
        fs.ls("")
    # an error is no answer: nobody takes a file for absent because nobody could be asked
    wrong = VdirFileSystem(**(options | {"password": "wrong"}), skip_instance_cache=True)
    for ask in (wrong.exists, wrong.isfile, wrong.isdir, wrong.find):
        with pytest.raises(PermissionError):
            ask("lab/h/d")


def test_a_gateway_that_is_away(fs: VdirFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise Transient("it doesn't answer")

    monkeypatch.setattr(fs._at("lab")[0], "_send", away)
    for ask in (fs.exists, fs.isfile, fs.info, fs.find):
        with pytest.raises(OSError, match="doesn't answer"):
            ask("lab/x")


def test_it_goes_to_other_processes(fs: VdirFileSystem) -> None:
    fs.pipe_file("lab/pickled", b"x")
    other = pickle.loads(pickle.dumps(fs))
    assert other.cat_file("lab/pickled") == b"x"
    assert PASSWORD not in repr(fs)


# -- what opens files by URL


def test_pandas(options: dict[str, str], fs: VdirFileSystem) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": range(1000), "b": [f"ü{n}" for n in range(1000)]})
    for name in ("x.csv", "x.csv.gz"):
        frame.to_csv(f"vdir://lab/pandas/{name}", index=False, storage_options=options)
        assert pd.read_csv(f"vdir://lab/pandas/{name}", storage_options=options).equals(frame)
    frame.to_parquet("vdir://lab/pandas/x.parquet", storage_options=options)
    assert pd.read_parquet("vdir://lab/pandas/x.parquet", storage_options=options).equals(frame)
    assert len(pd.read_parquet("vdir://lab/pandas/x.parquet", columns=["a"], storage_options=options)) == 1000
    frame.to_json("vdir://lab/pandas/x.json", storage_options=options)
    assert len(pd.read_json("vdir://lab/pandas/x.json", storage_options=options)) == 1000

    class Bad:
        def __str__(self) -> str:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pd.DataFrame({"a": [1] * 100_000 + [Bad()]}).to_csv("vdir://lab/pandas/bad.csv", storage_options=options)
    gc.collect()
    assert not fs.exists("lab/pandas/bad.csv")


def test_pyarrow(fs: VdirFileSystem) -> None:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    table = pa.table({"year": [2020, 2021] * 500, "n": range(1000), "s": ["x" * 50] * 1000})
    ds.write_dataset(table, "lab/arrow", filesystem=fs, format="parquet", partitioning=["year"])
    assert len(fs.find("lab/arrow")) == 2
    found = ds.dataset("lab/arrow", filesystem=fs, format="parquet", partitioning=["year"])
    assert found.count_rows() == 1000
    picked = found.to_table(columns=["n"], filter=ds.field("year") == 2021)
    assert sorted(picked["n"].to_pylist()) == list(range(1, 1000, 2))
    pq.write_table(table, "lab/arrow.parquet", filesystem=fs)
    assert pq.read_table("lab/arrow.parquet", filesystem=fs).equals(table)
    assert pq.read_metadata("lab/arrow.parquet", filesystem=fs).num_rows == 1000


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_dask(options: dict[str, str], fs: VdirFileSystem) -> None:
    import dask
    import dask.dataframe as dd
    import pandas as pd

    frame = pd.DataFrame({"a": range(1000), "b": [n % 7 for n in range(1000)]})
    with dask.config.set(scheduler="threads", num_workers=2):
        dd.from_pandas(frame, npartitions=3).to_parquet("vdir://lab/dask/p", storage_options=options)
        assert len(fs.glob("lab/dask/p/*.parquet")) == 3
        read = dd.read_parquet("vdir://lab/dask/p", storage_options=options)
        assert int(read.groupby("b").a.sum().compute().sum()) == sum(range(1000))
        dd.from_pandas(frame, npartitions=3).to_csv("vdir://lab/dask/c-*.csv", storage_options=options, index=False)
        read = dd.read_csv("vdir://lab/dask/c-*.csv", storage_options=options)
        assert int(read.a.sum().compute()) == sum(range(1000))
