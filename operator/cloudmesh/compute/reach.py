"""SSH that waits for no machine that is known to be gone: a connection tells of its other end's loss only later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from cloudmesh.compute.ssh import OUTPUT_BYTES, RUN_SECONDS, Input, Output, Ssh, SshTarget
from cloudmesh.engine import Transient

T = TypeVar("T")
LOOK_SECONDS = 1.0


class Reach:
    """See `ssh.Ssh`; all methods but `stream` raise Transient as soon as the target is gone.

    Args:
        ssh: How machines are reached.
        gone: Whether the machine of a name is gone.
    """

    def __init__(self, ssh: Ssh, gone: Callable[[str], bool]) -> None:
        self._ssh = ssh
        self._gone = gone

    async def run(
        self, target: SshTarget, argv: Sequence[str], *, stdin: Input = b"", seconds: float = RUN_SECONDS
    ) -> Output:
        """Runs a program and waits for its end."""
        return await self._while_there(target, self._ssh.run(target, argv, stdin=stdin, seconds=seconds))

    def stream(
        self, target: SshTarget, argv: Sequence[str], *, seconds: float = RUN_SECONDS
    ) -> AsyncGenerator[bytes, None]:
        """What a program writes; that the target is gone is seen by its connection, within half a minute."""
        return self._ssh.stream(target, argv, seconds=seconds)

    async def put(self, target: SshTarget, files: Mapping[str, bytes], *, mode: int = 0o600) -> None:
        """Writes files whole."""
        await self._while_there(target, self._ssh.put(target, files, mode=mode))

    async def get(self, target: SshTarget, path: str, *, limit: int = OUTPUT_BYTES) -> bytes | None:
        """The first `limit` bytes of a file; None if there is none."""
        return await self._while_there(target, self._ssh.get(target, path, limit=limit))

    async def _while_there(self, target: SshTarget, doing: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(doing)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
                if self._gone(target.name):
                    raise Transient(f"{target} is gone")
            return task.result()
        finally:
            task.cancel()
