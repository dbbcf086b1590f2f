"""Counts what waits for approval, over all files, a page at a time; the count is kept until the question changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from cloudmesh.data.approval import figures
from cloudmesh.data.config import PlacementRule, Proposal, Quote
from cloudmesh.data.errors import Missing
from cloudmesh.data.mesh import Mesh
from cloudmesh.data.model import MICROS
from cloudmesh.data.quote import VALID_SECONDS, Counting, terms_of
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, Transient

log = logging.getLogger(__name__)

SETTING = "quote"
PAGE = 200
"""Files that are counted between two looks at everything else."""
LOOK_SECONDS = 1.0


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /v1/plan` takes."""

    rules: Annotated[tuple[PlacementRule, ...], msgspec.Meta(min_length=1, max_length=32)]
    stores: Annotated[frozenset[str], msgspec.Meta(max_length=32)]


class Quoting:
    """Answers the question that the configuration asks.

    Args:
        tree: The directory.
        now: Microseconds.
    """

    def __init__(self, tree: Tree, now: Callable[[], int]) -> None:
        self._tree, self._now = tree, now
        self._mesh: Mesh = tree.mesh
        self._kept: Quote | None = None
        self._read = False
        self._counting = asyncio.Lock()
        self.waits = ""

    @property
    def quote(self) -> Quote | None:
        """The answer to the present question, None while there is none."""
        proposal = self._mesh.config.proposal
        return self._kept if proposal and self._kept and self._kept.question == proposal.question else None

    async def run(self) -> None:
        """Answers until it is cancelled."""
        while True:
            try:
                await self.look()
            except CloudmeshError as error:
                # it may name a file
                self.waits = f"the change can't be counted yet: {error.reason} (the gateway's log tells more)"
                log.warning("the change can't be counted yet: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Counts if there is a question without an answer, or whose answer is too old.

        Raises:
            CloudmeshError: It can't be counted now.
        """
        catalog, proposal = self._tree.catalog, self._mesh.config.proposal
        if not self._read:
            text = await catalog.get(SETTING)
            try:
                self._kept = msgspec.json.decode(text, type=Quote) if text else None
            except msgspec.DecodeError:
                self._kept = None
            self._read = True
        if proposal is None:
            self.waits = ""
            if self._kept is not None:
                self._kept = None
                await catalog.set(SETTING, "")
            return
        known = self.quote
        if known is not None and 0 <= self._now() - known.made_at < VALID_SECONDS * MICROS:
            return
        made = await self.count(proposal)
        if self._mesh.config.proposal == proposal:
            await catalog.set(SETTING, msgspec.json.encode(made).decode())
            self._kept, self.waits = made, ""

    def told(self) -> dict[str, Any]:
        """The answer as `status.quote` has it.

        Raises:
            Missing: Nothing waits for approval.
            Transient: It isn't counted yet.
        """
        if self._mesh.config.proposal is None:
            raise Missing("no change waits for approval")
        if self.quote is None:
            raise Transient(self.waits or "what the change takes is being counted")
        return figures(self.quote)

    async def plan(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What it would take to place files by other rules, over other stores.

        Args:
            asked: `rules` as a configuration has them, and names of `stores`; one that isn't named is drained.

        Raises:
            InvalidRequest: They aren't such.
            Missing: The directory has no store of such a name.
        """
        try:
            wanted = msgspec.convert(asked, _Asked)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"`rules` and `stores` can't be read: {error}") from error
        if any(rule.copies < 1 for rule in wanted.rules):
            raise InvalidRequest("`copies` of a rule must be at least 1")
        stores = {store.name: store for store in self._mesh.config.stores}
        if strange := sorted({*wanted.stores} - {*stores}):
            raise Missing(
                f"{', '.join(strange)} isn't a store of the directory yet: with `apply.mode` RequireApproval the quote"
                " of its status counts new stores too"
            )
        placings = tuple(
            msgspec.structs.replace(terms_of(store), access=store.access if name in wanted.stores else "Drain")
            for name, store in stores.items()
        )
        return figures(await self.count(Proposal("", wanted.rules, placings)))

    async def count(self, proposal: Proposal) -> Quote:
        """Counts over all files by what the catalogue has of them, as if stores that are away were back.

        Raises:
            Conflict: Another count is under way.
        """
        if self._counting.locked():
            raise Conflict("another change is being counted: try again")
        async with self._counting:
            views = self._mesh.views()
            unseen = tuple(view.config.name for view in views if not view.up)
            totals = await self._tree.catalog.totals()
            # what is placed while they are away is placed for good only when they are back
            views = [replace(view, up=True) for view in views]
            counting = Counting(proposal, views, totals.stores, self._mesh.config, self._now())
            after = ""
            while page := await self._tree.catalog.walk("", after=after, limit=PAGE, copies=True):
                for located in page:
                    counting.add(located)
                after = page[-1].path
                await asyncio.sleep(0)
            return msgspec.structs.replace(counting.quote(), unseen=unseen)
