"""Volumes, where a name can't be a file and a folder: an old object that is in the way is nobody's error."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloudmesh.data.catalog.journal import Journal
from cloudmesh.data.catalog.rebuild import Source, rebuild
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.config import DirectoryConfig, PlacementRule, StoreConfig
from cloudmesh.data.errors import Missing
from cloudmesh.data.mesh import Mesh
from cloudmesh.data.mover import Mover
from cloudmesh.data.tree import Tree, wall


class Scene:
    """A directory on two volumes."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        self.volumes = [folder / name for name in ("one", "two")]
        stores = []
        for volume in self.volumes:
            volume.mkdir()
            stores.append(StoreConfig(volume.name, "local", mount=str(volume), prefix="lab/"))
        rules = (PlacementRule(copies=2, min_copies=2, prefer="Sequential"),)
        self.config = DirectoryConfig(
            "ns", "lab", "uid", "installation", tuple(stores), rules, verify_seconds=0, **more
        )

    async def __aenter__(self) -> Scene:
        self.catalog = SqliteCatalog(self.folder / "catalog.sqlite")
        await self.catalog.open()
        self.mesh = Mesh(self.config, self.catalog, clock=time.monotonic)
        self.journal = Journal(self.catalog, self.mesh)
        self.tree = Tree(self.catalog, self.mesh, self.journal)
        await self.mesh.use(self.config)
        await self.mesh.settled()
        await self.journal.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.journal.stop()
        await self.mesh.close()
        await self.catalog.close()

    async def put(self, path: str, content: bytes) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        await self.tree.put(path, chunks(), size=len(content))

    async def files(self, tree: Tree | None = None, catalog: SqliteCatalog | None = None) -> dict[str, bytes]:
        """All files with what can be read of them."""
        found = {}
        for one in await (catalog or self.catalog).walk(""):
            if one.entry.kind == "File":
                _, chunks = await self.tree.read(one.path)
                found[one.path] = b"".join([piece async for piece in chunks])
        return found

    async def rebuilt(self) -> dict[str, str]:
        """Paths and digests in a catalogue that is made of the stores alone."""
        await self.journal.sync()
        catalog = SqliteCatalog(self.folder / "rebuilt.sqlite")
        await catalog.open()
        try:
            sources = [Source(m.name, m.config.prefix, m.store) for m in self.mesh.members.values()]
            await rebuild(sources, catalog, now=wall())
            found = {}
            for one in await catalog.walk("", copies=True):
                if one.entry.kind == "File":
                    assert {copy.state for copy in one.copies} == {"Whole"}, one
                    found[one.path] = one.entry.id
            return found
        finally:
            await catalog.close()

    async def there(self) -> dict[str, str]:
        return {one.path: one.entry.id for one in await self.catalog.walk("") if one.entry.kind == "File"}


@pytest.mark.parametrize("how", ["renamed", "deleted"])
async def test_a_directory_where_the_object_of_a_file_lies(tmp_path: Path, how: str) -> None:
    async with Scene(tmp_path) as scene:
        await scene.put("a", b"the file")
        await (scene.tree.move("a", "away") if how == "renamed" else scene.tree.delete("a"))
        await scene.put("a/b", b"below")
        await scene.put("a/deep/er/c", b"deeper")
        files = await scene.files()
        expected = {"a/b": b"below", "a/deep/er/c": b"deeper"} | ({"away": b"the file"} if how == "renamed" else {})
        assert files == expected
        for volume in scene.volumes:
            assert (volume / "lab/a").read_bytes() == b"the file"
            assert sorted(p.read_bytes() for p in (volume / "lab").glob("a.~*/**/*") if p.is_file()) == [
                b"below", b"deeper",
            ]  # fmt: skip
        assert await scene.rebuilt() == await scene.there()


@pytest.mark.parametrize("how", ["renamed", "deleted"])
async def test_a_file_where_objects_of_a_directory_lie(tmp_path: Path, how: str) -> None:
    async with Scene(tmp_path) as scene:
        await scene.put("a/b", b"below")
        await (scene.tree.move("a", "away") if how == "renamed" else scene.tree.delete("a", recursive=True))
        await scene.put("a", b"the file")
        expected = {"a": b"the file"} | ({"away/b": b"below"} if how == "renamed" else {})
        assert await scene.files() == expected
        assert all((volume / "lab/a/b").read_bytes() == b"below" for volume in scene.volumes)
        assert await scene.rebuilt() == await scene.there()
        # and again, over what lies beside its name by now
        await scene.put("a", b"another content")
        assert (await scene.files())["a"] == b"another content"


async def test_another_version_beside_the_first(tmp_path: Path) -> None:
    """Older contents are kept: the new one gets a key of its own, where the same may be in the way."""
    async with Scene(tmp_path, versions=3) as scene:
        await scene.put("a", b"the file")
        await scene.tree.move("a", "away")
        await scene.put("a/b", b"first")
        await scene.put("a/b", b"second")
        assert await scene.files() == {"a/b": b"second", "away": b"the file"}
        _, older = await scene.tree.versions("a/b")
        assert len(older) == 1


async def test_the_mover_finds_its_way_too(tmp_path: Path) -> None:
    """A copy that is made later meets the same."""
    async with Scene(tmp_path) as scene:
        await scene.put("a", b"the file")
        await scene.tree.move("a", "away")
        await scene.put("a/b", b"below")
        [copy] = [c for c in await scene.catalog.copies((await scene.tree.stat("a/b")).id) if c.store == "two"]
        (scene.volumes[1] / copy.key).unlink()
        await scene.tree.found_bad(copy, scene.mesh.members["two"], Missing("gone"))
        mover = Mover(scene.tree)
        while await mover.round():
            pass
        copies = await scene.catalog.copies((await scene.tree.stat("a/b")).id)
        assert [c.state for c in copies] == ["Whole", "Whole"]
        assert (scene.volumes[1] / copy.key).read_bytes() == b"below"


async def test_without_the_journal_the_names_come_back(tmp_path: Path) -> None:
    async with Scene(tmp_path) as scene:
        await scene.put("a", b"the file")
        await scene.tree.delete("a")
        await scene.put("a/b", b"below")
        await scene.journal.sync()
        for volume in scene.volumes:
            for record in (volume / "lab/.cloudmesh").glob("journal/*"):
                record.unlink()
            (volume / "lab/a").unlink()
        assert set(await scene.rebuilt()) == {"a/b"}
