"""An S3 server that tests and the demo start on this machine: each bucket is a folder, each object a plain file."""

from __future__ import annotations

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

ACCESS_KEY, SECRET_KEY = "suite-access", "suite-secret-key-9a31"
"""They may do all."""
START_SECONDS = 30.0


class S3Server:
    """versitygw over a folder, on one port from its first start to its last.

    Args:
        host: Address of this machine that it listens on, such as the `host_address` of a cluster, for its Pods.
        folder: An empty one, for its files and its log.
        buckets: Made before it starts.
    """

    def __init__(self, host: str, folder: Path, *buckets: str) -> None:
        port = free_port(host)
        self.host, self.url = host, f"http://{host}:{port}"
        self._folder, self._log = folder, folder / "log"
        self._command = [
            str(artifacts.versitygw()), "--quiet", "--port", f"{host}:{port}", "posix", str(folder / "data"),
        ]  # fmt: skip
        for name in ("data", *(f"data/{bucket}" for bucket in buckets)):
            (folder / name).mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, or starts it again over what it held; returns when it answers."""
        keys = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **keys}, stdout=out, stderr=out, cwd=self._folder
            )
        end = time.monotonic() + START_SECONDS
        while not _answers(self.url):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise TestbedError(f"versitygw doesn't answer: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it as a machine ends that loses its power; what it holds stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def file(self, bucket: str, key: str) -> Path:
        """The file that is an object."""
        return self._folder / "data" / bucket / key


@contextlib.contextmanager
def s3(host: str = "127.0.0.1", *buckets: str) -> Iterator[S3Server]:
    """A server that runs, over a temporary folder; `ACCESS_KEY` and `SECRET_KEY` may do all."""
    with tempfile.TemporaryDirectory(prefix="cloudmesh-s3-") as folder:
        server = S3Server(host, Path(folder), *buckets)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it wants credentials
    except OSError:
        return False
