"""An image built without a cluster has the digest that the builder gives it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.functions.bench import SOURCE, bench, make_settings, write_small_layout
from tests.unit.functions.fake_registry import FakeRegistry

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions import signatures
from cloudmesh.functions.builder.local import build_archive
from cloudmesh.functions.builder.requests import Body, ParseRequest


def _request(source: str = SOURCE) -> tuple[ParseRequest, signatures.Parsed]:
    request = ParseRequest.from_body(Body({"name": "stats", "module": "stats", "source": source}))
    return request, signatures.read(source, name="stats", module="stats")


def test_the_digest_is_the_builders(tmp_path: Path) -> None:
    write_small_layout(tmp_path / "layout")
    request, parsed = _request()
    output = tmp_path / "out.tar"
    local = build_archive(request, parsed, output, layout=tmp_path / "layout", cache=tmp_path / "cache")
    assert local.name == f"cloudmesh.local/fn/stats:{local.digest[7:19]}"
    assert output.stat().st_size > 1000

    async def remote() -> str:
        async with FakeRegistry().running() as registry, bench(make_settings(tmp_path, registry.host)) as builder:
            return str((await builder.build(builder.body()))["result"]["digest"])

    assert asyncio.run(remote()) == local.digest


def test_without_a_layout_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not an OCI layout"):
        build_archive(*_request(), tmp_path / "out.tar", layout=tmp_path / "none", cache=tmp_path)


def test_an_import_that_nothing_provides(tmp_path: Path) -> None:
    write_small_layout(tmp_path / "layout")
    with pytest.raises(signatures.SourceError, match="nosuch"):
        build_archive(
            *_request("import nosuch\n" + SOURCE), tmp_path / "out.tar", layout=tmp_path / "layout", cache=tmp_path
        )
