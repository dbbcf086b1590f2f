"""A real gateway over memory stores, on loopback, in a thread with a loop of its own; and requests to it."""

from __future__ import annotations

import asyncio
import base64
import http.client
import itertools
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import bcrypt
import msgspec
from aiohttp import web

from cloudmesh.data import config as configs
from cloudmesh.data.client import Vdir
from cloudmesh.data.config import AuthConfig, DirectoryConfig, StoreConfig
from cloudmesh.data.gateway.auth import ApiServer
from cloudmesh.data.gateway.service import Gateway
from cloudmesh.data.gateway.settings import GatewaySettings
from cloudmesh.data.stores.memory import PLACES, Place

T = TypeVar("T")
USERS = ("ada", "bob")
PASSWORD = "correct horse"
HASHED = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
OPERATOR_TOKEN = "operator-token"
AUTH = AuthConfig(kubernetes=False, basic=dict.fromkeys(USERS, HASHED))
_numbers = itertools.count(1)


def basic(user: str = "ada", password: str = PASSWORD) -> str:
    """The `Authorization` of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and reason of a problem document."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), (self.headers, self.body)
        told = self.json
        assert told["status"] == self.status
        assert {"type", "title", "detail"} <= set(told)
        return self.status, told["reason"]


class Served:
    """One gateway.

    Args:
        folder: Where its configuration lies.
        stores: Names of its stores, on places that no other test has.
        api_server: URL of a Kubernetes API server.
        settings: Of the process.
        more: Members of the configuration.
    """

    def __init__(
        self,
        folder: Path,
        stores: tuple[str, ...] = ("one", "two"),
        api_server: str = "",
        settings: GatewaySettings = GatewaySettings(),  # noqa: B008 - it is frozen
        **more: Any,
    ) -> None:
        self._settings = settings
        number = f"{os.getpid()}-{next(_numbers)}"
        self._places = {name: f"{name}-{number}" for name in stores}
        self.config = DirectoryConfig(
            namespace="default", name="lab", uid="u", installation="i", operator_token=OPERATOR_TOKEN,
            stores=tuple(StoreConfig(name, "memory", {"place": at}) for name, at in self._places.items()),
            **({"auth": AUTH} | more),
        )  # fmt: skip
        # what these tests ask is not whether the disk keeps it, and its time would be most of theirs
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else folder)
        self._api_server = api_server
        self._file = folder / "config.json"
        self.gateway: Gateway
        self.port = 0

    def __enter__(self) -> Served:
        self._file.write_bytes(configs.dump(self.config))
        self.start()
        return self

    def start(self) -> None:
        """Serves, again on the same port if it did before."""
        up = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(up,), daemon=True)
        self._thread.start()
        assert up.wait(30)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ends the gateway; what lies in stores and catalogue stays."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop()
        self._folder.cleanup()
        for name in self._places.values():
            PLACES.pop(name, None)
        if self._failure is not None:
            raise self._failure

    def _run(self, up: threading.Event) -> None:
        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            api_server = ApiServer(self._api_server) if self._api_server else None
            async with Gateway(self._file, Path(self._folder.name), api_server, self._settings) as self.gateway:
                runner: web.AppRunner = await self.gateway.listen("127.0.0.1", self.port)
                self.port = runner.addresses[0][1]
                up.set()
                await self._stop.wait()
                await runner.cleanup()

        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - it is raised where the test is
            self._failure = error
        finally:
            up.set()

    @property
    def file(self) -> Path:
        """Where its configuration lies."""
        return self._file

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def place(self, store: str) -> Place:
        """What lies behind a store."""
        return PLACES[self._places[store]]

    def vdir(self, user: str = "ada", password: str = PASSWORD) -> Vdir:
        """A client."""
        return Vdir("lab", url=self.url, user=user, password=password)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something in the gateway's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def reconfigure(self, **changes: Any) -> None:
        """Gives it another configuration, as the operator does, without the wait."""
        self.config = msgspec.structs.replace(self.config, **changes)
        self._file.write_bytes(configs.dump(self.config))
        self.call(self.gateway.reconfigure(configs.dump(self.config)))

    def ask(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None, user: str = "ada"
    ) -> Answer:
        """One request, its target as it is; a dict as body is sent as JSON."""
        sent = dict(headers or {})
        if user:
            sent.setdefault("Authorization", basic(user))
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, body=body, headers=sent, encode_chunked=_chunked(body, sent))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def raw(self, head: str, body: bytes = b"") -> bytes:
        """Sends bytes as they are, and gives all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            line.sendall((head + "\nConnection: close\n\n").replace("\n", "\r\n").encode("latin-1") + body)
            return b"".join(iter(lambda: line.recv(65536), b""))

    def raw_status(self, head: str, body: bytes = b"") -> int:
        """The status of that."""
        answer = self.raw(head, body)
        return int(answer.split(b" ", 2)[1])

    def send_a_part(self, head: str, body: bytes) -> None:
        """Sends less than was announced, waits until it is there, and goes away."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            line.sendall((head + "\n\n").replace("\n", "\r\n").encode("latin-1") + body)
            until(lambda: self.call(self.gateway.catalog.intents(until=1 << 62)))


def _chunked(body: Any, headers: Mapping[str, str]) -> bool:
    return body is not None and headers.get("Transfer-Encoding") == "chunked"


def until(is_so: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Waits for something, and gives it."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline, "it didn't come"
        time.sleep(0.02)
    return found
