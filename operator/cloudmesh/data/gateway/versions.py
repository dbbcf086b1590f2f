"""REST of older contents of files: what there is, the way back, giving them up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from cloudmesh.data.gateway import reading
from cloudmesh.data.gateway.answers import json_response
from cloudmesh.data.gateway.auth import Doorkeeper, User, Verb
from cloudmesh.data.gateway.told import MOST, told
from cloudmesh.data.gateway.unlocked import Unlocked
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import InvalidRequest


class Versions:
    """The routes of `/v1/versions/PATH`.

    Args:
        tree: The directory.
        door: Lets users in.
        unlocked: What locks keep from them.
    """

    def __init__(self, tree: Tree, door: Doorkeeper, unlocked: Unlocked) -> None:
        self._unlocked = unlocked
        self._tree = tree
        self._door = door

    def _path(self, request: web.Request, user: User, verb: Verb) -> str:
        path = reading.path_of(request)
        self._door.check(user, path, verb)
        return path

    async def listing(self, request: web.Request, user: User) -> web.StreamResponse:
        """Older contents of a file, the newest first."""
        path = self._path(request, user, "get")
        entry, found = await self._tree.versions(path)
        older: list[dict[str, Any]] = []
        for thing in found:
            then = replace(thing.entry, id=entry.id, name=entry.name)
            older.append(told(path, then) | {"replaced": reading.when(thing.at)})
        return json_response({"path": path, "current": told(path, entry), "versions": older})

    async def restore(self, request: web.Request, user: User) -> web.StreamResponse:
        """Makes an older content the file's own again."""
        path = self._path(request, user, "update")
        version = (await reading.json_of(request)).get("version")
        if not isinstance(version, int) or isinstance(version, bool) or not 0 < version <= MOST:
            raise InvalidRequest('the body must be like {"version": 3}')
        if_version = reading.expected(request, await self._tree.stat(path))
        await self._unlocked.check(request, user, path)
        entry = await self._tree.restore_version(path, version, if_version=if_version)
        return json_response(told(path, entry), headers={"ETag": entry.etag})

    async def delete(self, request: web.Request, user: User) -> web.StreamResponse:
        """Gives an older content up."""
        path = self._path(request, user, "update")
        if "version" not in request.query:
            raise InvalidRequest("say which one: ?version=3")
        await self._unlocked.check(request, user, path)
        await self._tree.delete_version(path, reading.number(request, "version", 0, 1, MOST))
        return web.Response(status=204)
