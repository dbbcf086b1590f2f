"""moto behind the fault proxy, one server for the whole run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from cloudmesh.testing.proxy import FaultProxy
from cloudmesh.testing.proxy.aws import AwsDialect

SWITCHES = {
    # moto takes any type, image and key without them
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
}


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Base URL of a moto server of this run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **SWITCHES},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(url + "/moto-api/data.json", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, "moto ended at its start"
                assert time.monotonic() < end, "moto doesn't answer"
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest_asyncio.fixture
async def aws(moto: str) -> AsyncIterator[FaultProxy]:
    """A proxy of this test's own, in front of an emulator without anything in it."""
    request = urllib.request.Request(moto + "/moto-api/reset", method="POST")
    with urllib.request.urlopen(request, timeout=30):
        pass
    async with FaultProxy(moto, AwsDialect()) as proxy:
        yield proxy
