"""What locks of WebDAV keep from the other doors."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from cloudmesh.data.gateway import reading
from cloudmesh.data.gateway import webdav_locks as locking
from cloudmesh.data.gateway.auth import User
from cloudmesh.data.gateway.webdav_locks import Locked, Locks
from cloudmesh.data.tree import Tree


class Unlocked:
    """Refuses changes that meet a lock; whoever shows its token, as WebDAV does by `If`, and is its owner may go on.

    Args:
        tree: The directory.
        locks: Its locks.
    """

    def __init__(self, tree: Tree, locks: Locks) -> None:
        self._tree = tree
        self._locks = locks

    async def check(
        self, request: web.Request, user: User, path: str, *, member: bool = False, below: bool = False
    ) -> None:
        """Makes sure that a change meets no lock.

        Args:
            request: Its `If` may show tokens.
            user: Who changes something.
            path: What changes.
            member: Whether it begins or ceases to be there.
            below: Whether all below changes.

        Raises:
            Locked: It does.
        """
        await self._locks.load()
        if not self._tree.mesh.config.webdav or not self._locks.any:
            return
        tokens = self._tokens(request)
        self._refuse(tokens, user, path, member=member, below=below)
        if member:
            # directories that are missing are made with it: the first of them is a new name in the one above
            while "/" in path and await self._tree.catalog.entry(path.rpartition("/")[0]) is None:
                path = path.rpartition("/")[0]
            self._refuse(tokens, user, path, member=True, below=False)

    def _refuse(self, tokens: frozenset[str], user: User, path: str, *, member: bool, below: bool) -> None:
        closed = self._locks.closed(tokens, user.name, path, member=member, below=below)
        if closed:
            lock = closed[0]
            raise Locked(
                f"'{lock.path or '/'}' is locked by '{lock.user or 'anonymous'}' until {reading.when(lock.until)}"
            )

    async def content(
        self, request: web.Request, user: User, path: str, chunks: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The content; it doesn't end well if somebody locked the file meanwhile.

        Raises:
            Locked: Somebody did.
        """
        async for chunk in chunks:
            yield chunk
        if self._tree.mesh.config.webdav and self._locks.any:
            self._refuse(self._tokens(request), user, path, member=False, below=False)

    async def forget(self, path: str) -> None:
        """Ends the locks of what is gone."""
        if gone := [*self._locks.at(path), *self._locks.below(path)]:
            await self._locks.remove(gone)

    @staticmethod
    def _tokens(request: web.Request) -> frozenset[str]:
        shown = locking.conditions(request.headers.get("If"))
        return shown.tokens if shown is not None else frozenset()
