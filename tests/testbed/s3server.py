"""Starts an S3 server for tests: a process of its own on a folder of its own."""

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
from tests.testbed.console import TestbedError

ACCESS_KEY, SECRET_KEY = "suite-access", "suite-secret-key-9a31"
START_SECONDS = 30.0


@contextlib.contextmanager
def versitygw(host: str = "127.0.0.1") -> Iterator[str]:
    """URL of a server; `ACCESS_KEY` and `SECRET_KEY` may do all.

    Args:
        host: Address of this machine that it listens on, such as the `host_address` of a cluster, for its Pods.
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    url = f"http://{host}:{port}"
    with tempfile.TemporaryDirectory(prefix="cloudmesh-s3-") as folder:
        data, log = Path(folder, "data"), Path(folder, "log")
        data.mkdir()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(artifacts.versitygw()), "--quiet", "--port", f"{host}:{port}", "posix", str(data)],
                env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
                stdout=out, stderr=out, cwd=folder,
            )  # fmt: skip
        try:
            end = time.monotonic() + START_SECONDS
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > end:
                    raise TestbedError(f"versitygw doesn't answer: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield url
        finally:
            process.kill()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it wants credentials
    except OSError:
        return False
