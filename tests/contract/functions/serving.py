"""A function served by a process of its own on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from tests.testbed.ports import free_port

ROOT = Path(__file__).parents[3]


class Served:
    """`python -m cloudmesh_function` with a folder as its application; a context manager.

    Args:
        folder: function.py, function.json and openapi.json.
        ready: wait for /readyz to answer 200, else only for it to answer at all.
        environment: more variables.
    """

    def __init__(self, folder: Path, *, ready: bool = True, **environment: str) -> None:
        self.folder = folder
        self.ready = ready
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log.txt"
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "operator"),
            "CLOUDMESH_APP_DIR": str(folder),
            "CLOUDMESH_HOST": "127.0.0.1",
            "CLOUDMESH_PORT": str(self.port),
            **environment,
        }

    def __enter__(self) -> Served:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloudmesh_function"], env=self._environment, stdout=log, stderr=log, cwd="/"
            )
        begun = time.monotonic()
        while True:
            try:
                answer = httpx.get(f"{self.url}/readyz", timeout=5)
                if answer.status_code == 200 or not self.ready:
                    return self
            except httpx.TransportError:
                pass
            if self.process.poll() is not None or time.monotonic() > begun + 30:
                self.stop()
                raise AssertionError(f"the function doesn't come up:\n{self.log.read_text()}")
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Ends the process at once, after what runs; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
