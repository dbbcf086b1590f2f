"""Starts moto, an emulator of EC2, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from tests.testbed.ports import free_port

SWITCHES = {
    # moto takes any type, image and key without them
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
}
START_SECONDS = 60.0


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Base URL of a server that answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **SWITCHES},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(url):
            assert process.poll() is None, "moto ended at its start"
            assert time.monotonic() < end, "moto doesn't answer"
            time.sleep(0.2)
        yield url
    finally:
        process.kill()  # it keeps nothing, and on a busy machine it takes its time to say goodbye
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/moto-api/data.json", timeout=5):
            return True
    except OSError:
        return False
