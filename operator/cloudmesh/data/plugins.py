"""Placement of somebody else's, by entry point of group `cloudmesh.placement`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from cloudmesh.engine.errors import InvalidRequest

GROUP = "cloudmesh.placement"
MOST = 1 << 62
"""Scores are below it."""

Score = Callable[[Any, Any], int | None]
"""Of a file (`Facts`) and a store (`StoreView`): the least comes first; None where the store is out of the question."""


@lru_cache(maxsize=64)
def load(name: str) -> Score:
    """The function behind an entry point.

    Raises:
        InvalidRequest: There is none of that name, or it can't be loaded.
    """
    for point in entry_points(group=GROUP, name=name):
        try:
            found: Score = point.load()
        except Exception as error:
            raise InvalidRequest(f"the plug-in '{name}' can't be loaded: {type(error).__name__}: {error}") from error
        if not callable(found):
            raise InvalidRequest(f"the plug-in '{name}' must be a function of a file and a store")
        return found
    raise InvalidRequest(f"there is no plug-in '{name}' in group {GROUP}: is it installed in the gateway's image?")


def check(names: Iterable[str]) -> None:
    """Loads plug-ins before they are needed.

    Raises:
        InvalidRequest: One of them can't be.
    """
    for name in names:
        if name:
            load(name)


def trouble(rules: Iterable[Any]) -> str:
    """Why a rule's plug-in can't be asked, empty if all can."""
    try:
        check(rule.plugin for rule in rules)
    except InvalidRequest as error:
        return str(error)
    return ""


def score(name: str, file: Any, store: Any) -> int | str | None:
    """What a plug-in says of a store: a score, None where it takes none, or in words what is wrong with the plug-in."""
    try:
        told = load(name)(file, store)
    except InvalidRequest as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever somebody else's code does, files stay where they are
        return f"the plug-in '{name}' failed: {type(error).__name__}: {error}"
    if told is None or (isinstance(told, int) and not isinstance(told, bool) and 0 <= told < MOST):
        return told
    return f"the plug-in '{name}' must answer a whole number from 0 or None, not {str(told)[:40]!r}"
