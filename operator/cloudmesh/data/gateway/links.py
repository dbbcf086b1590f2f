"""Links through REST: who makes one, and who makes a file of it."""

from __future__ import annotations

from aiohttp import web

from cloudmesh.data import links
from cloudmesh.data.gateway import reading
from cloudmesh.data.gateway.answers import json_response
from cloudmesh.data.gateway.auth import Doorkeeper, User
from cloudmesh.data.gateway.told import told
from cloudmesh.data.gateway.unlocked import Unlocked
from cloudmesh.data.model import ROOT, Entry
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import InvalidRequest


class Links:
    """The routes.

    Args:
        tree: The directory.
        door: Lets users in.
        unlocked: What locks keep from them.
    """

    def __init__(self, tree: Tree, door: Doorkeeper, unlocked: Unlocked) -> None:
        self._tree = tree
        self._door = door
        self._unlocked = unlocked

    async def link(self, request: web.Request, user: User) -> web.StreamResponse:
        """Makes a link to an object of a store."""
        path = reading.path_of(request)
        self._door.check(user, path, "update")
        # it may lead to any object of the store, also to what path rules keep from somebody
        self._door.check(user, "", "update")
        self._door.check_below(user, "", Entry(ROOT, "", "", "Directory"))
        body = await reading.json_of(request)
        store, key = body.get("store"), body.get("key")
        if not isinstance(store, str) or not isinstance(key, str) or not store or not key:
            raise InvalidRequest('the body must be like {"store": "nas", "key": "archive/2019/run.csv"}')
        await self._unlocked.check(request, user, path, member=True)
        entry = await links.link(self._tree, path, store, key)
        answer = told(path, entry, await self._tree.catalog.copies(entry.id))
        return json_response(answer, status=201, headers={"ETag": entry.etag})

    async def adopt(self, request: web.Request, user: User) -> web.StreamResponse:
        """Makes a link an ordinary file."""
        path = reading.path_of(request)
        self._door.check(user, path, "update")
        await reading.json_of(request)
        await self._unlocked.check(request, user, path)
        entry = await links.adopt(self._tree, path)
        return json_response(told(path, entry), headers={"ETag": entry.etag})
