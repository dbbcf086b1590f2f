"""Endpoints that are names: what they stand for counts, not how they read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cloudmesh.compute.endpoints import check_names
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import InvalidRequest


def resolve(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    async def getaddrinfo(self: Any, host: str, *_: Any, **__: Any) -> list[Any]:
        if host not in names:
            raise OSError("unknown")
        return [(2, 1, 6, "", (names[host], 0))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


INSIDE = [
    "127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "10.96.0.1", "::7f00:1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::", "fd00:ec2::254", "100.100.100.200", "0.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolve(monkeypatch, cloud=address)
    settings = ComputeSettings(forbidden_hosts=("10.96.0.1",))
    with pytest.raises(InvalidRequest, match="cloud leads to"):
        await check_names(["cloud"], settings)
    await check_names(["cloud"], ComputeSettings(allow_private_endpoints=True))


async def test_other_names_and_those_that_nobody_knows_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, cloud="198.51.100.7", campus="10.1.2.3", six="2001:db8::7", nat="64:ff9b::c633:6407")
    await check_names(["cloud", "campus", "six", "nat", "nobody"], ComputeSettings())
