"""Starts servers of stores on loopback, as processes of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.testbed import artifacts

ACCESS_KEY, SECRET_KEY = "suite-access", "suite-secret-key-9a31"
START_SECONDS = 30.0


@contextlib.contextmanager
def versitygw() -> Iterator[str]:
    """URL of an S3 server on a folder of its own; `ACCESS_KEY` and `SECRET_KEY` may do all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="cloudmesh-s3-") as folder:
        data, log = Path(folder, "data"), Path(folder, "log")
        data.mkdir()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(artifacts.versitygw()), "--quiet", "--port", f"127.0.0.1:{port}", "posix", str(data)],
                env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
                stdout=out, stderr=out, cwd=folder,
            )  # fmt: skip
        try:
            end = time.monotonic() + START_SECONDS
            while not _answers(port):
                assert process.poll() is None, f"versitygw ended at its start: {log.read_text()[-2000:]}"
                assert time.monotonic() < end, "versitygw doesn't answer"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it wants credentials
    except OSError:
        return False
