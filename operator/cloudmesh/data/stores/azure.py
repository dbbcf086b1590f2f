"""Azure Blob: one container, by the REST API of its service, in threads of the store's own.

A small object is put by one call. A larger one goes up as blocks, at most four at a time, which nobody sees until a
list of them is committed: the condition is tied to that call. Blocks that nobody commits are forgotten by the service,
at the next write of that name or after a week; nothing can be done about them sooner that doesn't touch the object.
Calls that publish or delete are made once: their outcome is for the caller to look at.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from cloudmesh.data.errors import Changed, InvalidName, Missing
from cloudmesh.data.stores.azure_auth import VERSION, ByKey, Signer, signer
from cloudmesh.data.stores.azure_words import (
    attributes_of,
    classify,
    code_of,
    is_folder,
    listing,
    metadata_instead,
    metadata_of,
)
from cloudmesh.data.stores.common import Limits, checked, fits, measured
from cloudmesh.data.stores.federation import Workload, workload
from cloudmesh.data.stores.http import TRIES, Answer, Http, patiently
from cloudmesh.data.stores.objects import (
    CONTROLS,
    HOLDS,
    READ_HOLDS,
    BeyondEnd,
    Pieces,
    Upload,
    in_parts,
    pieces,
    published,
    source_of_copy,
    windows,
)
from cloudmesh.data.stores.ports import Object, Page, Probe, StoreInfo
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.threads import Threads, outlast
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import CloudmeshError, Transient

HOST: Final = "blob.core.windows.net"
THREADS = 24
PART = 8 << 20
MOST_PARTS = 50_000
MOST_PART = 4000 << 20
CALL_SECONDS = 60.0
COPY_SECONDS = 3600.0
"""How long a copy inside the service may take."""
EMPTY_PAGES = 100
"""Pages without an object that are passed over at most before the caller hears of one."""
PRESIGN_MOST = 7 * 86400
# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
REFUSED: Final = CONTROLS + "".join(map(chr, range(0x80, 0xA0))) + "\\\ufffe\uffff"
_MARK = "\0"


class AzureStore:
    """One container.

    Args:
        endpoint: URL of the account's blobs.
        container: Its name.
        sign: Who makes the calls.
        http: Connections.
        name: Of the store.
        limits: Of requests and bytes.
        part: Bytes of a part.
    """

    def __init__(
        self,
        endpoint: str,
        container: str,
        sign: Signer,
        http: Http,
        *,
        name: str = "azure",
        limits: Limits | None = None,
        part: int = PART,
    ) -> None:
        self._container = container
        self._url = f"{endpoint.rstrip('/')}/{container}"
        self._sign = sign
        self._http = http
        self._limits = limits or Limits()
        self._part = part
        self._threads = Threads(name, THREADS)
        host = urlsplit(endpoint).netloc
        self._info = StoreInfo(
            "azureBlob", "Full", max_key=1024, max_part=1024, max_size=MOST_PARTS * MOST_PART, refuses=REFUSED,
            refuses_last=".", failure_domain="azure" if host.endswith(f".{HOST}") else host, write_holds=HOLDS * part,
            read_holds=READ_HOLDS, holds_for=MOST_PARTS * part,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._container!r})"

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return self._info

    # -- calls

    def address(self, key: str) -> str:
        """Address of a blob.

        Raises:
            InvalidName: On its way there it would become another one's.
        """
        if any(part in (".", "..") for part in key.split("/")):
            raise InvalidName(f"{key!r} has a part '.' or '..'")
        return f"{self._url}/{quote(key, safe='/')}"

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, tries: int) -> Answer:
        told = {"x-ms-version": VERSION, **headers}
        if method == "PUT":
            told["Content-Length"] = str(len(body))

        def send() -> Answer:
            target, signed = self._sign(method, url, told)
            return self._http.send(method, target, signed, body)

        answer = patiently(send, tries)
        # only who has been let in is let act: what was refused so was not done
        return patiently(send, tries) if answer.status == 401 and self._sign.refused() else answer

    async def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """One call that changes nothing."""
        await self._limits.request()
        return await self._threads.run(self._send, method, url, headers or {}, b"", TRIES)

    async def change(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, tries: int = 1
    ) -> Answer:
        """One call that changes something: what it did is waited for even by whoever is cancelled."""
        await self._limits.request()
        return await self._threads.finish(self._send, method, url, headers, body, tries)

    # -- looking

    async def probe(self) -> Probe:
        """Lists one object."""
        begin = perf_counter()
        answer = await self._list_once("", "", 1)
        took = perf_counter() - begin
        listing(answer.body, self._container, "the container")
        return Probe(round(took * 1000), answer.skew_ms(datetime.now(UTC).timestamp(), took))

    async def stat(self, key: str) -> Object | None:
        """As the port says."""
        answer = await self.ask("HEAD", self.address(key))
        if answer.status != 200:
            error = classify(answer, key)
            if isinstance(error, Missing):
                return None
            raise error
        found = _seen(key, answer)
        return None if is_folder(answer.headers) else found

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says; tags come, attributes don't.

        The service goes on by marks of its own only: they are a part of ours. After a key alone all before it is read.
        """
        last, _, marker = after.partition(_MARK)
        found: list[Object] = []
        for _ in range(EMPTY_PAGES):
            answer = await self._list_once(prefix, marker, min(limit, 5000) if marker or not last else 5000)
            page = listing(answer.body, self._container, f"listing {prefix}")
            # where two names begin with rare letters the service may not order them as bytes
            found = sorted(page.objects, key=lambda each: each.key.encode())
            if last and _MARK not in after:
                found = [each for each in found if each.key > last]
                if len(found) > limit:
                    return Page(tuple(found[:limit]), found[limit - 1].key)
            marker = page.marker
            if found or not marker:
                break
        return Page(tuple(found), f"{found[-1].key if found else last}{_MARK}{marker}" if marker else "")

    async def _list_once(self, prefix: str, marker: str, limit: int) -> Answer:
        query = {"restype": "container", "comp": "list", "maxresults": str(limit)}
        query |= {name: text for name, text in (("prefix", prefix), ("marker", marker)) if text}
        answer = await self.ask("GET", f"{self._url}?{urlencode(query, quote_via=quote, safe='')}")
        if answer.status != 200:
            raise classify(answer, f"listing {prefix}")
        return answer

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says: window by window, each tied to the tag of the first one."""
        get = partial(self._window, key)
        coming = windows(key, get, self.stat, self._limits, start=start, length=length, if_tag=if_tag)
        async with aclosing(coming) as found:
            async for piece in found:
                yield piece

    async def _window(self, key: str, begin: int, end: int, tag: str) -> tuple[Object, Pieces]:
        tied = {"If-Match": tag} if tag else {}
        answer = await self.ask("GET", self.address(key), {"x-ms-range": f"bytes={begin}-{end - 1}", **tied})
        if answer.status == 416:
            raise BeyondEnd(f"{key} ends before")
        told = answer.headers.get("content-range", "")
        if answer.status != 206 or not told.startswith(f"bytes {begin}-"):
            raise await self._missing_or(answer, key)
        size = told.rpartition("/")[2]
        return _seen(key, answer, size=int(size) if size.isdigit() else begin + len(answer.body)), pieces(answer.body)

    async def _missing_or(self, answer: Answer, key: str) -> CloudmeshError:
        """The error of a call that was tied to a tag: nothing has no tag either, which may come first."""
        error = classify(answer, key)
        if isinstance(error, Changed) and await self.stat(key) is None:
            return Missing(f"there is no {key}")
        return error

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
        """As the port says: one call up to the size of a part, blocks above."""
        texts = checked(attributes)
        tied = {"If-Match": if_tag} if if_tag else {"If-None-Match": "*"} if if_absent else {}
        url = self.address(key)
        content = measured(chunks, size, self._info.max_size, self._limits)
        async with aclosing(in_parts(content, size, self._part, MOST_PARTS)) as parts:
            head = [part for _ in range(2) if (part := await anext(parts, None)) is not None] or [b""]
            if len(head) == 1:
                told = {"x-ms-blob-type": "BlockBlob", "Content-MD5": _md5(head[0]), **metadata_of(texts), **tied}
                answer = await self.change("PUT", url, told, head[0])
                if answer.status != 201:
                    raise _refused(answer, key, if_tag=if_tag, if_absent=if_absent)
                return published(key, len(head[0]), answer.headers.get("etag"), texts)
            if tied:
                # what can be known now needn't be told after gigabytes
                there = await self.stat(key)
                fits(key, there.tag if there else None, if_tag, if_absent=if_absent)
            upload = _Blocks(self, key, {**metadata_of(texts), **tied}, if_tag=if_tag, if_absent=if_absent)
            tag = await upload.run(head, parts)
            return published(key, upload.size, tag, texts)

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says; snapshots, which somebody has made, are not deleted with it."""
        answer = await self.change("DELETE", self.address(key), {"If-Match": if_tag} if if_tag else {})
        if answer.status != 202:
            error = await self._missing_or(answer, key)
            if not isinstance(error, Missing):
                raise error

    async def copy(
        self,
        source: str,
        target: str,
        *,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the power Copier says."""
        seen, kept = await source_of_copy(self.stat, source, if_tag, attributes)
        origin, _ = await self._threads.run(self._sign, "GET", self.address(source), {})
        told = {"x-ms-copy-source": origin, "x-ms-source-if-match": seen.tag, **metadata_instead(kept)}
        if if_absent:
            told["If-None-Match"] = "*"
        answer = await self.change("PUT", self.address(target), told)
        if answer.status != 202:
            raise classify(answer, f"copying {source} to {target}", if_absent=if_absent)
        tag = answer.headers.get("etag", "")
        if answer.headers.get("x-ms-copy-status") != "success":
            tag = await self._copied(target, answer.headers.get("x-ms-copy-id", ""))
        return published(target, seen.size, tag, kept)

    async def _copied(self, target: str, copy: str) -> str:
        """Waits for the end of a copy that takes its time; whatever goes wrong leaves no half of it."""
        try:
            async with asyncio.timeout(COPY_SECONDS):
                wait = 0.1
                while not (ended := await self._copy_tag(target, copy)):
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, 10.0)
                return ended
        except Changed:
            raise
        except TimeoutError:
            await outlast(self._undo_copy(target, copy))
            raise Transient(f"{target}: the copy takes too long") from None
        except BaseException:
            await outlast(self._undo_copy(target, copy))
            raise

    async def _copy_tag(self, target: str, copy: str) -> str:
        """The tag of what was copied, empty while it isn't all there."""
        answer = await self.ask("HEAD", self.address(target))
        if answer.status != 200:
            raise classify(answer, target)
        if answer.headers.get("x-ms-copy-id", "") != copy:
            raise Changed(f"{target}: somebody else wrote it while it was copied")
        status = answer.headers.get("x-ms-copy-status", "")
        if status not in ("success", "pending"):
            raise Transient(f"{target}: the copy has ended as {status or 'nothing'}")
        return answer.headers.get("etag", "") if status == "success" else ""

    async def _undo_copy(self, target: str, copy: str) -> None:
        """Ends a copy and removes the rest of it, as far as the service answers."""
        url = self.address(target)
        try:
            query = urlencode({"comp": "copy", "copyid": copy})
            await self.change("PUT", f"{url}?{query}", {"x-ms-copy-action": "abort"})
            seen = await self.ask("HEAD", url)
            if seen.headers.get("x-ms-copy-id") == copy and seen.headers.get("x-ms-copy-status") != "success":
                await self.change("DELETE", url, {"If-Match": seen.headers["etag"]})
        except CloudmeshError:
            return

    async def close(self) -> None:
        """Lets go of threads and connections."""
        self._threads.close()
        self._http.close()


class KeyedAzureStore(AzureStore):
    """One container, by the account's key: whoever has it can give links.

    Args:
        endpoint: URL of the account's blobs.
        container: Its name.
        sign: With the key.
        http: Connections.
        more: As of the other.
    """

    def __init__(self, endpoint: str, container: str, sign: ByKey, http: Http, **more: Any) -> None:
        super().__init__(endpoint, container, sign, http, **more)
        self._by_key = sign

    async def presign(self, key: str, seconds: int) -> str:
        """As the power Presigner says; at most 7 days."""
        return self._by_key.link(self.address(key), self._container, key, max(1, min(seconds, PRESIGN_MOST)))


class _Blocks(Upload):
    """One upload of blocks."""

    def __init__(self, store: AzureStore, key: str, told: Mapping[str, str], *, if_tag: str, if_absent: bool) -> None:
        super().__init__(key, MOST_PARTS)
        self._store = store
        self._told = told
        self._if_tag = if_tag
        self._if_absent = if_absent
        self._url = store.address(key)
        self._own = secrets.token_hex(8)
        self._count = 0
        self._digest = hashlib.md5(usedforsecurity=False)

    def _id(self, number: int) -> str:
        """All of one length, as the service wants them, and no other writer's."""
        return base64.b64encode(f"{self._own}{number:08}".encode()).decode()

    async def open(self) -> None:
        """Nothing is opened: the first block does."""

    async def send(self, number: int, part: bytes) -> None:
        """Sends one block with its digest."""
        self._count = max(self._count, number)
        query = urlencode({"comp": "block", "blockid": self._id(number)})
        answer = await self._store.change("PUT", f"{self._url}?{query}", {"Content-MD5": _md5(part)}, part, tries=TRIES)
        if answer.status != 201:
            raise classify(answer, self.key)

    async def complete(self) -> str:
        """Publishes, tied to what is there."""
        ids = "".join(f"<Uncommitted>{self._id(number)}</Uncommitted>" for number in range(1, self._count + 1))
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{ids}</BlockList>'.encode()
        told = {"Content-MD5": _md5(body), **self._told}
        answer = await self._store.change("PUT", f"{self._url}?comp=blocklist", told, body)
        if code_of(answer) == "InvalidBlockList":
            # whoever writes the same name takes all blocks away that aren't his
            there = await self._store.stat(self.key)
            fits(self.key, there.tag if there else None, self._if_tag, if_absent=self._if_absent)
            raise Transient(f"{self.key}: another write took its blocks away")
        if answer.status != 201:
            raise _refused(answer, self.key, if_tag=self._if_tag, if_absent=self._if_absent)
        return answer.headers.get("etag", "")

    async def drop(self) -> None:
        """Nothing takes blocks away that doesn't touch the object: the service forgets them."""


def _seen(key: str, answer: Answer, *, size: int | None = None) -> Object:
    told, tag = answer.headers.get("content-length", ""), answer.headers.get("etag", "")
    if not tag or (size is None and not told.isdigit()):
        raise Transient(f"{key}: the answer has no entity tag")
    return Object(key, int(told) if size is None else size, tag, answer.modified, attributes_of(answer.headers))


def _refused(answer: Answer, key: str, *, if_tag: str, if_absent: bool) -> CloudmeshError:
    error = classify(answer, key, if_absent=if_absent)
    return Changed(f"{key} is gone") if isinstance(error, Missing) and if_tag else error


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def open_store(
    account: str,
    container: str,
    credentials: Mapping[str, bytes] | Workload,
    *,
    endpoint: str = "",
    authority: str = "",
    plain: bool = False,
    call_seconds: float = CALL_SECONDS,
    guard: Guard = ANYWHERE,
    **more: Any,
) -> AzureStore:
    """The store of a container.

    Args:
        account: Name of the account.
        container: Of the container.
        credentials: The Secret's data, or what stands in its place.
        endpoint: URL of the account's blobs, empty for the one that Azure gives it.
        authority: Where tokens are given, empty for that of the endpoint's cloud.
        plain: Secrets may be sent without TLS.
        call_seconds: Time within which an answer must come.
        guard: Makes the connections.
        more: As of AzureStore.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: The Secret has a key that means nothing, or two ways.
    """
    url = endpoint or f"https://{account}.{HOST}"
    http = Http(THREADS, call_seconds, guard)
    sign = signer(account, url, credentials, http, authority=authority, plain=plain)
    if isinstance(sign, ByKey):
        return KeyedAzureStore(url, container, sign, http, **more)
    return AzureStore(url, container, sign, http, **more)


def make(context: StoreContext) -> AzureStore:
    """The store of a container.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: The Secret has a key that means nothing, or the endpoint is an address of this machine.
    """
    endpoint = str(context.settings.get("endpoint") or "")
    if endpoint:
        context.check(endpoint)
    return open_store(
        str(context.settings["account"]),
        str(context.settings["container"]),
        workload(context.identity) or context.credentials,
        endpoint=endpoint,
        plain=context.allow_private,
        guard=context.guarded(),
        name=context.name,
        limits=Limits(context.requests_per_second, context.bytes_per_second),
    )
