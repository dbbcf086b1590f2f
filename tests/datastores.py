"""File stores that tests and the demo start on this machine: real servers over a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.testbed import artifacts

ACCESS, SECRET = "cloudmesh-tests", "not-a-secret-of-anybody"
START_SECONDS = 20


def free_port(host: str) -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])


class S3Server:
    """versitygw over a folder: each bucket is a folder in it, each object a file. Use with `with`.

    Args:
        host: Address to listen on.
        folder: Where the buckets lie.
        buckets: Made if they aren't there.
    """

    def __init__(self, host: str, folder: Path, *buckets: str) -> None:
        self.host, self.port = host, free_port(host)
        self.folder = folder / "data"
        self._beside = folder / "attributes"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        for bucket in buckets:
            (self.folder / bucket).mkdir(parents=True, exist_ok=True)
        self._beside.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Starts it, or starts it again; returns when it listens."""
        command = [
            str(artifacts.versitygw()), "--port", f"{self.host}:{self.port}", "posix",
            "--sidecar", str(self._beside), str(self.folder),
        ]  # fmt: skip
        environment = os.environ | {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command)} doesn't listen: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it as a machine ends that loses its power; what it holds stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def file(self, bucket: str, key: str) -> Path:
        """The file that is an object."""
        return self.folder / bucket / key

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()


@contextlib.contextmanager
def s3(host: str, *buckets: str) -> Iterator[S3Server]:
    """An S3 server over a temporary folder."""
    with (
        tempfile.TemporaryDirectory(prefix="cloudmesh-s3-") as folder,
        S3Server(host, Path(folder), *buckets) as server,
    ):
        yield server
