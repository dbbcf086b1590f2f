"""Azure Storage's blobs as Azurite plays them on this machine, over a folder."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.testbed import artifacts
from tests.testbed.console import TestbedError
from tests.testbed.ports import free_port

ACCOUNT = "suite"
KEY = base64.b64encode(b"suite-account-key-77c2").decode()
"""Whoever has it may do all."""
START_SECONDS = 60.0


class Azurite:
    """Azurite over a folder, on one port from its first start to its last.

    Args:
        host: Address of this machine that it listens on, such as the `host_address` of a cluster, for its Pods.
        folder: An empty one, for its files and its log.
    """

    def __init__(self, host: str, folder: Path) -> None:
        port = free_port(host)
        self.host = host
        self.url = f"http://{host}:{port}/{ACCOUNT}"
        self._log = folder / "log"
        self._command = [
            *artifacts.azurite(), "--blobHost", host, "--blobPort", str(port), "--location", str(folder / "data"),
            "--silent", "--disableTelemetry",
        ]  # fmt: skip
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, or starts it again over what it held; returns when it answers."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}, stdout=out, stderr=out,
                cwd=self._folder,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while not _answers(self.url):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise TestbedError(f"Azurite doesn't answer: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it and lets it write down what it holds, which it does at its end only."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def azurite(host: str = "127.0.0.1") -> Iterator[Azurite]:
    """A server that runs, over a temporary folder; `KEY` of `ACCOUNT` may do all."""
    with tempfile.TemporaryDirectory(prefix="cloudmesh-azurite-") as folder:
        server = Azurite(host, Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}?comp=list", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it wants credentials
    except OSError:
        return False
