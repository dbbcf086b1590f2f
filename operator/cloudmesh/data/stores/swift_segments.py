"""Large objects of Swift: segments in a place of their own, and a manifest that is the object under its name.

An object of more than one part goes up as segments below `.cloudmesh/segments/KEY/UPLOAD/`; the manifest, put at the
end, makes it visible at once. Each upload's segments belong to one manifest only, so whatever replaces or deletes the
object can take them away. Manifests of manifests make objects larger than one of these can be.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cloudmesh.data.errors import Missing
from cloudmesh.data.stores.swift_auth import NoAnswer
from cloudmesh.data.stores.swift_client import Answer, SwiftClient, quoted
from cloudmesh.data.stores.threads import outlast
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, Transient, Unsupported

FOLDER: Final = ".cloudmesh/segments/"
"""Beginning of the keys of segments; no listing of the store shows them."""
TRIAL: Final = f"{FOLDER}trial"
FAN: Final = 1000
"""Segments of one manifest at most, as Swift has it unless configured otherwise."""
IN_FLIGHT: Final = 4
ABANDON_SECONDS: Final = 20.0
LOOKS: Final = (0.0, 0.3, 1.0)
"""Seconds before looks at what became of a manifest whose answer was lost."""
IS_LARGE: Final = "X-Static-Large-Object"
_KEY: Final = re.compile(re.escape(FOLDER) + r"(?P<key>.+)/(?P<upload>[0-9]{16}-[0-9a-f]{16})/[sm][0-9]{7}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a large object.

    Args:
        key: Its own key, in the same container.
        tag: Its entity tag.
        size: Bytes.
        nested: It is itself a manifest.
    """

    key: str
    tag: str
    size: int
    nested: bool = False


def upload_of(key: str) -> tuple[str, str] | None:
    """Key of the object and name of the upload that a segment belongs to; None if it is no segment."""
    found = _KEY.fullmatch(key)
    return (found["key"], found["upload"]) if found else None


async def gathered(chunks: AsyncIterator[bytes], part: int) -> AsyncGenerator[bytes, None]:
    """The content in parts of equal size but for the last."""
    held: list[bytes] = []
    size = 0
    async for chunk in chunks:
        view = memoryview(chunk)
        while view:
            taken = view[: part - size]
            held.append(bytes(taken))
            size, view = size + len(taken), view[len(taken) :]
            if size == part:
                yield b"".join(held)
                held, size = [], 0
    if size:
        yield b"".join(held)


async def segments_of(client: SwiftClient, key: str) -> list[Segment]:
    """The segments of a large object, depth first: each manifest within behind its own segments.

    Empty if it is no large object, or if one of its segments isn't ours: somebody else may need that one.

    Args:
        client: The container.
        key: Of the object.

    Raises:
        Missing: There is no such object.
        Transient: The manifest can't be read.
    """
    try:
        found = await _segments(client, key)
    except (ValueError, LookupError, TypeError) as error:
        raise Transient(f"{key}: the manifest can't be read") from error
    return found if all((of := upload_of(each.key)) is not None and of[0] == key for each in found) else []


async def _segments(client: SwiftClient, key: str) -> list[Segment]:
    # not `format=raw`, which doesn't tell manifests within from other segments
    answer = await client.look("GET", key, query={"multipart-manifest": "get"}, X_Newest="true")
    if answer.headers.get(IS_LARGE, "").lower() != "true":
        return []
    found: list[Segment] = []
    told: list[dict[str, Any]] = json.loads(answer.body)
    for each in told:
        container, _, inner = str(each["name"]).lstrip("/").partition("/")
        if container != client.container:
            return [Segment("", "", 0)]
        nested = bool(each.get("sub_slo"))
        if nested:
            found += await _segments(client, inner)
        found.append(Segment(inner, str(each["hash"]).strip('"'), int(each["bytes"]), nested))
    return found


class Upload:
    """One large object on its way, from its first segment to its manifest; `async with` takes back what isn't done.

    Args:
        client: The container.
        key: Of the object.
        fan: Segments of one manifest at most.
    """

    def __init__(self, client: SwiftClient, key: str, fan: int = FAN) -> None:
        self._client = client
        self._key = key
        self._fan = fan
        self.name = f"{time.time_ns() // 1000:016}-{secrets.token_hex(8)}"
        self._segments: dict[int, Segment] = {}
        self._made: list[str] = []
        self._running: set[asyncio.Task[None]] = set()
        self._undecided = self._late = False
        self._count = 0
        self.size = 0

    async def __aenter__(self) -> Upload:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await outlast(self._abandon())

    def _next(self, letter: str) -> str:
        made = f"{FOLDER}{self._key}/{self.name}/{letter}{len(self._made):07}"
        self._made.append(made)
        return made

    async def send(self, part: bytes) -> None:
        """Starts to send a segment when there is room; raises what an earlier one has raised."""
        digest = hashlib.md5(part, usedforsecurity=False).hexdigest()
        await self._begin(len(part), digest, {"ETag": digest}, part)

    async def fetch(self, segment: Segment) -> None:
        """Starts to have one copied inside the store."""
        source = quoted(f"{self._client.container}/{segment.key}")
        await self._begin(segment.size, segment.tag, {"X-Copy-From": source, "If-Match": f'"{segment.tag}"'}, b"")

    async def _begin(self, size: int, tag: str, headers: Mapping[str, str], body: bytes) -> None:
        key, number = self._next("s"), self._count
        self._count += 1
        self.size += size
        self._running.add(asyncio.create_task(self._send(number, Segment(key, tag, size), headers, body)))
        if len(self._running) >= IN_FLIGHT:
            await self._wait(asyncio.FIRST_COMPLETED)

    async def _send(self, number: int, segment: Segment, headers: Mapping[str, str], body: bytes) -> None:
        answer = await self._client.again("PUT", segment.key, headers=headers, body=body)
        confirmed(segment.key, answer, segment.tag)
        self._segments[number] = segment

    async def _wait(self, until: str) -> None:
        if not self._running:
            return
        done, self._running = await asyncio.wait(self._running, return_when=until)
        failed = [error for task in done if (error := task.exception()) is not None]
        if failed:
            raise failed[0]

    async def settled(self) -> None:
        """Waits until all segments are there."""
        await self._wait(asyncio.ALL_COMPLETED)

    async def publish(self, headers: Mapping[str, str]) -> str:
        """Puts the manifest, once all segments are there; gives the tag of the object."""
        await self.settled()
        level = [self._segments[number] for number in sorted(self._segments)]
        while len(level) > self._fan:
            groups = [level[at : at + self._fan] for at in range(0, len(level), self._fan)]
            level = [await self._nest(group) for group in groups]
        query, body = {"multipart-manifest": "put"}, self._manifest(level)
        self._undecided = True
        try:
            answer = await self._client.change("PUT", self._key, query=query, headers=headers, body=body,
                                               seconds=len(level) / 10)  # fmt: skip
        except NoAnswer:
            self._late = True
            raise
        except Transient:
            raise
        except CloudmeshError:
            self._undecided = False  # it was refused
            raise
        return confirmed(self._key, answer, _tag_of(level))

    async def _nest(self, group: Sequence[Segment]) -> Segment:
        key = self._next("m")
        answer = await self._client.again("PUT", key, query={"multipart-manifest": "put"}, headers={},
                                          body=self._manifest(group))  # fmt: skip
        return Segment(key, confirmed(key, answer, _tag_of(group)), sum(each.size for each in group), nested=True)

    def _manifest(self, segments: Iterable[Segment]) -> bytes:
        container = self._client.container
        return json.dumps(
            [{"path": f"/{container}/{s.key}", "etag": s.tag, "size_bytes": s.size} for s in segments]
        ).encode()

    async def _abandon(self) -> None:
        """Waits for what is under way, and takes the segments away; what fails here is left for a sweep."""
        for task in self._running:
            task.add_done_callback(_heed)
        if self._running:
            await asyncio.wait(self._running, timeout=ABANDON_SECONDS)
        with suppress(CloudmeshError, TimeoutError):
            async with asyncio.timeout(ABANDON_SECONDS):
                if not self._undecided or (not self._late and await self._surely_unpublished()):
                    await removed(self._client, self._made)

    async def _surely_unpublished(self) -> bool:
        """Whether no server has the manifest, after all answered and some time: else an object would lose its content.

        Raises:
            CloudmeshError: Nobody knows.
        """
        for seconds in LOOKS:
            await asyncio.sleep(seconds)
            try:
                kept = await segments_of(self._client, self._key)
            except Missing:
                continue
            if any(upload_of(each.key) == (self._key, self.name) for each in kept):
                return False
        return True


async def removed(client: SwiftClient, keys: Iterable[str]) -> None:
    """Deletes objects; absent ones are fine."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one(key: str) -> None:
        async with room:
            with suppress(Missing):
                await client.again("DELETE", key, headers={})

    results = await asyncio.gather(*(one(key) for key in keys), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def check_large(client: SwiftClient) -> None:
    """Makes sure that the server knows manifests: where it doesn't, one would be taken for the content itself.

    Raises:
        Unsupported: It doesn't.
    """
    try:
        await client.again("PUT", TRIAL, query={"multipart-manifest": "put"}, headers={}, body=b"no manifest")
    except InvalidRequest:
        return
    await removed(client, [TRIAL])
    raise Unsupported("this Swift has no static large objects (slo): it can't hold a file of more than one part")


def confirmed(key: str, answer: Answer, tag: str) -> str:
    """The tag of what was put, if the answer tells the one that is expected.

    Raises:
        Transient: It doesn't.
    """
    told = answer.headers.get("Etag", "").strip('"')
    if told != tag:
        raise Transient(f"{key}: the answer tells the entity tag {told!r}, not {tag!r}")
    return told


def _tag_of(segments: Iterable[Segment]) -> str:
    """Tag of a manifest: the MD5 of its segments' tags."""
    return hashlib.md5("".join(each.tag for each in segments).encode(), usedforsecurity=False).hexdigest()


def _heed(task: asyncio.Task[None]) -> None:
    """Hears an exception that nobody waits for."""
    if not task.cancelled():
        task.exception()
