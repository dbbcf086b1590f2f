"""Which directory uses which store, and whether two of them would use the same objects. Pure, over cached objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.data.asked import location_of, overlap, place_of, prefix_of
from cloudmesh.engine.resources import Obj


@dataclass(frozen=True, slots=True)
class Use:
    """One directory's part of a store.

    Args:
        directory: Name of the VirtualDirectory.
        store: Name of the DataStore.
        prefix: Beginning of its keys, empty for the whole store.
        state: As its gateway sees the store; Unknown before it has looked.
        files: Whole copies in it.
        bytes: Of those.
        message: Of the gateway.
    """

    directory: str
    store: str
    prefix: str
    state: str = "Unknown"
    files: int = 0
    bytes: int = 0
    message: str = ""


def uses_of(directory: Mapping[str, Any]) -> list[Use]:
    """The stores of a directory: those of its spec, then those that are being emptied since they left it."""
    meta = directory["metadata"]
    seen = {entry["name"]: entry for entry in (directory.get("status") or {}).get("stores") or ()}
    asked = {entry["name"]: entry for entry in directory["spec"]["stores"]}
    found = []
    for name in [*asked, *(name for name in seen if name not in asked)]:
        told = seen.get(name, {})
        prefix = (
            prefix_of(meta["namespace"], meta["name"], asked[name]) if name in asked else str(told.get("prefix", ""))
        )
        found.append(
            Use(
                meta["name"], name, prefix, told.get("state", "Unknown"), told.get("files", 0), told.get("bytes", 0),
                told.get("message", ""),
            )
        )  # fmt: skip
    return found


def users_of(store: str, directories: Iterable[Mapping[str, Any]]) -> list[Use]:
    """Who uses a store, by name of the directory."""
    found = [use for directory in directories for use in uses_of(directory) if use.store == store]
    return sorted(found, key=lambda use: use.directory)


def _has(directory: Mapping[str, Any], store: str) -> bool:
    """Whether its gateway has a store."""
    return any(
        entry["name"] == store and entry.get("state") in ("Up", "Slow")
        for entry in (directory.get("status") or {}).get("stores") or ()
    )


def _rank(directory: Mapping[str, Any], store: str) -> tuple[int, str, str]:
    """Who comes first: whose gateway has the store already, then who is older."""
    meta = directory["metadata"]
    return (0 if _has(directory, store) else 1, meta.get("creationTimestamp") or "", meta.get("uid", ""))


def claimed(directory: Obj, directories: Iterable[Obj], stores: Mapping[str, Obj]) -> str:
    """Why a directory can't have one of its prefixes, empty if it can have all.

    Whoever can't have its own prefixes keeps nobody from theirs.

    Args:
        directory: The directory.
        directories: All of its namespace.
        stores: DataStores of the namespace, by name.
    """
    return _claimed(directory, list(directories), stores, {})


def _claimed(directory: Obj, directories: list[Obj], stores: Mapping[str, Obj], known: dict[str, str]) -> str:
    """The same; `known` are answers by uid, so that each directory is looked at once."""
    uid = directory["metadata"]["uid"]
    if uid not in known:
        known[uid] = _found_claimed(directory, directories, stores, known)
    return known[uid]


def _found_claimed(directory: Obj, directories: list[Obj], stores: Mapping[str, Obj], known: dict[str, str]) -> str:
    mine = [(use, location_of(stores[use.store])) for use in uses_of(directory) if use.store in stores]
    for number, (use, place) in enumerate(mine):
        for other, there in mine[number + 1 :]:
            if place == there and overlap(use.prefix, other.prefix):
                return (
                    f"DataStores '{use.store}' and '{other.store}' are the same place: copies in both would be one"
                    " object; take one out, or give them prefixes of their own"
                )
    for other_directory in directories:
        if other_directory["metadata"]["uid"] == directory["metadata"]["uid"]:
            continue
        for other in uses_of(other_directory):
            if other.store not in stores:
                continue
            for use, place in mine:
                if not overlap(use.prefix, other.prefix) or place != location_of(stores[other.store]):
                    continue
                if _rank(other_directory, other.store) < _rank(directory, use.store):
                    # ranks only fall from here, so this ends
                    if not _has(other_directory, other.store) and _claimed(other_directory, directories, stores, known):
                        continue
                    return (
                        f"the prefix '{use.prefix}' in DataStore '{use.store}' is of VirtualDirectory"
                        f" '{other.directory}' ('{other.prefix}' in '{other.store}'): use another `prefix`"
                    )
    return ""


def first_parts(directory: Mapping[str, Any]) -> list[str]:
    """What its prefixes begin with, up to the first slash: prefixes that overlap have one of these in common, or one of
    them is empty."""
    return sorted({use.prefix.partition("/")[0] for use in uses_of(directory)})


def claimed_elsewhere(
    directory: Obj, directories: Iterable[Obj], store_of: Callable[[str, str], Mapping[str, Any] | None]
) -> str:
    """Why a directory can't have one of its prefixes since a directory of another namespace has it; empty if none has.

    Only one whose gateway is in the store counts, which shows that its keys are good for it: else whoever may make a
    directory could keep others from theirs. Names of other namespaces aren't told.

    Args:
        directory: The directory.
        directories: Those whose prefixes may overlap with its own, of any namespace.
        store_of: The DataStore of a namespace and name.
    """
    namespace = directory["metadata"]["namespace"]
    mine = [use for use in uses_of(directory) if not _has(directory, use.store)]
    for other_directory in directories if mine else ():
        elsewhere = other_directory["metadata"]["namespace"]
        if elsewhere == namespace:
            continue
        for other in uses_of(other_directory):
            for use in mine:
                if not overlap(use.prefix, other.prefix) or not _has(other_directory, other.store):
                    continue
                here, there = store_of(namespace, use.store), store_of(elsewhere, other.store)
                if here is not None and there is not None and _same_for_all(here, there):
                    return (
                        f"the prefix '{use.prefix}' in DataStore '{use.store}' overlaps one that a directory of another"
                        " namespace has in the same place: use another `prefix`"
                    )
    return ""


def _same_for_all(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two DataStores of two namespaces are one place."""
    return location_of(one) == location_of(other) and place_of(one).same_for_all
