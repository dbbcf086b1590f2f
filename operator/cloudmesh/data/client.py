"""A directory from Python: `Vdir("lab")` reads and writes it through its gateway."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

import urllib3

from cloudmesh.api.names import gateway_url
from cloudmesh.data import names
from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, Conflict, InvalidRequest, RateLimited, Transient

TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
NAMESPACE_FILE = TOKEN_FILE.with_name("namespace")
PIECE = 1 << 20
CONNECT_SECONDS, READ_SECONDS = 10.0, 300.0
_ERRNO = re.compile(r"\[Errno -?\d+\] ([^()\"']+)")
_ERRORS: Mapping[int, type[CloudmeshError]] = {
    400: InvalidRequest, 401: AuthFailed, 403: AuthFailed, 404: Missing, 408: Transient, 412: Changed,
    422: InvalidName, 423: Conflict, 429: RateLimited, 503: Transient, 507: Full,
}  # fmt: skip


class Vdir:
    """One VirtualDirectory.

    Args:
        name: Name of the VirtualDirectory.
        namespace: Its namespace; left out, the Pod's own, else `default`.
        url: Where its gateway answers; left out, `CLOUDMESH_VDIR_URL`, else the Service inside the cluster.
        token: A Kubernetes token; left out, `CLOUDMESH_VDIR_TOKEN`, else the Pod's own where there is one.
        user: A user name, with `password` instead of a token.
        password: Its password.

    All methods raise `cloudmesh.engine.errors.CloudmeshError`: Missing, Exists, Changed, Full, InvalidName, AuthFailed,
    and Transient where trying again may help.
    """

    def __init__(
        self, name: str, *, namespace: str = "", url: str = "", token: str = "", user: str = "", password: str = ""
    ) -> None:
        self.name = name
        self._meant = f"{namespace}/{name}" if namespace else name
        space = namespace or (NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default")
        self.url = (url or os.environ.get("CLOUDMESH_VDIR_URL") or gateway_url(space, name)).rstrip("/")
        self._token, self._basic = token or os.environ.get("CLOUDMESH_VDIR_TOKEN", ""), ""
        if user:
            self._token, self._basic = "", base64.b64encode(f"{user}:{password}".encode()).decode()
        given = url or os.environ.get("CLOUDMESH_VDIR_URL")
        self._hint = "" if given else "; outside of its cluster, CLOUDMESH_VDIR_URL has to say where its gateway is"
        self._pool, self._process = _pool(), os.getpid()

    def __repr__(self) -> str:
        return f"Vdir({self.name!r}, url={self.url!r})"

    # -- looking

    def stat(self, path: str) -> dict[str, Any]:
        """What is at a path: `path`, `name`, `kind`, `modified`, and of files `size`, `etag`, `sha256`."""
        return self._json("GET", f"/v1/stat/{_quoted(path)}")

    def exists(self, path: str) -> bool:
        """Whether there is something."""
        try:
            self.stat(path)
        except Missing:
            return False
        return True

    def list(self, path: str = "", *, recursive: bool = False) -> Iterator[dict[str, Any]]:
        """What is in a directory, page by page."""
        return self._pages(f"/v1/list/{_quoted(path)}", {"recursive": "true"} if recursive else {})

    def search(self, name: str = "*", **query: str | int) -> Iterator[dict[str, Any]]:
        """Files by name pattern; also `under`, `tags`, `minSize`, `maxSize`, `newer`, `older`."""
        return self._pages("/v1/search", {"name": name} | {key: str(value) for key, value in query.items()})

    def trash(self) -> Iterator[dict[str, Any]]:
        """What was deleted and can be restored by its `id`."""
        return self._pages("/v1/trash", {})

    def where(self, path: str) -> dict[str, Any]:
        """Where the copies of a file lie, and what they cost a month."""
        return self._json("GET", f"/v1/where/{_quoted(path)}")

    def why(self, path: str) -> dict[str, Any]:
        """Which rule places a file, and what became of each store."""
        return self._json("GET", f"/v1/why/{_quoted(path)}")

    def rules(self, path: str) -> dict[str, Any]:
        """The rules of the directory, in order, and which `tags` or which path (`to`) bring a file to each."""
        return self._json("GET", f"/v1/rules/{_quoted(path)}")

    def usage(self) -> dict[str, Any]:
        """Sums, and the state of the stores."""
        return self._json("GET", "/v1/usage")

    def snapshot(self) -> dict[str, Any]:
        """Has the whole catalogue written into the stores; `at` is when that was."""
        return self._json("POST", "/v1/snapshot", {})

    def rebuild(self) -> dict[str, Any]:
        """Has the catalogue thrown away and made anew of what the stores hold; until that is done nobody is served."""
        return self._json("POST", "/v1/rebuild", {"directory": self.name}, allowed=(202,))

    def believe(self, store: str, seen: str) -> dict[str, Any]:
        """Says that objects which a store's listing lacks (`SuspiciousShrink`) are gone: those that its message told.

        Args:
            store: Name of the store.
            seen: What the message says of them, such as `812-3fa9c2`.

        Raises:
            Conflict: By now it lacks something else.
        """
        return self._json("POST", "/v1/believe", {"store": store, "seen": seen}, allowed=(202,))

    def versions(self, path: str) -> dict[str, Any]:
        """A file as it is (`current`), and its older contents that are kept (`versions`), the newest first."""
        return self._json("GET", f"/v1/versions/{_quoted(path)}")

    def cost(self) -> dict[str, Any]:
        """What all copies cost a month, and what was read since the month began, by store."""
        return self._json("GET", "/v1/cost")

    def quote(self) -> dict[str, Any]:
        """What the change takes that waits for approval; raises Missing where none does."""
        return self._json("GET", "/v1/quote")

    def plan(self, rules: Sequence[Mapping[str, Any]], stores: Sequence[str]) -> dict[str, Any]:
        """What it would take to place all files by other rules, over these stores; nothing is changed.

        Args:
            rules: As the gateway's configuration has them.
            stores: Names; the files of one that isn't among them are moved elsewhere.
        """
        return self._json("POST", "/v1/plan", {"rules": [dict(rule) for rule in rules], "stores": [*stores]})

    # -- contents

    def read(self, path: str, *, start: int = 0, stop: int | None = None, etag: str = "", version: int = 0) -> bytes:
        """The bytes of a file from `start` to before `stop`.

        Args:
            path: The file.
            start: First byte.
            stop: The byte after the last one, None for the end.
            etag: Only if it is of this entity tag.
            version: An older content that is kept; 0 for the file as it is.
        """
        return b"".join(self.chunks(path, start=start, stop=stop, etag=etag, version=version))

    def chunks(
        self, path: str, *, start: int = 0, stop: int | None = None, etag: str = "", version: int = 0
    ) -> Iterator[bytes]:
        """The same in pieces."""
        if stop is not None and stop <= start:
            return
        headers = {"If-Match": etag} if etag else {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        older = f"?version={version}" if version else ""
        answer = self._send(
            "GET", f"/v1/files/{_quoted(path)}{older}", headers=headers, allowed=(200, 206, 416), stream=True
        )
        whole = False
        try:
            if answer.status == 416:
                return
            # fewer bytes than were announced are an error of the library's
            yield from answer.stream(PIECE)
            whole = True
        except urllib3.exceptions.HTTPError as error:
            raise Transient(f"reading '{path}' broke off: {error}") from error
        finally:
            # a connection on which bytes are left that nobody reads is of no use to the next request
            answer.release_conn() if whole else answer.close()

    def write(
        self,
        path: str,
        content: bytes | IO[bytes] | Iterable[bytes],
        *,
        etag: str = "",
        new: bool = False,
        modified: str = "",
        content_type: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Writes a file; it is there, in as many stores as the directory asks for, when this returns.

        Args:
            path: Where.
            content: Bytes, an open file, or pieces.
            etag: Only over this version.
            new: Only where there is no file.
            modified: When it was changed, RFC 3339 or microseconds; now if left out.
            content_type: Media type.
            tags: Tags of a new file.
        """
        headers = {"Content-Type": content_type or "application/octet-stream"}
        headers |= {"If-Match": etag} if etag else {}
        headers |= {"If-None-Match": "*"} if new else {}
        headers |= {"Cloudmesh-Modified": modified} if modified else {}
        headers |= {"Cloudmesh-Tags": urlencode(tags)} if tags else {}
        if isinstance(content, bytes):
            headers["Content-Length"] = str(len(content))
        elif isinstance(content, io.IOBase) and content.seekable():
            at = content.tell()
            headers["Content-Length"] = str(content.seek(0, io.SEEK_END) - at)
            content.seek(at)
        answer = self._send("PUT", f"/v1/files/{_quoted(path)}", headers=headers, body=content, allowed=(200, 201))
        return dict(json.loads(answer.data))

    def put(self, source: str | Path, path: str, *, new: bool = False) -> dict[str, Any]:
        """Writes a local file into the directory, with its time; `new`: only where there is no file."""
        with Path(source).open("rb") as file:
            return self.write(path, file, new=new, modified=str(os.fstat(file.fileno()).st_mtime_ns // 1000))

    def get(self, path: str, target: str | Path, *, version: int = 0) -> Path:
        """Reads a file of the directory, or an older version, into a local one: there whole or not at all."""
        target = Path(target)
        # a name of its own: not a file of the user's, nor that of another process
        part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                for chunk in self.chunks(path, version=version):
                    file.write(chunk)
            return part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    # -- the tree

    def mkdir(self, path: str, *, parents: bool = True) -> dict[str, Any]:
        """Makes a directory."""
        return self._json("PUT", f"/v1/directories/{_quoted(path)}?parents={str(parents).lower()}", allowed=(200, 201))

    def move(self, source: str, target: str, *, overwrite: bool = False) -> dict[str, Any]:
        """Renames a file or a directory of any size."""
        return self._json("POST", "/v1/move", {"from": source, "to": target, "overwrite": overwrite})

    def copy(self, source: str, target: str, *, overwrite: bool = False) -> dict[str, Any]:
        """Copies a file."""
        return self._json("POST", "/v1/copy", {"from": source, "to": target, "overwrite": overwrite}, allowed=(201,))

    def delete(self, path: str, *, recursive: bool = False, etag: str = "") -> None:
        """Moves a file or directory to the trash."""
        query = "?recursive=true" if recursive else ""
        headers = {"If-Match": etag} if etag else {}
        self._send("DELETE", f"/v1/files/{_quoted(path)}{query}", headers=headers, allowed=(204,))

    def restore(self, entry_id: str, path: str = "") -> dict[str, Any]:
        """Brings something back from the trash, to where it was or to `path`."""
        return self._json("POST", "/v1/restore", {"id": entry_id} | ({"to": path} if path else {}))

    def restore_version(self, path: str, version: int, *, etag: str = "") -> dict[str, Any]:
        """Makes an older content of a file its own again, as a new version; `etag`: only over this one."""
        headers = {"If-Match": etag} if etag else {}
        return self._json("POST", f"/v1/versions/{_quoted(path)}", {"version": version}, headers=headers)

    def delete_version(self, path: str, version: int) -> None:
        """Gives an older content of a file up."""
        self._send("DELETE", f"/v1/versions/{_quoted(path)}?version={version}", allowed=(204,))

    def set_tags(self, path: str, tags: Mapping[str, str]) -> dict[str, Any]:
        """Replaces the tags."""
        return self._json("PUT", f"/v1/tags/{_quoted(path)}", dict(tags))

    def link(self, path: str, store: str, key: str) -> dict[str, Any]:
        """Makes a link to an object of a store of the directory, which is read where it lies and never changed."""
        return self._json("PUT", f"/v1/links/{_quoted(path)}", {"store": store, "key": key}, allowed=(201,))

    def adopt(self, path: str) -> dict[str, Any]:
        """Makes a link an ordinary file: its content is copied to where the rules place it; the object stays."""
        return self._json("POST", f"/v1/links/{_quoted(path)}", {})

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    # -- requests

    def _authorization(self) -> str:
        if self._basic:
            return f"Basic {self._basic}"
        token = self._token or (TOKEN_FILE.read_text().strip() if TOKEN_FILE.exists() else "")  # it is renewed
        return f"Bearer {token}" if token else ""

    def _send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        allowed: tuple[int, ...] = (200,),
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        # whatever answers at a URL: only this directory is to do it
        all_headers = {"Cloudmesh-Directory": quote(self._meant, safe="/"), **(headers or {})}
        if who := self._authorization():
            all_headers["Authorization"] = who
        if self._process != os.getpid():
            # after a fork both processes would read from the same connections
            self._pool, self._process = _pool(), os.getpid()
        try:
            answer = self._pool.request(
                method, self.url + target, headers=all_headers, body=body, preload_content=not stream, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise Transient(f"{self.url} doesn't answer: {_why(error)}{self._hint}") from error
        if answer.status in allowed:
            return answer
        raise _error(answer.status, answer.data)

    def _json(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        allowed: tuple[int, ...] = (200,),
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        sent = None if body is None else json.dumps(body).encode()
        given = dict(headers or {}) | ({"Content-Type": "application/json"} if body is not None else {})
        return dict(json.loads(self._send(method, target, headers=given, body=sent, allowed=allowed).data))

    def _pages(self, target: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        asked = dict(query)
        while True:
            page = self._json("GET", f"{target}?{urlencode(asked)}")
            yield from page["entries"]
            if "after" not in page:
                return
            asked["after"] = page["after"]


def _pool() -> urllib3.PoolManager:
    # reads are tried again by the library; writes never are, since nobody knows what a lost answer meant
    retries = urllib3.Retry(3, backoff_factor=0.3, status_forcelist=(502, 504), allowed_methods=("GET", "HEAD"))
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    return urllib3.PoolManager(maxsize=16, retries=retries, timeout=timeout)


def _why(error: urllib3.exceptions.HTTPError) -> str:
    """What went wrong on a connection, without the library's objects."""
    inner = getattr(error, "reason", None) or error
    found = _ERRNO.search(str(inner))
    return found[1] if found else str(inner)


def _quoted(path: str) -> str:
    # checked here too: libraries resolve `..` in URLs by themselves, and would ask for something else
    return quote(names.clean_path(path), safe="/")


def _error(status: int, body: bytes) -> CloudmeshError:
    try:
        problem = json.loads(body)
        detail, reason = str(problem.get("detail", "")), str(problem.get("reason", ""))
    except (ValueError, AttributeError):
        detail, reason = body[:200].decode(errors="replace"), ""
    if status == 409:
        return (Exists if reason == "Exists" else Conflict)(detail)
    kind = _ERRORS.get(status, Transient if status >= 500 else InvalidRequest)
    return kind(detail or f"the gateway answers {status}")
