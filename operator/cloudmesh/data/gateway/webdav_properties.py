"""Properties of WebDAV: what a client asks for, what there is, what it changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cloudmesh.data.gateway import reading
from cloudmesh.data.gateway import webdav_xml as xml
from cloudmesh.data.gateway.webdav_locks import Lock
from cloudmesh.data.gateway.webdav_xml import DAV, Element
from cloudmesh.data.model import MICROS, Entry
from cloudmesh.engine.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants to know.

    Args:
        names: Properties by name, None for all that there are.
        values: Their values too, not only their names.
        more: Those that it wants besides all.
    """

    names: tuple[str, ...] | None = None
    values: bool = True
    more: tuple[str, ...] = ()

    @property
    def quota(self) -> bool:
        """Whether it asks how much room there is."""
        return not _QUOTA.isdisjoint((*(self.names or ()), *self.more))


@dataclass(frozen=True, slots=True)
class Seen:
    """One entry as it is described.

    Args:
        entry: It.
        now: Microseconds.
        root: Where WebDAV begins.
        locks: Locks that a change of it meets.
        used: Bytes of all files, where asked for.
        free: Bytes that there is room for, where it is known.
    """

    entry: Entry
    now: int
    root: str
    locks: Sequence[Lock] = field(default_factory=tuple)
    used: int | None = None
    free: int | None = None


_LOCKS: Final = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    for scope in ("exclusive", "shared")
)
_QUOTA: Final = frozenset({f"{DAV}quota-used-bytes", f"{DAV}quota-available-bytes"})


def _of_file(value: Callable[[Entry], str]) -> Callable[[Seen], str | None]:
    return lambda seen: xml.text(value(seen.entry)) if seen.entry.kind == "File" else None


def _created(seen: Seen) -> str:
    return reading.when(seen.entry.created)[:19] + "Z"


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


LIVE: Final[dict[str, Callable[[Seen], str | None]]] = {
    "resourcetype": lambda seen: "<D:collection/>" if seen.entry.kind == "Directory" else "",
    "displayname": lambda seen: xml.text(seen.entry.name),
    "creationdate": _created,
    "getlastmodified": lambda seen: reading.http_date(seen.entry.mtime or seen.entry.created),
    "getcontentlength": _of_file(lambda entry: str(entry.size)),
    "getcontenttype": _of_file(lambda entry: entry.content_type or "application/octet-stream"),
    "getetag": _of_file(lambda entry: entry.etag),
    "supportedlock": lambda _: _LOCKS,
    "lockdiscovery": lambda seen: _active(seen.locks, seen.now, seen.root),
    "quota-used-bytes": lambda seen: _number(seen.used),
    "quota-available-bytes": lambda seen: _number(seen.free),
}
"""By local name, what the value of a property of ours is; None where an entry has none."""


def asked_of(body: Element | None) -> Asked:
    """Reads the body of a PROPFIND.

    Raises:
        InvalidRequest: It isn't one.
    """
    if body is None:
        return Asked()
    found = {kind: body.find(f"{DAV}{kind}") for kind in ("allprop", "propname", "prop")}
    kinds = [kind for kind, one in found.items() if one is not None]
    if body.tag != f"{DAV}propfind" or len(kinds) != 1:
        raise InvalidRequest("the body must be a propfind with one of allprop, propname and prop")
    if kinds == ["allprop"]:
        return Asked(more=_names(body.find(f"{DAV}include")))
    if kinds == ["propname"]:
        return Asked(values=False)
    return Asked(names=_names(found["prop"]))


def _names(element: Element | None) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(one.tag for one in element)) if element is not None else ()
    if len(found) > xml.MAX_NAMES:
        raise InvalidRequest(f"{xml.MAX_NAMES} properties at most can be asked for at once")
    return found


def described(asked: Asked, seen: Seen) -> str:
    """What is told of an entry, as propstats."""
    dead = xml.dead(seen.entry)
    if not asked.values:
        live = [f"<D:{name}/>" for name, value in LIVE.items() if DAV + name not in _QUOTA and value(seen) is not None]
        return xml.propstat("200 OK", [*live, *map(xml.empty, dead)])
    if asked.names is None:
        names = [DAV + name for name in LIVE if DAV + name not in _QUOTA]
        names += [*dead, *(name for name in asked.more if name not in names and name not in dead)]
    else:
        names = list(asked.names)
    there: list[str] = []
    missing: list[str] = []
    for name in names:
        local = name.removeprefix(DAV)
        if local != name and local in LIVE:
            value = LIVE[local](seen)
            if value is not None:
                there.append(f"<D:{local}>{value}</D:{local}>" if value else f"<D:{local}/>")
            elif asked.names is not None:
                missing.append(xml.empty(name))
        elif name in dead:
            there.append(dead[name])
        else:
            missing.append(xml.empty(name))
    found = xml.propstat("200 OK", there) + xml.propstat("404 Not Found", missing)
    return found or "<D:propstat><D:prop/><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"


def _active(locks: Sequence[Lock], now: int, root: str) -> str:
    found = []
    for lock in locks:
        scope, depth = "shared" if lock.shared else "exclusive", "infinity" if lock.deep else "0"
        left = max(0, (lock.until - now) // MICROS)
        found.append(
            f"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>"
            f"<D:depth>{depth}</D:depth>{lock.owner}<D:timeout>Second-{left}</D:timeout>"
            f"<D:locktoken><D:href>{xml.text(lock.token)}</D:href></D:locktoken>"
            f"<D:lockroot><D:href>{xml.href(root, lock.path, directory=False)}</D:href></D:lockroot></D:activelock>"
        )
    return "".join(found)


def lock_discovery(locks: Sequence[Lock], now: int, root: str) -> str:
    """The property that tells of locks."""
    return f"<D:lockdiscovery>{_active(locks, now, root)}</D:lockdiscovery>"


def patched(body: Element | None, entry: Entry, *, writable: bool) -> tuple[dict[str, str] | None, str]:
    """What a PROPPATCH changes: all of it or nothing.

    Args:
        body: Its body.
        entry: What it changes.
        writable: Whether the entry can keep properties; the root can't.

    Returns:
        The entry's new tags, None if nothing is to be written; and the answer as propstats.

    Raises:
        InvalidRequest: It isn't one.
    """
    if body is None or body.tag != f"{DAV}propertyupdate":
        raise InvalidRequest("the body must be a propertyupdate")
    kept = xml.dead(entry)
    fine: list[str] = []
    refused: list[str] = []
    for step in body:
        if step.tag not in (f"{DAV}set", f"{DAV}remove"):
            continue
        for one in (o for prop in step.findall(f"{DAV}prop") for o in prop):
            name = one.tag
            if not writable or (name.startswith(DAV) and name.removeprefix(DAV) in LIVE):
                refused.append(name)
                continue
            fine.append(name)
            if step.tag == f"{DAV}set":
                kept[name] = xml.element(one)
            else:
                kept.pop(name, None)
    if not fine and not refused:
        raise InvalidRequest("the propertyupdate changes nothing")
    fine, refused = list(dict.fromkeys(fine)), list(dict.fromkeys(refused))
    if refused:
        why = "<D:error><D:cannot-modify-protected-property/></D:error>"
        answer = xml.propstat("403 Forbidden", map(xml.empty, refused), why)
        return None, answer + xml.propstat("424 Failed Dependency", map(xml.empty, fine))
    if sum(len(name) + len(value) for name, value in kept.items()) > xml.MAX_DEAD:
        return None, xml.propstat("507 Insufficient Storage", map(xml.empty, fine))
    return xml.with_dead(entry.tags, kept), xml.propstat("200 OK", map(xml.empty, fine))
