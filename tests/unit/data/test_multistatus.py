"""What WebDAV servers tell of their resources, and what is refused of it."""

from __future__ import annotations

import pytest

from cloudmesh.data.stores.webdav_xml import Multistatus, Resource
from cloudmesh.engine.errors import Transient


def told(text: str | bytes) -> list[Resource]:
    found: list[Resource] = []
    reader = Multistatus("x", found.append)
    data = text.encode() if isinstance(text, str) else text
    for at in range(0, len(data), 7):
        reader.feed(data[at : at + 7])
    reader.end()
    return found


def answer(*responses: str) -> str:
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'


def response(href: str, props: str, status: str = "HTTP/1.1 200 OK") -> str:
    stat = f"<D:propstat><D:prop>{props}</D:prop><D:status>{status}</D:status></D:propstat>"
    return f"<D:response><D:href>{href}</D:href>{stat}</D:response>"


def test_what_servers_tell_is_read() -> None:
    size, tag = "<D:getcontentlength>12</D:getcontentlength>", "<D:getetag>W/&quot;a-b&quot;</D:getetag>"
    when = "<D:getlastmodified>Mon, 23 Nov 2026 14:59:29 GMT</D:getlastmodified>"
    folder = "<D:resourcetype><D:collection/></D:resourcetype>"
    missing = "<D:propstat><D:prop><D:getetag/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
    file = response("http://h/a/b%20%C3%A9%FF", size + tag + when + "<D:resourcetype/>")
    found = told(answer(file, response("/a/", folder).replace("</D:response>", missing + "</D:response>")))
    assert found[0] == Resource(b"/a/b \xc3\xa9\xff", False, 12, "a-b", 1795445969000000)
    assert found[1] == Resource(b"/a/", True, 0, "", 0)
    quota = "<D:quota-used-bytes>5</D:quota-used-bytes><D:quota-available-bytes>-3</D:quota-available-bytes>"
    (seen,) = told(answer(response("/", folder + quota)))
    assert (seen.used, seen.free) == (5, None)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html><body>no</body></html>",
        '<?xml version="1.0"?><other xmlns="DAV:"/>',
        answer(response("/x", "<D:resourcetype/>"))[:-5],
        answer("<D:response></D:response>"),
        answer(response("/x", "<D:getetag/>", "HTTP/1.1 403 Forbidden")),
        answer("<D:response><D:href>/x</D:href><D:status>HTTP/1.1 507 Insufficient</D:status></D:response>"),
        f'<?xml version="1.0"?>{BOMB}<D:multistatus xmlns:D="DAV:">&b;</D:multistatus>',
        '<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><D:multistatus xmlns:D="DAV:"/>',
        answer("<x>" * 40 + "</x>" * 40),
        answer(response("/x", f"<D:getetag>{'e' * 70000}</D:getetag>")),
        answer(response("http://[x", "<D:resourcetype/>")),
        b"\xff\xfe\x00garbage",
    ],
)
def test_what_is_no_answer_is_refused(text: str | bytes) -> None:
    with pytest.raises(Transient):
        told(text)
