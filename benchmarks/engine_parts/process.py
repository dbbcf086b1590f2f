"""Starting, watching and ending the operators' processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
STARTED_CPU_SECONDS = 0.4
"""Both operators use more than that for their imports alone."""


class Process:
    """One replica of an operator.

    Args:
        module: `ours` or `peer`.
        kubeconfig: How it reaches the API server.
        namespace: The namespace it serves.
        environ: More variables.
    """

    def __init__(self, module: str, kubeconfig: Path, namespace: str, **environ: str) -> None:
        self.module = module
        self._environ = (
            os.environ
            | {
                "KUBECONFIG": str(kubeconfig),
                "CLOUDMESH_NAMESPACE": namespace,
                "CLOUDMESH_WATCH_NAMESPACES": namespace,
                "CLOUDMESH_HTTP_PORT": "0",
                "CLOUDMESH_LOG_LEVEL": os.environ.get("BENCH_LOG_LEVEL", "WARNING"),
                "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            }
            | environ
        )
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.handled = 0
        self.handled_at = 0.0
        self.started_at = 0.0

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> Process:
        """Starts it; the clock runs from here."""
        self.started_at = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"benchmarks.engine_parts.{self.module}",
            stdout=asyncio.subprocess.PIPE, stderr=sys.stderr, env=self._environ, cwd=ROOT,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        return self

    async def rest(self) -> None:
        """Returns when it has started and then hardly used a processor for three seconds: a standby that stands by."""
        calm_since, used = time.monotonic(), self.cpu_seconds()
        while used < STARTED_CPU_SECONDS or time.monotonic() - calm_since < 3.0:
            before = time.monotonic()
            await asyncio.sleep(0.25)
            now_used = self.cpu_seconds()
            if now_used - used > 0.15 * (time.monotonic() - before):
                calm_since = time.monotonic()
            used = now_used

    async def idle(self, objects: int, *, limit_seconds: float = 900.0) -> float:
        """Seconds from the start until all objects were handled and the process came to rest for two seconds.

        Raises:
            TimeoutError: It didn't.
        """
        busy_until = self.started_at
        used = self.cpu_seconds()
        while time.monotonic() - max(busy_until, self.handled_at) < 2.0 or self.handled < objects:
            if time.monotonic() - self.started_at > limit_seconds:
                raise TimeoutError(f"{self.module} has handled {self.handled} of {objects} in {limit_seconds:g} s")
            before = time.monotonic()
            await asyncio.sleep(0.25)
            now, now_used = time.monotonic(), self.cpu_seconds()
            if now_used - used > 0.1 * (now - before):
                busy_until = now
            used = now_used
        return max(busy_until, self.handled_at) - self.started_at

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_rss_mib(self) -> float:
        """The most memory it has had resident."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise ValueError("no VmHWM")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if it lives."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def wait(self) -> int:
        """Its exit code."""
        assert self._process is not None
        assert self._reader is not None
        code = await self._process.wait()
        await self._reader
        return code

    async def stop(self) -> None:
        """Ends it, by force after ten seconds."""
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.strip().isdigit():
                self.handled, self.handled_at = int(line), time.monotonic()
