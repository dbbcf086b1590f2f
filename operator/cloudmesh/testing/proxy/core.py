"""The proxy itself: rules chosen by operation and ordinal, and a record of what went through."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Protocol

import aiohttp
from aiohttp import web
from yarl import URL

Action = Literal["answer", "answer_after", "cut_before", "cut_after", "hang", "delay", "duplicate", "stale", "garbage"]
MAX_BODY = 32 << 20
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length", "content-encoding"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a dialect reads it.

    Args:
        operation: The cloud's name of it, such as `RunInstances`.
        method: HTTP method.
        target: Path and query.
        parameters: Decoded parameters.
        headers: Headers of the request.
        body: Its body.
    """

    operation: str
    method: str
    target: str
    parameters: Mapping[str, Any]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer on its way to the client."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Rule:
    """One fault; the first rule that matches a call and isn't used up acts.

    Args:
        action: `answer` with an error of the cloud, `answer_after` although the back end has acted; `cut_before`: the
            back end never hears of it; `cut_after`: it acts, and the connection breaks before the answer; `hang`: no
            answer ever; `delay`: the back end acts at once and its answer comes late; `duplicate`: it gets the request
            twice; `stale`: the last answer to the same operation from before; `garbage`: a page of HTML.
        operation: Regular expression for the whole name of the operation.
        times: How often it acts, None for ever.
        skip: Matching calls to let through first.
        status: HTTP status of `answer` and `garbage`.
        code: The cloud's error code of `answer`.
        message: The cloud's words.
        retry_after: Seconds, sent as header of `answer`.
        seconds: Of `delay`.
        when: Looks at the call besides; None for all calls of the operation.
        hits: How often it acted.
    """

    action: Action
    operation: str = ".*"
    times: int | None = 1
    skip: int = 0
    status: int = 400
    code: str = ""
    message: str = "injected by the fault proxy"
    retry_after: float | None = None
    seconds: float = 0.0
    when: Callable[[Call], bool] | None = None
    hits: int = 0

    def matches(self, call: Call) -> bool:
        """Whether it acts on this call; counts."""
        if self.times is not None and self.hits >= self.times:
            return False
        if not re.fullmatch(self.operation, call.operation) or (self.when is not None and not self.when(call)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class Dialect(Protocol):
    """What the proxy must know of one cloud's protocol."""

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Names the operation and decodes its parameters."""

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        """The cloud's own form of an error."""

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        """Answers a call: by the back end, mended where the emulator is known to be wrong."""


class Upstream(Protocol):
    """Sends a call to the back end."""

    async def __call__(self, call: Call) -> Answer:
        """The back end's own answer."""


class FaultProxy:
    """An HTTP server on loopback in front of a back end; use with `async with`.

    Args:
        upstream: Base URL of the back end.
        dialect: The cloud's protocol.
        keep_host: The back end gets the header Host as it came, since the client has signed it.
    """

    def __init__(self, upstream: str, dialect: Dialect, *, keep_host: bool = False) -> None:
        self._base = upstream.rstrip("/")
        self._dropped = {*_HOP_BY_HOP, "expect"} | (set() if keep_host else {"host"})
        self.dialect = dialect
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._last: dict[str, Answer] = {}
        self.rules: list[Rule] = []
        self.calls: list[tuple[Call, int]] = []
        """Each call with the status it got; 0 where the connection was cut."""
        self.received: list[Call] = []
        """Each call as it came in."""
        self.url = ""

    def add(self, action: Action, operation: str = ".*", **rule: Any) -> Rule:
        """Adds a rule and returns it."""
        made = Rule(action, operation, **rule)
        self.rules.append(made)
        return made

    def clear(self) -> None:
        """Everything works again; calls that hang go on hanging."""
        self.rules.clear()

    def count(self, operation: str) -> int:
        """How many calls of an operation (a regular expression) came by."""
        return sum(1 for call, _ in self.calls if re.fullmatch(operation, call.operation))

    async def __aenter__(self) -> FaultProxy:
        self._session = aiohttp.ClientSession(auto_decompress=True, timeout=aiohttp.ClientTimeout(total=120))
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def send(self, call: Call) -> Answer:
        """Sends a call to the back end as it is."""
        if self._session is None:
            raise RuntimeError("the proxy isn't started")
        headers = {name: value for name, value in call.headers.items() if name.lower() not in self._dropped}
        url = URL(self._base + call.target, encoded=True)  # as it came, since it may be signed
        async with self._session.request(
            call.method, url, data=io.BytesIO(call.body) if call.body else b"", headers=headers, allow_redirects=False,
            skip_auto_headers=("Content-Type",),  # one that wasn't there would not be signed
        ) as reply:  # fmt: skip
            hidden = _HOP_BY_HOP - {"content-length"} if call.method == "HEAD" else _HOP_BY_HOP
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in hidden}
            return Answer(reply.status, await reply.read(), kept)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = self.dialect.read(request.method, request.path_qs, dict(request.headers), body)
        self.received.append(call)
        rule = next((rule for rule in self.rules if rule.matches(call)), None)
        answer = await self._act(rule, call)
        self.calls.append((call, answer.status if answer is not None else 0))
        if answer is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)  # nobody hears it
        return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))

    async def _act(self, rule: Rule | None, call: Call) -> Answer | None:
        """The answer, None for a cut connection."""
        if rule is None:
            return await self._serve(call)
        match rule.action:
            case "answer":
                return self._refusal(rule, call)
            case "garbage":
                page = b"<!doctype html><html><body><h1>Internal Server Error</h1></body></html>"
                return Answer(rule.status, page, {"Content-Type": "text/html"})
            case "cut_before":
                return None
            case "hang":
                await asyncio.Event().wait()
            case "stale" if call.operation in self._last:
                return self._last[call.operation]
            case "duplicate":
                await self._serve(call)
            case _:
                pass  # acts on the answer
        answer = await self._serve(call)
        match rule.action:
            case "delay":
                await asyncio.sleep(rule.seconds)
            case "cut_after":
                return None
            case "answer_after":
                return self._refusal(rule, call)
            case _:
                pass
        return answer

    async def _serve(self, call: Call) -> Answer:
        answer = await self.dialect.serve(call, self.send)
        self._last[call.operation] = answer
        return answer

    def _refusal(self, rule: Rule, call: Call) -> Answer:
        made = self.dialect.error(call, rule.status, rule.code, rule.message)
        if rule.retry_after is None:
            return made
        return replace(made, headers={**made.headers, "Retry-After": f"{rule.retry_after:g}"})
