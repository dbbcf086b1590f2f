"""What the proxy knows of Google Cloud Storage, and what it does in place of an emulator that doesn't.

fake-gcs-server heeds `ifGenerationMatch` at uploads by one call only: here it is heeded at reads, deletes, copies, and
at both ends of a session. It publishes a session that is asked how far it is, and goes on with one that was ended: here
neither happens. It answers a delete with a content: here there is none. It knows no credentials: here tokens are given
for what a service account has signed, each call must have one, and signed addresses are checked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from cloudmesh.testing.proxy.core import Answer, Call, Upstream

_OF_OBJECT = {"GET": "GetObject", "DELETE": "DeleteObject", "PATCH": "PatchObject"}
_CHANGES = ("InsertObject", "FinishSession", "DeleteObject", "RewriteObject", "PatchObject")


@dataclass(slots=True)
class _Session:
    """One upload in parts: what it is tied to (None for nothing), and how far it is."""

    bucket: str
    key: str
    tied: str | None
    size: int = 0
    over: bool = False


class GcsDialect:
    """The JSON API and signed addresses.

    Args:
        email: Of the one service account.
        key: Its public key.
    """

    def __init__(self, email: str, key: RSAPublicKey) -> None:
        self._email = email
        self._key = key
        self.tokens: set[str] = set()
        """Tokens that are good; take one out, and it has ended."""
        self.sessions: dict[str, _Session] = {}
        self._lock = asyncio.Lock()

    @property
    def open_sessions(self) -> int:
        """How many were begun and neither completed nor ended."""
        return sum(1 for session in self.sessions.values() if not session.over)

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Names the operation by method, path and query; parameters are those of the query, with the two names."""
        split = urlsplit(target)
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        parts = split.path.removeprefix("/upload").split("/")
        bucket, key = "", query.get("name", "")
        if parts[1:4] == ["storage", "v1", "b"] and len(parts) > 5:
            bucket = unquote(parts[4])
            key = unquote(parts[6]) if len(parts) > 6 else key
            operation = self._operation(method, split.path, query, headers, parts)
        elif method == "POST" and split.path == "/token":
            operation = "Token"
        elif "X-Goog-Signature" in query:
            operation = "SignedGet"
            bucket, _, key = unquote(split.path).lstrip("/").partition("/")
        else:
            operation = method
        if operation == "InsertObject" and not key:
            key = _name_in(body)
        return Call(operation, method, target, {**query, "Bucket": bucket, "Key": key}, headers, body)

    @staticmethod
    def _operation(
        method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], parts: list[str]
    ) -> str:
        if path.startswith("/upload/"):
            if method == "POST":
                return "StartSession" if query.get("uploadType") == "resumable" else "InsertObject"
            span = {name.lower(): text for name, text in headers.items()}.get("content-range", "")
            if method == "DELETE":
                return "CancelSession"
            return "SessionStatus" if span == "bytes */*" else "UploadPart" if span.endswith("/*") else "FinishSession"
        if len(parts) == 6:
            return "ListObjects"
        if "rewriteTo" in parts[7:]:
            return "RewriteObject"
        return "GetContent" if query.get("alt") == "media" else _OF_OBJECT.get(method, method)

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        """The service's own form of an error; where a content was asked for, it has no words."""
        if call.operation == "GetContent":
            return Answer(status, message.encode(), {"Content-Type": "text/html; charset=UTF-8"})
        if call.operation == "Token":
            return Answer(status, json.dumps({"error": code, "error_description": message}).encode(), _JSON)
        told = {"code": status, "message": message, "errors": [{"domain": "global", "reason": code}]}
        return Answer(status, json.dumps({"error": told}).encode(), _JSON)

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        """The back end's answer, mended."""
        if call.operation == "Token":
            return self._token(call)
        if call.operation == "SignedGet":
            return await self._signed(call, upstream)
        told = _header(call, "authorization")
        if told.removeprefix("Bearer ") not in self.tokens:
            return self.error(call, 401, "authError", "Invalid Credentials")
        if "upload_id" in call.parameters:
            return await self._in_session(call, upstream)
        if call.operation == "GetContent" and "ifGenerationMatch" in call.parameters:
            async with self._lock:  # the content of another generation must not come in between
                return await self._tied(call, upstream)
        if call.operation in (*_CHANGES, "StartSession"):
            async with self._lock:
                return await self._tied(call, upstream)
        return await upstream(call)

    async def _tied(self, call: Call, upstream: Upstream) -> Answer:
        asked = call.parameters
        tied = (
            asked.get("ifGenerationMatch")
            if call.operation != "RewriteObject"
            else asked.get("ifSourceGenerationMatch")
        )
        if tied is not None:
            there = await self._generation(call, upstream, asked["Bucket"], asked["Key"])
            if there != tied and (there != "0" or call.operation in ("InsertObject", "StartSession")):
                return self.error(call, 412, "conditionNotMet", "At least one of the pre-conditions did not hold.")
        answer = await upstream(call)
        if call.operation == "StartSession" and answer.status == 200:
            return self._begun(call, answer, tied)
        return Answer(204, b"") if call.operation == "DeleteObject" and answer.status == 200 else answer

    def _begun(self, call: Call, answer: Answer, tied: str | None) -> Answer:
        """Sends the client's parts through the proxy as well."""
        name = next(name for name in answer.headers if name.lower() == "location")
        place = urlsplit(answer.headers[name])
        session = dict(parse_qsl(place.query))["upload_id"]
        self.sessions[session] = _Session(call.parameters["Bucket"], call.parameters["Key"], tied)
        mine = f"http://{_header(call, 'host')}{place.path}?{place.query}"
        return replace(answer, headers={**answer.headers, name: mine})

    async def _in_session(self, call: Call, upstream: Upstream) -> Answer:
        session = self.sessions.get(call.parameters["upload_id"])
        if session is None or session.over:
            return self.error(call, 404, "notFound", "Not Found")
        if call.operation == "CancelSession":
            session.over = True
            return self.error(call, 499, "", "Client Closed Request")
        if call.operation == "SessionStatus":
            return Answer(308, b"", {"Range": f"bytes=0-{session.size - 1}"} if session.size else {})
        begin = int(_header(call, "content-range").removeprefix("bytes ").partition("-")[0])
        if begin != session.size:
            return self.error(call, 503, "backendError", "a part that doesn't follow the one before")
        if call.operation == "UploadPart":
            if len(call.body) % (256 << 10):
                return self.error(call, 400, "badRequest", "a part must be a multiple of 256 KiB")
            answer = await upstream(call)
            session.size += len(call.body)
            return answer
        async with self._lock:
            there = await self._generation(call, upstream, session.bucket, session.key)
            session.over = True
            if session.tied is not None and there != session.tied:
                return self.error(call, 412, "conditionNotMet", "At least one of the pre-conditions did not hold.")
            return await upstream(call)

    async def _generation(self, call: Call, upstream: Upstream, bucket: str, key: str) -> str:
        """Of what is there, `0` for nothing."""
        target = f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"
        answer = await upstream(Call("GetObject", "GET", target, {}, {}, b""))
        return "0" if answer.status == 404 else str(json.loads(answer.body)["generation"])

    def _token(self, call: Call) -> Answer:
        """Another token, for whoever has signed that he wants one."""
        form = dict(parse_qsl(call.body.decode()))
        try:
            head, claims, signature = form["assertion"].split(".")
            self._verify(_decoded(signature), f"{head}.{claims}".encode())
            told = json.loads(_decoded(claims))
            good = told["iss"] == self._email and told["exp"] > datetime.now(UTC).timestamp()
        except (ValueError, LookupError, InvalidSignature):
            good = False
        if not good:
            return self.error(call, 400, "invalid_grant", "Invalid JWT Signature.")
        token = secrets.token_urlsafe(24)
        self.tokens.add(token)
        return Answer(
            200, json.dumps({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}).encode(), _JSON
        )

    async def _signed(self, call: Call, upstream: Upstream) -> Answer:
        """A signed address, checked as https://cloud.google.com/storage/docs/authentication/canonical-requests says."""
        split = urlsplit(call.target)
        pairs = [pair for pair in split.query.split("&") if not pair.startswith("X-Goog-Signature=")]
        told: Mapping[str, Any] = call.parameters
        try:
            moment = datetime.strptime(told["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            email, _, scope = told["X-Goog-Credential"].partition("/")
            text = (
                f"GET\n{split.path}\n{'&'.join(sorted(pairs))}\nhost:{_header(call, 'host')}\n\nhost\nUNSIGNED-PAYLOAD"
            )
            digest = hashlib.sha256(text.encode()).hexdigest()
            whole = f"{told['X-Goog-Algorithm']}\n{told['X-Goog-Date']}\n{scope}\n{digest}"
            self._verify(bytes.fromhex(told["X-Goog-Signature"]), whole.encode())
            ended = moment + timedelta(seconds=int(told["X-Goog-Expires"])) < datetime.now(UTC)
        except (ValueError, LookupError, InvalidSignature):
            return Answer(
                403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>", {"Content-Type": "application/xml"}
            )
        if ended or email != self._email:
            return Answer(400, b"<Error><Code>ExpiredToken</Code></Error>", {"Content-Type": "application/xml"})
        target = f"/storage/v1/b/{quote(told['Bucket'], safe='')}/o/{quote(told['Key'], safe='')}?alt=media"
        return await upstream(Call("GetContent", "GET", target, {}, {}, b""))

    def _verify(self, signature: bytes, text: bytes) -> None:
        self._key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())


_JSON = {"Content-Type": "application/json; charset=UTF-8"}


def _header(call: Call, name: str) -> str:
    return {each.lower(): text for each, text in call.headers.items()}.get(name, "")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _name_in(body: bytes) -> str:
    """The object's name in an upload by one call."""
    try:
        head = body.split(b"\r\n\r\n", 1)[1].split(b"\r\n--", 1)[0]
        return str(json.loads(head)["name"])
    except (ValueError, LookupError):
        return ""
