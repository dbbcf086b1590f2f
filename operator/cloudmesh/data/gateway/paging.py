"""Pages of what a user may see, each within bounds of rows and time, and marks that tell no hidden name."""

from __future__ import annotations

import fnmatch
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cloudmesh.data.catalog.ports import Located, Query
from cloudmesh.engine.errors import InvalidRequest

ROWS: Final = 50_000
"""Entries that one page looks at, at most."""
SECONDS: Final = 5.0
"""And how long."""
STEP: Final = 1000
LEAST: Final = 100
"""Entries that are looked at together."""
CURSORS: Final = 4096
OURS: Final = "/"
"""What no path and no name begins with."""


@dataclass(frozen=True, slots=True)
class Page:
    """What was found.

    Args:
        found: The entries.
        mark: What the next page is asked with; empty at the end.
        truncated: The page ended at a bound, not because it is full.
    """

    found: tuple[Located, ...]
    mark: str = ""
    truncated: bool = False


class Pager:
    """Makes pages.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hidden: OrderedDict[str, str] = OrderedDict()
        """Marks that would tell a name that the user may not see, by what they are told instead."""

    async def page(
        self,
        more: Callable[[str, int], Awaitable[list[Located]]],
        wanted: Callable[[Located], bool],
        visible: Callable[[Located], bool],
        mark_of: Callable[[Located], str],
        after: str,
        limit: int,
        step: int = STEP,
    ) -> Page:
        """As many entries as were asked for, of those that are wanted and visible.

        Args:
            more: Gives so many entries after a mark, fewer at the end.
            wanted: Whether an entry matches.
            visible: Whether the user may see it.
            mark_of: The mark of an entry.
            after: The mark of the page before.
            limit: Entries at most.
            step: So many are looked at together.

        Raises:
            InvalidRequest: The mark has ended.
        """
        mark, begun, rows = self._of(after), self._clock(), 0
        found: list[Located] = []
        while True:
            some = await more(mark, step)
            for one in some:
                if not wanted(one) or not visible(one):
                    continue
                found.append(one)
                if len(found) == limit:
                    return Page(tuple(found), mark_of(one))
            rows += len(some)
            if len(some) < step:
                return Page(tuple(found))
            mark = mark_of(some[-1])
            if rows >= ROWS or self._clock() - begun >= SECONDS:
                shown = visible(some[-1])
                return Page(tuple(found), mark if shown else self._hide(mark), truncated=True)

    def _hide(self, mark: str) -> str:
        key = OURS + secrets.token_urlsafe(16)
        self._hidden[key] = mark
        while len(self._hidden) > CURSORS:
            self._hidden.popitem(last=False)
        return key

    def _of(self, after: str) -> str:
        if not after.startswith(OURS):
            return after
        mark = self._hidden.get(after)
        if mark is None:
            raise InvalidRequest("'after' isn't good any more: begin with the first page")
        return mark


def matcher(query: Query) -> Callable[[Located], bool]:
    """Whether an entry is what was searched for."""
    # its translation never goes back over a star, so that no pattern takes for ever
    pattern = re.compile(fnmatch.translate(query.name.casefold().replace("[", "[[]")))
    most = query.max_size if query.max_size is not None else 1 << 63

    def matches(located: Located) -> bool:
        entry = located.entry
        return (
            query.min_size <= entry.size <= most
            and (not query.newer or entry.mtime > query.newer)
            and (not query.older or entry.mtime < query.older)
            and pattern.fullmatch(entry.name.casefold()) is not None
            and all(
                name in entry.tags and (not value or entry.tags[name] == value)
                for name, value in (query.tags or {}).items()
            )
        )

    return matches


def told_of(page: Page, path_query: Callable[[str], str]) -> tuple[dict[str, object], dict[str, str]]:
    """The members and headers by which a page tells of the next one."""
    body: dict[str, object] = {"truncated": True} if page.truncated else {}
    if not page.mark:
        return body, {}
    return body | {"after": page.mark}, {"Link": f'<{path_query(page.mark)}>; rel="next"'}
