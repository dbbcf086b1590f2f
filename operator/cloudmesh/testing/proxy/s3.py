"""What the proxy knows of S3: which operation a request is, and how S3 words an error."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from cloudmesh.testing.proxy.core import Answer, Call, Upstream

_OF_BUCKET = {"GET": "ListObjectsV2", "HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
_OF_OBJECT = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}


class S3Dialect:
    """S3 with the bucket in the path."""

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Names the operation by method, path and query; parameters are those of the query, with `Bucket` and `Key`."""
        split = urlsplit(target)
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        bucket, _, key = unquote(split.path).lstrip("/").partition("/")
        if not key:
            operation = "ListMultipartUploads" if "uploads" in query else _OF_BUCKET.get(method, method)
        else:
            operation = self._of_object(method, query, headers)
        return Call(operation, method, target, {**query, "Bucket": bucket, "Key": key}, headers, body)

    @staticmethod
    def _of_object(method: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        copies = any(name.lower() == "x-amz-copy-source" for name in headers)
        if "uploadId" in query:
            part = "UploadPartCopy" if copies else "UploadPart"
            of = {"PUT": part, "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload", "GET": "ListParts"}
            return of.get(method, method)
        if "uploads" in query:
            return "CreateMultipartUpload"
        return "CopyObject" if copies else _OF_OBJECT.get(method, method)

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        """S3's own form of an error; none in an answer to HEAD."""
        words = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message><RequestId>0</RequestId>"
        body = b"" if call.method == "HEAD" else f'<?xml version="1.0"?>\n<Error>{words}</Error>'.encode()
        return Answer(status, body, {"Content-Type": "application/xml"})

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        """The back end's own answer."""
        return await upstream(call)
