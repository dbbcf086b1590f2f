"""fsspec's own tests of file systems, on `vdir://` through a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract
from tests.unit.data.gateway_scene import PASSWORD, Served

from cloudmesh.data.fs import VdirFileSystem


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("gateway")) as served:
        yield served


class Fixtures(abstract.BaseAbstractFixtures):
    @pytest.fixture
    def fs(self, served: Served) -> VdirFileSystem:
        return VdirFileSystem(endpoint_url=served.url, user="ada", password=PASSWORD, skip_instance_cache=True)

    @pytest.fixture
    def fs_path(self, fs: VdirFileSystem) -> Iterator[str]:
        fs.makedirs("lab/work")
        yield "lab/work"
        fs.rm("lab/work", recursive=True)

    @pytest.fixture
    def fs_join(self):
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_sanitize_path(self):
        return lambda path: path

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return True

    @pytest.fixture
    def local_fs(self) -> LocalFileSystem:
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def local_join(self):
        return lambda *parts: "/".join(map(str, parts))

    @pytest.fixture
    def local_path(self, tmp_path: Path) -> str:
        return str(tmp_path)


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass
