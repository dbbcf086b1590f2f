"""What whoever may change the whole directory can have done to it: a snapshot, a new catalogue, a listing believed."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from cloudmesh.data.gateway import reading
from cloudmesh.data.gateway.answers import json_response
from cloudmesh.data.gateway.auth import Doorkeeper, User
from cloudmesh.data.model import ROOT, Entry
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import InvalidRequest


class Keeper(Protocol):
    """Does it."""

    async def snapshot(self) -> tuple[int, int]:
        """Writes the whole catalogue into the stores; gives the last record before it, and when it was."""

    async def rebuild(self) -> None:
        """Throws the catalogue away and begins to make it anew."""

    def believe(self, store: str, seen: str) -> None:
        """What a store's listing was seen to lack is gone; `seen` is the word for it in the store's message."""


class Upkeep:
    """The routes.

    Args:
        tree: The directory.
        door: Lets users in.
        keeper: Does it.
    """

    def __init__(self, tree: Tree, door: Doorkeeper, keeper: Keeper) -> None:
        self._tree = tree
        self._door = door
        self._keeper = keeper

    def _check(self, user: User) -> None:
        """Whether somebody may change all of it.

        Raises:
            Forbidden: No.
        """
        self._door.check(user, "", "update")
        # not asked of the catalogue, which may be what is damaged
        self._door.check_below(user, "", Entry(ROOT, "", "", "Directory"))

    async def snapshot(self, request: web.Request, user: User) -> web.StreamResponse:
        """Writes the catalogue down."""
        await reading.json_of(request)
        self._check(user)
        record, at = await self._keeper.snapshot()
        return json_response({"record": record, "at": reading.when(at)})

    async def rebuild(self, request: web.Request, user: User) -> web.StreamResponse:
        """Makes the catalogue anew; the answer comes when that has begun."""
        body, name = await reading.json_of(request), self._tree.mesh.config.name
        self._check(user)
        if body.get("directory") != name:
            raise InvalidRequest(f'the body must be {{"directory": "{name}"}}: so much is thrown away by no accident')
        await self._keeper.rebuild()
        return json_response({"directory": name, "state": "Rebuilding"}, status=202)

    async def believe(self, request: web.Request, user: User) -> web.StreamResponse:
        """Believes a listing."""
        body = await reading.json_of(request)
        self._check(user)
        store, seen = body.get("store"), body.get("seen")
        if not isinstance(store, str) or not isinstance(seen, str):
            raise InvalidRequest('the body must be like {"store": "nas", "seen": "812-3fa9c2"}, as its message says')
        self._keeper.believe(store, seen)
        return json_response({"store": store}, status=202)
