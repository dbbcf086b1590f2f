"""What the proxy knows of Azure Blob: which operation a request is, and how the service words an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from cloudmesh.testing.proxy.core import Answer, Call, Upstream

_OF_BLOB = {"GET": "GetBlob", "HEAD": "GetBlobProperties", "PUT": "PutBlob", "DELETE": "DeleteBlob"}
_OF_PART = {"block": "PutBlock", "blocklist": "PutBlockList", "copy": "AbortCopyBlob", "metadata": "SetBlobMetadata"}

Sign = Callable[[str, str, Mapping[str, str]], tuple[str, dict[str, str]]]


class AzureBlobDialect:
    """Blobs with the account in the path, as emulators have it.

    Args:
        bearer: A token that is taken for the account's key, since the emulator takes none without TLS.
        sign: Signs what came with that token.
    """

    def __init__(self, bearer: str = "", sign: Sign | None = None) -> None:
        self.bearer = bearer
        self._sign = sign

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Names the operation by method, path and query; parameters are those of the query, with the two names."""
        split = urlsplit(target)
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        container, _, blob = unquote(split.path).lstrip("/").partition("/")[2].partition("/")
        comp = query.get("comp", "")
        if not blob:
            operation = "ListBlobs" if comp == "list" else {"PUT": "CreateContainer"}.get(method, method)
        elif method == "PUT" and comp in _OF_PART:
            operation = _OF_PART[comp]
        elif method == "PUT" and any(name.lower() == "x-ms-copy-source" for name in headers):
            operation = "CopyBlob"
        else:
            operation = _OF_BLOB.get(method, method)
        return Call(operation, method, target, {**query, "Container": container, "Blob": blob}, headers, body)

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        """The service's own form of an error; none in an answer to HEAD."""
        words = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        body = b"" if call.method == "HEAD" else f'<?xml version="1.0"?>\n<Error>{words}</Error>'.encode()
        told = {"Content-Type": "application/xml", "x-ms-request-id": "0"}
        return Answer(status, body, told | ({"x-ms-error-code": code} if code else {}))

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        """The back end's own answer."""
        told = {name.lower(): value for name, value in call.headers.items()}.get("authorization", "")
        if self._sign is None or not told.startswith("Bearer "):
            return await upstream(call)
        if told != f"Bearer {self.bearer}":
            return self.error(call, 401, "InvalidAuthenticationInfo", "the token isn't good")
        kept = {name: value for name, value in call.headers.items() if name.lower() != "authorization"}
        return await upstream(replace(call, headers=self._sign(call.method, call.target, kept)[1]))
