"""Reads sources in a limited subprocess that is kept warm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cloudmesh
import cloudmesh_function
from cloudmesh.functions.signatures import MAX_SOURCE, Expose, Parsed, SourceError
from cloudmesh.functions.signatures.verdicts import PassingError
from cloudmesh_function import openapi

SECONDS: Final = 5.0
"""Wall time for one source; processor time ends earlier."""
START_SECONDS: Final = 20.0
WORKERS: Final = 2
_OVER_LIMIT: Final = (-signal.SIGXCPU, -signal.SIGSEGV, -signal.SIGABRT)
_MAX_USES: Final = 1000
_MAX_ANSWER: Final = 64 * 1024 * 1024


class Sandbox:
    """Warm subprocesses; each reads one source after another, so that a slow one doesn't hold up the others.

    Args:
        seconds: wall time for one source, from when a subprocess has it.
        workers: subprocesses at most; one is started when all others are busy.
    """

    def __init__(self, seconds: float = SECONDS, workers: int = WORKERS) -> None:
        self._workers = [_Worker(seconds) for _ in range(workers)]
        self._idle = list(reversed(self._workers))
        self._free = asyncio.Semaphore(workers)

    async def parse(
        self,
        source: str,
        *,
        name: str,
        module: str,
        expose: Expose | None = None,
        base_path: str = "/cloudmesh",
        requirements: Sequence[str] | None = None,
    ) -> Parsed:
        """`cloudmesh.functions.signatures.read` in the subprocess; same arguments, same errors.

        Raises:
            SourceError: the source can't be served, or reading it needs more memory or time than allowed.
            OSError: the subprocess can't be started.
        """
        if len(source) > MAX_SOURCE:
            raise SourceError(0, 0, f"the source has {len(source)} characters, at most {MAX_SOURCE} are allowed")
        request = {
            "source": source,
            "name": name,
            "module": module,
            "expose": (expose or Expose()).to_json(),
            "base_path": base_path,
            "requirements": None if requirements is None else list(requirements),
        }
        data = json.dumps(request).encode()
        async with self._free:
            worker = self._idle.pop()
            try:
                answer = await worker.ask(data)
            finally:
                self._idle.append(worker)  # the next source gets the one that is warm
        return _parsed(answer)

    async def close(self) -> None:
        """Ends the subprocesses."""
        for worker in self._workers:
            await worker.stop()


class _Worker:
    """One subprocess.

    Args:
        seconds: wall time for one source.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.process: asyncio.subprocess.Process | None = None
        self._uses = 0

    async def ask(self, data: bytes) -> dict[str, Any]:
        process = await self._running()
        try:
            async with asyncio.timeout(self._seconds):
                self._uses += 1
                return await _exchange(process, data)
        except TimeoutError as error:
            await self.stop()
            raise PassingError(
                1, 1, f"reading the source takes longer than {self._seconds:g} s: make it shorter or its types simpler"
            ) from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await self.stop()
            definite = process.returncode in _OVER_LIMIT
            raise (SourceError if definite else PassingError)(
                1, 1, "reading the source takes too much time or memory: make it shorter or its types simpler"
            ) from error
        except BaseException:
            # an answer that nobody waits for any more must not become the next one's
            await self.stop()
            raise

    async def _running(self) -> asyncio.subprocess.Process:
        if self.process is not None and (self.process.returncode is not None or self._uses >= _MAX_USES):
            await self.stop()
        if self.process is None:
            places = {str(Path(str(package.__file__)).parent.parent) for package in (cloudmesh, cloudmesh_function)}
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-s",
                "-m",
                "cloudmesh.functions.signatures.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd="/",
                env={
                    "PYTHONPATH": os.pathsep.join(sorted(places)),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PATH": os.defpath,
                    "LC_ALL": "C.UTF-8",
                },
            )
            self._uses = 0
            try:
                async with asyncio.timeout(START_SECONDS):
                    await _receive(self.process)
            except (TimeoutError, asyncio.IncompleteReadError) as error:
                await self.stop()
                raise OSError("the subprocess that reads sources doesn't start") from error
            except BaseException:
                await self.stop()
                raise
        return self.process

    async def stop(self) -> None:
        """Ends the subprocess."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # not process.kill(): that one may reap the child before asyncio's watcher does
                os.kill(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
        with contextlib.suppress(Exception):
            process._transport.close()  # type: ignore[attr-defined]


async def _exchange(process: asyncio.subprocess.Process, data: bytes) -> dict[str, Any]:
    if process.stdin is None:
        raise ConnectionError("the subprocess has no pipes")
    process.stdin.write(struct.pack(">I", len(data)) + data)
    await process.stdin.drain()
    return await _receive(process)


async def _receive(process: asyncio.subprocess.Process) -> dict[str, Any]:
    if process.stdout is None:
        raise ConnectionError("the subprocess has no pipes")
    (size,) = struct.unpack(">I", await process.stdout.readexactly(4))
    if size > _MAX_ANSWER:
        raise ConnectionError("the answer is too long")
    found: dict[str, Any] = json.loads(await process.stdout.readexactly(size))
    return found


def _parsed(answer: dict[str, Any]) -> Parsed:
    if "error" in answer:
        line, column, message = answer["error"]
        raise SourceError(int(line), int(column), str(message))
    document = json.loads(answer["canonical"])
    return Parsed(
        document=document,
        operations=openapi.operations(document),
        imports=list(answer["imports"]),
        warnings=list(answer["warnings"]),
        canonical_openapi=answer["canonical"].encode(),
        import_positions={name: (line, column) for name, (line, column) in answer["positions"].items()},
    )


_shared: dict[int, Sandbox] = {}


async def parse(
    source: str,
    *,
    name: str,
    module: str,
    expose: Expose | None = None,
    base_path: str = "/cloudmesh",
    requirements: Sequence[str] | None = None,
) -> Parsed:
    """Reads a source in the subprocess that the running event loop shares.

    Raises:
        SourceError: the source can't be served.
    """
    return await _own().parse(
        source, name=name, module=module, expose=expose, base_path=base_path, requirements=requirements
    )


async def warm() -> None:
    """Starts the shared subprocess, so that the first source need not wait for it.

    Raises:
        OSError: it can't be started.
    """
    await _own().parse("def warm() -> None: ...\n", name="warm", module="warm")


def _own() -> Sandbox:
    loop = asyncio.get_running_loop()
    for key in [key for key in _shared if key != id(loop)]:
        # subprocesses of loops that are gone
        _shared.pop(key)
    return _shared.setdefault(id(loop), Sandbox())


async def close() -> None:
    """Ends the shared subprocess of the running event loop."""
    sandbox = _shared.pop(id(asyncio.get_running_loop()), None)
    if sandbox is not None:
        await sandbox.close()
