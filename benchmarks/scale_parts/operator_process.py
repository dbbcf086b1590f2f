"""The operator as a process of its own, beside the cluster's."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITE_VERBS = frozenset({"create", "update", "apply", "patch", "delete"})
_CALLS = re.compile(r'cloudmesh_api_calls_total\{code="(\d+)",kind="(\w+)",verb="(\w+)"\} ([\d.e+]+)')


class Operator:
    """One operator that serves one namespace.

    Args:
        kubeconfig: How it reaches the API server.
        namespace: What it serves, and where its Lease lies.
        workers: Reconciles at once.
    """

    def __init__(self, kubeconfig: Path, namespace: str, workers: int = 16) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._environ = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "CLOUDMESH_NAMESPACE": namespace,
            "CLOUDMESH_WATCH_NAMESPACES": namespace,
            "CLOUDMESH_HTTP_PORT": str(self.port),
            "CLOUDMESH_WORKERS": str(workers),
            "CLOUDMESH_LOG_LEVEL": os.environ.get("BENCH_LOG_LEVEL", "ERROR"),
            "PYTHONPATH": str(ROOT / "operator"),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it and returns when it is ready.

        Raises:
            RuntimeError: It ended.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cloudmesh.operator",
            stdout=sys.stderr,
            stderr=sys.stderr,
            env=self._environ,
            cwd=ROOT,
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self._process.returncode is not None:
                raise RuntimeError(f"the operator ended with {self._process.returncode}")
            try:
                await asyncio.to_thread(self._read, "/readyz")
            except (OSError, urllib.error.HTTPError):
                await asyncio.sleep(0.2)
            else:
                return
        raise RuntimeError("the operator isn't ready after 60 s")

    async def stop(self) -> None:
        """Ends it."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _read(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    async def writes(self) -> dict[str, int]:
        """Writes that went through since its start, by kind; without the Lease and Events."""
        text = await asyncio.to_thread(self._read, "/metrics")
        found: dict[str, int] = {}
        for code, kind, verb, value in _CALLS.findall(text):
            if verb in WRITE_VERBS and kind not in ("Lease", "Event") and code.startswith("2"):
                found[kind] = found.get(kind, 0) + int(float(value))
        return found

    def _status(self, field: str) -> float:
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
        raise ValueError(field)

    def peak_rss_mib(self) -> float:
        """The most memory it has had resident."""
        return self._status("VmHWM")

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
