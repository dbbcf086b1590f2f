"""Files of directories as the operator reads and writes them for jobs: through their gateways, over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from pydantic import ValidationError

from cloudmesh.api.datastore import DataStore
from cloudmesh.api.names import gateway_name, gateway_url
from cloudmesh.data import config as configs
from cloudmesh.data.asked import decoded, region_of
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.data.kinds import DATA_STORE, VIRTUAL_DIRECTORY
from cloudmesh.data.resources import CONFIG_KEY
from cloudmesh.engine import SECRET, Kube, is_owned_by
from cloudmesh.engine.answers import beginning, whole
from cloudmesh.engine.directories import FileOf, OpenDirectory
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, Conflict, InvalidRequest, NotFound, Transient

PAGE = 1000
MOST_BYTES = 8 << 20
PIECE = 1 << 20
LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=120.0)


class Gateways:
    """See `engine.directories.Directories`.

    Args:
        kube: Where the Secrets are that say how gateways know the operator.
        url_of: Where the gateway of a directory answers, by namespace and name.
    """

    def __init__(self, kube: Kube, url_of: Callable[[str, str], str] = gateway_url) -> None:
        self._kube = kube
        self._url_of = url_of

    @contextlib.asynccontextmanager
    async def open(self, namespace: str, name: str) -> AsyncIterator[OpenDirectory]:
        """See `Directories.open`."""
        config, _ = await self._config(namespace, name)
        async with self._session(namespace, name, config) as session:
            yield _Open(session, name)

    async def admits(self, namespace: str, name: str, login: str, folder: str) -> None:
        """See `Directories.admits`."""
        config, text = await self._config(namespace, name)
        if not config.webdav:
            raise InvalidRequest(f"VirtualDirectory '{name}': a mount needs `spec.expose.webdav: Enabled`")
        if login not in config.auth.guests:
            raise Transient(f"VirtualDirectory '{name}' hasn't heard of this mount yet")
        async with self._session(namespace, name, config) as session:
            directory = _Open(session, name)
            if (await directory.summary()).get("config") != configs.fingerprint(text):
                raise Transient(f"VirtualDirectory '{name}' hasn't taken up this mount yet")
            try:
                kind = await directory.kind(folder)
            except NotFound:
                raise NotFound(f"VirtualDirectory '{name}' has no folder '{folder}': make it first") from None
            if kind != "Directory":
                raise InvalidRequest(f"'{folder}' of VirtualDirectory '{name}' is a file: name its folder")

    def _session(self, namespace: str, name: str, config: DirectoryConfig) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {config.operator_token}"}
        return aiohttp.ClientSession(self._url_of(namespace, name), headers=headers, timeout=LIMITS)

    async def _config(self, namespace: str, name: str) -> tuple[DirectoryConfig, bytes]:
        """What the gateway of a directory was told last.

        Raises:
            NotFound: There is no such directory, or it isn't served yet.
        """
        owner = await self._kube.get(VIRTUAL_DIRECTORY, namespace, name)
        if owner is None:
            raise NotFound(f"VirtualDirectory '{name}' isn't there")
        found = await self._kube.get(SECRET, namespace, gateway_name(name))
        if found is None or not is_owned_by(found, owner["metadata"]["uid"]):
            raise NotFound(f"VirtualDirectory '{name}' isn't served yet")
        try:
            text = decoded(found.get("data")).get(CONFIG_KEY, b"")
            return configs.load(text), text
        except msgspec.DecodeError as error:
            raise NotFound(f"VirtualDirectory '{name}' isn't served yet") from error

    async def regions(self, namespace: str, name: str) -> tuple[str, ...]:
        """See `Directories.regions`."""
        found = await self._kube.get(VIRTUAL_DIRECTORY, namespace, name)
        if found is None:
            raise NotFound(f"VirtualDirectory '{name}' isn't there")
        regions = []
        for named in found["spec"]["stores"]:
            store = await self._kube.get(DATA_STORE, namespace, named["name"])
            if store is not None:
                with contextlib.suppress(ValidationError):
                    regions.append(region_of(DataStore.model_validate(store | {"status": {}})))
        return tuple(dict.fromkeys(filter(None, regions)))


class _Open:
    def __init__(self, session: aiohttp.ClientSession, name: str) -> None:
        self._session = session
        self._name = name

    async def files(self, folder: str) -> AsyncIterator[FileOf]:
        """See `OpenDirectory.files`."""
        if folder and (await self._json(f"/v1/stat/{quote(folder)}", {})).get("kind") == "File":
            raise InvalidRequest(f"'{folder}' of VirtualDirectory '{self._name}' is a file: name its folder")
        mark, top = "", len(folder) + 1 if folder else 0
        while True:
            asked = {"recursive": "true", "limit": str(PAGE), "after": mark}
            page = await self._json(f"/v1/list/{quote(folder)}", asked)
            for one in page.get("entries", ()):
                if one["kind"] == "File":
                    yield FileOf(str(one["path"])[top:], int(one["size"]), str(one["etag"]))
            mark = str(page.get("after") or "")
            if not mark:
                return

    async def read(self, path: str, tag: str) -> AsyncGenerator[bytes, None]:
        """See `OpenDirectory.read`."""
        async with self._told(), self._session.get(f"/v1/files/{quote(path)}", headers={"If-Match": tag}) as answer:
            await self._check(answer, path)
            async for chunk in answer.content.iter_chunked(PIECE):
                yield chunk

    async def write(self, path: str, chunks: AsyncIterable[bytes], size: int) -> None:
        """See `OpenDirectory.write`."""
        headers = {"Content-Length": str(size)}
        async with self._told(), self._session.put(f"/v1/files/{quote(path)}", data=chunks, headers=headers) as answer:
            await self._check(answer, path)

    async def summary(self) -> dict[str, Any]:
        """What its gateway tells of itself."""
        return await self._json("/internal/summary", {})

    async def kind(self, path: str) -> str:
        """Directory or File; the empty path is the whole directory."""
        return "Directory" if not path else str((await self._json(f"/v1/stat/{quote(path)}", {})).get("kind"))

    async def _json(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        async with self._told(), self._session.get(path, params=query) as answer:
            await self._check(answer, path)
            body = await whole(answer.content, MOST_BYTES)
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise Transient(f"the answer of VirtualDirectory '{self._name}' can't be read") from error

    @contextlib.asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        try:
            yield
        except CloudmeshError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"VirtualDirectory '{self._name}' doesn't answer: {type(error).__name__}") from error

    async def _check(self, answer: aiohttp.ClientResponse, path: str) -> None:
        if answer.status < 300:
            return
        said = ""
        with contextlib.suppress(msgspec.DecodeError, aiohttp.ClientError):
            problem = msgspec.json.decode(await beginning(answer.content, MOST_BYTES), type=dict[str, Any])
            said = str(problem.get("detail") or problem.get("title") or "")
        words = f"VirtualDirectory '{self._name}': {said or f'it answers {answer.status}'}"
        match answer.status:
            case 404:
                raise NotFound(words)
            case 412:
                raise Conflict(words)
            case 401:
                raise AuthFailed(words)
            case 400 | 403 | 409 | 413 | 415 | 422 | 507:
                raise InvalidRequest(words)
            case _:
                raise Transient(words)
