"""Every case of the conformance suite for stores on every store: pass, or n/a for what is not declared."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pytest
from tests.contract.compute.emulator import moto_server
from tests.contract.one_at_a_time import one_at_a_time
from tests.testbed import azurite, davserver, gcsserver, s3server, sftpserver, swiftserver

from cloudmesh.data.stores.ports import POWERS
from cloudmesh.data.stores.sftp_link import Login
from cloudmesh.testing.stores import CASES, BaseHarness, Case, Harness, run_all, run_case, table
from cloudmesh.testing.stores.azure import AzureHarness
from cloudmesh.testing.stores.gcs import GcsHarness
from cloudmesh.testing.stores.local import LocalHarness
from cloudmesh.testing.stores.memory import MemoryHarness
from cloudmesh.testing.stores.s3 import S3Harness
from cloudmesh.testing.stores.sftp import SftpHarness
from cloudmesh.testing.stores.swift import SwiftHarness
from cloudmesh.testing.stores.webdav import WebdavHarness

Start = Callable[[asyncio.Runner], AbstractContextManager[Harness]]
Running = tuple[Harness, asyncio.Runner]


class Served(Harness, Protocol):
    """A harness with a proxy of its own."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@contextlib.contextmanager
def started(runner: asyncio.Runner, harness: Served) -> Iterator[None]:
    """Its proxy runs, on the loop of its cases."""
    runner.run(harness.start())
    try:
        yield
    finally:
        runner.run(harness.stop())


@contextlib.contextmanager
def s3(runner: asyncio.Runner) -> Iterator[Harness]:
    """versitygw behind the fault proxy."""
    with s3server.s3() as server:
        harness = S3Harness(server.url, s3server.ACCESS_KEY, s3server.SECRET_KEY)
        with started(runner, harness):
            yield harness


@contextlib.contextmanager
def moto(runner: asyncio.Runner) -> Iterator[Harness]:
    """moto behind the fault proxy."""
    with moto_server() as url:
        lacks = {"credentials": "it takes any credentials"}
        harness = S3Harness(url, "AKIAEXAMPLE", "s3cret-0815", "s3-moto", lacks)
        with started(runner, harness):
            yield harness


@contextlib.contextmanager
def azure(runner: asyncio.Runner) -> Iterator[Harness]:
    """Azurite behind the fault proxy."""
    with azurite.azurite() as server:
        harness = AzureHarness(server.url, azurite.ACCOUNT, azurite.KEY)
        with started(runner, harness):
            yield harness


@contextlib.contextmanager
def gcs(runner: asyncio.Runner) -> Iterator[Harness]:
    """fake-gcs-server behind the fault proxy, which does what it lacks."""
    with gcsserver.gcs() as server:
        harness = GcsHarness(server.url)
        with started(runner, harness):
            yield harness


@contextlib.contextmanager
def swift(runner: asyncio.Runner) -> Iterator[Harness]:
    """Swift behind the fault proxy."""
    with swiftserver.swift() as server:
        harness = SwiftHarness(server.url, swiftserver.USER, swiftserver.KEY)
        with started(runner, harness):
            yield harness


@contextlib.contextmanager
def sftp(runner: asyncio.Runner) -> Iterator[Harness]:
    """OpenSSH over a small file system of its own, behind the TCP proxy."""
    with sftpserver.sftp(room="128m") as server:
        login = Login(server.host, server.port, sftpserver.USER, server.host_key, private_key=server.client_key)
        harness = SftpHarness(login, server.path, server.files)
        with started(runner, harness):
            yield harness


@contextlib.contextmanager
def webdav(runner: asyncio.Runner) -> Iterator[Harness]:
    """Apache over a small file system of its own, behind the fault proxy."""
    with davserver.dav(room="128m") as server:
        harness = WebdavHarness(server.url, davserver.USER, davserver.PASSWORD, server.files)
        with started(runner, harness):
            yield harness


BACK_ENDS: dict[str, Start] = {
    "memory": lambda _: contextlib.nullcontext(MemoryHarness()),
    "memory-create": lambda _: contextlib.nullcontext(MemoryHarness("memory-create", "Create")),
    "memory-weak": lambda _: contextlib.nullcontext(MemoryHarness("memory-weak", "None")),
    "local": lambda _: contextlib.nullcontext(LocalHarness()),
    "local-plain": lambda _: contextlib.nullcontext(LocalHarness("local-plain", plain=True)),
    "azureBlob": azure,
    "gcs": gcs,
    "s3": s3,
    "s3-moto": moto,
    "sftp": sftp,
    "webdav": webdav,
    "swift": swift,
}


UNTRUE: dict[str, dict[str, str]] = {
    "s3-moto": {
        "absent/race-large": "it completes uploads whatever they are tied to",
        "tag/race-large": "it completes uploads whatever they are tied to",
        "presign/get": "it reads without a signature too",
        "sweep/young": "it says of each upload that it began in 2010",
    }
}
"""By back end, cases that fail by its own fault, and why."""
ELSEWHERE = {"s3-moto": ("broken/", "names/", "limits/", "close/", "write/killed")}
"""By back end, beginnings of cases that are about the store and not about the server: another server shows them."""


def cells() -> list[Any]:
    return [
        pytest.param(back_end, case, id=f"{back_end}-{case.id}")
        for back_end in BACK_ENDS
        for case in CASES.values()
        if not case.id.startswith(ELSEWHERE.get(back_end, ("-",)))
    ]


@contextlib.contextmanager
def running(back_end: str) -> Iterator[Running]:
    """A harness and the event loop that its cases run on."""
    with asyncio.Runner() as runner, BACK_ENDS[back_end](runner) as harness:
        yield harness, runner


@pytest.fixture(scope="module")
def back_ends() -> Iterator[Callable[[str], Running]]:
    """What runs under a name of `BACK_ENDS`."""
    with one_at_a_time(running) as get:
        yield get


@pytest.mark.parametrize(("back_end", "case"), cells())
def test_case(back_ends: Callable[[str], Running], back_end: str, case: Case) -> None:
    harness, runner = back_ends(back_end)
    result = runner.run(run_case(harness, case))
    if case.id in UNTRUE.get(harness.name, ()):
        assert result.outcome == "FAIL", "it has learned it: take it off the list"
        return
    assert result.outcome in ("pass", "n/a"), f"{case.title}\n{result.reason}\n{result.trace}"
    if result.outcome == "n/a":
        assert result.reason


def test_cases_of_one_back_end_share_it(back_ends: Callable[[str], Running]) -> None:
    first = back_ends("memory")
    assert back_ends("memory") is first and back_ends("memory-weak") is not first
    assert back_ends("memory") is not first


def test_there_are_enough_cases_and_each_says_something_of_its_own() -> None:
    assert len(CASES) >= 40
    titles = [case.title for case in CASES.values()]
    assert len(set(titles)) == len(titles)
    assert all(title.endswith(".") and "|" not in title for title in titles)
    assert {case.power for case in CASES.values()} == {"", *POWERS}


def test_only_s3_lacks_neither_network_nor_power_so_nearly_all_cases_really_run_on_it() -> None:
    harness = S3Harness("http://127.0.0.1:1", "key", "secret")
    assert set(harness.lacks) == {"read-only", "lag"}


def test_what_a_harness_can_not_do_fails() -> None:
    class Lazy(MemoryHarness):
        inject = BaseHarness.inject

    with asyncio.Runner() as runner:
        result = runner.run(run_case(Lazy(), CASES["broken/after"]))
    assert result.outcome == "FAIL" and "can't inject 'lose'" in result.reason


def test_the_table_has_a_row_a_case_and_a_note_for_what_does_not_apply() -> None:
    with asyncio.Runner() as runner:
        results = runner.run(run_all(MemoryHarness(), [CASES["write/one"], CASES["write/killed"]]))
    lines = table(results).splitlines()
    assert lines[0] == "| case | what must hold | memory |"
    assert lines[2].startswith("| `write/one` |") and lines[2].endswith("| pass |")
    assert lines[3].endswith("| n/a (1) |") and lines[-1] == "1. the store is in the process"
