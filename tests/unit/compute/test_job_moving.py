"""Files of a directory on their way to machines and back: what is whole, what changed meanwhile, what is refused."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.compute.job_scene import Scene
from tests.unit.compute.ssh_server import Server, ssh_server
from tests.unit.compute.test_jobs import SWEEP, scenario

from cloudmesh.compute.jobs import moving
from cloudmesh.compute.jobs.moving import Inputs, Mover, Place, packed
from cloudmesh.compute.ssh import SshPool
from cloudmesh.engine import Conflict, InvalidRequest, NotFound, Transient
from cloudmesh.engine.directories import FileOf

PLACE = Place("ns", "lab", "raw")


class Shelf:
    """A directory in memory; see `engine.directories`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.there = dict(files)
        self.full = False
        self.down = False
        self.cut = 0
        """Reads end after so many bytes, and fail."""

    @contextlib.asynccontextmanager
    async def open(self, namespace: str, name: str) -> AsyncIterator[Shelf]:
        if name != "lab":
            raise NotFound(f"VirtualDirectory '{name}' isn't there")
        if self.down:
            raise Transient("VirtualDirectory 'lab' doesn't answer")
        yield self

    async def files(self, folder: str) -> AsyncIterator[FileOf]:
        for path, content in sorted(self.there.items()):
            if path.startswith(f"{folder}/"):
                yield FileOf(path[len(folder) + 1 :], len(content), str(hash(content)))

    async def read(self, path: str, tag: str) -> AsyncIterator[bytes]:
        content = self.there[path]
        if str(hash(content)) != tag:
            raise Conflict(f"'{path}' was changed")
        for start in range(0, len(content), 1000):
            if self.cut and start >= self.cut:
                raise Transient("it broke off")
            yield content[start : start + 1000]

    async def write(self, path: str, chunks: AsyncIterable[bytes], size: int) -> None:
        if self.full:
            raise InvalidRequest("VirtualDirectory 'lab': the quota is used up")
        content = b"".join([chunk async for chunk in chunks])
        assert len(content) == size
        self.there[path] = content


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[tuple[Server, SshPool]]:
    async with ssh_server(tmp_path) as running:
        pool = SshPool()
        yield running, pool
        await pool.close()


async def test_the_tar_is_one_that_others_read(tmp_path: Path) -> None:
    names = {"raw/a": b"", "raw/b/" + "ü" * 80 + "/c d": os.urandom(2049), "raw/-x": b"y" * 512}
    shelf = Shelf(names)
    inputs = Inputs(PLACE, [file async for file in shelf.files("raw")])
    whole = b"".join([chunk async for chunk in packed(shelf, inputs)])
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        found = {f"raw/{m.name}": archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert found == names
    subprocess.run(["tar", "-xf", "-", "-C", tmp_path], input=whole, check=True)
    assert {f"raw/{p.relative_to(tmp_path)}": p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == names


async def test_all_files_come_or_none(machine: tuple[Server, SshPool], tmp_path: Path) -> None:
    server, pool = machine
    shelf = Shelf({"raw/a": b"1" * 5000, "raw/b": b"2" * 5000})
    mover, folder = Mover(pool, shelf), str(tmp_path / "job/files")
    inputs = await mover.list(PLACE)
    shelf.cut = 3000
    with pytest.raises(Transient, match="broke off"):
        await mover.bring(inputs, server.target(), folder)
    assert not Path(folder).exists()
    shelf.cut = 0
    await mover.bring(inputs, server.target(), folder)
    assert {p.name: p.read_bytes() for p in Path(folder).iterdir()} == {"a": b"1" * 5000, "b": b"2" * 5000}
    shelf.there["raw/b"] = b"changed"
    # runs may be reading what is marked as whole
    Path(f"{folder}.ok").touch()
    await mover.bring(Inputs(PLACE, []), server.target(), folder)
    assert (Path(folder) / "b").read_bytes() == b"2" * 5000
    Path(f"{folder}.ok").unlink()
    with pytest.raises(Conflict, match="changed"):
        await mover.bring(inputs, server.target(), folder)
    assert mover.stale
    assert (await mover.list(PLACE)).digest != inputs.digest
    assert not mover.stale


async def test_too_many_files_are_refused_before_any_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "MOST_FILES", 3)
    mover = Mover(None, Shelf({f"raw/{n}": b"" for n in range(4)}))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="name a smaller folder"):
        await mover.list(PLACE)
    with pytest.raises(NotFound, match="serves no VirtualDirectories"):
        await Mover(None, None).list(PLACE)  # type: ignore[arg-type]


async def test_a_result_is_taken_as_long_as_it_was_told(machine: tuple[Server, SshPool], tmp_path: Path) -> None:
    server, pool = machine
    shelf = Shelf({})
    mover, file, content = Mover(pool, shelf), tmp_path / "result", os.urandom(3_000_000)
    file.write_bytes(content + b"and more came")
    await mover.fetch(server.target(), str(file), len(content), PLACE, "run-0000/result")
    assert shelf.there == {"raw/run-0000/result": content}
    with pytest.raises(Transient, match="became shorter"):
        await mover.fetch(server.target(), str(file), len(content) + 100, PLACE, "run-0000/result")
    with pytest.raises(Transient, match="No such file"):
        await mover.fetch(server.target(), str(tmp_path / "none"), 5, PLACE, "x")
    shelf.full = True
    with pytest.raises(InvalidRequest, match="quota"):
        await mover.fetch(server.target(), str(file), len(content), PLACE, "x")
    assert shelf.there == {"raw/run-0000/result": content}


async def test_what_a_program_writes_comes_piece_by_piece(machine: tuple[Server, SshPool]) -> None:
    server, pool = machine
    pieces = [len(p) async for p in pool.stream(server.target(), ["head", "-c", "3000000", "/dev/zero"])]
    assert sum(pieces) == 3_000_000
    assert max(pieces) < 3_000_000
    with pytest.raises(Transient, match="bad luck"):
        async for _ in pool.stream(server.target(), ["sh", "-c", "echo bad luck >&2; exit 3"]):
            pass


async def test_an_input_that_fails_ends_the_command(machine: tuple[Server, SshPool]) -> None:
    server, pool = machine

    async def broken() -> AsyncIterator[bytes]:
        yield b"a" * 100_000
        raise Conflict("nothing more comes")

    with pytest.raises(Conflict, match="nothing more"):
        await pool.run(server.target(), ["sh", "-c", "cat >/dev/null; sleep 60"], stdin=broken(), seconds=30)


OUTPUTS: dict[str, Any] = {"paths": ["*.bin"], "directoryRef": {"name": "lab"}}


def test_results_that_a_directory_refuses_stay_and_are_told() -> None:
    async def body() -> None:
        scene, shelf = Scene(), Shelf({})
        shelf.full = True
        scene.ssh.outputs = {"model.bin": b"weights"}
        scene.apply(**SWEEP, outputs=OUTPUTS)
        async with scene.operator() as engine:
            engine.directories = shelf  # type: ignore[assignment]
            status = await scene.ended()
        first = status["runs"][0]
        assert first["state"] == "Done"
        assert "outputPath" not in first
        assert "not taken, left on" in first["message"]
        assert "the quota is used up" in first["message"]

    scenario(body)


def test_a_run_isnt_done_before_its_results_are_in_the_directory() -> None:
    async def body() -> None:
        scene, shelf = Scene(), Shelf({})
        shelf.down = True
        scene.ssh.outputs = {"model.bin": b"weights"}
        scene.apply(arguments=["x"], outputs=OUTPUTS)
        async with scene.operator() as engine:
            engine.directories = shelf  # type: ignore[assignment]
            await scene.until(lambda: "doesn't answer" in scene.condition().get("message", ""))
            assert not scene.status().get("endedAt")
            shelf.down = False
            status = await scene.ended()
        assert status["runs"][0]["outputPath"] == "sweep/run-0000"
        assert shelf.there == {"sweep/run-0000/model.bin": b"weights"}

    scenario(body)
