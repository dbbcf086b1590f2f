"""OpenStack Swift: one container. See `swift_segments` for objects of more than one part.

Swift publishes an object at once and refuses bytes that were damaged on their way. But it ties no write to a tag, and
of writers that want absence several may win: it looks only when a write begins. So the store is weak, its conditions
are looks as late as they can be. Its listings may come late too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import perf_counter, time
from typing import Any, Final
from urllib.parse import urlsplit

from yarl import URL

from cloudmesh.data.errors import Changed, Exists, Missing
from cloudmesh.data.stores import swift_segments as segments
from cloudmesh.data.stores.common import Limits, checked, fits, measured, secret_texts
from cloudmesh.data.stores.ports import CHUNK, Object, Ours, Page, Probe, StoreInfo
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.swift_auth import (
    APPLICATION_ID,
    APPLICATION_SECRET,
    PASSWORD,
    USER,
    Auth,
    NoAnswer,
    Tokens,
    auth_of,
)
from cloudmesh.data.stores.swift_client import PAUSE_SECONDS, TRIES, SwiftClient, quoted, told
from cloudmesh.data.stores.swift_words import micros, moment, packed, part_of, unpacked
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, RateLimited, Transient

LINK_KEY: Final = "temp_url_key"
KNOWN: Final = frozenset({USER, PASSWORD, APPLICATION_ID, APPLICATION_SECRET, LINK_KEY})
PART: Final = 8 << 20
"""Bytes of a part: what is larger goes up as segments."""
CALL_SECONDS: Final = 60.0
COPY_BYTES_A_SECOND: Final = 5 << 20
"""How slowly a copy inside the store may go."""
MOST_KEY: Final = 960
"""Bytes of a key: Swift's 1,024 without what names of segments have besides."""
NEWEST: Final = {"X-Newest": "true"}
LINK_SECONDS: Final = 7 * 86400
MOST_ROWS: Final = 10_000
CONTROLS: Final = "".join(map(chr, (*range(1, 32), 127)))
"""Swift holds them, but many of its clients don't."""
Rows = list[Object]
Keys = list[str]


class SwiftStore:
    """One container.

    Args:
        auth: The login.
        container: Its name.
        name: Of the store.
        domain: Host of the login: stores of the same one are lost together.
        limits: Of requests and bytes.
        part: Bytes of a part.
        fan: Segments of one manifest at most.
        call_seconds: Time without a byte after which a request is given up.
        guard: Says where connections may go, to the login and to the storage that it names.
        secure: The storage must be reached by TLS, as the login is.
    """

    def __init__(
        self,
        auth: Auth,
        container: str,
        *,
        name: str = "swift",
        domain: str = "",
        limits: Limits | None = None,
        part: int = PART,
        fan: int = segments.FAN,
        call_seconds: float = CALL_SECONDS,
        guard: Guard = ANYWHERE,
        secure: bool = False,
    ) -> None:
        self._name = name
        self._limits = limits or Limits()
        self._part = part
        self._fan = fan
        self._client = SwiftClient(
            container, Tokens(auth, lambda url: _check(url, guard, secure)), self._limits, call_seconds, guard=guard
        )
        self._large: asyncio.Lock | None = asyncio.Lock()
        """None when it is known that large objects can be held."""
        self._info = StoreInfo(
            "swift", "None", "Eventual", tags_are_digests="md5", max_key=MOST_KEY, max_part=MOST_KEY, refuses=CONTROLS,
            max_size=part * fan * fan, failure_domain=domain,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"SwiftStore({self._client.container!r})"

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return self._info

    # -- looking

    async def probe(self) -> Probe:
        """Looks at the container."""
        begin = perf_counter()
        answer = await self._container()
        took = perf_counter() - begin
        try:
            # told in whole seconds: half of one is added, half the way is taken off
            theirs = parsedate_to_datetime(answer.get("Date", "")).timestamp() + 0.5
            skew = round((theirs - datetime.now(UTC).timestamp() + took / 2) * 1000)
        except (TypeError, ValueError):
            skew = None
        return Probe(round(took * 1000), skew)

    async def _container(self) -> Mapping[str, str]:
        """Headers of the container.

        Raises:
            InvalidRequest: There is none.
        """
        try:
            answer = await self._client.look("HEAD", None)
        except Missing:
            raise InvalidRequest(
                f"there is no container '{self._client.container}': make it, or name another one"
            ) from None
        if "X-Container-Object-Count" not in answer.headers:
            raise Transient("the answer is none of a container")
        return answer.headers

    async def _absent(self) -> None:
        """Makes sure that a 404 was of an object: of a missing container it is the same.

        Raises:
            InvalidRequest: There is no container.
        """
        await self._container()

    async def stat(self, key: str) -> Object | None:
        """As the port says: the newest that any server has."""
        found = await self._head(key, newest=True)
        return found[0] if found else None

    async def _head(self, key: str, *, newest: bool = False, sure: bool = True) -> tuple[Object, bool] | None:
        """The object and whether it is a large one; None if there is none, or with `sure` off no container either."""
        try:
            answer = await self._client.again("HEAD", key, headers=NEWEST if newest else {})
        except Missing:
            if sure:
                await self._absent()
            return None
        headers = answer.headers
        size, tag = headers.get("Content-Length", ""), headers.get("Etag", "").strip('"')
        if not tag or not size.isdigit():
            raise Transient(f"{key}: the answer has no entity tag or no size")
        large = headers.get(segments.IS_LARGE, "").lower() == "true"
        return Object(key, int(size), tag, micros(headers.get("X-Timestamp", "")), unpacked(headers)), large

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says; segments aren't shown, attributes don't come."""
        while rows := await self._rows(prefix, after, min(limit, MOST_ROWS)):
            last = rows[-1].key
            # behind a segment on behind all of them
            after = segments.FOLDER + "\U0010ffff" if last.startswith(segments.FOLDER) else last
            if found := tuple(row for row in rows if not row.key.startswith(segments.FOLDER)):
                return Page(found, after)
        # only an empty page is surely the last one: a server may give fewer rows than asked for
        return Page(())

    async def _rows(self, prefix: str, after: str, limit: int) -> Rows:
        query = {"format": "json", "prefix": prefix, "marker": after, "limit": str(limit)}
        try:
            answer = await self._client.look("GET", None, query={name: text for name, text in query.items() if text})
        except Missing:
            await self._absent()
            raise Transient(f"listing {prefix}: there is no listing of a container that is there") from None
        if "X-Container-Object-Count" not in answer.headers:
            raise Transient(f"listing {prefix}: the answer is no listing")
        try:
            listed: Any = json.loads(answer.body) if answer.status != 204 else []
            return [
                Object(
                    str(row["name"]), int(row["bytes"]), str(row.get("slo_etag") or row["hash"]).strip('"'),
                    moment(row["last_modified"]),
                )
                for row in listed
            ]  # fmt: skip
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Transient(f"listing {prefix}: the answer can't be read") from error

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says: one request, and more from where one broke off, tied to the tag of the first one."""
        position, end, tag, newest, left = start, None if length is None else start + length, if_tag, False, TRIES
        while end is None or position < end:
            headers = (NEWEST if newest else {}) | ({"If-Match": f'"{tag}"'} if tag else {})
            if position or end is not None:
                headers["Range"] = f"bytes={position}-{'' if end is None else end - 1}"
            try:
                async with self._client.open("GET", key, headers=headers, also=(412, 416)) as answer:
                    if answer.status == 412:
                        if newest:
                            raise Changed(f"{key} hasn't the tag {tag}")
                        newest = True  # some server may only not have it yet
                        continue
                    if answer.status == 416:
                        if position > start:
                            raise Changed(f"{key} became shorter while it was read")
                        break
                    tag, end = part_of(key, answer.headers, answer.status, position, end)
                    async with aclosing(self._pieces(key, answer.content, end - position)) as pieces:
                        async for piece in pieces:
                            position, left = position + len(piece), TRIES
                            yield piece
            except Missing:
                await self._absent()
                if position > start:
                    raise Changed(f"{key} was removed while it was read") from None
                raise Missing(f"there is no {key}") from None
            except (RateLimited, NoAnswer):
                raise
            except Transient:
                left -= 1
                if not left:
                    raise
                await asyncio.sleep(PAUSE_SECONDS * 4 ** (TRIES - 1 - left))
        if position == start:  # nothing was there to be read, so nothing was compared
            seen = await self.stat(key)
            if seen is None:
                raise Missing(f"there is no {key}")
            fits(key, seen.tag, if_tag)

    async def _pieces(self, key: str, content: Any, size: int) -> AsyncGenerator[bytes, None]:
        """What comes of a body of so many bytes.

        Raises:
            Transient: It is shorter or longer.
        """
        seen = 0
        with told(key):
            async for piece in content.iter_chunked(CHUNK):
                seen += len(piece)
                if seen > size:
                    raise Transient(f"{key}: more than {size} bytes came")
                await self._limits.moved(len(piece))
                yield piece
        if seen < size:
            raise Transient(f"{key}: {seen} bytes came, not {size}")

    # -- changing

    async def write(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the port says, but that conditions are looked at, not tied to: one call up to the size of a part."""
        texts = checked(attributes)
        headers = packed(texts) | {"Content-Type": "application/octet-stream"}
        if if_absent:
            headers["If-None-Match"] = "*"
        counted = measured(chunks, size, self._info.max_size, self._limits)
        async with aclosing(segments.gathered(counted, self._part)) as parts:
            head = [part for _ in range(2) if (part := await anext(parts, None)) is not None] or [b""]
            if len(head) == 1:
                old = await self._before(key, if_tag, if_absent)
                digest = hashlib.md5(head[0], usedforsecurity=False).hexdigest()
                tag = await self._publish(key, headers | {"ETag": digest}, head[0], digest, if_absent=if_absent)
                made = Object(key, len(head[0]), tag, 0, texts)
            else:
                await self._large_known()
                await self._before(key, if_tag, if_absent)  # what can be known now needn't be told after gigabytes
                async with segments.Upload(self._client, key, self._fan) as upload:
                    while head:
                        await upload.send(head.pop(0))
                    async for part in parts:
                        await upload.send(part)
                    await upload.settled()
                    old = await self._before(key, if_tag, if_absent)
                    try:
                        tag = await upload.publish(headers)
                    except CloudmeshError as error:
                        raise await self._of_publishing(error, key, if_absent) from None
                made = Object(key, upload.size, tag, 0, texts)
        await self._forget(old)
        return made

    async def _publish(
        self, key: str, headers: Mapping[str, str], body: bytes, tag: str, *, if_absent: bool = False,
        seconds: float = 0.0,
    ) -> str:  # fmt: skip
        try:
            answer = await self._client.change("PUT", key, headers=headers, body=body, seconds=seconds)
        except CloudmeshError as error:
            raise await self._of_publishing(error, key, if_absent) from None
        return segments.confirmed(key, answer, tag)

    async def _of_publishing(self, error: CloudmeshError, key: str, if_absent: bool) -> CloudmeshError:
        """What a refused write means."""
        if isinstance(error, Missing):
            await self._absent()
            return Transient(f"{key}: nothing was written, though the container is there")
        if isinstance(error, Changed) and if_absent:
            return Exists(f"there is a {key}")
        return error

    async def _before(self, key: str, if_tag: str, if_absent: bool) -> Keys:
        """Looks before a write; gives the segments that it will leave without a manifest."""
        there = await self._head(key, newest=bool(if_tag), sure=bool(if_tag))
        fits(key, there[0].tag if there else None, if_tag, if_absent=if_absent)
        return await self._segments(key) if there and there[1] else []

    async def _segments(self, key: str) -> Keys:
        with suppress(Missing):
            return [each.key for each in await segments.segments_of(self._client, key)]
        return []

    async def _forget(self, old: Keys) -> None:
        """Takes segments away that no manifest has any more; what fails here is left for a sweep."""
        with suppress(CloudmeshError):
            await segments.removed(self._client, old)

    async def _large_known(self) -> None:
        if self._large is None:
            return
        async with self._large:
            if self._large is not None:
                await segments.check_large(self._client)
        self._large = None

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says; it looks first, and the segments go after the manifest."""
        there = await self._head(key, newest=bool(if_tag))
        if there is None:
            return
        fits(key, there[0].tag, if_tag)
        old = await self._segments(key) if there[1] else []
        with suppress(Missing):
            await self._client.change("DELETE", key)
        await self._forget(old)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the power Copier says; of a large object each segment is copied, so that none has two manifests."""
        texts = None if attributes is None else checked(attributes)
        found = await self._head(source, newest=True)
        if found is None:
            raise Missing(f"there is no {source}")
        seen, large = found
        fits(source, seen.tag, if_tag)
        kept = dict(seen.attributes) if texts is None else texts
        headers = packed(kept) | {"Content-Type": "application/octet-stream"}
        parts = await segments.segments_of(self._client, source) if large else []
        old = await self._before(target, "", if_absent)
        if parts:
            async with segments.Upload(self._client, target, self._fan) as upload:
                for part in parts:
                    if not part.nested:
                        await upload.fetch(part)
                if upload.size != seen.size:
                    raise Changed(f"{source} was changed while it was copied")
                if if_absent:
                    await self._before(target, "", if_absent)
                tag = await upload.publish(headers)
        else:
            headers |= {
                "X-Copy-From": quoted(f"{self._client.container}/{source}"),
                "X-Fresh-Metadata": "true",
                "If-Match": f'"{seen.tag}"',
            }
            answer = await self._client.change("PUT", target, headers=headers, seconds=seen.size / COPY_BYTES_A_SECOND)
            # of another's large object one whole is made, which has another tag
            tag = answer.headers.get("Etag", "").strip('"') if large else segments.confirmed(target, answer, seen.tag)
        await self._forget(old)
        return Object(target, seen.size, tag, 0, kept)

    # -- powers

    async def sweep(self, prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
        """As the power Sweeper says: segments that no manifest has."""
        count, after, young = 0, "", (time() - older_than_seconds) * 1_000_000
        upload: tuple[str, str] | None = None
        held: Rows = []
        while True:
            rows = await self._rows(segments.FOLDER + prefix, after, 1000)
            for row in rows:
                found = segments.upload_of(row.key)
                if found is None:
                    continue
                if found != upload:
                    count += await self._swept(upload, held, young, ours)
                    upload, held = found, []
                held.append(row)
            if not rows:
                return count + await self._swept(upload, held, young, ours)
            after = rows[-1].key

    async def _swept(self, upload: tuple[str, str] | None, held: Rows, young: float, ours: Ours | None) -> bool:
        """Removes the segments of one upload, if it has ended without a manifest."""
        if upload is None or max(each.modified for each in held) > young:
            return False
        key = upload[0]
        with suppress(Missing):
            if any(segments.upload_of(each.key) == upload for each in await segments.segments_of(self._client, key)):
                return False
        if ours is not None and not await ours(key):
            return False
        await segments.removed(self._client, [each.key for each in held])
        return True

    async def capacity(self) -> tuple[int, int] | None:
        """Bytes used, and free by the quota of the container; None where it has none."""
        headers = await self._container()
        used, quota = headers.get("X-Container-Bytes-Used", ""), headers.get("X-Container-Meta-Quota-Bytes", "")
        if not used.isdigit() or not quota.isdigit():
            return None
        return int(used), max(0, int(quota) - int(used))

    async def close(self) -> None:
        """Lets go of connections."""
        await self._client.close()


class SwiftLinks(SwiftStore):
    """A container of which links can be made.

    Args:
        auth: The login.
        container: Its name.
        key: The account's or container's key for temporary URLs.
        more: As of a store.
    """

    def __init__(self, auth: Auth, container: str, key: bytes, **more: Any) -> None:
        super().__init__(auth, container, **more)
        self._key = key

    async def presign(self, key: str, seconds: int) -> str:
        """As the power Presigner says; at most 7 days."""
        root = urlsplit((await self._client.login()).url)
        ends = int(time()) + max(1, min(seconds, LINK_SECONDS))
        path = f"{root.path}/{self._client.container}/{key}"
        signed = hmac.new(self._key, f"GET\n{ends}\n{path}".encode(), "sha256").hexdigest()
        where = f"{root.scheme}://{root.netloc}{quoted(path)}"
        return f"{where}?temp_url_sig={signed}&temp_url_expires={ends}"


def _check(url: str, guard: Guard, secure: bool) -> None:
    """Looks at where the token would go.

    Raises:
        InvalidRequest: It isn't allowed.
    """
    try:
        # read as the client reads it: no other host is looked at than the one that it connects to
        split = URL(url, encoded=True)
        host = (split.raw_host or "").lower().rstrip(".")
    except ValueError:
        split, host = URL(), ""
    if split.scheme not in ("http", "https") or not host:
        raise InvalidRequest(f"{url}: the login names this as storage, which is no URL")
    if secure and split.scheme != "https":
        raise InvalidRequest(f"{url}: the login is by TLS, and names a storage without: the token would be seen")
    guard.check_hosts([host])


def make(context: StoreContext) -> SwiftStore:
    """The store of a container.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: Settings and Secret don't go together, or the login is at an address of this machine.
    """
    secret_texts(context.credentials, KNOWN)
    url = str(context.settings["authUrl"])
    context.check(url)
    more: dict[str, Any] = {
        "name": context.name,
        "domain": urlsplit(url).hostname or "",
        "limits": Limits(context.requests_per_second, context.bytes_per_second),
        "guard": context.guarded(),
        "secure": url.startswith("https:"),
    }
    auth, container = auth_of(context.settings, context.credentials), str(context.settings["container"])
    if key := context.credentials.get(LINK_KEY, b"").strip():
        return SwiftLinks(auth, container, key, **more)
    return SwiftStore(auth, container, **more)
