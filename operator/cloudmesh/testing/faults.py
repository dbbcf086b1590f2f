"""What can go wrong between a client and the API server, as rules that match calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cloudmesh.engine.errors import Transient
from cloudmesh.engine.kube.transport import Reply, Request, Transport

Action = Literal["answer", "hang", "drop", "lose", "cut", "expire"]
REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
    422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


@dataclass(slots=True)
class Fault:
    """One rule; the first that matches a call and isn't used up acts.

    Args:
        action: `answer` an error status; `hang`: never answer; `drop` the connection before the call is done; `lose`
            the answer of a call that was done; `cut` a watch after some events; `expire`: a watch tells 410.
        method: HTTP method, empty for any.
        path: Regular expression found in `path?query`.
        times: How often the rule acts; None for ever.
        skip: Matching calls to let through first.
        status: Code of `answer`.
        retry_after: Seconds, sent with `answer`.
        delay_seconds: Slows every matching call down, before the action; with action None it is all that happens.
        events: Events that pass before `cut` and `expire`.
    """

    action: Action | None = None
    method: str = ""
    path: str = ""
    times: int | None = 1
    skip: int = 0
    status: int = 500
    retry_after: float | None = None
    delay_seconds: float = 0.0
    events: int = 0
    hits: int = 0
    """How often it acted."""

    def matches(self, method: str, target: str) -> bool:
        """Whether this call is meant; counts what is let through."""
        if self.times is not None and self.hits >= self.times:
            return False
        if (self.method and self.method != method) or not re.search(self.path, target):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.hits += 1
        return True

    def body(self) -> bytes:
        """The `Status` object of an error answer."""
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": self.status,
            "reason": REASONS.get(self.status, ""),
            "message": f"injected {self.status}",
        }
        return json.dumps(status).encode()

    def headers(self) -> dict[str, str]:
        """Headers of an error answer."""
        return {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}


@dataclass(slots=True)
class Faults:
    """A list of rules that a transport and a proxy can share."""

    rules: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """`METHOD path?query` of each call that came by."""

    def add(self, action: Action | None = None, **rule: Any) -> Fault:
        """Adds a rule and returns it."""
        fault = Fault(action, **rule)
        self.rules.append(fault)
        return fault

    def clear(self) -> None:
        """Everything works again; calls that hang go on hanging."""
        self.rules.clear()

    def match(self, method: str, target: str) -> Fault | None:
        """The rule for a call."""
        self.calls.append(f"{method} {target}")
        return next((rule for rule in self.rules if rule.matches(method, target)), None)

    def count(self, pattern: str) -> int:
        """How many calls matched a regular expression."""
        return sum(1 for call in self.calls if re.search(pattern, call))


def target_of(path: str, query: Mapping[str, str]) -> str:
    """`path?query` as rules see it."""
    return path + ("?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else "")


class MadeReply:
    """An answer that no server gave."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def read(self) -> bytes:
        """The whole body."""
        return self._body

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The body's lines."""
        for line in self._body.splitlines(keepends=True):
            yield line

    def close(self) -> None:
        """Nothing to give up."""


class _CutReply:
    def __init__(self, reply: Reply, fault: Fault) -> None:
        self._reply = reply
        self._fault = fault
        self.status = reply.status
        self.headers = reply.headers

    async def read(self) -> bytes:
        return await self._reply.read()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        left = self._fault.events
        if left > 0:
            async with contextlib.aclosing(self._reply.lines()) as lines:
                async for line in lines:
                    yield line
                    left -= 1
                    if left <= 0:
                        break
        if self._fault.action == "expire":
            error = Fault(status=410).body()
            yield json.dumps({"type": "ERROR", "object": json.loads(error)}).encode() + b"\n"
            return
        raise Transient("injected: the watch broke off")

    def close(self) -> None:
        self._reply.close()


class FaultyTransport:
    """Puts faults in front of a transport.

    Args:
        transport: The one that works.
        faults: The rules; may be changed at any time.
    """

    def __init__(self, transport: Transport, faults: Faults) -> None:
        self._transport = transport
        self.faults = faults

    async def send(self, request: Request) -> Reply:
        """Sends a request unless a rule says otherwise."""
        target = target_of(request.path, request.query)
        fault = self.faults.match(request.method, target)
        if fault is None:
            return await self._transport.send(request)
        try:
            async with asyncio.timeout(request.timeout_seconds):
                if fault.delay_seconds:
                    await asyncio.sleep(fault.delay_seconds)
                return await self._act(fault, request)
        except TimeoutError as error:
            raise Transient(f"{request.method} {target}: time-out") from error

    async def close(self) -> None:
        """Closes the transport behind."""
        await self._transport.close()

    async def _act(self, fault: Fault, request: Request) -> Reply:
        match fault.action:
            case "answer":
                return MadeReply(fault.status, fault.body(), fault.headers())
            case "hang":
                await asyncio.Event().wait()
                raise AssertionError("unreachable")
            case "drop":
                raise Transient("injected: connection refused")
            case "lose":
                reply = await self._transport.send(request)
                await reply.read()
                reply.close()
                raise Transient("injected: connection lost before the answer")
            case "cut" | "expire":
                return _CutReply(await self._transport.send(request), fault)
            case None:
                return await self._transport.send(request)
