"""Errors of the data wing, all within the one taxonomy."""

from __future__ import annotations

from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, NotFound


class Changed(Conflict):
    """The object has another entity tag than the one asked for: somebody else wrote it."""

    reason = "Changed"


class Exists(Changed):
    """There is an object of that name, and there should be none."""

    reason = "Exists"


class Missing(NotFound):
    """There is no such object or entry: the store (or the catalogue) surely says so."""

    reason = "Missing"


class InvalidName(InvalidRequest):
    """A path or name that can't be held; the message names the part and what to do."""

    reason = "InvalidName"


class ReadOnly(CloudmeshError):
    """The store takes no writes, by its spec or by itself."""

    reason = "ReadOnly"


class Full(CloudmeshError):
    """The store, the directory's quota or its budget has no room."""

    reason = "Full"


class OverBudget(Full):
    """It would cost more a month than the directory may."""

    reason = "BudgetExceeded"


class Weak(Full):
    """Stores have room, but copies in them don't count: nothing written there could be acknowledged."""

    reason = "WeakStores"


class Suspicious(CloudmeshError):
    """What the store says isn't believed: its identity marker is missing or another one's."""

    reason = "StoreUnavailable"
