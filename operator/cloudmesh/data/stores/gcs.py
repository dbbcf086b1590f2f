"""Google Cloud Storage: one bucket, by the JSON API, in threads of the store's own.

Every content has a generation, and all that changes something is tied to one where the caller asks for it. A small
object is put by one call. A larger one goes up in a session, part by part: what a part's call has lost is sent again,
and the last part publishes. Whatever ends a write before it ends the session; of a process that is killed, the service
forgets it after a week. Calls that publish or delete are made once, but for those that the service has refused since
they came too soon: it takes about one write a second to one name.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from cloudmesh.data.errors import Changed, Exists, Missing
from cloudmesh.data.stores.common import Limits, checked, fits, measured
from cloudmesh.data.stores.federation import IAM, STS, Workload, of_google, workload
from cloudmesh.data.stores.gcs_auth import SCOPE, ServiceAccount
from cloudmesh.data.stores.gcs_words import as_object, classify, heard, read_json
from cloudmesh.data.stores.http import TRIES, Answer, Http, patiently
from cloudmesh.data.stores.oauth import Tokens
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
from cloudmesh.data.stores.threads import Threads
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, RateLimited, Transient

ENDPOINT: Final = "https://storage.googleapis.com"
THREADS = 24
PART = 8 << 20
STEP = 256 << 10
"""Parts of a session but for the last are a multiple of it."""
MOST_SIZE = 5 << 40
CALL_SECONDS = 60.0
PATIENCE: Final = (1.0, 2.0, 4.0)
"""Seconds after which a call that came too soon is made again."""
LONGEST_WAIT = 10.0
EMPTY_PAGES = 100
PRESIGN_MOST = 7 * 86400
FIELDS = "kind,name,size,generation,updated,metadata"
_TYPE = {"Content-Type": "application/json"}
_SAVED = re.compile(r"bytes=0-(\d+)")


class GcsStore:
    """One bucket.

    Args:
        bucket: Its name.
        tokens: Makes what asks for tokens over these connections.
        endpoint: URL of the API, empty for Google's.
        name: Of the store.
        limits: Of requests and bytes.
        part: Bytes of a part, a multiple of 256 KiB.
        call_seconds: Time within which an answer must come.
        patience: Seconds after which a call that came too soon is made again, one after the other.
        guard: Makes the connections.
    """

    def __init__(
        self,
        bucket: str,
        tokens: Callable[[Http], Tokens],
        *,
        endpoint: str = "",
        name: str = "gcs",
        limits: Limits | None = None,
        part: int = PART,
        call_seconds: float = CALL_SECONDS,
        patience: Sequence[float] = PATIENCE,
        guard: Guard = ANYWHERE,
    ) -> None:
        if part % STEP:
            raise ValueError(f"a part must be a multiple of {STEP} bytes")
        self._endpoint = (endpoint or ENDPOINT).rstrip("/")
        self._bucket = bucket
        self._limits = limits or Limits()
        self._part = part
        self._patience = patience
        self._http = Http(THREADS, call_seconds, guard)
        self._tokens = tokens(self._http)
        self._threads = Threads(name, THREADS)
        host = urlsplit(self._endpoint).netloc
        self._info = StoreInfo(
            "gcs", "Full", max_key=1024, max_part=1024, max_size=MOST_SIZE, refuses=CONTROLS,
            failure_domain="google" if self._endpoint == ENDPOINT else host, write_holds=HOLDS * part,
            read_holds=READ_HOLDS,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"GcsStore({self._bucket!r})"

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return self._info

    # -- calls

    def _url(self, key: str | None = None, query: Mapping[str, str] | None = None, *, upload: bool = False) -> str:
        path = f"{self._endpoint}{'/upload' if upload else ''}/storage/v1/b/{self._bucket}/o"
        path += "" if key is None else f"/{quote(key, safe='')}"
        return f"{path}?{urlencode(query, quote_via=quote, safe='')}" if query else path

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, tries: int) -> Answer:
        refused = ""
        while True:
            token = self._tokens.get(refused)
            told = {**headers, "Authorization": f"Bearer {token}"}
            answer = patiently(lambda: self._http.send(method, url, told, body), tries)  # noqa: B023 - called at once
            # only who has been let in is let act: what was refused so was not done
            if answer.status != 401 or refused:
                return answer
            refused = token

    async def ask(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """One call that changes nothing."""
        await self._limits.request()
        return await self._threads.run(self._send, "GET", url, headers or {}, b"", TRIES)

    async def change(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, tries: int = 1
    ) -> Answer:
        """One call that changes something: what it did is waited for even by whoever is cancelled.

        Refused since it came too soon, it is made again a few times.
        """
        for wait in (*self._patience, None):
            await self._limits.request()
            answer = await self._threads.finish(self._send, method, url, headers, body, tries)
            if wait is None or answer.ok or not isinstance(error := classify(answer, url), RateLimited):
                return answer
            named = error.retry_after or 0.0
            if named > LONGEST_WAIT:
                return answer
            await asyncio.sleep(max(wait, named) * (1.0 + secrets.randbelow(100) / 400))
        raise AssertionError("the last one waits for nothing")

    async def _missing(self, key: str) -> CloudmeshError:
        """What a 404 means: no object, or no bucket, which only the bucket tells for sure."""
        answer = await self.ask(self._url(query={"maxResults": "1", "fields": "kind"}))
        if answer.ok:
            read_json(answer, key)
            return Missing(f"there is no {key}")
        error = classify(answer, key)
        if isinstance(error, Missing):
            return InvalidRequest(f"there is no bucket {self._bucket}: make it, or name another one")
        return error

    async def refusal(
        self, answer: Answer, key: str, *, if_tag: str = "", if_absent: bool = False, content: bool = False
    ) -> CloudmeshError:
        """The error of an answer about an object."""
        error = classify(answer, key, if_absent=if_absent, content=content)
        if isinstance(error, Missing) or (content and answer.status == 404):
            if heard(answer).message.startswith("No such object"):
                error = Missing(f"there is no {key}")
            else:
                error = await self._missing(key)
        return Changed(f"{key} is gone") if isinstance(error, Missing) and if_tag and not content else error

    # -- looking

    async def probe(self) -> Probe:
        """Lists one object."""
        begin = perf_counter()
        answer = await self._list_once("", "", "", 1)
        took = perf_counter() - begin
        return Probe(round(took * 1000), answer[1].skew_ms(datetime.now(UTC).timestamp(), took))

    async def stat(self, key: str) -> Object | None:
        """As the port says."""
        answer = await self.ask(self._url(key, {"fields": FIELDS}))
        if answer.ok:
            return as_object(read_json(answer, key), key)
        error = await self.refusal(answer, key)
        if isinstance(error, Missing):
            return None
        raise error

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says; tags come, attributes don't."""
        limit = min(limit, 1000)
        found: list[Object] = []
        token = ""
        for _ in range(EMPTY_PAGES):
            # the service begins with the key itself
            told, _answer = await self._list_once(prefix, after, token, min(1000, limit + 1) if after else limit)
            items = (as_object(each, f"listing {prefix}", attributes=False) for each in told.get("items") or ())
            found = [each for each in items if each.key.encode() > after.encode()]
            token = str(told.get("nextPageToken") or "")
            if found or not token:
                break
        else:
            raise Transient(f"listing {prefix}: {EMPTY_PAGES} empty pages that aren't the last")
        more = bool(token) or len(found) > limit
        return Page(tuple(found[:limit]), found[:limit][-1].key if more else "")

    async def _list_once(self, prefix: str, after: str, token: str, limit: int) -> tuple[Mapping[str, Any], Answer]:
        query = {"maxResults": str(limit), "fields": "kind,nextPageToken,items(name,size,generation,updated)"}
        given = (("prefix", prefix), ("startOffset", after), ("pageToken", token))
        answer = await self.ask(self._url(query=query | {name: text for name, text in given if text}))
        if not answer.ok:
            error = classify(answer, f"listing {prefix}")
            if isinstance(error, Missing):
                error = InvalidRequest(f"there is no bucket {self._bucket}: make it, or name another one")
            raise error
        told = read_json(answer, f"listing {prefix}")
        if told["kind"] != "storage#objects":
            raise Transient(f"listing {prefix}: the answer is no listing")
        return told, answer

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says: window by window, each tied to the generation of the first one."""
        get = partial(self._window, key)
        coming = windows(key, get, self.stat, self._limits, start=start, length=length, if_tag=if_tag)
        async with aclosing(coming) as found:
            async for piece in found:
                yield piece

    async def _window(self, key: str, begin: int, end: int, tag: str) -> tuple[Object, Pieces]:
        query = {"alt": "media"} | ({"ifGenerationMatch": tag} if tag else {})
        # what is kept compressed is to come as it is kept
        told = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "gzip"}
        answer = await self.ask(self._url(key, query), told)
        if answer.status == 416:
            raise BeyondEnd(f"{key} ends before")
        told_range = answer.headers.get("content-range", "")
        size, seen = told_range.rpartition("/")[2], answer.headers.get("x-goog-generation", "")
        if answer.status != 206:
            if answer.ok:
                raise Transient(f"{key}: the answer isn't the part that was asked for")
            raise await self.refusal(answer, key, if_tag=tag, content=True)
        if not told_range.startswith(f"bytes {begin}-") or not size.isdigit() or not seen.isdigit():
            raise Transient(f"{key}: the answer doesn't say what it is")
        fits(key, seen, tag)
        return Object(key, int(size), seen, answer.modified), pieces(answer.body)

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
        """As the port says: one call up to the size of a part, a session above."""
        texts = checked(attributes)
        tied = _tied(key, if_tag, if_absent=if_absent)
        content = measured(chunks, size, self._info.max_size, self._limits)
        async with aclosing(in_parts(content, None, self._part, MOST_SIZE, grow=False)) as parts:
            head = [part for _ in range(2) if (part := await anext(parts, None)) is not None] or [b""]
            if len(head) == 1:
                return await self._put(key, head[0], texts, tied, if_tag=if_tag, if_absent=if_absent)
            if tied:
                # what can be known now needn't be told after gigabytes
                there = await self.stat(key)
                fits(key, there.tag if there else None, if_tag, if_absent=if_absent)
            upload = _Session(self, key, texts, tied, if_tag=if_tag, if_absent=if_absent)
            tag = await upload.run(head, parts)
            return published(key, upload.size, tag, texts)

    async def _put(
        self, key: str, content: bytes, texts: Mapping[str, str], tied: Mapping[str, str], **asked: Any
    ) -> Object:
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        meta = json.dumps({"name": key, "metadata": dict(texts), "md5Hash": digest, "contentType": _BYTES}).encode()
        border = secrets.token_hex(16).encode()
        body = b"\r\n".join(
            (
                b"--" + border, b"Content-Type: application/json; charset=UTF-8", b"", meta,
                b"--" + border, f"Content-Type: {_BYTES}".encode(), b"", content, b"--" + border + b"--", b"",
            )
        )  # fmt: skip
        told = {"Content-Type": f"multipart/related; boundary={border.decode()}"}
        query = {"uploadType": "multipart", "fields": f"{FIELDS},md5Hash", **tied}
        answer = await self.change("POST", self._url(query=query, upload=True), told, body)
        if not answer.ok:
            raise await self.refusal(answer, key, **asked)
        made = self.whole(key, answer, len(content), digest)
        return published(key, len(content), made.tag, texts)

    @staticmethod
    def whole(key: str, answer: Answer, size: int, digest: str) -> Object:
        """What was published, if it is what was sent.

        Raises:
            Transient: It isn't.
        """
        told = read_json(answer, key)
        made = as_object(told, key)
        if made.key != key or made.size != size or told.get("md5Hash", digest) != digest:
            raise Transient(f"{key}: the service has published something else than it was sent")
        return made

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says."""
        answer = await self.change("DELETE", self._url(key, _tied(key, if_tag)), {})
        if answer.status == 204:
            return
        if answer.ok:
            raise Transient(f"{key}: the answer can't be read")
        error = await self.refusal(answer, key)
        if isinstance(error, Changed) and await self.stat(key) is None:
            return
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
        """As the power Copier says: a rewrite, of which nobody sees anything before its end."""
        seen, kept = await source_of_copy(self.stat, source, if_tag, attributes)
        if if_absent and seen.size <= self._part:
            # a read and a write, as elsewhere, since not all that speak this tie a copy to absence
            content = self.read(source, if_tag=seen.tag)
            return await self.write(target, content, size=seen.size, if_absent=True, attributes=kept)
        if if_absent and await self.stat(target) is not None:
            raise Exists(f"there is a {target}")
        body = json.dumps({"metadata": dict(kept), "contentType": _BYTES}).encode()
        query = {"ifSourceGenerationMatch": seen.tag, **_tied(target, "", if_absent=if_absent)}
        path = f"{self._url(source)}/rewriteTo/b/{self._bucket}/o/{quote(target, safe='')}"
        while True:
            answer = await self.change("POST", f"{path}?{urlencode(query)}", _TYPE, body)
            if not answer.ok:
                raise await self.refusal(answer, source, if_tag=seen.tag, if_absent=if_absent)
            told = read_json(answer, target)
            if told.get("done") is True:
                made = as_object(told.get("resource") or {}, target)
                return published(target, made.size, made.tag, kept)
            if not told.get("rewriteToken"):
                raise Transient(f"{target}: the copy neither ends nor goes on")
            query["rewriteToken"] = str(told["rewriteToken"])

    async def close(self) -> None:
        """Lets go of threads and connections."""
        self._threads.close()
        self._http.close()

    def session_url(self, key: str, query: Mapping[str, str]) -> str:
        """Where a session is begun."""
        return self._url(
            query={"uploadType": "resumable", "name": key, "fields": f"{FIELDS},md5Hash", **query}, upload=True
        )

    def own(self, url: str) -> bool:
        """Whether an address is the service's: no other one gets tokens."""
        theirs, ours = urlsplit(url), urlsplit(self._endpoint)
        return (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)


class KeyedGcsStore(GcsStore):
    """One bucket, by the key of a service account: whoever has it can give links.

    Args:
        bucket: Its name.
        account: The service account.
        more: As of the other.
    """

    def __init__(self, bucket: str, account: ServiceAccount, **more: Any) -> None:
        super().__init__(bucket, account.tokens, **more)
        self._account = account

    async def presign(self, key: str, seconds: int) -> str:
        """As the power Presigner says; at most 7 days."""
        most = max(1, min(seconds, PRESIGN_MOST))
        return await self._threads.run(self._account.link, self._endpoint, self._bucket, key, most)


class _Session(Upload):
    """One resumable upload: parts go one after the other, and the last one, which publishes, is held back."""

    def __init__(
        self, store: GcsStore, key: str, texts: Mapping[str, str], tied: Mapping[str, str], *, if_tag: str,
        if_absent: bool,
    ) -> None:  # fmt: skip
        super().__init__(key, MOST_SIZE, in_flight=2)
        self._store = store
        self._meta = json.dumps({"name": key, "metadata": dict(texts), "contentType": _BYTES}).encode()
        self._query = tied
        self._asked: dict[str, Any] = {"if_tag": if_tag, "if_absent": if_absent}
        self._turn = asyncio.Lock()
        self._digest = hashlib.md5(usedforsecurity=False)
        self._held = b""
        self._sent = 0
        self._url = ""

    async def open(self) -> None:
        """Begins it."""
        url = self._store.session_url(self.key, self._query)
        answer = await self._store.change("POST", url, {**_TYPE, "X-Upload-Content-Type": _BYTES}, self._meta)
        if not answer.ok:
            raise await self._store.refusal(answer, self.key, **self._asked)
        place = answer.headers.get("location", "")
        if not self._store.own(place):
            raise Transient(f"{self.key}: the answer names no session")
        self._url = place

    async def send(self, number: int, part: bytes) -> None:
        """Sends the part before this one."""
        async with self._turn:  # whoever asked first is let in first
            before, self._held = self._held, part
            self._digest.update(part)
            if before:
                await self._bring(before)

    async def _bring(self, part: bytes) -> None:
        """Sends one part until the service has all of it; what it has lost goes again."""
        begin, end, tries = self._sent, self._sent + len(part), 0
        while self._sent < end:
            rest = part[self._sent - begin :]
            try:
                answer = await self._put(rest, f"bytes {self._sent}-{end - 1}/*")
                saved = self._saved(answer)
            except (Transient, RateLimited):
                if (tries := tries + 1) >= TRIES:
                    raise
                await asyncio.sleep(0.1 * 2**tries)
                saved = self._saved(await self._put(b"", "bytes */*"))
            if not begin <= saved <= end:
                raise Transient(f"{self.key}: the session has lost what it had")
            self._sent = saved

    async def _put(self, content: bytes, span: str) -> Answer:
        return await self._store.change("PUT", self._url, {"Content-Range": span}, content)

    def _saved(self, answer: Answer) -> int:
        """Bytes that the session has.

        Raises:
            Transient: It can't tell, or has ended.
        """
        if answer.status != 308:
            error = classify(answer, self.key)
            ended = answer.ok or isinstance(error, Missing)
            raise Transient(f"{self.key}: the session has ended, status {answer.status}") if ended else error
        told = answer.headers.get("range", "")
        found = _SAVED.fullmatch(told)
        if told and found is None:
            raise Transient(f"{self.key}: the answer can't be read")
        return int(found[1]) + 1 if found else 0

    async def complete(self) -> str:
        """Sends the last part, which publishes."""
        digest = base64.b64encode(self._digest.digest()).decode()
        told = {
            "Content-Range": f"bytes {self._sent}-{self.size - 1}/{self.size}", "X-Goog-Hash": f"md5={digest}",
        }  # fmt: skip
        answer = await self._store.change("PUT", self._url, told, self._held)
        if answer.status not in (200, 201):
            raise await self._store.refusal(answer, self.key, **self._asked)
        return self._store.whole(self.key, answer, self.size, digest).tag

    async def drop(self) -> None:
        """Ends the session."""
        if self._url:
            await self._store.change("DELETE", self._url, {}, tries=TRIES)


_BYTES = "application/octet-stream"


def _tied(key: str, if_tag: str, *, if_absent: bool = False) -> dict[str, str]:
    if if_tag and not (if_tag.isdigit() and if_tag.isascii()):
        raise Changed(f"{key} can't have the tag {if_tag[:80]!r}")
    return {"ifGenerationMatch": "0" if if_absent else if_tag} if if_tag or if_absent else {}


def open_store(
    bucket: str,
    credentials: Mapping[str, bytes] | Workload,
    *,
    endpoint: str = "",
    sts: str = STS,
    iam: str = IAM,
    **more: Any,
) -> GcsStore:
    """The store of a bucket.

    Args:
        bucket: Its name.
        credentials: The Secret's data, which is the key of a service account, or what stands in its place.
        endpoint: URL of the API, empty for Google's.
        sts: Where tokens are traded for workloads.
        iam: Where those are given of service accounts as which workloads act.
        more: As of GcsStore.

    Raises:
        AuthFailed: The key is missing or can't be read.
        InvalidRequest: A credential means nothing here.
    """
    if isinstance(credentials, Workload):
        tokens = partial(of_google, who=credentials, scope=SCOPE, sts=sts, iam=iam)
        return GcsStore(bucket, tokens, endpoint=endpoint, **more)
    account = ServiceAccount(credentials, (endpoint or ENDPOINT).rstrip("/"))
    return KeyedGcsStore(bucket, account, endpoint=endpoint, **more)


def make(context: StoreContext) -> GcsStore:
    """The store of a bucket.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: The Secret has a key that means nothing, or the endpoint is an address of this machine.
    """
    endpoint = str(context.settings.get("endpoint") or "")
    if endpoint:
        context.check(endpoint)
    if endpoint.startswith("http:") and not context.allow_private:
        raise InvalidRequest(f"{endpoint}: tokens are not sent without TLS")
    return open_store(
        str(context.settings["bucket"]),
        workload(context.identity) or context.credentials,
        endpoint=endpoint,
        name=context.name,
        limits=Limits(context.requests_per_second, context.bytes_per_second),
        guard=context.guarded(),
    )
