"""moto behind the fault proxy, one server for the whole run."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.contract.compute.emulator import moto_server

from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.aws import AwsDialect


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Base URL of a moto server of this run."""
    with moto_server() as url:
        yield url


@pytest_asyncio.fixture
async def aws(moto: str) -> AsyncIterator[FaultProxy]:
    """A proxy of this test's own, in front of an emulator without anything in it."""
    request = urllib.request.Request(moto + "/moto-api/reset", method="POST")
    with urllib.request.urlopen(request, timeout=30):
        pass
    async with FaultProxy(moto, AwsDialect()) as proxy:
        yield proxy
