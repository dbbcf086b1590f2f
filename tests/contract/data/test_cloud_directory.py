"""A directory over a container of Azure and a bucket of Google, served by a gateway as the operator starts it."""

from __future__ import annotations

import asyncio
import base64
import signal
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.contract.data.test_gateway_process import Process
from tests.testbed import azurite, gcsserver

from cloudmesh.data import config as configs
from cloudmesh.data.config import PlacementRule, StoreConfig
from cloudmesh.testing.stores.azure import AzureHarness
from cloudmesh.testing.stores.gcs import GcsHarness

PREFIX = "physics/lab/"


@contextmanager
def elsewhere() -> Iterator[Any]:
    """An event loop in a thread: runs what it is given to its end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(120)

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def encoded(credentials: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in credentials.items()}


def files(truth: Mapping[str, bytes]) -> dict[str, bytes]:
    """What lies below the prefix, without the directory's own."""
    assert all(key.startswith(PREFIX) for key in truth)
    return {key[len(PREFIX) :]: content for key, content in truth.items() if "/.cloudmesh/" not in key}


def test_files_lie_at_both_and_are_read_while_one_is_down(tmp_path: Path) -> None:
    with azurite.azurite() as server, gcsserver.gcs() as google, elsewhere() as run:
        one, two = AzureHarness(server.url, azurite.ACCOUNT, azurite.KEY), GcsHarness(google.url)
        for harness in (one, two):
            run(harness.start())
            run(harness.open())
        recipes = ((one.recipe(), {"azure_storage_key": azurite.KEY.encode()}), (two.recipe(), two.credentials))
        stores = tuple(
            StoreConfig(made["kind"], made["kind"], made["settings"], encoded(keys), prefix=PREFIX)
            for made, keys in recipes
        )
        process = Process(tmp_path)
        rules = (PlacementRule("default", copies=2, min_copies=2),)
        process.config = msgspec.structs.replace(process.config, stores=stores, rules=rules, allow_private=True)
        process.file.write_bytes(configs.dump(process.config))
        large = bytes(range(256)) * (1 << 16) + b"end"
        try:
            vdir = process.start()
            vdir.write("a/b.csv", b"old")
            vdir.write("a/b.csv", b"content")
            vdir.write("large", large)
            vdir.write("dots./odd\\name.", b"odd")
            same = {"a/b.csv": b"content", "large": large}
            # each file under its own name, but for what Azure can't hold
            assert files(run(one.truth())) == {**same, "dots%2E/odd%5Cname%2E": b"odd"}
            assert files(run(two.truth())) == {**same, "dots./odd\\name.": b"odd"}
            server.stop()
            assert vdir.read("large") == large and vdir.read("a/b.csv") == b"content"
            server.start()
            assert process.stop(signal.SIGTERM) == 0
        finally:
            if process.process is not None and process.process.poll() is None:
                process.process.kill()
                process.process.wait()
            for harness in (one, two):
                run(harness.stop())
        assert not [word for word in (azurite.KEY, *two.secrets, *two.dialect.tokens) if word in process.log]
