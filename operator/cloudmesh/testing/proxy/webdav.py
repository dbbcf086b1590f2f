"""What the proxy knows of WebDAV: which operation a request is, and how such a server words an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from cloudmesh.testing.proxy.core import Answer, Call, Upstream


class WebdavDialect:
    """WebDAV; operations are methods, those of PROPFIND with their depth, such as `PROPFIND:1`.

    Args:
        quota: Gives bytes used and free, where the back end doesn't tell them (RFC 4331).
    """

    def __init__(self, quota: Callable[[], tuple[int, int]] | None = None) -> None:
        self._quota = quota

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Names the operation; parameters are `Path`, and `Destination` where there is one."""
        small = {name.lower(): value for name, value in headers.items()}
        operation = f"{method}:{small.get('depth', 'infinity')}" if method == "PROPFIND" else method
        places = {"Path": unquote(urlsplit(target).path)}
        if "destination" in small:
            places["Destination"] = unquote(urlsplit(small["destination"]).path)
        return Call(operation, method, target, places, headers, body)

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        """As Apache words it; none in an answer to HEAD."""
        words = f"<head><title>{status} {escape(code)}</title></head><body>{escape(message)}</body>"
        page = f"<!DOCTYPE HTML>\n<html>{words}</html>\n"
        body = b"" if call.method == "HEAD" else page.encode()
        return Answer(status, body, {"Content-Type": "text/html; charset=iso-8859-1"})

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        """The back end's own answer, with a quota where one is asked for."""
        answer = await upstream(call)
        if self._quota is None or b"quota-" not in call.body or answer.status != 207:
            return answer
        used, free = self._quota()
        told = (
            f"<Q:quota-used-bytes>{used}</Q:quota-used-bytes><Q:quota-available-bytes>{free}</Q:quota-available-bytes>"
        )
        more = f'<Q:propstat xmlns:Q="DAV:"><Q:prop>{told}</Q:prop><Q:status>HTTP/1.1 200 OK</Q:status></Q:propstat>'
        return Answer(
            answer.status, answer.body.replace(b"</D:response>", f"{more}</D:response>".encode()), answer.headers
        )
