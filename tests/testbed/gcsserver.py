"""Google Cloud Storage as fake-gcs-server plays it on this machine: it heeds few conditions and no credentials."""

from __future__ import annotations

import contextlib
import json
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

START_SECONDS = 30.0


class GcsServer:
    """fake-gcs-server on one port from its first start to its last.

    Args:
        host: Address of this machine that it listens on, such as the `host_address` of a cluster, for its Pods.
        folder: An empty one, for its log and, if it is to keep them, its files.
        keep: What it holds outlives it. A name can't be an object and the beginning of another one then.
    """

    def __init__(self, host: str, folder: Path, *, keep: bool = False) -> None:
        port = free_port(host)
        self.host, self.url = host, f"http://{host}:{port}"
        self._log = folder / "log"
        where = ["-backend", "filesystem", "-filesystem-root", str(folder / "data")] if keep else ["-backend", "memory"]
        self._command = [
            str(artifacts.fake_gcs_server()), "-scheme", "http", "-host", host, "-port", str(port), "-public-host",
            f"{host}:{port}", "-external-url", self.url, "-log-level", "warn", *where,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, or starts it again; returns when it answers."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=out)
        end = time.monotonic() + START_SECONDS
        while not _answers(self.url):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise TestbedError(f"fake-gcs-server doesn't answer: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it as a machine ends that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def bucket(self, name: str) -> None:
        """Makes a bucket."""
        body = json.dumps({"name": name}).encode()
        asked = urllib.request.Request(
            f"{self.url}/storage/v1/b?project=suite", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=20):
            pass


@contextlib.contextmanager
def gcs(host: str = "127.0.0.1", *buckets: str, keep: bool = False) -> Iterator[GcsServer]:
    """A server that runs, over a temporary folder; put `GcsDialect` in front of it."""
    with tempfile.TemporaryDirectory(prefix="cloudmesh-gcs-") as folder:
        server = GcsServer(host, Path(folder), keep=keep)
        try:
            server.start()
            for name in buckets:
                server.bucket(name)
            yield server
        finally:
            server.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_internal/healthcheck", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
