"""Rules through REST: which ones the directory has, and how a file comes to each."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from cloudmesh.data.errors import InvalidName
from cloudmesh.data.gateway import reading
from cloudmesh.data.gateway.answers import json_response
from cloudmesh.data.gateway.auth import Doorkeeper, User
from cloudmesh.data.model import link_of
from cloudmesh.data.moving import Way, ways
from cloudmesh.data.tree import Tree, facts_of
from cloudmesh.engine.errors import Conflict
from cloudmesh.policy.amounts import to_text


class Rules:
    """The route.

    Args:
        tree: The directory.
        door: Lets users in.
    """

    def __init__(self, tree: Tree, door: Doorkeeper) -> None:
        self._tree = tree
        self._door = door

    async def listing(self, request: web.Request, user: User) -> web.StreamResponse:
        """The rules, and what brings a file to each."""
        path = reading.path_of(request)
        self._door.check(user, path, "get")
        entry = await self._tree.stat(path)
        if entry.kind != "File":
            raise InvalidName(f"'{path or '/'}' is a directory: rules place files")
        copies = await self._tree.catalog.copies(entry.id)
        if link_of(copies) is not None:
            raise Conflict(f"'{path}' is a link, which no rule places: adopt it first")
        holding = frozenset(copy.store for copy in copies if copy.state == "Whole")
        mesh, facts = self._tree.mesh, facts_of(path, entry)
        found = ways(facts, mesh.config.rules, mesh.views(), self._tree.now(), holding)
        return json_response({"path": path, "rules": [self._told(user, way, path, facts.tags) for way in found]})

    def _told(self, user: User, way: Way, path: str, tags: Any) -> dict[str, Any]:
        rule = way.rule
        body: dict[str, Any] = {
            "name": rule.name, "copies": rule.copies, "minCopies": rule.min_copies, "possible": False, "current": False,
        }  # fmt: skip
        # a folder that the user may not see is no way, and isn't named
        if way.facts is None or not self._door.shows(user, way.facts.path):
            return body
        body["possible"] = True
        if way.chosen is None:
            return body
        moved, other = way.facts.path != path, dict(way.facts.tags) != dict(tags)
        body |= {"current": not moved and not other, "stores": list(way.chosen.stores)}
        body |= {"to": way.facts.path} if moved else {}
        body |= {"tags": reading.users_tags(way.facts.tags)} if other else {}
        months = [one.monthly for one in way.chosen.verdicts if one.chosen]
        if months and None not in months:
            amount = to_text(sum(month for month in months if month is not None))
            body["monthly"] = {"amount": amount, "currency": self._tree.mesh.config.currency}
        return body
