"""The gateway as the operator starts it: a process over folders, its configuration in a file, killed in the middle."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.testbed.ports import free_port
from tests.unit.data.gateway_scene import AUTH, OPERATOR_TOKEN, PASSWORD, basic, until

from cloudmesh.data import config as configs
from cloudmesh.data.client import Vdir
from cloudmesh.data.config import DirectoryConfig, StoreConfig

ROOT = Path(__file__).parents[3]


class Process:
    """One gateway."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "config.json"
        stores = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            stores.append(StoreConfig(name, "local", mount=str(folder / name)))
        self.config = DirectoryConfig(
            "default", "lab", "u", "i", tuple(stores), auth=AUTH, operator_token=OPERATOR_TOKEN
        )
        self.file.write_bytes(configs.dump(self.config))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Vdir:
        """Starts it and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cloudmesh.data.gateway", "--config", str(self.file)),
                    *("--folder", str(self.folder / "catalog"), "--host", "127.0.0.1", "--port", str(self.port)),
                ],
                env={k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")}
                | {"PYTHONPATH": "operator"},
                cwd=ROOT,
                stderr=log,
                stdout=log,
            )
        until(self._ready, 60)
        return Vdir("lab", url=f"http://127.0.0.1:{self.port}", user="ada", password=PASSWORD)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    @property
    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text()

    def summary(self) -> dict:
        """What the operator sees."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/internal/summary", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"})
        body = json.loads(connection.getresponse().read())
        connection.close()
        return body

    def stop(self, number: signal.Signals) -> int:
        """Ends it."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    yield process
    if process.process is not None and process.process.poll() is None:
        process.process.kill()
        process.process.wait()


def test_it_is_killed_and_ended(process: Process) -> None:
    vdir = process.start()
    vdir.write("a/b", b"content")
    vdir.write("big", b"old")
    assert (process.folder / "one" / "a" / "b").read_bytes() == b"content"
    assert (process.folder / "two" / "a" / "b").read_bytes() == b"content"

    # killed while a client sends: what was there is there, the name is free, and nothing else lies in the stores
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as line:
        head = f"PUT /v1/files/big HTTP/1.1\r\nHost: x\r\nAuthorization: {basic()}\r\nContent-Length: 90000000\r\n\r\n"
        line.sendall(head.encode() + b"x" * 30_000_000)
        time.sleep(0.3)
        assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    vdir = process.start()
    assert vdir.read("big") == b"old"
    assert vdir.read("a/b") == b"content"
    assert vdir.stat("big")["version"] == 1
    vdir.write("big", b"new")
    for store in ("one", "two"):
        files = {
            str(p.relative_to(process.folder / store))
            for p in (process.folder / store).rglob("*") if p.is_file() and ".cloudmesh" not in p.parts
        }  # fmt: skip
        assert files == {"a/b", "big"}
        assert (process.folder / store / "big").read_bytes() == b"new"

    # ended in good order, at once though a client holds a connection open
    with socket.create_connection(("127.0.0.1", process.port), timeout=30):
        began = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 15
    assert "Traceback" not in process.log
    assert PASSWORD not in process.log

    # and it stands on the catalogue that is there
    vdir = process.start()
    assert vdir.read("big") == b"new"
    assert process.summary()["files"] == 2


def test_its_configuration_changes(process: Process) -> None:
    vdir = process.start()
    vdir.write("a", b"x")
    first = configs.dump(process.config)
    assert process.summary()["config"] == configs.fingerprint(first)
    (process.folder / "three").mkdir()
    more = (*process.config.stores, StoreConfig("three", "local", mount=str(process.folder / "three")))
    drained = (msgspec.structs.replace(more[0], access="Drain"), *more[1:])
    second = configs.dump(msgspec.structs.replace(process.config, stores=drained))
    process.file.write_bytes(second)
    until(lambda: process.summary()["config"] == configs.fingerprint(second))
    until(lambda: {c["store"] for c in vdir.where("a")["copies"] if c["state"] == "Whole"} == {"two", "three"})
    until(lambda: not (process.folder / "one" / "a").exists())
    # one that can't be used is told, and the old one stays
    process.file.write_bytes(b'{"name": 1}')
    until(lambda: process.summary()["error"])
    assert process.summary()["config"] == configs.fingerprint(second)
    assert vdir.read("a") == b"x"
    process.file.write_bytes(second)
    until(lambda: not process.summary()["error"])
    process.file.unlink()
    until(lambda: "can't be read" in process.summary()["error"])
    process.file.write_bytes(first)
    until(lambda: process.summary()["config"] == configs.fingerprint(first))
    assert process.summary()["error"] == ""
