"""What the proxy knows of Swift: which operation a request is, and how Swift words an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from urllib.parse import parse_qsl, unquote, urlsplit

from cloudmesh.testing.proxy.core import Answer, Call, Upstream

_OF_CONTAINER = {"GET": "ListObjects", "HEAD": "HeadContainer", "PUT": "PutContainer", "POST": "PostContainer"}
_OF_OBJECT = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
SEGMENTS = ".cloudmesh/segments/"
STORAGE = "X-Storage-Url"


class SwiftDialect:
    """Swift with its own login below `/auth`, whose storage is told to be here, too."""

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Names the operation by method, path and query; parameters: the query's, `Container` and `Key`."""
        split = urlsplit(target)
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        if split.path.startswith("/auth"):
            return Call("Login", method, target, query, headers, body)
        _, _, _, container, key = (*unquote(split.path).split("/", 4), "", "")[:5]
        small = {name.lower() for name in headers}
        if not key:
            operation = _OF_CONTAINER.get(method, method)
        elif key.startswith(SEGMENTS):
            operation = {"PUT": "PutSegment", "DELETE": "DeleteSegment"}.get(method, method)
        elif "multipart-manifest" in query:
            operation = {"PUT": "PutManifest", "GET": "GetManifest"}.get(method, method)
        else:
            operation = "CopyObject" if "x-copy-from" in small else _OF_OBJECT.get(method, method)
        return Call(operation, method, target, {**query, "Container": container, "Key": key}, headers, body)

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        """Swift's own form of an error; none in an answer to HEAD."""
        body = (
            b"" if call.method == "HEAD" else f"<html><h1>{escape(code)}</h1><p>{escape(message)}</p></html>".encode()
        )
        return Answer(status, body, {"Content-Type": "text/html; charset=UTF-8", "X-Trans-Id": "tx0-injected"})

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        """The back end's own answer, but that the storage is behind the proxy."""
        answer = await upstream(call)
        if call.operation != "Login" or STORAGE not in answer.headers:
            return answer
        here = f"http://{call.headers['Host']}{urlsplit(answer.headers[STORAGE]).path}"
        return replace(answer, headers={**answer.headers, STORAGE: here})
